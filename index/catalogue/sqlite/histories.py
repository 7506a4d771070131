"""Users' events in an SQLite file separate from the catalogue, so that backups of items contain no personal data.

events    what users had, numbered by AUTOINCREMENT: a number is never used twice, also after deletes
removed   events that were taken out, until all followers know: without event id, and of deleted users without user id
log       its id, the last number of a removal that was forgotten
types     which types of events make history, with which weight

`index.catalogue.sqlite.outcome_tables` has the tables of what became of recommendations.
"""

from __future__ import annotations

import math
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from index.catalogue.event_types import EventTypes
from index.catalogue.histories import Event, EventDays, StoredEvent, merged_history
from index.catalogue.outcomes import CountsRow, Dimension, Trial
from index.catalogue.sqlite.connections import Connections
from index.catalogue.sqlite.erasure import Erasure
from index.catalogue.sqlite.event_log import (
    HISTORY,
    create,
    log_state,
    migrate,
    next_number,
    owner_of_removed,
    read_changes,
    read_sequences,
    read_types,
    return_unused_numbers,
    write_types,
)
from index.catalogue.sqlite.outcome_tables import (
    ATTRIBUTED,
    ATTRIBUTION,
    OutcomeChanges,
    attribution,
    forget_some,
    read_counts,
    read_secret,
    read_trials,
)
from index.catalogue.words import is_unicode
from seqrec.errors import CatalogueError, CatalogueReplaced, LogTruncated
from seqrec.hybrid.event_counts import EventChanges

SCHEMA_VERSION = 5
FORGOTTEN_AT_ONCE = 1000
"""Events in one transaction, during which nobody else writes."""
_EVENT = "user_id, item_id, timestamp, event_id, type, value"


