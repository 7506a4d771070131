"""The store of users' events: histories by user, and a log of all events that counts follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from index.catalogue.event_types import EventTypes
from index.catalogue.outcomes import Attribution, CountsRow, Dimension, Trial, attribution_record
from seqrec.data.items import check_event_type, check_item_id, check_user_id
from seqrec.data.sessions import Places, merge_equal, session_numbers
from seqrec.errors import InputError
from seqrec.hybrid.event_counts import EventChanges


@dataclass(frozen=True, slots=True)
class Event:
    """A user interacted with an item. `timestamp` in Unix seconds. An `event_id` is stored once per user.

    `type`: what the user did, such as view or purchase; "": not known. `value`: a number of the caller's, such as a
    price or a rating; stored and returned. `make_event` creates it with checks.
    """

    user_id: str
    item_id: str
    timestamp: float
    event_id: str | None = None
    type: str = ""
    value: float | None = None
    # The answer that the event is an outcome of. `scan` and `stored` return it, unless an event before had counted as
    # this outcome; `recent` does not.
    attribution: Attribution | None = field(default=None, compare=False)


@dataclass(frozen=True)
class EventDays:
    """How many users have events, and how many events there are by day (since 1970, in UTC) and type, oldest first."""

    users: int
    days: Sequence[tuple[int, str, int]]


class StoredEvent(NamedTuple):
    """An event, and its number in the log."""

    number: int
    event: Event


def make_event(
    user_id: object,
    item_id: object,
    timestamp: object,
    event_id: object = None,
    field: str = "",
    type: object = None,
    value: object = None,
    attribution: Attribution | None = None,
) -> Event:
    """A checked Event. `field` is prepended to the names of fields in errors. Raises InputError."""
    if not _is_number(timestamp):
        raise InputError(f"a timestamp is a number of Unix seconds, not {timestamp!r}", f"{field}timestamp")
    if value is not None and not _is_number(value):
        raise InputError(f"a value is a finite number, not {value!r}", f"{field}value")
    return Event(
        check_user_id(user_id, f"{field}user_id"),
        check_item_id(item_id, f"{field}item_id"),
        float(timestamp),  # type: ignore[arg-type]
        None if event_id is None else check_item_id(event_id, f"{field}event_id", "an event id"),
        "" if type is None else check_event_type(type, f"{field}type"),
        None if value is None else float(value),  # type: ignore[arg-type]
        attribution,
    )


def event_record(event: Event) -> dict[str, Any]:
    """The event as JSON, without empty fields."""
    record: dict[str, Any] = {"user_id": event.user_id, "item_id": event.item_id, "timestamp": event.timestamp}
    record |= {} if event.event_id is None else {"event_id": event.event_id}
    record |= {"type": event.type} if event.type else {}
    record |= {} if event.value is None else {"value": event.value}
    return record | ({} if event.attribution is None else {"attribution": attribution_record(event.attribution)})


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


class HistoryStore(Protocol):
    """Events by user, and a log of all events.

    Each event, and each removal of events, gets the next number of the log. Counts as of a number include all events up
    to it that were not removed up to it; `event_changes` leads from one number to a later one. A removal takes the
    user's name from the events immediately; their items and times remain until `compact_events`, so that followers can
    subtract them.

    Safe for concurrent use by threads and processes. Methods raise CatalogueError if it cannot be read or written.
    """

    durability_warnings: Sequence[str]
    """Guarantees of this contract that the store does not give, as sentences; normally empty."""

    log_id: str
    """Random, created with the log. Numbers of one log have no meaning in another."""

    secret: bytes
    """Random, created with the log: what ids of recommendations are signed with."""

    def add(self, events: Sequence[Event]) -> int:
        """Store one atomic batch, durable on return. -> how many were new: a known `event_id` is not stored again."""
        ...

    def types(self) -> EventTypes:
        """Which types of events make history and count. Read anew at each call: any process may have changed it."""
        ...

    def set_types(self, types: EventTypes) -> None:
        """Set them, durably. All counts restart: `event_changes` raises LogTruncated once to each follower."""
        ...

    def recent(self, user_id: str, limit: int) -> list[Event]:
        """The user's newest events that make history, by time, oldest first; of equal times, the first one first.

        With sessions, those that repeat an item within one are left out, and the first one has the strongest type.
        """
        ...

    def negative(self, user_id: str) -> frozenset[str]:
        """Ids of the items of the user's negative events."""
        ...

    def seen(self, user_id: str) -> frozenset[str]:
        """Ids of all items in the user's events that make history."""
        ...

    def stored(self, user_id: str, limit: int, before: tuple[float, int] | None = None) -> list[StoredEvent]:
        """All events of the user, of any type, newest first; those before a time and number, if given."""
        ...

    def delete(self, user_id: str) -> int:
        """Remove all events of the user, durably. -> how many there were."""
        ...

    def remove(self, user_id: str, event_id: str) -> bool:
        """Remove one event, durably. -> whether there was one with this id."""
        ...

    def sample(self, limit: int) -> list[str]:
        """At most `limit` different users, drawn at random but not uniformly; all if there are no more."""
        ...

    def beginning(self, prefix: str, limit: int) -> list[str]:
        """At most `limit` users whose ids begin so, sorted."""
        ...

    def days(self, item_id: str | None = None) -> EventDays:
        """The stored events of all types, or those of an item. It reads all events: some 500 ns for each."""
        ...

    def scan(self) -> Iterator[Event]:
        """All events, user by user, each user's as in `recent`. Not a consistent view: users may change meanwhile."""
        ...

    def events_head(self) -> int:
        """The last number of the log. Raises CatalogueReplaced if the log was replaced or an older state restored."""
        ...

    def event_changes(self, after: int, limit: int, window: int) -> EventChanges:
        """What turns counts as of `after` into counts as of `after + limit`, or as of the head if that comes first.

        Each user with changes has a slice around them, with `window` events (if there are that many) on either side. It
        is read as of one moment, in O(window) for a new newest event, independent of the user's number of events. With
        sessions, it has all of each session that it touches.
        Raises LogTruncated if the log was compacted past `after`: then start again with `event_sequences`. Raises
        CatalogueReplaced as `events_head` does.
        """
        ...

    def event_sequences(self) -> EventChanges:
        """The whole sequence of every user, as of one number: the input for counting from scratch."""
        ...

    def compact_events(self, through: int) -> None:
        """Forget removed events up to this number. Every kept snapshot must have counted the log up to it."""
        ...

    def outcomes(self, by: Dimension, since: int, until: int) -> list[CountsRow]:
        """Counts of the answers of these days (since 1970, both included), by placement and a dimension."""
        ...

    def trials(self) -> list[Trial]:
        """All variants of experiments, since each experiment began."""
        ...

    def forget_outcomes(self, before: int) -> int:
        """Forget answers before this day, and experiments without later ones, durably. -> how many events changed.

        Their events of the type shown are deleted, unless that type makes history; others remain as events alone.
        """
        ...

    def check(self) -> None:
        """As `Catalogue.check`."""
        ...

    def close(self) -> None:
        """Release files and connections; the store cannot be used afterwards."""
        ...


