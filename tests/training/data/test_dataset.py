from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from seqrec.data.items import Interactions, Item
from seqrec.errors import FileFormatError, InputError
from seqrec.text.item_text import Recipe
from training.data.dataset import Dataset, join, read_dataset
from training.data.splits import SplitConfig

ITEMS = [Item(name, {"title": name}) for name in "abcde"]
TITLE = Recipe(("title",))


def dataset_of(events: list[tuple[str, str, int]]) -> Dataset:
    users, items, times = (list(column) for column in zip(*events, strict=True))
    return join(ITEMS, Interactions(users, items, np.array(times, dtype=np.int64)))


def write(folder: Path, items: list[dict[str, object]], events: str) -> tuple[Path, Path]:
    paths = folder / "items.jsonl", folder / "events.csv"
    paths[0].write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    paths[1].write_text("user_id,item_id,timestamp\n" + events)
    return paths


TWO = [{"item_id": "a", "attributes": {"title": "A"}}, {"item_id": "b", "attributes": {"title": "B"}}]


def test_sequences_are_oldest_first_and_equal_timestamps_keep_file_order() -> None:
    dataset = dataset_of(
        [("u", "c", 5), ("v", "a", 1), ("u", "b", 5), ("u", "a", 1), ("u", "d", 5), ("v", "e", 0), ("u", "e", -3)]
    )
    assert dataset.user_ids == ["u", "v"]
    assert [ITEMS[row].item_id for row in dataset.sequence(0)] == ["e", "a", "c", "b", "d"]
    assert [ITEMS[row].item_id for row in dataset.sequence(1)] == ["e", "a"]


def test_the_last_item_tests_the_one_before_validates_and_the_rest_trains() -> None:
    dataset = dataset_of([("u", name, time) for time, name in enumerate("abcde")])
    test, valid = dataset.cases("test"), dataset.cases("valid")
    assert dataset.training_part(0).tolist() == [0, 1, 2]
    assert (test.targets.tolist(), test.histories[0].tolist()) == ([4], [0, 1, 2, 3])
    assert (valid.targets.tolist(), valid.histories[0].tolist()) == ([3], [0, 1, 2])


def test_a_user_with_fewer_than_three_events_trains_and_is_not_evaluated() -> None:
    dataset = dataset_of([("u", "a", 0), ("u", "b", 1), ("v", "a", 0), ("v", "b", 1), ("v", "c", 2)])
    assert dataset.training_part(0).tolist() == [0, 1]
    assert dataset.training_part(1).tolist() == [0]
    assert dataset.cases("test").users.tolist() == [1]
    assert dataset.trained_rows.tolist() == [True, True, False, False, False]


def test_nobody_to_evaluate_is_an_error() -> None:
    with pytest.raises(InputError, match="no user has three events"):
        dataset_of([("u", "a", 0), ("u", "b", 1)]).cases("test")
    with pytest.raises(InputError, match="no split 'train'; there are valid, test"):
        dataset_of([("u", "a", 0)]).cases("train")  # type: ignore[arg-type]


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    dataset = dataset_of([(f"u{user}", name, time) for user in range(50) for time, name in enumerate("abc")])
    cases = dataset.cases("test")
    sample = cases.sample(10, seed=3)
    assert sample.users.tolist() == cases.sample(10, seed=3).users.tolist() != cases.sample(10, seed=4).users.tolist()
    assert len(sample) == len(set(sample.users.tolist())) == 10
    assert cases.sample(50, seed=3) is cases


def test_the_digest_follows_content_not_files() -> None:
    events = [("u", "a", 0), ("u", "b", 1), ("v", "c", 1)]
    digest = dataset_of(events).digest
    assert dataset_of([("u", "a", 10), ("u", "b", 20), ("v", "c", 0)]).digest == digest  # the order is the same
    assert dataset_of([("u", "a", 1), ("u", "b", 0), ("v", "c", 1)]).digest != digest
    assert dataset_of([("w", "a", 0), ("w", "b", 1), ("v", "c", 1)]).digest != digest


