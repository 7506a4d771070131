"""Outcomes of recommendations in SQLite: columns of the events, and sums that each write keeps up to date.

A report reads sums only, so it costs the same for a thousand events and for ten million.

slots         what made answers, by number
counts        sums by day of the answer, slot, position, source and whether the item was new
trials        sums and sums of squares over the users of a variant; `last_day` is that of its newest answer
trial_users   the counts of each user, which the sums of squares are made of
"""

from __future__ import annotations

import secrets
import sqlite3

from index.catalogue.histories import Event
from index.catalogue.outcomes import (
    DAY,
    MAX_POSITION,
    MOMENTS,
    Attribution,
    Counts,
    CountsRow,
    Dimension,
    Moments,
    Slot,
    Trial,
    added,
)

_SUMS = ", ".join(Counts._fields)
_TABLES = (
    *(
        f"ALTER TABLE events ADD COLUMN {column}"
        for column in ("recommendation BLOB", "slot INTEGER", "position INTEGER", "source TEXT", "cold INTEGER")
    ),
    "CREATE INDEX by_recommendation ON events (recommendation, item_id, user_id, type) "
    "WHERE recommendation IS NOT NULL",
    "CREATE TABLE slots (slot INTEGER PRIMARY KEY, placement TEXT, version INTEGER, experiment TEXT, variant TEXT, "
    "model TEXT, snapshot TEXT, UNIQUE (placement, version, experiment, variant, model, snapshot))",
    f"CREATE TABLE counts (day INTEGER, slot INTEGER, position INTEGER, source TEXT, cold INTEGER, {_SUMS}, "
    "PRIMARY KEY (day, slot, position, source, cold)) WITHOUT ROWID",
    f"CREATE TABLE trials (trial INTEGER PRIMARY KEY, placement TEXT, experiment TEXT, variant TEXT, last_day INTEGER, "
    f"{', '.join(f'{name} NOT NULL DEFAULT 0' for name in MOMENTS)}, UNIQUE (placement, experiment, variant))",
    f"CREATE TABLE trial_users (user_id TEXT, trial INTEGER, {_SUMS}, PRIMARY KEY (user_id, trial)) WITHOUT ROWID",
)
ATTRIBUTED = "events LEFT JOIN slots USING (slot)"
"""Where `ATTRIBUTION` is read from."""
ATTRIBUTION = (
    "recommendation, placement, version, experiment, variant, model, snapshot, position, source, cold, propensity"
)
_Group = tuple[int, int, int, str, int]  # day, slot, position, source, cold


