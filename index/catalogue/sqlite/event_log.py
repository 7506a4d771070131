"""The log of events in SQLite: its tables, and slices of users' sequences between two of its numbers."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from heapq import merge

from index.catalogue.event_types import EventType, EventTypes
from index.catalogue.histories import NEVER, ChangesBuilder, whole_sessions
from index.catalogue.sqlite.outcome_tables import add_outcomes, add_propensity
from seqrec.data.items import former_user_id
from seqrec.hybrid.event_counts import EventChanges

_EVENTS = (
    "CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, "
    "timestamp REAL NOT NULL, event_id TEXT)",
    "CREATE UNIQUE INDEX once ON events (user_id, event_id) WHERE event_id IS NOT NULL",
)
_LOG = (
    # Numbers of the event and of its removal. Owner: the user, or for a deleted user `owner_of_removed`.
    "CREATE TABLE removed (number INTEGER PRIMARY KEY, removed INTEGER NOT NULL, owner TEXT NOT NULL, "
    "item_id TEXT NOT NULL, timestamp REAL NOT NULL)",
    "CREATE INDEX by_removal ON removed (removed, owner)",
    "CREATE INDEX by_owner ON removed (owner)",
    "CREATE TABLE log (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT INTO log VALUES ('truncated', 0)",
)
_TYPES = (
    "ALTER TABLE events ADD COLUMN type TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE events ADD COLUMN value REAL",
    "ALTER TABLE removed ADD COLUMN type TEXT NOT NULL DEFAULT ''",
    # With item and type, so that all of a user is read from the index alone.
    "DROP INDEX IF EXISTS by_user",
    "CREATE INDEX by_user ON events (user_id, timestamp, number, item_id, type)",
    "CREATE INDEX by_type ON events (user_id, type, item_id) WHERE type != ''",
    "CREATE TABLE types (type TEXT PRIMARY KEY, kind TEXT NOT NULL, weight REAL NOT NULL) WITHOUT ROWID",
)
HISTORY = "type NOT IN (SELECT type FROM types WHERE kind != 'history')"
"""Whether an event makes history."""

_Row = tuple[float, int, str, int, str]  # timestamp, number, item, number of the removal, type


def create(connection: sqlite3.Connection) -> None:
    for statement in _EVENTS:
        connection.execute(statement)
    _add_log(connection)
    _add_types(connection)
    add_outcomes(connection)
    add_propensity(connection)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """From schema 1, which had events alone, 2, which had no types of events, 3, no outcomes, or 4, no propensities."""
    if version == 1:
        _from_first(connection)
    if version < 3:
        _add_types(connection)
    if version < 4:
        add_outcomes(connection)
    add_propensity(connection)


def _from_first(connection: sqlite3.Connection) -> None:
    """All events are in the log by their numbers.

    Users from before user ids were normalised are renamed. No counts exist yet.
    """
    for (user_id,) in connection.execute("SELECT DISTINCT user_id FROM events").fetchall():
        if (now := former_user_id(user_id)) != user_id:
            if now:  # the same event id twice is one event
                connection.execute("UPDATE OR IGNORE events SET user_id = ? WHERE user_id = ?", (now, user_id))
            connection.execute("DELETE FROM events WHERE user_id = ?", (user_id,))
    _add_log(connection)


def _add_log(connection: sqlite3.Connection) -> None:
    for statement in _LOG:
        connection.execute(statement)
    connection.execute("INSERT INTO log VALUES ('id', ?)", (uuid.uuid4().hex,))


def _add_types(connection: sqlite3.Connection) -> None:
    for statement in _TYPES:
        connection.execute(statement)
    write_types(connection, EventTypes())


def read_types(connection: sqlite3.Connection) -> EventTypes:
    rows = connection.execute("SELECT type, kind, weight FROM types")
    gap = connection.execute("SELECT value FROM log WHERE name = 'session_gap'").fetchone()
    return EventTypes({name: EventType(kind, weight) for name, kind, weight in rows}, gap[0] if gap else None)


def write_types(connection: sqlite3.Connection, types: EventTypes) -> None:
    connection.execute("DELETE FROM types")
    rows = [(name, one.kind, one.weight) for name, one in types.by_name.items()]
    connection.executemany("INSERT INTO types VALUES (?, ?, ?)", rows)
    connection.execute("DELETE FROM log WHERE name = 'session_gap'")
    if types.session_gap is not None:
        connection.execute("INSERT INTO log VALUES ('session_gap', ?)", (types.session_gap,))


def log_state(connection: sqlite3.Connection) -> tuple[str, int, int]:
    """The log's id, its head, and the last number of a removal that compaction dropped."""
    log_id, head, truncated = connection.execute(
        "SELECT (SELECT value FROM log WHERE name = 'id'), (SELECT seq FROM sqlite_sequence WHERE name = 'events'), "
        "(SELECT value FROM log WHERE name = 'truncated')"
    ).fetchone()
    return log_id, int(head or 0), int(truncated)


def next_number(connection: sqlite3.Connection) -> int:
    """The number of a removal. The sequence exists, because an event was stored before."""
    return int(
        connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'events' RETURNING seq").fetchone()[0]
    )