class SqliteHistories:
    """Implements `index.catalogue.histories.HistoryStore`. Creates the file and its directory if they are missing."""

    durability_warnings: Sequence[str] = ()

    def __init__(self, path: Path | str) -> None:
        self._connections = Connections(Path(path), "the histories", "restore it from a backup", erase=True)
        self._erasure = Erasure(self._connections)
        try:
            with self._connections.writing() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > SCHEMA_VERSION:
                    raise CatalogueError(
                        f"the histories {path} have schema {version}; this version reads {SCHEMA_VERSION}"
                    )
                if version == 0:
                    create(connection)
                elif version < SCHEMA_VERSION:
                    migrate(connection, version)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                self.log_id, self._seen, _ = log_state(connection)
                self.secret = read_secret(connection)
            self._erasure.resume()
        except BaseException:
            self.close()
            raise

    def add(self, events: Sequence[Event]) -> int:
        if not events:
            return 0
        with self._connections.writing() as connection:
            _, head, _ = log_state(connection)
            if any(event.attribution for event in events):
                changes = OutcomeChanges(connection)
                new = sum([changes.insert(event) for event in events])
                changes.write()
            else:
                new = connection.executemany(
                    f"INSERT OR IGNORE INTO events ({_EVENT}) VALUES (?, ?, ?, ?, ?, ?)",
                    [(e.user_id, e.item_id, e.timestamp, e.event_id, e.type, e.value) for e in events],
                ).rowcount
            if new < len(events):  # ignored events take numbers too: return the last ones
                return_unused_numbers(connection, head)
            return new

    def types(self) -> EventTypes:
        with self._connections.use() as connection:
            return read_types(connection)

    def set_types(self, types: EventTypes) -> None:
        with self._connections.writing() as connection:
            write_types(connection, types)
            if log_state(connection)[1]:  # nothing is counted of a log without events
                number = next_number(connection)
                connection.execute("UPDATE log SET value = ? WHERE name = 'truncated'", (number,))
                connection.execute("DELETE FROM removed")
        self._erasure.begin()

    def recent(self, user_id: str, limit: int) -> list[Event]:
        if not is_unicode(user_id):
            return []
        with self._connections.use() as connection:
            types = read_types(connection)
            most = max(limit, 0) if types.session_gap is None else -1
            rows = connection.execute(
                f"SELECT {_EVENT} FROM events WHERE user_id = ? AND {HISTORY} "
                "ORDER BY timestamp DESC, number DESC LIMIT ?",
                (user_id, most),
            )
            if types.session_gap is not None:
                return merged_history((Event(*row) for row in rows), limit, types)
            return [Event(*row) for row in reversed(rows.fetchall())]

    def negative(self, user_id: str) -> frozenset[str]:
        if not is_unicode(user_id):
            return frozenset()
        with self._connections.use() as connection:
            rows = connection.execute(
                "SELECT DISTINCT item_id FROM events WHERE user_id = ? AND type != '' "
                "AND type IN (SELECT type FROM types WHERE kind = 'negative')",
                (user_id,),
            )
            return frozenset(item_id for (item_id,) in rows)

    def stored(self, user_id: str, limit: int, before: tuple[float, int] | None = None) -> list[StoredEvent]:
        if not is_unicode(user_id):
            return []
        with self._connections.use() as connection:
            rows = connection.execute(
                f"SELECT number, {_EVENT}, {ATTRIBUTION} FROM {ATTRIBUTED} "
                "WHERE user_id = ? AND (timestamp, number) < (?, ?) "
                "ORDER BY timestamp DESC, number DESC LIMIT ?",
                (user_id, *(before or (math.inf, 0)), max(limit, 0)),
            ).fetchall()
        return [StoredEvent(number, _attributed(row)) for number, *row in rows]

    def delete(self, user_id: str) -> int:
        if not is_unicode(user_id):
            return 0
        with self._connections.writing() as connection:
            known = "SELECT EXISTS (SELECT 1 FROM events WHERE user_id = ?1) "
            known += "OR EXISTS (SELECT 1 FROM removed WHERE owner = ?1)"
            if not connection.execute(known, (user_id,)).fetchone()[0]:
                return 0
            changes = OutcomeChanges(connection)
            changes.forget_user(user_id)
            changes.write()
            number = next_number(connection)
            owner = owner_of_removed(number)
            connection.execute(
                "INSERT INTO removed (number, removed, owner, item_id, timestamp, type) "
                "SELECT number, ?, ?, item_id, timestamp, type FROM events WHERE user_id = ?",
                (number, owner, user_id),
            )
            # Single events that the user removed before, and that followers may not have read yet.
            connection.execute("UPDATE removed SET owner = ? WHERE owner = ?", (owner, user_id))
            deleted = connection.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
        self._erasure.begin()
        return deleted

    def remove(self, user_id: str, event_id: str) -> bool:
        if not is_unicode(user_id) or not is_unicode(event_id):
            return False
        with self._connections.writing() as connection:
            changes = OutcomeChanges(connection)
            changes.remove(user_id, event_id)
            changes.write()
            row = connection.execute(
                "DELETE FROM events WHERE user_id = ? AND event_id = ? RETURNING number, item_id, timestamp, type",
                (user_id, event_id),
            ).fetchone()
            if row is None:
                return False
            connection.execute(
                "INSERT INTO removed (removed, owner, number, item_id, timestamp, type) VALUES (?, ?, ?, ?, ?, ?)",
                (next_number(connection), user_id, *row),
            )
        self._erasure.begin()
        return True

    def sample(self, limit: int) -> list[str]:
        """Users of random events, then users in the order of their ids: O(limit) look-ups however many there are."""
        users: dict[str, None] = {}
        with self._connections.reading() as connection:
            low, high = connection.execute("SELECT min(number), max(number) FROM events").fetchone()
            for _ in range(limit if high is not None else 0):
                row = connection.execute(
                    "SELECT user_id FROM events WHERE number >= ? ORDER BY number LIMIT 1",
                    (random.randint(low, high),),
                ).fetchone()
                users[row[0]] = None
            last = ""  # no user has this id
            while len(users) < limit and high is not None:
                (last,) = connection.execute("SELECT min(user_id) FROM events WHERE user_id > ?", (last,)).fetchone()
                if last is None:
                    break
                users[last] = None
        return list(users)

    def beginning(self, prefix: str, limit: int) -> list[str]:
        users: list[str] = []
        if not is_unicode(prefix):
            return users
        with self._connections.reading() as connection:
            query = "SELECT min(user_id) FROM events WHERE user_id >= ?"
            (user,) = connection.execute(query, (prefix,)).fetchone()
            while user is not None and user.startswith(prefix) and len(users) < limit:
                users.append(user)
                (user,) = connection.execute(query.replace(">=", ">"), (user,)).fetchone()
        return users

    def days(self, item_id: str | None = None) -> EventDays:
        events, of = ("events", ()) if item_id is None else ("events WHERE item_id = ?", (item_id,))
        if item_id is not None and not is_unicode(item_id):
            return EventDays(0, [])
        day = "CAST(timestamp / 86400 AS INTEGER) - (timestamp < 0)"
        with self._connections.reading() as connection:
            (users,) = connection.execute(f"SELECT count(DISTINCT user_id) FROM {events}", of).fetchone()
            rows = connection.execute(f"SELECT {day}, type, count(*) FROM {events} GROUP BY 1, 2 ORDER BY 1, 2", of)
            return EventDays(users, rows.fetchall())

    def scan(self) -> Iterator[Event]:
        with self._connections.reading() as connection:
            rows = connection.execute(
                f"SELECT {_EVENT}, {ATTRIBUTION} FROM {ATTRIBUTED} ORDER BY user_id, timestamp, number"
            )
            for row in rows:
                yield _attributed(row)

    def events_head(self) -> int:
        with self._connections.use() as connection:
            return self._checked(connection, self._seen)[0]

    def event_changes(self, after: int, limit: int, window: int) -> EventChanges:
        with self._connections.reading() as connection:
            head, truncated = self._checked(connection, max(after, self._seen))
            if after < truncated:
                raise LogTruncated(
                    f"events after {after} were asked for, but what was removed up to {truncated} is forgotten; "
                    "count again from the start"
                )
            return read_changes(connection, after, min(head, after + limit), window)

    def event_sequences(self) -> EventChanges:
        with self._connections.reading() as connection:
            return read_sequences(connection, self._checked(connection, self._seen)[0])

    def compact_events(self, through: int) -> None:
        with self._connections.writing() as connection:
            newest = connection.execute("SELECT max(removed) FROM removed WHERE removed <= ?", (through,)).fetchone()[0]
            if newest is None:
                return
            connection.execute("DELETE FROM removed WHERE removed <= ?", (through,))
            connection.execute("UPDATE log SET value = max(value, ?) WHERE name = 'truncated'", (newest,))
        self._erasure.begin()

    def outcomes(self, by: Dimension, since: int, until: int) -> list[CountsRow]:
        with self._connections.use() as connection:
            return read_counts(connection, by, since, until)

    def trials(self) -> list[Trial]:
        with self._connections.use() as connection:
            return read_trials(connection)

    def forget_outcomes(self, before: int) -> int:
        forgotten, done = 0, False
        while not done:
            began = time.monotonic()
            with self._connections.writing() as connection:
                some, done = forget_some(connection, before, FORGOTTEN_AT_ONCE)
            forgotten += some
            if not done:  # whoever waits to write has its turn
                time.sleep(time.monotonic() - began)
        if forgotten:
            self._erasure.begin()
        return forgotten

    def check(self) -> None:
        self._connections.check()

    def close(self) -> None:
        self._erasure.close()
        self._connections.close()

    def _checked(self, connection: sqlite3.Connection, seen: int) -> tuple[int, int]:
        """The head, and the last number that compaction dropped. `seen`: a number that was read before."""
        log_id, head, truncated = log_state(connection)
        path = self._connections.path
        if log_id != self.log_id:
            raise CatalogueReplaced(f"the histories {path} were replaced by others, log {log_id}; restart")
        if head < seen:
            raise CatalogueReplaced(
                f"the histories {path}: an older state of them was restored, at event {head}, and event {seen} was "
                "counted; restart"
            )
        self._seen = max(self._seen, head)
        return head, truncated


def _attributed(row: Sequence[Any]) -> Event:
    """Of the columns of `_EVENT`, then those of `ATTRIBUTION`."""
    user_id, item_id, timestamp, event_id, type, value, *of = row
    return Event(user_id, item_id, timestamp, event_id, type, value, attribution(*of))