def add_outcomes(connection: sqlite3.Connection) -> None:
    """The tables, and the secret that recommendation ids are signed with."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO log VALUES ('secret', ?)", (secrets.token_bytes(32),))


def add_propensity(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE events ADD COLUMN propensity REAL")


def read_secret(connection: sqlite3.Connection) -> bytes:
    return bytes(connection.execute("SELECT value FROM log WHERE name = 'secret'").fetchone()[0])


def attribution(
    recommendation: bytes | None,
    placement: str,
    version: int,
    experiment: str,
    variant: str,
    model: str,
    snapshot: str,
    position: int,
    source: str,
    cold: int,
    propensity: float | None,
) -> Attribution | None:
    """From the columns of `ATTRIBUTION`."""
    if recommendation is None:
        return None
    slot = Slot(placement, version, experiment, variant, model, snapshot)
    return Attribution(recommendation, slot, position, source, bool(cold), propensity)


class OutcomeChanges:
    """Collects what a transaction changes of the sums. `write` at its end."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._slots: dict[Slot, int] = {}
        self._trials: dict[tuple[int, int], int | None] = {}
        self._counts: dict[_Group, Counts] = {}
        self._users: dict[tuple[int, str], Counts] = {}

    def insert(self, event: Event) -> bool:
        """Store an event; False if its id is known. One that repeats an outcome is stored, and counts no more."""
        of = event.attribution
        others = set() if of is None else self._types(event.user_id, of.recommendation, event.item_id)
        columns: tuple[object, ...] = (None,) * 6
        slot = 0
        if of is not None and event.type not in others:
            slot = self._slot(of.slot)
            place = (of.recommendation, slot, min(of.position, MAX_POSITION), of.source, int(of.cold))
            columns = (*place, of.propensity)
        new = self._connection.execute(
            "INSERT OR IGNORE INTO events (user_id, item_id, timestamp, event_id, type, value, recommendation, slot, "
            "position, source, cold, propensity) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (event.user_id, event.item_id, event.timestamp, event.event_id, event.type, event.value, *columns),
        ).rowcount
        if new and of is not None and slot:
            change = added(others, event.type, event.value)
            self._add((of.day, slot, min(of.position, MAX_POSITION), of.source, int(of.cold)), change)
            if of.slot.experiment:
                self._add_user(slot, of.day, event.user_id, change)
        return bool(new)

    def remove(self, user_id: str, event_id: str | None) -> None:
        """Take out what one event of a user counted, or all of them, before they are deleted."""
        rows = self._connection.execute(
            "SELECT recommendation, item_id, type, value, slot, position, source, cold FROM events "
            "WHERE user_id = ?1 AND recommendation IS NOT NULL AND (?2 IS NULL OR event_id = ?2)",
            (user_id, event_id),
        ).fetchall()
        left: dict[tuple[bytes, str], set[str]] = {}
        for recommendation, item_id, type, value, slot, position, source, cold in rows:
            key = recommendation, item_id
            if key not in left:
                left[key] = self._types(user_id, recommendation, item_id)
            left[key].discard(type)
            change = Counts().minus(added(left[key], type, value))
            day = int.from_bytes(recommendation[:4]) // DAY
            self._add((day, slot, position, source, cold), change)
            if event_id is not None:
                self._add_user(slot, day, user_id, change)

    def forget_user(self, user_id: str) -> None:
        """All that a user counted. Also of answers that were forgotten, of which there are only the user's sums."""
        self.remove(user_id, None)
        rows = self._connection.execute(
            f"SELECT trial, {_SUMS} FROM trial_users WHERE user_id = ?", (user_id,)
        ).fetchall()
        for trial, *counts in rows:
            self._users[trial, user_id] = Counts().minus(Counts(*counts))

    def write(self) -> None:
        changes = ", ".join(f"{name} = {name} + excluded.{name}" for name in Counts._fields)
        self._connection.executemany(
            f"INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {changes}",
            [(*group, *change) for group, change in self._counts.items()],
        )
        moments: dict[int, Moments] = {}
        for (trial, user_id), change in self._users.items():
            row = self._connection.execute(
                f"SELECT {_SUMS} FROM trial_users WHERE user_id = ? AND trial = ?", (user_id, trial)
            ).fetchone()
            before = Counts(*(row or ()))
            after = before.plus(change)
            if after.shown:
                self._connection.execute(
                    "INSERT OR REPLACE INTO trial_users VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (user_id, trial, *after)
                )
            else:
                self._connection.execute("DELETE FROM trial_users WHERE user_id = ? AND trial = ?", (user_id, trial))
            moments[trial] = moments.get(trial, Moments()).changed(before, after)
        for trial, sums in moments.items():
            self._connection.execute(
                f"UPDATE trials SET {', '.join(f'{name} = {name} + ?' for name in MOMENTS)} WHERE trial = ?",
                (*sums, trial),
            )

    def _add(self, group: _Group, change: Counts) -> None:
        self._counts[group] = self._counts.get(group, Counts()).plus(change)

    def _add_user(self, slot: int, day: int, user_id: str, change: Counts) -> None:
        if (slot, day) not in self._trials:
            self._trials[slot, day] = self._trial(slot, day)
        trial = self._trials[slot, day]
        if trial is not None:
            self._users[trial, user_id] = self._users.get((trial, user_id), Counts()).plus(change)

    def _types(self, user_id: str, recommendation: bytes, item_id: str) -> set[str]:
        rows = self._connection.execute(
            "SELECT type FROM events WHERE recommendation = ? AND item_id = ? AND user_id = ?",
            (recommendation, item_id, user_id),
        )
        return {type for (type,) in rows}

    def _slot(self, slot: Slot) -> int:
        found = self._slots.get(slot)
        if found is None:
            values = (slot.placement, slot.version, slot.experiment, slot.variant, slot.model, slot.snapshot)
            self._connection.execute(
                "INSERT OR IGNORE INTO slots (placement, version, experiment, variant, model, snapshot) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
            found = self._slots[slot] = self._connection.execute(
                "SELECT slot FROM slots WHERE (placement, version, experiment, variant, model, snapshot) "
                "= (?, ?, ?, ?, ?, ?)",
                values,
            ).fetchone()[0]
        return found

    def _trial(self, slot: int, day: int) -> int | None:
        row = self._connection.execute(
            "SELECT placement, experiment, variant FROM slots WHERE slot = ? AND experiment != ''", (slot,)
        ).fetchone()
        if row is None:
            return None
        return int(
            self._connection.execute(
                "INSERT INTO trials (placement, experiment, variant, last_day) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET last_day = max(last_day, excluded.last_day) RETURNING trial",
                (*row, day),
            ).fetchone()[0]
        )


def read_counts(connection: sqlite3.Connection, by: Dimension, since: int, until: int) -> list[CountsRow]:
    experiment = "experiment" if by == "variant" else "''"
    own = by if by in ("position", "source", "cold") else "0"
    sums = ", ".join(f"total({name}) AS {name}" for name in Counts._fields)
    # By number first: grouping by texts sorts all rows, which takes several times as long.
    rows = connection.execute(
        f"SELECT placement, {experiment}, {by}, {sums} FROM "
        f"(SELECT slot, {own} AS {by if own == by else 'own'}, {sums} FROM counts WHERE day BETWEEN ? AND ? "
        "GROUP BY 1, 2) JOIN slots USING (slot) GROUP BY 1, 2, 3 HAVING total(shown) > 0 ORDER BY 1, 2, 3",
        (since, until),
    )
    return [CountsRow(placement, of, key, Counts(*counts)) for placement, of, key, *counts in rows]


def read_trials(connection: sqlite3.Connection) -> list[Trial]:
    rows = connection.execute(
        f"SELECT placement, experiment, variant, {', '.join(MOMENTS)} FROM trials WHERE users > 0 ORDER BY 1, 2, 3"
    )
    return [Trial(placement, experiment, variant, Moments(*sums)) for placement, experiment, variant, *sums in rows]


def forget_some(connection: sqlite3.Connection, before: int, most: int) -> tuple[int, bool]:
    """Forget answers before a day, the oldest first: events of the type shown leave, others their attribution.

    -> how many events, and whether that was all. About `most` events: those of one answer are forgotten together. With
    the last ones the sums of these days leave.
    """
    first = (before * DAY).to_bytes(4)
    cut = connection.execute(
        "SELECT recommendation FROM events WHERE recommendation < ? ORDER BY recommendation LIMIT 1 OFFSET ?",
        (first, most - 1),
    ).fetchone()
    until = first if cut is None else bytes(cut[0]) + b"\0"  # the next larger one
    gone = connection.execute(
        "DELETE FROM events WHERE recommendation < ? AND type = 'shown' "
        "AND type IN (SELECT type FROM types WHERE kind = 'shown')",
        (until,),
    ).rowcount
    gone += connection.execute(
        "UPDATE events SET recommendation = NULL, slot = NULL, position = NULL, source = NULL, cold = NULL, "
        "propensity = NULL WHERE recommendation < ?",
        (until,),
    ).rowcount
    if cut is not None:
        return gone, False
    connection.execute("DELETE FROM counts WHERE day < ?", (before,))
    connection.execute(
        "DELETE FROM trial_users WHERE trial IN (SELECT trial FROM trials WHERE last_day < ?)", (before,)
    )
    connection.execute("DELETE FROM trials WHERE last_day < ?", (before,))
    connection.execute("DELETE FROM slots WHERE slot NOT IN (SELECT slot FROM counts)")
    return gone, True
