"""Each finding comes with its figure, on data that has the fault and on no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from seqrec.errors import NotReady
from seqrec.shop.check import check_data
from seqrec.shop.imported import import_shop
from seqrec.shop.project import Project, read_project

Row = tuple[str, str, int]
START = 1_700_000_000


def shop(folder: Path, events: Sequence[Row], titles: Sequence[str] | None = None, more: str = "") -> Project:
    titles = titles or [f"Item number {n} of {n * 7}" for n in range(40)]
    (folder / "items.csv").write_text("sku,title\n" + "".join(f"{n},{title}\n" for n, title in enumerate(titles)))
    (folder / "events.csv").write_text("sku,user,at\n" + "".join(f"{item},{user},{at}\n" for user, item, at in events))
    (folder / "shop.toml").write_text(
        'format = 1\n[items]\npath = "items.csv"\n[items.columns]\nsku = "id"\ntitle = "text"\n'
        '[events]\npath = "events.csv"\nitem = "sku"\nuser = "user"\ntime = "at"\ntime_format = "s"\n' + more
    )
    return read_project(folder / "shop.toml")


def findings(project: Project) -> list[str]:
    import_shop(project)
    return [f"{finding.level}: {finding.text}" for finding in check_data(project)]


def healthy(users: int = 200, length: int = 8) -> list[Row]:
    return [(f"u{u}", str((u * 3 + p * 5) % 40), START + u * 1000 + p) for u in range(users) for p in range(length)]


def test_healthy_data_gets_no_finding(tmp_path: Path) -> None:
    assert findings(shop(tmp_path, healthy())) == []


def test_nothing_imported(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="nothing is imported yet"):
        check_data(shop(tmp_path, healthy()))


def test_one_event_a_user(tmp_path: Path) -> None:
    once = [(f"v{n}", str(n % 40), START + n) for n in range(1000)]
    [finding] = findings(shop(tmp_path, [*healthy(), *once]))
    assert finding.startswith("warning: 1,000 of 1,200 users (83%) have one event")
    assert "events.user" in finding
    [stop] = [one for one in findings(shop(tmp_path, once)) if one.startswith("stop")]
    assert "no user has 3 events or more (the longest history has 1)" in stop


def test_too_few_events(tmp_path: Path) -> None:
    [finding] = findings(shop(tmp_path, healthy(20, 4)))
    assert finding.startswith("warning: 80 events of 40 items are too few")


def test_repeats_dominate(tmp_path: Path) -> None:
    repeated = [(f"u{u}", str(u % 40), START + u * 1000 + p) for u in range(200) for p in range(8)]
    [finding] = [one for one in findings(shop(tmp_path, repeated)) if "repeat" in one]
    assert finding.startswith("warning: 88% of the events repeat an item")
    assert 'events.repeats = "first"' in finding


def test_equal_times_and_the_future(tmp_path: Path) -> None:
    baskets = [(user, item, START + (at - START) // 1000) for user, item, at in healthy()]
    [finding] = findings(shop(tmp_path, baskets))
    assert "100% of the neighbouring events of a user have the same time" in finding
    assert findings(shop(tmp_path, baskets, more='[evaluate]\nsplit = "last-basket"\n')) == []
    future = [(user, item, at + 3_000_000_000 - START) for user, item, at in healthy()]
    [finding] = findings(shop(tmp_path, future))
    assert "days in the future" in finding


def test_cold_targets(tmp_path: Path) -> None:
    titles = [f"Item number {n} of {n * 7}" for n in range(260)]
    fresh = [(f"u{u}", str(40 + u), START + 10**6 + u) for u in range(200)]
    found = findings(shop(tmp_path, [*healthy(), *fresh], titles))
    assert any(
        one.startswith("warning: 100% of the items to be found in the test occur in no training event") for one in found
    )


def test_texts_that_are_missing_or_equal(tmp_path: Path) -> None:
    [finding] = findings(shop(tmp_path, healthy(), [f"Item {n}" if n % 4 else "" for n in range(40)]))
    assert finding.startswith("warning: 10 of 40 items (25.0%) have no text")
    [finding] = findings(shop(tmp_path, healthy(), [f"Item {n % 20}" for n in range(40)]))
    assert "100% of the items have the same text as another (2 times 'Item 0')" in finding
    [finding] = findings(shop(tmp_path, healthy(), ["" for _ in range(40)]))
    assert finding.startswith("stop: no item has text in title")


def test_one_item_or_one_user_has_most(tmp_path: Path) -> None:
    shipping = [(f"u{u}", "0", START + u * 1000 + 99) for u in range(200)]
    found = findings(shop(tmp_path, [*healthy(), *shipping]))
    assert any("one item has" in one for one in found)
    robot = [("bot", str(n % 40), START + n) for n in range(4000)]
    found = findings(shop(tmp_path, [*healthy(), *robot]))
    assert any(one.startswith("warning: one user has 4,000 of 5,600 events (71%)") for one in found)


def test_items_without_events_and_events_without_items(tmp_path: Path) -> None:
    titles = [f"Item number {n} of {n * 7}" for n in range(200)]
    [finding] = findings(shop(tmp_path, healthy(), titles))
    assert finding.startswith("note: 160 of 200 items (80%) have no event")
    unknown = [(f"u{u}", "nowhere", START + u) for u in range(400)]
    [finding] = findings(shop(tmp_path, [*healthy(), *unknown]))
    assert "400 of 2,000 events (20%) were left out: items that are not in the catalogue" in finding


def typed(folder: Path, kinds: Sequence[str], types: str = "") -> Project:
    project = shop(folder, healthy(), more='type = "status"\n' + types)
    lines = (folder / "events.csv").read_text().splitlines()
    rows = [f"{line},{kinds[n % len(kinds)]}" for n, line in enumerate(lines[1:])]
    (folder / "events.csv").write_text("\n".join([f"{lines[0]},status", *rows]) + "\n")
    return project


def test_states_of_orders_are_explained(tmp_path: Path) -> None:
    states = ["paid"] * 20 + ["cancelled", "pending"]
    rules = "[events.types]\ncancelled = { negative = true }\npending = { ignore = true }\n"
    [finding] = findings(typed(tmp_path, states, rules))
    assert finding.startswith("note: status has states of orders, not actions: paid (1,456) make history")
    assert "cancelled (72) are negative (not recommended again); pending (72) are left out" in finding
    assert "history = false" not in finding


def test_orders_taken_back_that_count_as_purchases(tmp_path: Path) -> None:
    warning, note = findings(typed(tmp_path, ["bezahlt", "bezahlt", "bezahlt", "storniert"]))
    assert warning.startswith("warning: 400 events of type storniert were taken back, and count like purchases; set ")
    assert "storniert = { negative = true } in [events.types], or { ignore = true }" in warning
    assert "bezahlt (1,200), storniert (400) make history" in note
    found = findings(typed(tmp_path, ["view", "refund"], "[events.types]\nview = {}\nrefund = { ignore = true }\n"))
    assert not any("refund" in one for one in found)


def test_a_type_that_nobody_knows(tmp_path: Path) -> None:
    [finding] = findings(typed(tmp_path, ["view", "zoomed"]))
    assert finding.startswith("note: 800 events of type zoomed, an unknown word, are in the histories")
    assert "zoomed = { ignore = true }" in finding


def test_one_time_for_all_and_times_before_shops_were_online(tmp_path: Path) -> None:
    [finding] = findings(shop(tmp_path, [(user, item, START) for user, item, _ in healthy()]))
    assert finding.startswith("warning: all events have one time, 2023-11-14, so the order")
    assert "(events.time)" in finding
    empty = [(user, item, at if n % 4 else n) for n, (user, item, at) in enumerate(healthy())]
    [finding] = findings(shop(tmp_path, empty))
    assert finding.startswith("warning: 400 of 1,600 events are from before 1990, such as 1970-01-01")