NEVER = 2**63 - 1
"""In place of the number of its removal, for an event that was not removed."""


class ChangesBuilder:
    """Collects slices of sequences between two numbers of the log. Events that make no history are left out."""

    def __init__(self, after: int, seq: int, types: EventTypes) -> None:
        self._after, self._seq, self._types = after, seq, types
        self._weights: list[float] = []
        self._items: list[str] = []
        self._numbers: list[int] = []
        self._removed: list[int] = []
        self._timestamps: list[float] = []
        self._offsets = [0]
        self._interned: dict[str, str] = {}  # a log repeats its ids: keep one copy of each

    def event(self, number: int, item_id: str, timestamp: float, removed: int = NEVER, type: str = "") -> None:
        """The next event of a slice. Those that are there neither before nor now are left out."""
        of = self._types.of(type)
        if of.kind != "history":
            return
        if number <= self._seq and removed > self._after and not (number > self._after and removed <= self._seq):
            self._items.append(self._interned.setdefault(item_id, item_id))
            self._numbers.append(number)
            self._timestamps.append(timestamp)
            self._removed.append(removed)
            self._weights.append(of.weight)

    def end_slice(self) -> None:
        if len(self._items) > self._offsets[-1]:
            self._offsets.append(len(self._items))

    def changes(self) -> EventChanges:
        numbers, removed = np.array(self._numbers, dtype=np.int64), np.array(self._removed, dtype=np.int64)
        changes = EventChanges(
            self._after,
            self._seq,
            self._items,
            np.array(self._offsets, dtype=np.int64),
            np.array(self._timestamps, dtype=np.float64),
            (numbers <= self._after) & (removed > self._after),
            (numbers <= self._seq) & (removed > self._seq),
            np.array(self._weights, dtype=np.float64),
        )
        gap = self._types.session_gap
        return changes if gap is None else _merged_changes(changes, gap)


