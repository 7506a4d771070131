"""Users' histories in one SQLite file of their own: what is deleted is overwritten, and no backup of items holds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from index.catalogue.histories import Event
from index.catalogue.sqlite.connections import BUSY_SECONDS, Connections
from index.catalogue.words import is_unicode
from seqrec.errors import CatalogueError

SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, "
    "timestamp REAL NOT NULL, event_id TEXT)",
    # With the item, so that all of a user is read from the index alone.
    "CREATE INDEX by_user ON events (user_id, timestamp, number, item_id)",
    "CREATE UNIQUE INDEX once ON events (user_id, event_id) WHERE event_id IS NOT NULL",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class SqliteHistories:
    """Meets `index.catalogue.histories.HistoryStore`. The file and its directory are made where they are missing."""

    durability_warnings: Sequence[str] = ()

    def __init__(self, path: Path | str) -> None:
        self._connections = Connections(Path(path), "the histories", "restore it from a backup", erase=True)
        try:
            with self._connections.writing() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                elif version != SCHEMA_VERSION:
                    raise CatalogueError(
                        f"the histories {path} have schema {version}; this version reads {SCHEMA_VERSION}"
                    )
        except BaseException:
            self._connections.close()
            raise

    def add(self, events: Sequence[Event]) -> int:
        if not events:
            return 0
        with self._connections.writing() as connection:
            return connection.executemany(
                "INSERT OR IGNORE INTO events (user_id, item_id, timestamp, event_id) VALUES (?, ?, ?, ?)",
                [(event.user_id, event.item_id, event.timestamp, event.event_id) for event in events],
            ).rowcount

    def recent(self, user_id: str, limit: int) -> list[Event]:
        if not is_unicode(user_id):
            return []
        with self._connections.use() as connection:
            rows = connection.execute(
                "SELECT user_id, item_id, timestamp, event_id FROM events WHERE user_id = ? "
                "ORDER BY timestamp DESC, number DESC LIMIT ?",
                (user_id, max(limit, 0)),
            ).fetchall()
        return [Event(*row) for row in reversed(rows)]

    def seen(self, user_id: str) -> frozenset[str]:
        if not is_unicode(user_id):
            return frozenset()
        with self._connections.use() as connection:
            rows = connection.execute("SELECT DISTINCT item_id FROM events WHERE user_id = ?", (user_id,))
            return frozenset(item_id for (item_id,) in rows)

    def delete(self, user_id: str) -> int:
        if not is_unicode(user_id):
            return 0
        with self._connections.writing() as connection:
            removed = connection.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
        if removed:
            self._forget_log()
        return removed

    def scan(self) -> Iterator[Event]:
        with self._connections.reading() as connection:
            rows = connection.execute(
                "SELECT user_id, item_id, timestamp, event_id FROM events ORDER BY user_id, timestamp, number"
            )
            for row in rows:
                yield Event(*row)

    def close(self) -> None:
        self._connections.close()

    def _forget_log(self) -> None:
        """Empty the write-ahead log, where older pages still hold what was deleted; a reader may put that off."""
        with self._connections.use() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
