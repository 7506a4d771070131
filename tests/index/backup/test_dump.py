from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from index.backup.cli import catalogue as command
from index.backup.dump import check_dump
from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.histories import Event
from index.catalogue.open import Location, open_catalogue, open_histories
from index.catalogue.outcomes import DAY, Attribution, Dimension, Slot
from seqrec.data.items import AttributeValue, make_item
from seqrec.errors import CatalogueError, FileFormatError
from seqrec.text.item_text import TokenizedItem
from tests.contracts.catalogue_contract import ROOT, entry, same

Run = Callable[..., str]


def many(count: int) -> list[CatalogueItem]:
    """Items with every kind of value there is; some without tokens or vector, some not available."""
    chance = np.random.default_rng(3)
    entries = []
    for number in range(count):
        attributes: dict[str, AttributeValue] = {
            "title": f"ספל {number} 🫖 \u2028 e\u0301 'quoted\" \\ line\nbreak \u0001",
            "price": float(chance.normal()) if number % 3 else 1.0,
            "pages": int(chance.integers(-(2**62), 2**62)),
            "tags": tuple(f"tag {n}" for n in range(number % 4)),
            "": "" if number % 5 else "x",
        }
        del attributes[""]
        if number % 2:
            attributes = dict(reversed(attributes.items()))
        size = number % 50
        tokens = TokenizedItem(
            chance.integers(0, 2**31 - 1, size).astype(np.int32), chance.integers(0, 4, size).astype(np.uint8)
        )
        item = make_item(f"item/{number} ü", attributes, bool(number % 7))
        bare = number % 11 == 0
        vector = chance.normal(size=8).astype(np.float32)
        entries.append(
            CatalogueItem(item, None if bare else tokens, None if bare else vector, None if bare else "tower")
        )
    return entries


