"""The log of events in SQLite: its tables, and slices of users' sequences between two of its numbers."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from heapq import merge

from index.catalogue.histories import NEVER, ChangesBuilder
from seqrec.data.items import former_user_id
from seqrec.hybrid.event_counts import EventChanges

_EVENTS = (
    "CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, "
    "timestamp REAL NOT NULL, event_id TEXT)",
    # With the item, so that a user's events are read from the index alone.
    "CREATE INDEX by_user ON events (user_id, timestamp, number, item_id)",
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

_Row = tuple[float, int, str, int]  # timestamp, number, item, number of the removal


def create(connection: sqlite3.Connection) -> None:
    for statement in _EVENTS:
        connection.execute(statement)
    _add_log(connection)


def migrate(connection: sqlite3.Connection) -> None:
    """From schema 1, which had only events: they enter the log with their numbers.

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
        "SELECT user_id, number, item_id, timestamp FROM events ORDER BY user_id, timestamp, number"
    )
    builder = ChangesBuilder(0, head)
    last: str | None = None
    for user_id, number, item_id, timestamp in rows:
        if user_id != last:
            builder.end_slice()
            last = user_id
        builder.event(number, item_id, timestamp)
    builder.end_slice()
    return builder.changes()


def read_changes(connection: sqlite3.Connection, after: int, seq: int, window: int) -> EventChanges:
    """Call it within a transaction, so that everything is as of one moment."""
    builder = ChangesBuilder(after, seq)
    with_removed = _with_removed(connection, after)
    whole = _changed_by_removal(connection, after, seq)
    added: dict[str, list[_Row]] = {}
    for number, user_id, item_id, timestamp in connection.execute(
        "SELECT number, user_id, item_id, timestamp FROM events WHERE number > ? AND number <= ?", (after, seq)
    ):
        added.setdefault(user_id, []).append((timestamp, number, item_id, NEVER))
    for owner in sorted(whole | with_removed.intersection(added)):
        _whole(connection, builder, owner, after, seq)
    for user_id, rows in added.items():
        if user_id not in with_removed:
            _around(connection, builder, user_id, sorted(rows), seq, window)
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
        "SELECT timestamp, number, item_id, removed FROM removed WHERE owner = ? AND removed > ? "
        "ORDER BY timestamp, number",
        (owner, after),
    )
    there = connection.execute(
        f"SELECT timestamp, number, item_id, {NEVER} FROM events WHERE user_id = ? AND number <= ? "
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
) -> None:
    """The slice of a user with new events but no removed ones."""
    columns = f"SELECT timestamp, number, item_id, {NEVER} FROM events WHERE user_id = ? AND number <= ? AND "
    first, last = added[0][:2], added[-1][:2]
    before = connection.execute(
        f"{columns} (timestamp, number) < (?, ?) ORDER BY timestamp DESC, number DESC LIMIT ?",
        (user_id, seq, *first, window),
    ).fetchall()
    between: Sequence[_Row] = added
    if len(added) > 1:
        between = connection.execute(
            f"{columns} (timestamp, number) >= (?, ?) AND (timestamp, number) <= (?, ?) ORDER BY timestamp, number",
            (user_id, seq, *first, *last),
        ).fetchall()
    behind = connection.execute(
        f"{columns} (timestamp, number) > (?, ?) ORDER BY timestamp, number LIMIT ?", (user_id, seq, *last, window)
    ).fetchall()
    _append(builder, [*reversed(before), *between, *behind])


def _append(builder: ChangesBuilder, rows: Sequence[_Row]) -> None:
    for timestamp, number, item_id, removed in rows:
        builder.event(number, item_id, timestamp, removed)
    builder.end_slice()
