"""What every import shares: the filters, the folder it writes, and how much memory it takes."""

from __future__ import annotations

import csv
import gzip
import json
import multiprocessing
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqrec.data.items import Item, make_item, read_interactions, read_items
from seqrec.data.jsonl import OnError
from seqrec.data.sources.base import Event
from seqrec.data.sources.cli import import_data
from seqrec.data.sources.dataset import Filters, import_dataset
from seqrec.data.sources.staging import staging
from seqrec.errors import InputError

Run = Callable[..., Any]


class Given:
    """A source that is there already."""

    mixes_units = False

    def __init__(self, events: list[Event], items: list[Item] | None = None) -> None:
        self._events, self._items = events, items or []

    def items(self, on_error: OnError) -> Iterator[Item]:
        return iter(self._items)

    def events(self, on_error: OnError) -> Iterator[Event]:
        return iter(self._events)


def kept(source: Given, out: Path, **filters: Any) -> list[tuple[str, str, int]]:
    import_dataset(source, out, Filters(**filters), {}, overwrite=True)
    read = read_interactions(out / "interactions.csv", {item.item_id for item in read_items(out / "items.jsonl")})
    return list(zip(read.user_ids, read.item_ids, read.timestamps.tolist(), strict=True))


AGAIN = [Event(*event, 5.0) for event in [("u", "a", 3), ("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("v", "a", 3)]]


@pytest.mark.parametrize(
    ("repeated", "rows"),
    [("keep", [0, 1, 2, 3, 4]), ("identical", [0, 1, 2, 4]), ("first", [1, 2, 4]), ("last", [2, 3, 4])],
)
def test_repeated_events(repeated: str, rows: list[int], tmp_path: Path) -> None:
    assert kept(Given(AGAIN), tmp_path / "out", repeated=repeated) == [AGAIN[row][:3] for row in rows]


events = st.lists(
    st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcde"), st.integers(0, 3)), min_size=1, max_size=40
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events, user_core=st.integers(0, 4), item_core=st.integers(0, 4))
def test_the_core_is_the_largest_there_is(
    events: list[tuple[str, str, int]], user_core: int, item_core: int, tmp_path: Path
) -> None:
    """Removing events with too few others one by one leaves the same set in any order."""
    left = list(events)
    while True:
        users, items = Counter(user for user, _, _ in left), Counter(item for _, item, _ in left)
        poor = [event for event in left if users[event[0]] < user_core or items[event[1]] < item_core]
        if not poor:
            break
        left.remove(poor[-1])
    source = Given([Event(*event, None) for event in events])
    if left:
        assert kept(source, tmp_path / "out", user_core=user_core, item_core=item_core) == left
    else:
        with pytest.raises(InputError, match=rf"no event is left of {len(events)}: left out \d+ by core"):
            kept(source, tmp_path / "out", user_core=user_core, item_core=item_core)


def test_items_without_text(tmp_path: Path) -> None:
    attributes: dict[str, dict[str, object]] = {
        "a": {"title": "Desk"},
        "b": {"title": " ", "tags": [""], "price": 3},
        "c": {"tags": ["oak"]},
        "d": {"title": "Mug"},
    }
    items = [make_item(item_id, values) for item_id, values in attributes.items()]
    source = Given([Event("u", item, 1, None) for item in "edcba"], items)
    imported = import_dataset(source, tmp_path / "all", Filters(), {})
    assert imported.items_without_text == 2
    assert [item.item_id for item in read_items(tmp_path / "all" / "items.jsonl")] == ["a", "b", "c", "d", "e"]
    assert [event[1] for event in kept(source, tmp_path / "out", textless="drop")] == ["d", "c", "a"]
    # Attributes are chosen first: an item whose text is not among them has none.
    assert [event[1] for event in kept(source, tmp_path / "out", textless="drop", attributes=("tags",))] == ["c"]


def test_times_keep_their_kind(tmp_path: Path) -> None:
    times = [2**53, -5, 0.25]
    kept(Given([Event("u", "a", time, None) for time in times]), tmp_path / "out")
    with (tmp_path / "out" / "interactions.csv").open(encoding="utf-8", newline="") as file:
        assert [row["timestamp"] for row in csv.DictReader(file)] == ["9007199254740992", "-5", "0.25"]


MIXED = {
    "seconds, milliseconds": [1514764800, 1514851200, 1420070400000],
    "seconds, nanoseconds": [1514764800, 1420070400000000001],
    "all": [1514764800, 1420070400000, 1420070400000001, 1420070400000000001],
    "fractions": [1514764800.25, 1420070400000],
}


@pytest.mark.parametrize("times", MIXED.values(), ids=MIXED)
def test_timestamps_of_several_units_are_refused_with_counts(times: list[int], tmp_path: Path) -> None:
    source = Given([Event("u", "a", time, None) for time in times])
    with pytest.raises(InputError, match=r"several units: \d in (seconds|milliseconds) and .* with --time-unit"):
        kept(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_counts_of_units_and_the_conversion_to_the_finest(tmp_path: Path) -> None:
    source = Given([Event("u", "a", time, None) for time in [*MIXED["seconds, milliseconds"], 0]])
    with pytest.raises(
        InputError, match=r"2 in seconds and 1 in milliseconds.* convert them to one unit with --time-unit milliseconds"
    ):
        kept(source, tmp_path / "out")
    import_dataset(source, tmp_path / "out", Filters(), {}, time_unit="milliseconds")
    read = read_interactions(tmp_path / "out" / "interactions.csv")
    assert read.timestamps.tolist() == [1514764800000, 1514851200000, 1420070400000, 0]
    with pytest.raises(InputError, match="2 in milliseconds and 1 in nanoseconds"):
        import_dataset(
            Given([Event("u", "a", time, None) for time in (1514764800, 1420070400000, 1420070400000000001)]),
            tmp_path / "mixed",
            Filters(),
            {},
            time_unit="milliseconds",
        )
    import_dataset(
        Given([Event("u", "a", time, None) for time in MIXED["all"]]),
        tmp_path / "nano",
        Filters(),
        {},
        time_unit="nanoseconds",
    )
    read = read_interactions(tmp_path / "nano" / "interactions.csv")
    assert read.timestamps.tolist() == [
        1514764800000000000,
        1420070400000000000,
        1420070400000001000,
        1420070400000000001,
    ]


def test_a_fraction_among_nanoseconds_is_refused(tmp_path: Path) -> None:
    source = Given([Event("u", "a", time, None) for time in (1420070400000000001, 0.5)])
    with pytest.raises(InputError, match="timestamp: 1 fractions and 1 whole numbers beyond"):
        kept(source, tmp_path / "out")


@pytest.mark.parametrize("out", ["plain/x", "plain/x/y", "plain"])
def test_an_output_below_a_file_is_refused_before_the_work(out: str, movies: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for more in ([], ["--overwrite"]):
        with pytest.raises(InputError, match=r"plain.*(is a file|exists already|is not a folder).*") as caught:
            import_data(["movielens", str(movies), "--out", str(tmp_path / out), *more])
        assert "\n" not in str(caught.value)
    assert (tmp_path / "plain").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml", "plain"]


@pytest.mark.parametrize("out", [".", "..", "/", ""])
def test_the_current_folder_is_not_replaced(
    out: str, movies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match=r"--out: .* is not the name of a new folder; choose one"):
        import_data(["movielens", str(movies), "--out", out, "--overwrite"])
    assert (tmp_path / "here" / "thesis.txt").read_text() == "years of work"


def test_overwrite_replaces_imports_alone(movies: Path, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    command = ["movielens", str(movies), "--out", str(out), "--overwrite"]
    import_data(command)  # an empty folder
    import_data(command)
    (out / "import.json").rename(out / "thesis.txt")
    with pytest.raises(InputError, match=r"precious is not replaced, since it has other files and no import\.json"):
        import_data(command)
    assert (out / "thesis.txt").is_file()


def test_an_attribute_that_no_item_has_is_refused(tmp_path: Path) -> None:
    source = Given(AGAIN, [make_item("a", {"title": "Desk", "brand": "Acme"})])
    with pytest.raises(InputError, match="--attributes: no item has 'color'; there are brand, title"):
        kept(source, tmp_path / "out", attributes=("title", "color"))
    assert list(tmp_path.iterdir()) == []


def test_ratings_that_are_not_there_are_not_invented(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--min-rating: the data has no ratings"):
        kept(Given([Event("u", "a", 1, None)]), tmp_path / "out", min_rating=3.0)


def test_no_events_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data has no events"):
        kept(Given([]), tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with staging(tmp_path / "staging.sqlite") as stage:
            stage.connection.execute("PRAGMA max_page_count = 10")
            stage.add_events(Event(f"u{place}", "a", place, None) for place in range(10_000))

    with pytest.raises(InputError, match="database or disk is full; an import needs space there"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_import_keeps_what_was_there(tmp_path: Path) -> None:
    class Interrupted(Given):
        def events(self, on_error: OnError) -> Iterator[Event]:
            yield AGAIN[0]
            raise KeyboardInterrupt

    kept(Given(AGAIN), tmp_path / "out")
    before = (tmp_path / "out" / "interactions.csv").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        kept(Interrupted([]), tmp_path / "out")
    assert (tmp_path / "out" / "interactions.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::7::3::5\n1::8::4::6\n2::7::5::7\n2::7::5::7\n", encoding="utf-8")
    (folder / "movies.dat").write_text(
        "7::Seven (1995)::Crime\n7::Again (1995)::Crime\n9::Nine (2009)::\n", encoding="utf-8"
    )
    return folder


def test_what_the_command_says(movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["movielens", str(movies), "--out", str(tmp_path / "out"), "--repeated", "first", "--min-rating", "4"]
    import_data(command)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'out'}: 2 users, 2 items, 2 events",
        "  left out 1 events by rating",
        "  left out 1 events repeated",
        "  1 items had the id of an earlier one, which was kept",
        "  1 items have no text (--textless drop leaves their events out)",
    ]
    with pytest.raises(InputError, match="exists already; add --overwrite"):
        import_data(command)
    import_data([*command, "--overwrite", "--json"])
    counts = json.loads(capsys.readouterr().out)
    assert counts == json.loads((tmp_path / "out" / "import.json").read_text(encoding="utf-8"))["counts"]
    assert counts["left_out"] == {"rating": 1, "textless": 0, "repeated": 1, "core": 0}


def test_the_larger_core_counts(movies: Path, run: Run) -> None:
    assert len(run("movielens", movies, "--core", 2, "--user-core", 1).events) == 2
    assert len(run("movielens", movies, "--item-core", 2).events) == 3


def test_packed_files_are_the_same_each_time(movies: Path, run: Run, tmp_path: Path) -> None:
    plain, out = run("movielens", movies), tmp_path / "imported"
    contents = []
    for _ in range(2):
        packed = run("movielens", movies, "--gzip")
        contents.append([(out / name).read_bytes() for name in packed.names])
    assert packed.names == ["import.json", "interactions.csv.gz", "items.jsonl.gz"]
    assert (packed.items, packed.events) == (plain.items, plain.events)
    assert contents[0] == contents[1]
    assert gzip.decompress(contents[0][1]).startswith(b"user_id,item_id,timestamp\n1,7,5\n")


class Many:
    """A source that makes its users, items and events as they are read."""

    mixes_units = False

    def __init__(self, count: int) -> None:
        self._count = count

    def items(self, on_error: OnError) -> Iterator[Item]:
        return (make_item(f"item-{row}", {"title": f"Desk number {row}"}) for row in range(self._count))

    def events(self, on_error: OnError) -> Iterator[Event]:
        return (Event(f"user-{row}", f"item-{row}", row, None) for row in range(self._count))


def peak_bytes(count: int, out: Path) -> int:
    """What Python holds at most while so many users, items and events are imported."""
    tracemalloc.start()
    import_dataset(Many(count), out, Filters(repeated="first", user_core=1, textless="drop"), {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Five times as many users, items and events: Python holds no more. SQLite's cache is bounded by a setting.

    In a process of its own: tracemalloc counts every thread, also those that earlier tests left behind. The first
    import is not compared: it loads modules.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        peaks = [alone.submit(peak_bytes, n, tmp_path / f"{i}").result() for i, n in enumerate((1_000, 1_000, 5_000))]
    assert peaks[2] < peaks[1] * 1.5
    with staging(tmp_path / "one.sqlite") as stage:
        assert stage.connection.execute("PRAGMA cache_size").fetchone() == (-64 * 1024,)


@pytest.mark.slow
def test_an_import_of_data_does_without_torch(movies: Path, tmp_path: Path) -> None:
    program = "import sys; from seqrec.data.sources.cli import import_data as run; run(sys.argv[1:])"
    program += "; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", program, "movielens", str(movies), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_checkpoints_are_imported_by_the_same_command(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as wrong_usage:
        import_data(["recformer", "--out", str(tmp_path / "out")])
    assert wrong_usage.value.code == 2