def return_unused_numbers(connection: sqlite3.Connection, head: int) -> None:
    """Return numbers beyond the last event of this transaction; `head` was the last one before it."""
    connection.execute(
        "UPDATE sqlite_sequence SET seq = max(?, coalesce((SELECT max(number) FROM events), 0)) WHERE name = 'events'",
        (head,),
    )


def owner_of_removed(number: int) -> str:
    """Replaces a deleted user's id. It is no user's id, since ids have no line breaks."""
    return f"\n{number}"


def read_sequences(connection: sqlite3.Connection, head: int) -> EventChanges:
    rows = connection.execute(
        f"SELECT user_id, number, item_id, timestamp, type FROM events WHERE {HISTORY} "
        "ORDER BY user_id, timestamp, number"
    )
    builder = ChangesBuilder(0, head, read_types(connection))
    last: str | None = None
    for user_id, number, item_id, timestamp, type in rows:
        if user_id != last:
            builder.end_slice()
            last = user_id
        builder.event(number, item_id, timestamp, type=type)
    builder.end_slice()
    return builder.changes()


def read_changes(connection: sqlite3.Connection, after: int, seq: int, window: int) -> EventChanges:
    """Within a transaction, so that all is of one moment."""
    types = read_types(connection)
    builder = ChangesBuilder(after, seq, types)
    with_removed = _with_removed(connection, after)
    whole = _changed_by_removal(connection, after, seq)
    added: dict[str, list[_Row]] = {}
    for number, user_id, item_id, timestamp, type in connection.execute(
        f"SELECT number, user_id, item_id, timestamp, type FROM events WHERE number > ? AND number <= ? AND {HISTORY}",
        (after, seq),
    ):
        added.setdefault(user_id, []).append((timestamp, number, item_id, NEVER, type))
    for owner in sorted(whole | with_removed.intersection(added)):
        _whole(connection, builder, owner, after, seq)
    for user_id, rows in added.items():
        if user_id not in with_removed:
            _around(connection, builder, user_id, sorted(rows), seq, window, types.session_gap)
    return builder.changes()


def _with_removed(connection: sqlite3.Connection, after: int) -> set[str]:
    """Owners of events that existed as of `after` and were removed since: their sequences are in two tables."""
    rows = connection.execute("SELECT DISTINCT owner FROM removed WHERE removed > ?", (after,))
    return {owner for (owner,) in rows}


def _changed_by_removal(connection: sqlite3.Connection, after: int, seq: int) -> set[str]:
    """Those owners whose sequence changed up to `seq`, by a removal or by an event that was removed later."""
    rows = connection.execute(
        "SELECT DISTINCT owner FROM removed WHERE removed > ?1 AND (removed <= ?2 OR number > ?1)", (after, seq)
    )
    return {owner for (owner,) in rows}


def _whole(connection: sqlite3.Connection, builder: ChangesBuilder, owner: str, after: int, seq: int) -> None:
    removed = connection.execute(
        "SELECT timestamp, number, item_id, removed, type FROM removed WHERE owner = ? AND removed > ? "
        "ORDER BY timestamp, number",
        (owner, after),
    )
    there = connection.execute(
        f"SELECT timestamp, number, item_id, {NEVER}, type FROM events WHERE user_id = ? AND number <= ? "
        "ORDER BY timestamp, number",
        (owner, seq),
    )
    _append(builder, list(merge(removed, there)))


def _around(
    connection: sqlite3.Connection,
    builder: ChangesBuilder,
    user_id: str,
    added: Sequence[_Row],
    seq: int,
    window: int,
    gap: float | None,
) -> None:
    """The slice of a user with new events and none that was removed."""
    columns = f"SELECT timestamp, number, item_id, {NEVER}, type FROM events WHERE user_id = ? AND number <= ? "
    columns += f"AND {HISTORY} AND "
    first, last = added[0][:2], added[-1][:2]
    limit = -1 if gap is not None else window
    before = connection.execute(
        f"{columns} (timestamp, number) < (?, ?) ORDER BY timestamp DESC, number DESC LIMIT ?",
        (user_id, seq, *first, limit),
    )
    earlier = _taken(before, window, gap, first[0])
    between: Sequence[_Row] = added
    if len(added) > 1:
        between = connection.execute(
            f"{columns} (timestamp, number) >= (?, ?) AND (timestamp, number) <= (?, ?) ORDER BY timestamp, number",
            (user_id, seq, *first, *last),
        ).fetchall()
    behind = connection.execute(
        f"{columns} (timestamp, number) > (?, ?) ORDER BY timestamp, number LIMIT ?", (user_id, seq, *last, limit)
    )
    _append(builder, [*reversed(earlier), *between, *_taken(behind, window, gap, last[0])])


def _taken(rows: sqlite3.Cursor, window: int, gap: float | None, near: float) -> list[_Row]:
    if gap is None:
        return rows.fetchall()
    return whole_sessions(rows, lambda row: (row[0], row[2]), window, gap, near)


def _append(builder: ChangesBuilder, rows: Sequence[_Row]) -> None:
    for timestamp, number, item_id, removed, type in rows:
        builder.event(number, item_id, timestamp, removed, type)
    builder.end_slice()