def _merged_changes(changes: EventChanges, gap: float) -> EventChanges:
    """An item once in each session, before and now. What weighs something else now is there twice: as it was and is."""
    count = len(changes.items)
    slices = np.repeat(np.arange(len(changes.offsets) - 1), np.diff(changes.offsets))
    code: dict[str, int] = {}
    items = np.array([code.setdefault(item_id, len(code)) for item_id in changes.items], dtype=np.int64)

    def merged_among(there: Places) -> tuple[Places, Places]:
        sessions = session_numbers(slices[there], changes.timestamps[there], gap)
        keys = slices[there], items[there], sessions
        merged = merge_equal(keys, changes.timestamps[there], changes.weights[there])
        return there[merged.kept], there[merged.strongest]

    strongest = np.full((2, count), -1)
    for state, there in enumerate((changes.before, changes.now)):
        kept, source = merged_among(np.flatnonzero(there))
        strongest[state, kept] = source
    weights = np.where(strongest >= 0, changes.weights[strongest], 0.0) if count else np.zeros((2, 0))
    same = weights[0] == weights[1]
    before, now = strongest >= 0
    rows = np.concatenate([np.flatnonzero(before), np.flatnonzero(now & ~(before & same))])
    is_before = np.arange(len(rows)) < before.sum()
    order = np.argsort(rows, kind="stable")
    rows, is_before = rows[order], is_before[order]
    return EventChanges(
        changes.after,
        changes.seq,
        [changes.items[row] for row in rows.tolist()],
        np.searchsorted(rows, changes.offsets),
        changes.timestamps[rows],
        is_before,
        np.where(is_before, now[rows] & same[rows], True),
        weights[np.where(is_before, 0, 1), rows],
    )


Row = TypeVar("Row")


def whole_sessions(
    rows: Iterable[Row], of: Callable[[Row], tuple[float, str]], most: int, gap: float, near: float | None = None
) -> list[Row]:
    """Rows of one user, from a moment on or back, until whole sessions have `most` items. `of`: -> time, item.

    near: the time of an event whose session goes on; what belongs to that is taken and does not count.
    """
    found: list[Row] = []
    items: set[str] = set()
    count, counting, last = 0, near is None, near
    for row in rows:
        time, item_id = of(row)
        if last is not None and abs(time - last) > gap:
            if count >= most:
                break
            counting = True
            items.clear()
        if counting and item_id not in items:
            items.add(item_id)
            count += 1
        last = time
        found.append(row)
    return found


MOST_READ = 20_000
"""Events of a user that `recent` reads to find sessions, at most: a robot never pauses."""


def merged_history(newest_first: Iterable[Event], limit: int, types: EventTypes) -> list[Event]:
    """The newest `limit` events, oldest first, with an item once in each session."""
    gap = types.session_gap
    assert gap is not None
    rows = whole_sessions(
        islice(newest_first, max(MOST_READ, limit)), lambda event: (event.timestamp, event.item_id), limit, gap
    )[::-1]
    return merge_sessions(rows, types)[-limit:] if limit > 0 else []


def merge_sessions(events: Sequence[Event], types: EventTypes) -> list[Event]:
    """One user's events, oldest first, with an item once in each session: the first one, of the strongest type."""
    gap = types.session_gap
    if gap is None:
        return list(events)
    code: dict[str, int] = {}
    items = np.array([code.setdefault(event.item_id, len(code)) for event in events], dtype=np.int64)
    weights = np.array([types.of(event.type).weight for event in events], dtype=np.float64)
    times = np.array([event.timestamp for event in events], dtype=np.float64)
    sessions = session_numbers(np.zeros(len(events), np.int64), times, gap)
    merged = merge_equal((items, sessions), times, weights)
    return [
        replace(events[kept], type=events[strongest].type)
        for kept, strongest in zip(merged.kept.tolist(), merged.strongest.tolist(), strict=True)
    ]
