from __future__ import annotations

import gzip
import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from index.catalogue.histories import Event
from index.catalogue.open import HISTORIES_FILE
from index.catalogue.sqlite.histories import SqliteHistories
from index.events.cli import events
from index.events.import_events import import_interactions
from seqrec.data.items import Interactions, read_interactions
from seqrec.data.timestamps import unix_seconds
from seqrec.errors import FileFormatError, InputError

ROWS = [("v", "a", 30), ("u", "b", 20), ("u", "a", 10), ("u", "c", 20), ("u", "b", 20), ("v", "a", 30)]


def interactions(rows: list[tuple[str, str, int]] = ROWS) -> Interactions:
    users, items, times = zip(*rows, strict=True)
    return Interactions(list(users), list(items), np.array(times, dtype=np.int64))


@pytest.fixture
def store(tmp_path: Path) -> SqliteHistories:
    return SqliteHistories(tmp_path / "home" / HISTORIES_FILE)


def test_rows_become_events_in_file_order_where_times_are_equal(store: SqliteHistories) -> None:
    seen: list[tuple[int, int]] = []
    imported = import_interactions(store, interactions(), lambda done, total: seen.append((done, total)))
    assert (imported.new, imported.known, imported.unit) == (6, 0, "seconds")
    assert [(e.item_id, e.timestamp) for e in store.recent("u", 9)] == [("a", 10), ("b", 20), ("c", 20), ("b", 20)]
    assert [e.item_id for e in store.recent("v", 9)] == ["a", "a"]
    assert seen == [(6, 6)]
    store.close()


def test_the_same_rows_again_change_nothing_and_more_rows_are_added(store: SqliteHistories) -> None:
    import_interactions(store, interactions())
    head = store.events_head()
    again = import_interactions(store, interactions(ROWS[::-1]))
    assert (again.new, again.known) == (0, 6)
    assert store.events_head() == head
    longer = import_interactions(store, interactions([*ROWS, ("u", "b", 20), ("w", "a", 1)]))
    assert (longer.new, longer.known) == (2, 6)
    store.close()


def test_a_posted_event_is_another_one(store: SqliteHistories) -> None:
    store.add([Event("u", "a", 10.0, "click-1"), Event("u", "a", 10.0)])
    assert import_interactions(store, interactions()).new == 6
    store.close()


@pytest.mark.parametrize(
    ("unit", "factor"), [("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)]
)
def test_the_unit_of_timestamps_is_seen_by_their_size(unit: str, factor: int) -> None:
    times = np.array([946_684_800, 1_700_000_000], dtype=np.int64)
    found, seconds = unix_seconds(times * factor)
    assert found == unit
    assert seconds.tolist() == [946_684_800.0, 1_700_000_000.0]
    assert unix_seconds(np.zeros(0, np.int64))[0] == "seconds"


def test_times_in_the_future_are_warned_of(store: SqliteHistories, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        import_interactions(store, interactions([("u", "a", int(time.time()) + 10**6)]))
    assert "in the future" in caplog.text
    store.close()


def test_the_command_imports_a_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS))
    home = str(tmp_path / "home")
    events(["import", str(path), "--home", home])
    assert capsys.readouterr().out == "6 events stored, 0 were stored before (timestamps in seconds)\n"
    events(["import", str(path), "--home", home, "--json"])
    assert json.loads(capsys.readouterr().out) == {"new": 0, "known": 6, "unit": "seconds"}


def test_a_broken_line_is_named_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\nu,a,1\nu,a,yesterday\n", encoding="utf-8")
    home = str(tmp_path / "home")
    with pytest.raises(FileFormatError, match="line 3"):
        events(["import", str(path), "--home", home])
    events(["import", str(path), "--home", home, "--on-error", "skip"])
    assert "1 events stored" in capsys.readouterr().out


def test_type_and_value_of_a_file_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,type,item_id,timestamp,value\nu,view,a,1,\nu,buy,a,1,9.5\nu,,b,2,\n", encoding="utf-8")
    home = str(tmp_path / "home")
    for _ in range(2):
        events(["import", str(path), "--home", home])
    assert capsys.readouterr().out.splitlines()[1].startswith("0 events stored, 3 were stored before")
    store = SqliteHistories(tmp_path / "home" / HISTORIES_FILE)
    assert [(e.item_id, e.type, e.value) for e in store.recent("u", 9)] == [
        ("a", "view", None),
        ("a", "buy", 9.5),
        ("b", "", None),
    ]
    store.close()
    path.write_text("user_id,type,item_id,timestamp,value\nu,view,a,1,much\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="line 2: 'much' is not a number"):
        events(["import", str(path), "--home", home])


def test_a_parquet_file_with_types(tmp_path: Path) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    columns = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2], "type": ["view", None]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    read = read_interactions(tmp_path / "log.parquet", typed=True)
    assert (read.types, read.values) == (["view", ""], [None, None])
    assert read_interactions(tmp_path / "log.parquet").types is None


def test_types_are_shown_and_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    events(["types", *home])
    assert capsys.readouterr().out.splitlines() == [
        "impression  shown",
        "shown       shown",
        "any other   history, weight 1",
    ]
    events(["types", "view=0.25", "dislike=negative", "shown=history", *home])
    assert capsys.readouterr().out.splitlines() == [
        "dislike     negative",
        "impression  shown",
        "shown       history, weight 1",
        "view        history, weight 0.25",
        "any other   history, weight 1",
    ]
    events(["types", *home, "--json"])
    assert json.loads(capsys.readouterr().out)["types"]["view"] == {"kind": "history", "weight": 0.25}


@pytest.mark.parametrize("text", ["view", "view=", "view=0", "view=-1", "view=nan", "view=65", "=2", "view=much"])
def test_what_is_no_setting_of_a_type_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        events(["types", text, "--home", str(tmp_path)])
