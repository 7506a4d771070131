"""Three ways to hold events out, and that nothing held out is known to training or floors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqrec.data.items import Interactions, Item
from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from training.config.validation import build
from training.data.dataset import Dataset, join, read_dataset, withheld_items
from training.data.splits import SplitConfig
from training.evaluation.baselines import ItemKnn, popularity

ITEMS = [Item(name, {"title": name}) for name in "abcdefgh"]
BY_TIME = SplitConfig(split="time", valid_from=10, test_from=20)


def dataset_of(rule: SplitConfig, **events: list[tuple[str, float]]) -> Dataset:
    """user -> [(item, timestamp)]"""
    rows = [(user, item, time) for user, had in events.items() for item, time in had]
    users, items, times = (list(column) for column in zip(*rows, strict=True))
    return join(ITEMS, Interactions(users, items, np.array(times)), rule)


def names(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    return "".join(ITEMS[row].item_id for row in rows)


def held_out(dataset: Dataset) -> dict[str, dict[str, tuple[str, str]]]:
    """split -> user -> (history, relevant)"""
    found = {}
    for split in ("valid", "test"):
        cases = dataset.cases(split)  # type: ignore[arg-type]
        columns = zip(cases.users, cases.histories, cases.relevant, strict=True)
        found[split] = {dataset.user_ids[user]: (names(had), names(rows)) for user, had, rows in columns}
    return found


def test_time_cuts_everybody_at_one_moment() -> None:
    dataset = dataset_of(
        BY_TIME,
        u=[("a", 1), ("b", 9), ("c", 10), ("d", 19), ("e", 20), ("f", 30)],
        early=[("a", 1), ("b", 2)],
        new=[("c", 12), ("d", 25), ("c", 26)],
        late=[("h", 21), ("g", 22)],
    )
    assert held_out(dataset) == {"valid": {"u": ("ab", "c")}, "test": {"u": ("abcd", "e"), "new": ("c", "d")}}
    assert [names(dataset.training_part(user)) for user in range(4)] == ["ab", "ab", "", ""]
    assert [names(dataset.known_part(user, "test")) for user in range(4)] == ["abcd", "ab", "c", ""]
    assert dataset.cuts.moments == (10, 20)


def test_all_later_items_may_be_what_is_to_be_found_each_once() -> None:
    rule = SplitConfig(split="time", valid_from=10, test_from=20, targets="all")
    dataset = dataset_of(rule, u=[("a", 1), ("b", 12), ("e", 20), ("d", 22), ("e", 30), ("a", 31)])
    assert held_out(dataset) == {"valid": {"u": ("a", "b")}, "test": {"u": ("ab", "eda")}}


def test_shares_of_the_events_choose_the_moments() -> None:
    rule = SplitConfig(split="time", valid_share=0.2, test_share=0.3)
    events = {f"u{user}": [("abcdefgh"[(user + time) % 8], time) for time in range(10)] for user in range(5)}
    dataset = dataset_of(rule, **events)
    assert dataset.cuts.moments == (5, 7)
    assert dataset.cuts.train_end.tolist() == [5] * 5
    assert dataset.cuts.valid_end.tolist() == [7] * 5


def test_one_timestamp_for_all_cannot_be_split_by_time() -> None:
    with pytest.raises(InputError, match="the shares give no split by time"):
        _ = dataset_of(SplitConfig(split="time"), u=[(name, 5) for name in "abcd"]).cuts
    with pytest.raises(InputError, match="needs the timestamps of the events"):
        _ = Dataset(ITEMS, ["u"], np.array([0, 1]), np.array([0, 2]), None, BY_TIME).cuts


@pytest.mark.parametrize(("step", "warned"), [(0, 1), (1, 0)])
def test_timestamps_that_only_count_are_no_moments(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: int, warned: int
) -> None:
    (tmp_path / "items.jsonl").write_text(
        "".join(f'{{"item_id": "{item.item_id}", "attributes": {{"title": "t"}}}}\n' for item in ITEMS)
    )
    lines = [f"u{user},{name},{place + user * step}" for user in range(4) for place, name in enumerate("abcdefgh")]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    read_dataset(tmp_path / "items.jsonl", tmp_path / "events.csv", rule=SplitConfig(split="time"))
    said = [record for record in caplog.records if "look like positions in a sequence" in record.getMessage()]
    assert len(said) == warned


def test_the_last_basket_is_found_whole() -> None:
    rule = SplitConfig(split="last-basket", basket_gap=2)
    dataset = dataset_of(
        rule,
        u=[("a", 1), ("b", 2), ("c", 8), ("d", 10), ("e", 12), ("f", 15), ("g", 15), ("f", 16)],
        two=[("a", 1), ("b", 1), ("c", 9)],
        one=[("h", 3)],
    )
    assert held_out(dataset) == {"valid": {"u": ("ab", "cde")}, "test": {"u": ("abcde", "fg")}}
    assert [names(dataset.training_part(user)) for user in range(3)] == ["ab", "abc", "h"]
    exact = dataset_of(SplitConfig(split="last-basket"), u=[("a", 1), ("b", 2), ("c", 2), ("d", 3), ("e", 3)])
    assert held_out(exact) == {"valid": {"u": ("a", "bc")}, "test": {"u": ("abc", "de")}}


@pytest.mark.parametrize("rule", [BY_TIME, SplitConfig(split="last-basket"), SplitConfig()])
def test_baselines_and_training_know_nothing_of_what_is_held_out(rule: SplitConfig) -> None:
    had = [("a", 1.0), ("b", 9.0), ("c", 12.0), ("d", 20.0)]
    rest = {f"v{user}": [("a", 1.0), ("b", 2.0)] for user in range(3)}
    one = dataset_of(rule, u=had, **rest)
    other = dataset_of(rule, u=[*had[:3], ("h", 20.0)], **rest)  # another test item, all else equal
    assert held_out(one)["test"] != held_out(other)["test"]
    np.testing.assert_array_equal(popularity(one), popularity(other))
    np.testing.assert_array_equal(one.trained_rows, other.trained_rows)
    histories = [np.array([row]) for row in range(len(ITEMS))]
    for window in (1, 40):
        settings = CooccurrenceSettings(window=window)
        left, right = (ItemKnn.of(dataset, "test", settings).scores(histories) for dataset in (one, other))
        np.testing.assert_array_equal(left, right)
    changed = dataset_of(rule, u=[*had[:2], ("h", 12.0), had[3]], **rest)  # another validation item
    np.testing.assert_array_equal(popularity(one), popularity(changed))


def test_withheld_items_have_events_in_test_only() -> None:
    rule = SplitConfig(withheld=0.2)
    assert names(np.flatnonzero(withheld_items(ITEMS, 0.2))) == "ach"
    events = {
        "warm": "bdaecf",
        "cold": "bacdehea",
        "short": "baca",  # one event is left besides the last, so there is nothing to validate on
        "none": "ahc",
    }
    rows = {user: [(item, float(time)) for time, item in enumerate(had)] for user, had in events.items()}
    dataset = dataset_of(rule, **rows)
    sequences = {user: names(dataset.sequence(number)) for number, user in enumerate(dataset.user_ids)}
    assert sequences == {"warm": "bdef", "cold": "bdeea", "short": "b", "none": ""}
    assert held_out(dataset) == {
        "valid": {"warm": ("bd", "e"), "cold": ("bde", "e")},
        "test": {"warm": ("bde", "f"), "cold": ("bdee", "a")},
    }
    assert str(rule) == "leave-one-out, 20 % of items withheld"


def test_the_same_items_are_withheld_in_every_order() -> None:
    items = [Item(str(number), {}) for number in range(2000)]
    chosen = withheld_items(items, 0.1)
    assert 0.08 < chosen.mean() < 0.12
    np.testing.assert_array_equal(withheld_items(items[::-1], 0.1), chosen[::-1])
    assert chosen[withheld_items(items, 0.05)].all()  # a larger share withholds more, not others
    assert not withheld_items(items, 0.0).any()


def test_the_digest_knows_the_split() -> None:
    events = {"u": [(name, float(time)) for time, name in enumerate("abcdefgh")]}
    rules = [SplitConfig(), SplitConfig(split="last-basket"), SplitConfig(split="time", valid_from=3, test_from=5)]
    rules.append(SplitConfig(split="time", valid_from=3, test_from=5, targets="all"))
    rules.append(SplitConfig(split="time", valid_from=3, test_from=6))
    assert len({dataset_of(rule, **events).digest for rule in rules}) == len(rules)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"split": "random"}, "data.split: 'random' is not one of 'leave-one-out', 'time', 'last-basket'"),
        ({"split": "time", "targets": "some"}, "data.targets"),
        ({"split": "time", "test_share": 0.0}, "data.test_share: 0.0 is not above 0"),
        ({"split": "time", "test_share": 0.6, "valid_share": 0.4}, "leaves nothing to train on"),
        ({"split": "time", "test_from": 3.0}, "give both moments"),
        ({"split": "time", "test_from": 3.0, "valid_from": 3.0}, "3.0 is not before test_from"),
        ({"split": "last-basket", "basket_gap": -1.0}, "-1.0 is below 0"),
        ({"basket_gap": 1.0}, 'this is for split = "last-basket"'),
        ({"withheld": 1.0}, "data.withheld"),
        ({"split": "last-basket", "withheld": 0.1}, 'this is for split = "leave-one-out"'),
        ({"targets": "all"}, 'these are for split = "time"'),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(settings: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        build(SplitConfig, settings, "data.")


def test_nobody_to_rank_for_says_the_way_out() -> None:
    with pytest.raises(InputError, match=r"no user has events both before and after .*test_share"):
        dataset_of(BY_TIME, u=[("a", 1), ("b", 2)]).cases("test")
    with pytest.raises(InputError, match="no user has three baskets or more"):
        dataset_of(SplitConfig(split="last-basket"), u=[("a", 1), ("b", 2)]).cases("test")