EVENTS = [Event(f"u{n % 7} ü", f"item/{n}", 1.7e9 + n / 3, None if n % 3 else f"e{n}") for n in range(300)]
EVENTS += [Event("u0 ü", "item/1", 5.0)] * 2


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a `seqrec catalogue` command where `location` is; returns what it prints."""

    def use(location: Location, *arguments: object) -> str:
        if isinstance(location, Path):
            monkeypatch.setenv("SEQREC_HOME", str(location))
            monkeypatch.delenv("SEQREC_REDIS_URL", raising=False)
        else:
            monkeypatch.setenv("SEQREC_REDIS_URL", location)
        command([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return use


def fill(location: Location, entries: list[CatalogueItem], events: list[Event] = []) -> None:  # noqa: B006
    catalogue = open_catalogue(location, create=True)
    for start in range(0, len(entries), 500):
        catalogue.put(entries[start : start + 500])
    catalogue.close()
    histories = open_histories(location)
    histories.add(events)
    histories.close()


def contents(location: Location) -> tuple[dict[str, CatalogueItem], list[Event]]:
    catalogue, histories = open_catalogue(location), open_histories(location)
    found = {e.item.item_id: e for _, e in catalogue.scan()}, list(histories.scan())
    catalogue.close()
    histories.close()
    return found


def assert_equal(one: CatalogueItem, other: CatalogueItem) -> None:
    if one.vector is None:
        assert (other.vector, other.tokens, other.item_tower) == (None, None, None)
        assert list(one.item.attributes.items()) == list(other.item.attributes.items())
        assert one.item == other.item
    else:
        assert same(one, other)


@pytest.mark.slow
def test_from_sqlite_to_redis_and_back_item_by_item_equal(tmp_path: Path, redis_url: str, use: Run) -> None:
    entries = many(2000)
    first, last = tmp_path / "first", tmp_path / "last"
    fill(first, entries, EVENTS)
    with closing(open_catalogue(first)) as catalogue:
        catalogue.set_placement("home", '{"filter":{"brand":"Käfer"}}')
    there, back = tmp_path / "there.jsonl.gz", tmp_path / "back.jsonl"
    summary = json.loads(use(first, "dump", there, "--histories", "--json"))
    assert (summary["items"], summary["events"], summary["seq"]) == (2000, 302, 2001)
    summary = json.loads(use(redis_url, "restore", there, "--json"))
    assert (summary["created"], summary["updated"], summary["events"]) == (2000, 0, 302)
    use(redis_url, "dump", back, "--histories")
    use(last, "restore", back)
    lines = gzip.decompress(there.read_bytes()).splitlines()
    assert back.read_bytes().splitlines()[1:-1] == lines[1:-1]  # all but the header and the end
    items, events = contents(first)
    for location in (redis_url, last):
        other_items, other_events = contents(location)
        assert list(items) == list(other_items)
        assert len(items) == 2000
        for item_id, one in items.items():
            assert_equal(one, other_items[item_id])
        assert events == other_events
        with closing(open_catalogue(location)) as catalogue:
            assert {n: p.rules for n, p in catalogue.placements().items()} == {"home": '{"filter":{"brand":"Käfer"}}'}
    for one in entries:
        assert_equal(one, items[one.item.item_id])


@pytest.mark.slow
def test_a_dump_is_one_view_while_others_write(tmp_path: Path, use: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, [entry(f"{n}") for n in range(50)])
    writer = open_catalogue(tmp_path)
    written = 0

    def interrupt(self: object, stage: str, done: int, total: int) -> None:
        nonlocal written
        written += 1
        writer.put([entry("49", {"title": f"new {written}"}), entry(f"9-{written}")])

    monkeypatch.setattr("index.backup.cli.StageBars.__call__", interrupt)
    use(tmp_path, "dump", tmp_path / "d.jsonl")
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text("utf-8").splitlines()]
    assert written == 50
    assert [line["attributes"]["title"] for line in lines[1:-1] if line["item_id"] == "49"] == ["item 49"]
    assert lines[-1]["items"] == 50


@pytest.mark.slow
def test_a_restore_into_what_is_not_empty_is_refused_unless_merged(tmp_path: Path, use: Run) -> None:
    fill(tmp_path / "a", [entry("1"), entry("2")], [Event("u", "1", 1.0)])
    fill(tmp_path / "b", [entry("2", {"title": "other"}), entry("3")], [Event("u", "1", 1.0), Event("u", "3", 2.0)])
    use(tmp_path / "a", "dump", tmp_path / "a.jsonl", "--histories")
    with pytest.raises(CatalogueError, match=r"catalogue .* already has 2 items; --merge"):
        use(tmp_path / "b", "restore", tmp_path / "a.jsonl")
    summary = json.loads(use(tmp_path / "b", "restore", tmp_path / "a.jsonl", "--merge", "--json"))
    assert (summary["created"], summary["updated"], summary["unchanged"], summary["events"]) == (1, 1, 0, 0)
    items, events = contents(tmp_path / "b")
    assert {item_id: e.item.attributes["title"] for item_id, e in items.items()} == {
        "1": "item 1",
        "2": "item 2",
        "3": "item 3",
    }
    assert [event.item_id for event in events] == ["1", "3"]
    again = json.loads(use(tmp_path / "b", "restore", tmp_path / "a.jsonl", "--merge", "--json"))
    assert (again["created"], again["updated"], again["unchanged"], again["events"]) == (0, 0, 2, 0)


def test_histories_alone_are_not_empty_either(tmp_path: Path, use: Run) -> None:
    fill(tmp_path / "a", [entry("1")], [Event("u", "1", 1.0)])
    fill(tmp_path / "b", [], [Event("v", "1", 1.0)])
    use(tmp_path / "a", "dump", tmp_path / "a.jsonl", "--histories")
    with pytest.raises(CatalogueError, match="there are already events of users; --merge"):
        use(tmp_path / "b", "restore", tmp_path / "a.jsonl")


def test_without_histories_no_user_is_in_a_dump(tmp_path: Path, use: Run) -> None:
    fill(tmp_path, [entry("1")], [Event("somebody", "1", 1.0)])
    use(tmp_path, "dump", tmp_path / "d.jsonl")
    assert b"somebody" not in (tmp_path / "d.jsonl").read_bytes()


def _resealed(lines: list[bytes]) -> list[bytes]:
    """The same with an end that has the right digest."""
    import hashlib

    end = json.loads(lines[-1]) | {"sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}
    return [*lines[:-1], json.dumps(end).encode() + b"\n"]


DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str]] = {
    "no end": (lambda lines: lines[:-1], 5, "cut off: its last line is missing"),
    "cut in a line": (lambda lines: [*lines[:2], lines[2][:40]], 3, "cut off in this line"),
    "empty": (lambda lines: [], 1, "cut off"),
    "no header": (lambda lines: lines[1:], 1, "its first line lacks the format"),
    "an items file": (lambda lines: [b'{"item_id": "a", "attributes": {}}\n'], 1, "its first line lacks the format"),
    "of another version": (
        lambda lines: [lines[0].replace(b'"version":3', b'"version":9'), *lines[1:]],
        1,
        "a dump of format version 9; this program reads 1 to 3",
    ),
    "no JSON": (lambda lines: [*lines[:2], b"{oops\n", *lines[3:]], 3, "not JSON"),
    "no object": (lambda lines: [*lines[:2], b"[]\n", *lines[3:]], 3, "not a JSON object"),
    "a line missing": (lambda lines: [*lines[:2], *lines[3:]], 4, "lines are missing: the file has 2 items"),
    "altered": (
        lambda lines: [*lines[:2], lines[2].replace(b"item 2", b"item 7"), *lines[3:]],
        5,
        "the file was altered",
    ),
    "twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "item '2' occurs twice"),
    "two files": (lambda lines: lines + lines, 5, "more lines after the end"),
    "a bad id": (lambda lines: [*lines[:2], lines[2].replace(b'"2"', b'""'), *lines[3:]], 3, "item_id"),
    "a bad vector": (
        lambda lines: [*lines[:2], lines[2].replace(b'"vector":"', b'"vector":"A'), *lines[3:]],
        3,
        "vector: not base64 of float32",
    ),
    "an unknown line": (lambda lines: [*lines[:2], b'{"x":1}\n', *lines[3:]], 3, "neither an item nor an event"),
    "tokens without types": (
        lambda lines: [*lines[:2], lines[2].replace(b"token_types", b"other_types"), *lines[3:]],
        3,
        "as many token_types as token_ids",
    ),
    "an event without time": (lambda lines: [*lines[:2], b'{"user_id":"u","item_id":"1"}\n'], 3, "timestamp"),
    "an item after an event": (
        lambda lines: [*lines[:2], b'{"user_id":"u","item_id":"1","timestamp":1}\n', *lines[2:]],
        4,
        "an item after the first event",
    ),
    "a number for a tower": (
        lambda lines: _resealed([*lines[:2], lines[2].replace(b'"tower-a"', b"5"), *lines[3:]]),
        3,
        "item_tower",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_line_and_nothing_is_written(tmp_path: Path, use: Run, damage: str) -> None:
    fill(tmp_path / "a", [entry("1"), entry("2"), entry("3")])
    path = tmp_path / "d.jsonl"
    use(tmp_path / "a", "dump", path)
    change, line, reason = DAMAGE[damage]
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(FileFormatError, match=reason) as refused:
        use(tmp_path / "b", "restore", path)
    assert refused.value.line == line
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_compressed_file_is_refused(tmp_path: Path, use: Run, damage: str) -> None:
    fill(tmp_path / "a", many(100))
    path = tmp_path / "d.jsonl.gz"
    use(tmp_path / "a", "dump", path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(FileFormatError):
        use(tmp_path / "b", "restore", path)
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_dump_that_fails_leaves_the_one_before(tmp_path: Path, use: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "a", [entry("1")])
    path = tmp_path / "d.jsonl"
    use(tmp_path / "a", "dump", path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise CatalogueError("gone")

    monkeypatch.setattr("index.backup.cli.write_dump", fail)
    with pytest.raises(CatalogueError, match="gone"):
        use(tmp_path / "a", "dump", path, "--overwrite")
    assert path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d.jsonl"]


@pytest.mark.slow
def test_through_pipes(tmp_path: Path) -> None:
    fill(tmp_path / "a", [entry("1"), entry("2")])
    program = [sys.executable, "-m", "seqrec", "catalogue"]
    dumped = subprocess.run(
        [*program, "dump", "-", "--home", str(tmp_path / "a")], capture_output=True, cwd=ROOT, check=True
    )
    assert b"2 items, 0 events of catalogue" in dumped.stderr
    restored = subprocess.run(
        [*program, "restore", "-", "--home", str(tmp_path / "b"), "--json"],
        input=dumped.stdout,
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(restored.stdout)["created"] == 2
    broken = subprocess.run(
        [*program, "restore", "-", "--home", str(tmp_path / "c")],
        input=dumped.stdout[:-9],
        capture_output=True,
        text=False,
        cwd=ROOT,
        check=False,
    )
    assert broken.returncode == 1
    assert b"standard input, line 4: the file is cut off" in broken.stderr


def test_info(tmp_path: Path, redis_url: str, use: Run) -> None:
    fill(tmp_path, [entry("1"), entry("2")])
    fill(redis_url, [entry("1")])
    opened: Catalogue = open_catalogue(redis_url)
    opened.publish("s1")
    summary = json.loads(use(redis_url, "info", "--json"))
    assert summary == {
        "kept_in": "redis",
        "catalogue_id": opened.catalogue_id,
        "items": 1,
        "seq": 2,
        "superseded": 0,
        "served": "s1",
        "durability_warnings": [],
    }
    opened.close()
    text = use(tmp_path, "info")
    assert "in sqlite: 2 items at 2" in text
    assert "no snapshot is published" in text


def test_a_missing_catalogue_and_a_missing_file_are_reported(tmp_path: Path, use: Run) -> None:
    for arguments in (("info",), ("dump", tmp_path / "d.jsonl")):
        with pytest.raises(CatalogueError, match="there is no catalogue in"):
            use(tmp_path, *arguments)
    with pytest.raises(FileFormatError, match="no such file"):
        use(tmp_path, "restore", tmp_path / "none.jsonl")
    with pytest.raises(FileFormatError, match="a directory"):
        use(tmp_path, "restore", tmp_path)
    assert list(tmp_path.iterdir()) == []


def outcomes(users: int) -> list[Event]:
    """What users did with the answers of two days: two variants of an experiment, a cold item, a repeated event."""
    events = []
    for n in range(users):
        slot = (Slot("home", 2, "prices", "ab"[n % 2], "m", "s"), Slot("/similar"))[n % 5 == 0]
        of = Attribution(
            (20_000 * DAY + n % 2 * DAY).to_bytes(4) + n.to_bytes(8), slot, 1 + n % 120, "model", n % 3 == 0
        )
        user, done = f"user {n % 40}", ("shown", "clicked", "purchase")[: 1 + n % 3]
        events += [Event(user, "1", 1.7e9 + n, f"{n} {type}", type, 0.25 * n, of) for type in done]
        events += [Event(user, "1", 1.7e9 + n, None, "shown", None, of)]  # counted already
    return events


def reports(location: Location) -> object:
    with closing(open_histories(location)) as histories:
        counts = {by: histories.outcomes(by, 0, 30_000) for by in get_args(Dimension)}
        counts |= {day: histories.outcomes("position", day, day) for day in (20_000, 20_001)}
        return counts, histories.trials()


@pytest.mark.slow
def test_reports_are_the_same_after_a_restore(tmp_path: Path, redis_url: str, use: Run) -> None:
    fill(tmp_path / "a", [entry("1")], [*outcomes(300), Event("user 1", "1", 2.0)])
    with closing(open_histories(tmp_path / "a")) as histories:
        histories.remove("user 3", "3 shown")
        histories.delete("user 4")
    before = reports(tmp_path / "a")
    assert len(before[1]) == 2  # type: ignore[index]
    there, back = tmp_path / "there.jsonl.gz", tmp_path / "back.jsonl"
    use(tmp_path / "a", "dump", there, "--histories")
    use(redis_url, "restore", there)
    assert reports(redis_url) == before
    use(redis_url, "restore", there, "--merge")  # as after one that was interrupted
    assert reports(redis_url) == before
    use(redis_url, "dump", back, "--histories")
    use(tmp_path / "b", "restore", back)
    assert reports(tmp_path / "b") == before
    lines = gzip.decompress(there.read_bytes()).splitlines()
    assert back.read_bytes().splitlines()[1:-1] == lines[1:-1]
    with closing(open_histories(tmp_path / "b")) as histories:  # and are subtracted, as if never moved
        for user in range(40):
            histories.delete(f"user {user}")
        assert [histories.outcomes(by, 0, 30_000) for by in get_args(Dimension)] == [[]] * 8


def test_a_dump_of_a_version_without_attributions_is_restored(tmp_path: Path, use: Run) -> None:
    fill(tmp_path / "a", [entry("1")], outcomes(3))
    path = tmp_path / "d.jsonl"
    use(tmp_path / "a", "dump", path, "--histories")
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[0]["version"] = 2
    for line in lines:
        line.pop("attribution", None)
    path.write_bytes(b"".join(_resealed([json.dumps(line).encode() + b"\n" for line in lines])))
    assert json.loads(use(tmp_path / "b", "restore", path, "--json"))["events"] == 9
    assert contents(tmp_path / "b")[1] == contents(tmp_path / "a")[1]
    assert reports(tmp_path / "b")[1] == []  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recommendation", "zz"),
        ("placement", None),
        ("placement", "a|b"),
        ("variant", "two words"),
        ("position", 0),
        ("version", True),
        ("source", 5),
    ],
)
def test_an_attribution_that_no_store_can_have_is_refused(tmp_path: Path, use: Run, name: str, value: object) -> None:
    fill(tmp_path / "a", [entry("1")], outcomes(1))
    path = tmp_path / "d.jsonl"
    use(tmp_path / "a", "dump", path, "--histories")
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    [event] = [line for line in lines if "attribution" in line]
    event["attribution"][name] = value
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    with pytest.raises(FileFormatError, match=f"attribution.{name}"):
        use(tmp_path / "b", "restore", path)


def test_a_dump_says_what_is_in_it(tmp_path: Path, use: Run) -> None:
    fill(tmp_path, [entry("1")], [Event("u", "1", 1.0)])
    use(tmp_path, "dump", tmp_path / "d.jsonl", "--histories")
    with (tmp_path / "d.jsonl").open("rb") as file:
        found = check_dump(file, tmp_path / "d.jsonl")
    assert (found.items, found.events, found.seq) == (1, 1, 1)
