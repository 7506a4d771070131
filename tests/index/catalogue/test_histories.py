from __future__ import annotations

import math
from pathlib import Path

import pytest

from index.catalogue.histories import Event, HistoryStore, make_event
from index.catalogue.redis.histories import RedisHistories
from index.catalogue.sqlite.histories import SqliteHistories
from seqrec.errors import CatalogueError, InputError
from tests.contracts.history_contract import HistoryContract


class TestSqliteHistories(HistoryContract):
    def open(self, location: str) -> HistoryStore:
        return SqliteHistories(location)

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "home" / "histories.sqlite3")


class TestRedisHistories(HistoryContract):
    def open(self, location: str) -> HistoryStore:
        return RedisHistories(location)

    @pytest.fixture
    def location(self, redis_url: str) -> str:
        return redis_url


def test_no_byte_of_a_deleted_user_stays_in_the_files(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "h.sqlite3")
    store.add([Event("somebody", f"thing-{n}", float(n), f"click-{n}") for n in range(300)])
    store.add([Event("else", "other", 1.0)])
    assert any(b"somebody" in path.read_bytes() for path in tmp_path.iterdir())
    assert store.delete("somebody") == 300
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b"somebody" not in content, path
        assert b"thing-" not in content, path
        assert b"click-" not in content, path
    assert store.seen("else") == {"other"}
    store.close()


def test_deleting_does_not_wait_for_a_reader(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "h.sqlite3")
    store.add([Event("u", "a", 1.0), Event("v", "b", 1.0)])
    rows = store.scan()
    next(rows)
    assert store.delete("u") == 1
    assert [event.item_id for event in rows] == ["b"]
    store.close()


def test_another_schema_of_histories_is_refused(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "h.sqlite3")
    with store._connections.use() as connection:
        connection.execute("PRAGMA user_version = 9")
    store.close()
    with pytest.raises(CatalogueError, match="schema 9; this version reads 1"):
        SqliteHistories(tmp_path / "h.sqlite3")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("", "a", 1), "events[0].user_id"),
        (("u", 5, 1), "events[0].item_id"),
        (("u", "a", math.nan), "events[0].timestamp"),
        (("u", "a", True), "events[0].timestamp"),
        (("u", "a", "now"), "events[0].timestamp"),
        (("u", "a", 1, "line\nbreak"), "events[0].event_id"),
    ],
)
def test_what_is_no_event_is_refused(values: tuple[object, ...], field: str) -> None:
    with pytest.raises(InputError) as refused:
        make_event(*values, field="events[0].")
    assert refused.value.field == field


def test_an_event_s_time_is_a_float() -> None:
    assert make_event("u", "a", 7) == Event("u", "a", 7.0, None)
