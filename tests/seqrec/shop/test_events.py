"""What events are worth: types, values, sessions, repeats; and what is left out is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqrec.data.tables.base import Rejects, TableOptions
from seqrec.data.tables.open import open_table
from seqrec.errors import FileFormatError
from seqrec.shop.events import Events, Worth, read_events, weigh
from seqrec.shop.project import EventsConfig

BASE = {"item": "i", "user": "u", "time": "t", "time_format": "s"}


def read(path: Path, rejects: Rejects | None = None, **settings: Any) -> tuple[Events, EventsConfig]:
    config = EventsConfig.model_validate({"path": str(path), **BASE, **settings})
    table = open_table(str(path), TableOptions(), "events")
    return read_events(table, config, rejects or Rejects("raise"), lambda rows: None), config


def worth(path: Path, known: set[str] | None = None, **settings: Any) -> Worth:
    events, config = read(path, **settings)
    return weigh(events, config, known)


def rows(events: Events) -> list[tuple[str, str, int, str]]:
    columns = zip(events.user, events.item, events.time, events.type, strict=True)
    return [(events.users[u], events.items[i], int(t), events.types[k]) for u, i, t, k in columns]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(
        "u,i,t,kind,stars\n"
        "a,x,1700000000,view,5\n"
        "a,x,1700000060,purchase,5\n"
        "a,y,1700000100,view,1\n"
        "a,x,1700009999,view,4\n"
        "a,x,1700009999,view,4\n"
        "b,z,1700000000,refund,2\n"
        "b,y,1700000001,shown,\n"
        "b,y,1700000002,view,3\n"
    )
    return path


def test_ids_types_and_times(log: Path) -> None:
    events, _ = read(log, type="kind")
    assert rows(events)[:2] == [("a", "x", 1700000000, "view"), ("a", "x", 1700000060, "purchase")]
    assert (events.unit, events.read) == ("s", 8)
    assert events.type_counts == {"view": 5, "purchase": 1, "refund": 1, "shown": 1}


def test_types_decide_what_counts(log: Path) -> None:
    types = {"refund": {"negative": True}, "shown": {"ignore": True}, "view": {"weight": 0.25}}
    done = worth(log, type="kind", types=types)
    assert [row[3] for row in rows(done.events)] == ["view", "purchase", "view", "view", "view"]
    assert done.weights is not None
    assert done.weights.tolist() == [0.25, 1, 0.25, 0.25, 0.25]
    assert rows(done.negatives) == [("b", "z", 1700000000, "refund")]
    assert done.events.dropped == {"of type shown": 1, "identical: same user, item and time": 1}
    assert len(worth(log, type="kind", types={"view": {"weight": 0}}).events) == 3


def test_a_session_counts_an_item_once_by_its_strongest_event(log: Path) -> None:
    types = {"view": {"weight": 0.25}, "refund": {"ignore": True}, "shown": {"ignore": True}}
    done = worth(log, type="kind", types=types, repeats="session")
    assert rows(done.events) == [
        ("a", "x", 1700000000, "purchase"),
        ("a", "y", 1700000100, "view"),
        ("a", "x", 1700009999, "view"),
        ("b", "y", 1700000002, "view"),
    ]
    assert done.weights is not None
    assert done.weights.tolist() == [1, 0.25, 0.25, 0.25]
    assert done.events.dropped["repeated within a session"] == 1
    longer = worth(log, type="kind", repeats="session", session_gap="1d")
    assert len(longer.events) == 4
    equal = worth(log, type="kind", repeats="session")
    assert rows(equal.events)[0][3] == "purchase"  # of equal weights the last one


def test_the_first_or_the_last_of_repeated_events(log: Path) -> None:
    first, last = (worth(log, repeats=which).events for which in ("first", "last"))
    assert [row[2] for row in rows(first) if row[:2] == ("a", "x")] == [1700000000]
    assert [row[2] for row in rows(last) if row[:2] == ("a", "x")] == [1700009999]


def test_low_values(log: Path) -> None:
    done = worth(log, value="stars", min_value=3)
    assert len(done.events) == 5  # an event without a value counts
    assert done.events.dropped["with stars below 3"] == 2
    disliked = worth(log, value="stars", min_value=3, low_value="negative")
    assert [row[1] for row in rows(disliked.negatives)] == ["y", "z"]


def test_unknown_items_are_counted(log: Path) -> None:
    done = worth(log, known={"x"})
    assert {row[1] for row in rows(done.events)} == {"x"}
    assert done.events.dropped["items that are not in the catalogue"] == 4


def test_broken_rows_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i,t\na,x,1700000000\n,x,1700000001\na,,1700000002\na,x,\na,x,yesterday\n" + "a" * 300 + ",x,1\n")
    with pytest.raises(FileFormatError, match=r"log\.csv, line 3: u is empty.*on_error = \"skip\""):
        read(path)
    rejects = Rejects("skip")
    events, _ = read(path, rejects)
    assert len(events) == 1
    assert events.read == 6
    assert rejects.counts == {"no u": 1, "no i": 1, "u is not an id": 1, "no t": 1, "t cannot be read": 1}
    found = "\n".join(str(error) for error in rejects.examples)
    assert "line 7: u 'aaa" in found
    assert "a user id has 1 to 256 bytes of UTF-8, this one has 300" in found
    assert "line 6: t 'yesterday' does not fit time_format = 's'" in found


def test_sessions_stand_for_unknown_users(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i,t,s\n,y,1,s1\na,x,1,s1\n,x,2,s2\n,y,3,s2\n,y,4,\n")
    rejects = Rejects("skip")
    events, _ = read(path, rejects, session="s")
    assert [row[0] for row in rows(events)] == ["a", "a", "session-s2", "session-s2"]
    assert rejects.counts == {"no u": 1}


def test_without_times_the_order_of_the_rows_counts(log: Path) -> None:
    events, _ = read(log, time=None, time_format="order")
    assert events.unit == "order"
    assert events.time.tolist() == list(range(8))


def test_ids_that_are_the_same_number_are_spelled_as_in_the_items(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "u,i,t\n" + "".join(f"a,{item},{n}\n" for n, item in enumerate(("123", "00123", "123.0", "9", "7")))
    )
    known = {"00123", "9", "09", "x-7"}
    found = worth(path, known, item_numbers=True)
    assert [row[1] for row in rows(found.events)] == ["00123", "00123", "00123", "9"]
    assert [row[1] for row in rows(worth(path, known).events)] == ["00123", "9"]
    ambiguous = worth(path, {"00123", "09", "009"}, item_numbers=True)
    assert {row[1] for row in rows(ambiguous.events)} == {"00123"}