def test_an_unknown_item_is_refused_with_file_and_line(tmp_path: Path) -> None:
    items, events = write(tmp_path, TWO, "u,a,1\nu,zebra,2\n")
    with pytest.raises(FileFormatError, match=r"events\.csv, line 3: item 'zebra' is not in the items file"):
        read_dataset(items, events)
    assert read_dataset(items, events, on_error="skip").sequence(0).tolist() == [0]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"price": 3},
        {"title": ""},
        {"title": " \t"},
        {"title": None},
        {"title": "\u00a0"},
        {"title": "\u200b\ufeff"},
    ],
)
def test_an_item_without_text_is_refused_by_id(
    tmp_path: Path, attributes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    silent = {"item_id": "mute", "attributes": attributes}
    items, events = write(tmp_path, [*TWO, silent], "u,a,1\nu,mute,2\nu,b,3\n")
    with pytest.raises(FileFormatError, match=r"items\.jsonl: item 'mute' has no text in title"):
        read_dataset(items, events, TITLE)
    with caplog.at_level(logging.WARNING):
        dataset = read_dataset(items, events, TITLE, "skip")
    assert [item.item_id for item in dataset.items] == ["a", "b"]
    assert dataset.sequence(0).tolist() == [0, 1]
    assert "skipped 1 items" in caplog.text
    assert "skipped 1 lines" in caplog.text  # the event of the item that was left out


def test_no_item_with_text_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    items, events = write(tmp_path, TWO, "u,a,1\n")
    for on_error in ("raise", "skip"):
        with pytest.raises(FileFormatError, match=r"no item has text in brand or size; .*: title \(2 items\)\. In"):
            read_dataset(items, events, Recipe(("brand", "size")), on_error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "tied"),
    [
        (SplitConfig(), 2),
        (SplitConfig(split="last-basket"), 0),
        (SplitConfig(split="time", valid_from=2, test_from=3), 2),
        (SplitConfig(split="time", valid_from=2, test_from=3, targets="all"), 0),
    ],
)
def test_events_of_equal_time_that_compete_to_be_held_out_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rule: SplitConfig, tied: int
) -> None:
    things: list[dict[str, object]] = [{"item_id": name, "attributes": {"title": name}} for name in "abcd"]
    lines = ["x,a,1", "x,b,2", "x,c,3", "y,a,1", "y,b,2", "y,c,3", "y,d,3", "z,a,1", "z,b,1", "z,c,2", "z,d,3"]
    lines += ["v,a,1", "v,b,2", "v,c,2", "v,d,3"]  # validation's item and the one before it
    items, events = write(tmp_path, things, "\n".join(lines) + "\n")
    with caplog.at_level(logging.WARNING):
        dataset = read_dataset(items, events, rule=rule)
    assert dataset.targets_at_equal_times()[1] == tied
    assert ("so the order of the file decides what is held out" in caplog.text) is bool(tied)


def test_the_same_event_twice_is_refused_and_skipping_keeps_the_first(tmp_path: Path) -> None:
    items, events = write(tmp_path, TWO, "u,a,1\nu,b,2\nu,a,1\nu,a,3\n")
    with pytest.raises(FileFormatError, match=r"user 'u' has item 'a' twice at timestamp 1 \(event 3\)"):
        read_dataset(items, events)
    assert read_dataset(items, events, on_error="skip").sequence(0).tolist() == [0, 1, 0]  # a later repeat stays


def test_the_same_item_twice_is_refused_with_file_and_line(tmp_path: Path) -> None:
    items, events = write(tmp_path, [*TWO, TWO[0]], "u,a,1\n")
    with pytest.raises(FileFormatError, match=r"items\.jsonl, line 3: item 'a' occurs already in line 1"):
        read_dataset(items, events)


def test_short_users_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items, events = write(tmp_path, TWO, "u,a,1\nv,a,1\nv,b,2\nv,a,3\n")
    with caplog.at_level(logging.WARNING):
        read_dataset(items, events)
    assert "1 of 2 users have fewer than 3 events" in caplog.text


@pytest.mark.slow
def test_the_bundled_data_is_what_its_source_says(online_retail: Path) -> None:
    dataset = read_dataset(online_retail / "items.jsonl.gz", online_retail / "interactions.csv.gz", TITLE)
    assert (len(dataset.items), dataset.users, len(dataset.events)) == (3145, 4074, 264_510)
    cases = dataset.cases("test")
    assert not any(target in history for target, history in zip(cases.targets, cases.histories, strict=True))


def test_events_count_by_the_weight_of_their_type(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(f'{{"item_id": "{i}", "attributes": {{"title": "thing {i}"}}}}\n' for i in "abc"))
    events = tmp_path / "events.csv"
    rows = ["u,a,1,view", "u,b,2,buy", "v,b,1,", "u,c,3,view", "v,a,4,view", "v,c,5,view", "u,a,1,view"]
    events.write_text("\n".join(["user_id,item_id,timestamp,type", *rows]) + "\n")
    dataset = read_dataset(items, events, on_error="skip", weights={"view": 0.25})
    assert dataset.weights is not None
    assert dataset.weights.tolist() == [0.25, 1, 0.25, 1, 0.25, 0.25]
    known, (kept, offsets) = dataset.known_weights("test"), dataset.known_events("test")
    assert known is not None
    assert (known.tolist(), len(kept), offsets.tolist()) == ([0.25, 1, 1, 0.25], 4, [0, 2, 4])
    plain = read_dataset(items, events, on_error="skip")
    assert (plain.weights, plain.known_weights("valid")) == (None, None)
    assert plain.digest != dataset.digest
