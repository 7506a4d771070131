from __future__ import annotations

import math
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from index.catalogue.event_types import EventTypes
from index.catalogue.histories import Event, HistoryStore, make_event
from index.catalogue.redis.histories import RedisHistories
from index.catalogue.sqlite.histories import SqliteHistories
from seqrec.errors import CatalogueError, CatalogueReplaced, InputError, LogTruncated
from tests.contracts.history_contract import HistoryContract, as_slices


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


def bytes_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


def test_no_byte_of_a_deleted_user_stays_in_the_files(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "h.sqlite3")
    store.add([Event("somebody", f"thing-{n}", float(n), f"click-{n}") for n in range(300)])
    store.add([Event("somebody", "taken-back", 5.0, "slip"), Event("else", "other", 1.0)])
    assert all(name in bytes_of(tmp_path) for name in (b"somebody", b"slip"))
    assert store.remove("somebody", "slip")
    assert b"slip" not in bytes_of(tmp_path)
    assert store.delete("somebody") == 300
    assert b"somebody" not in bytes_of(tmp_path)
    assert b"click-" not in bytes_of(tmp_path)
    store.compact_events(store.events_head())
    assert not any(name in bytes_of(tmp_path) for name in (b"thing-", b"taken-back"))
    assert [e.item_id for e in store.recent("else", 10)] == ["other"]
    store.close()


def test_redis_remembers_nothing_of_a_deleted_user(redis_url: str) -> None:
    store = RedisHistories(redis_url)
    store.add([Event("somebody", f"thing-{n}", float(n), f"click-{n}") for n in range(30)])
    store.add([Event("else", "other", 1.0)])
    store.remove("somebody", "click-7")
    assert any(b"somebody" in key for key in contents_of(redis_url))
    store.delete("somebody")
    left = contents_of(redis_url)
    assert not any(name in part for part in left for name in (b"somebody", b"click-"))
    assert any(b"thing-" in part for part in left)
    store.compact_events(store.events_head())
    assert not any(b"thing-" in part for part in contents_of(redis_url))
    assert [e.item_id for e in store.recent("else", 10)] == ["other"]
    store.close()


def histories_key(url: str) -> str:
    """What the keys of the histories begin with."""
    [prefix] = parse_qs(urlsplit(url).query)["prefix"]
    return f"{{{prefix}}}:histories:"


def contents_of(url: str) -> list[bytes]:
    """All keys of the histories and everything in them."""
    parts: list[bytes] = []
    with redis.Redis.from_url(url.partition("?")[0]) as client:
        for key in client.scan_iter(match=f"{histories_key(url)}*".replace("{", "\\{").replace("}", "\\}")):
            parts.append(key)
            match client.type(key):
                case b"hash":
                    parts += [part for pair in client.hgetall(key).items() for part in pair]
                case b"zset":
                    parts += client.zrange(key, 0, -1)
                case b"set":
                    parts += client.smembers(key)
    return parts


def test_what_a_reader_keeps_on_the_disk_is_erased_when_it_has_gone(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    store = SqliteHistories(tmp_path / "h.sqlite3")
    store.add([Event(f"private-{k}", f"thing-{n}", float(n)) for n in range(50) for k in range(2)])
    rows = store.scan()
    next(rows)
    assert store.delete("private-0") == 50
    assert store.delete("private-1") == 50
    assert b"private-" in bytes_of(tmp_path)
    rows.close()  # type: ignore[attr-defined]
    until(lambda: b"private-" not in bytes_of(tmp_path))
    # And once more: the thread that tried had ended.
    until(lambda: not any(thread.name == "erasure" for thread in set(threading.enumerate()) - others))
    store.add([Event("private-2", "a", 1.0)])
    rows = store.scan()
    next(rows)
    store.delete("private-2")
    assert b"private-" in bytes_of(tmp_path)
    rows.close()  # type: ignore[attr-defined]
    until(lambda: b"private-" not in bytes_of(tmp_path))
    store.close()


def test_what_a_killed_process_left_on_the_disk_is_erased_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite3"
    script = f"""
import os, signal, sqlite3
from index.catalogue.histories import Event
from index.catalogue.sqlite.histories import SqliteHistories
store = SqliteHistories({str(path)!r})
store.add([Event("private", f"thing-{{n}}", float(n)) for n in range(50)])
next(store.scan())
rows = store.scan()
next(rows)
store.delete("private")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    assert b"private" in bytes_of(tmp_path)
    store = SqliteHistories(path)
    assert b"private" not in bytes_of(tmp_path)
    store.close()


def test_closing_does_not_wait_for_a_reader(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "h.sqlite3")
    store.add([Event("private", "a", 1.0), Event("v", "b", 1.0)])
    with closing(sqlite3.connect(tmp_path / "h.sqlite3", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        store.delete("private")
        store.close()
    assert b"private" not in bytes_of(tmp_path)  # the last connection empties the log


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_histories_of_the_first_schema_become_a_log(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite3"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            """
            CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL,
                item_id TEXT NOT NULL, timestamp REAL NOT NULL, event_id TEXT);
            CREATE INDEX by_user ON events (user_id, timestamp, number, item_id);
            CREATE UNIQUE INDEX once ON events (user_id, event_id) WHERE event_id IS NOT NULL;
            PRAGMA user_version = 1;
            INSERT INTO events (user_id, item_id, timestamp, event_id) VALUES
                ('u', 'b', 2.0, NULL), ('v', 'z', 1.0, NULL), ('u', 'a', 1.0, 'e'),
                ('u ', 'c', 3.0, 'f'), (' u', 'a', 1.0, 'e'), ('  ', 'y', 1.0, NULL);
            DELETE FROM events WHERE user_id = 'v';
            """
        )
    store = SqliteHistories(path)
    # Users whose ids could no longer be named are those they were meant to be.
    events = [Event("u", "a", 1.0, "e"), Event("u", "b", 2.0), Event("u", "c", 3.0, "f")]
    assert list(store.scan()) == events
    assert store.events_head() == 6
    assert as_slices(store.event_changes(0, 10, 5)) == [("", "abc")]
    assert as_slices(store.event_changes(1, 10, 5)) == [("b", "abc")]
    store.delete("u")
    assert as_slices(store.event_changes(6, 10, 5)) == [("abc", "")]
    log_id = store.log_id
    store.close()
    store = SqliteHistories(path)
    assert store.log_id == log_id
    store.close()


def test_histories_of_the_second_schema_get_types(tmp_path: Path) -> None:
    """As tests/compat has them; here with what was taken out, and counts that go on from before."""
    path = tmp_path / "h.sqlite3"
    store = SqliteHistories(path)
    store.add([Event("u", "a", 1.0, "e"), Event("u", "b", 2.0), Event("v", "c", 1.0)])
    store.delete("v")
    store.close()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            """
            DROP INDEX by_recommendation; DROP TABLE counts; DROP TABLE slots; DROP TABLE trials;
            DROP TABLE trial_users; DELETE FROM log WHERE name = 'secret';
            ALTER TABLE events DROP COLUMN recommendation; ALTER TABLE events DROP COLUMN slot;
            ALTER TABLE events DROP COLUMN position; ALTER TABLE events DROP COLUMN source;
            ALTER TABLE events DROP COLUMN cold; ALTER TABLE events DROP COLUMN propensity;
            DROP INDEX by_type; DROP INDEX by_user; DROP TABLE types;
            ALTER TABLE events DROP COLUMN type; ALTER TABLE events DROP COLUMN value;
            ALTER TABLE removed DROP COLUMN type;
            CREATE INDEX by_user ON events (user_id, timestamp, number, item_id);
            PRAGMA user_version = 2;
            """
        )
    store = SqliteHistories(path)
    assert list(store.scan()) == [Event("u", "a", 1.0, "e"), Event("u", "b", 2.0)]
    assert sorted(as_slices(store.event_changes(3, 9, 5))) == [("c", "")]
    assert store.types() == EventTypes()
    store.add([Event("u", "s", 3.0, None, "shown"), Event("u", "d", 4.0, None, "view", 7.0)])
    assert as_slices(store.event_changes(4, 9, 5)) == [("ab", "abd")]
    store.close()


def test_redis_histories_of_the_second_schema_get_types(redis_url: str) -> None:
    store = RedisHistories(redis_url)
    store.add([Event("u", "a", 1.0, "e"), Event("u", "b", 2.0), Event("v", "c", 1.0, "f")])
    store.remove("v", "f")
    with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
        base = histories_key(redis_url)
        client.hset(f"{base}meta", "schema", "2")
        client.delete(f"{base}types")
        client.sadd(f"{base}items:u", "a", "b")
        [(member, score)] = client.zrange(f"{base}removed:v", 0, -1, withscores=True)
        client.zrem(f"{base}removed:v", member)
        client.zadd(f"{base}removed:v", {member.replace(b"\n\n", b"\n"): score})
    store.close()
    store = RedisHistories(redis_url)
    assert store.types() == EventTypes()
    assert store.recent("u", 9) == [Event("u", "a", 1.0, "e"), Event("u", "b", 2.0)]
    assert sorted(as_slices(store.event_changes(3, 9, 5))) == [("c", "")]
    store.add([Event("u", "d", 4.0, None, "view", 7.0), Event("v", "g", 1.0)])
    assert as_slices(store.event_changes(4, 1, 5)) == [("ab", "abd")]
    assert store.delete("v") == 1
    assert store.delete("u") == 3
    assert not any(key[-1:] == b"u" for key in contents_of(redis_url) if b":" in key)
    store.close()
    with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
        client.hset(f"{base}meta", "schema", "9")
    with pytest.raises(CatalogueError, match="schema 9; this version reads 4"):
        RedisHistories(redis_url)


def test_histories_that_redis_had_before_there_was_a_log(redis_url: str) -> None:
    store = RedisHistories(redis_url)
    store.add([Event("u", "b", 2.0), Event("v ", "z", 1.0), Event("u\u0308", "a", 1.0, "e"), Event(" ", "y", 1.0)])
    store.add([Event("\u00fc", "b", 2.0), Event("\u00fc", "x", 3.0, "e")])
    with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
        base = histories_key(redis_url)
        client.delete(f"{base}log", f"{base}meta")  # as the version before left it
    store.close()
    store = RedisHistories(redis_url)
    assert store.events_head() == 6
    with pytest.raises(LogTruncated):
        store.event_changes(0, 10, 5)
    # Users whose ids could no longer be named are those they were meant to be; an event id still counts once.
    assert {event.user_id for event in store.scan()} == {"u", "v", "\u00fc"}
    assert sorted(as_slices(store.event_sequences()))[:1] == [("", "b")]
    assert store.recent("v", 9) == [Event("v", "z", 1.0)]
    assert len({event.event_id for event in store.recent("\u00fc", 9)} - {None}) == 1
    store.add([Event("u", "c", 3.0)])
    store.delete("v")
    assert sorted(as_slices(store.event_changes(6, 10, 5))) == [("b", "bc"), ("z", "")]
    store.close()


def test_another_log_of_events_is_noticed(redis_url: str, tmp_path: Path) -> None:
    store = RedisHistories(redis_url)
    store.add([Event("u", "a", 1.0)])
    with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
        client.set(f"{histories_key(redis_url)}events", 0)
        with pytest.raises(CatalogueReplaced, match="older state"):
            store.events_head()
        client.delete(f"{histories_key(redis_url)}meta")
        with pytest.raises(CatalogueReplaced, match="emptied"):
            store.add([Event("u", "b", 1.0)])
        RedisHistories(redis_url).close()
        with pytest.raises(CatalogueReplaced, match="replaced by others"):
            store.delete("u")
    store.close()
    lite = SqliteHistories(tmp_path / "h.sqlite3")
    lite.add([Event("u", "a", 1.0)])
    assert lite.events_head() == 1
    with closing(sqlite3.connect(tmp_path / "h.sqlite3")) as other:
        other.execute("UPDATE sqlite_sequence SET seq = 0")
        other.commit()
        with pytest.raises(CatalogueReplaced, match="older state"):
            lite.events_head()
        other.execute("UPDATE log SET value = 'another' WHERE name = 'id'")
        other.commit()
        with pytest.raises(CatalogueReplaced, match="replaced by others, log another"):
            lite.events_head()
    lite.close()


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
    store.close()
    with closing(sqlite3.connect(tmp_path / "h.sqlite3")) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(CatalogueError, match="schema 9; this version reads 5"):
        SqliteHistories(tmp_path / "h.sqlite3")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("", "a", 1), "events[0].user_id"),
        (("bob ", "a", 1), "events[0].user_id"),
        (("\u00a0bob", "a", 1), "events[0].user_id"),
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


def test_a_user_has_one_name() -> None:
    assert make_event("jose\u0301", "a", 7).user_id == make_event("jos\u00e9", "a", 7).user_id == "jos\u00e9"


def test_an_event_s_time_is_a_float() -> None:
    assert make_event("u", "a", 7) == Event("u", "a", 7.0, None)
