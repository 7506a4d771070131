"""What users did: events kept by user, so that a request need only name the user, and as a log that is followed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from index.catalogue.event_types import EventTypes
from seqrec.data.items import check_event_type, check_item_id, check_user_id
from seqrec.errors import InputError
from seqrec.hybrid.event_counts import EventChanges


@dataclass(frozen=True, slots=True)
class Event:
    """A user had an item. `timestamp` in Unix seconds. The same `event_id` of the same user is stored once.

    `type`: what the user did, such as view or purchase; "": not known. `value`: a number of the caller's, such as a
    price or a rating; stored and given back. Make it with `make_event`, which checks.
    """

    user_id: str
    item_id: str
    timestamp: float
    event_id: str | None = None
    type: str = ""
    value: float | None = None


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
) -> Event:
    """A checked Event: ids are strings like an item's id. `field` is put before names of fields. Raises InputError."""
    if not _is_number(timestamp):
        raise InputError(f"a timestamp is a number of Unix seconds, not {timestamp!r}", f"{field}timestamp")
    if value is not None and not _is_number(value):
        raise InputError(f"a value is a finite number, not {value!r}", f"{field}value")
    return Event(
        check_user_id(user_id, f"{field}user_id"),
        check_item_id(item_id, f"{field}item_id"),
        float(timestamp),  # type: ignore[arg-type]
        None if event_id is None else check_item_id(event_id, f"{field}event_id"),
        "" if type is None else check_event_type(type, f"{field}type"),
        None if value is None else float(value),  # type: ignore[arg-type]
    )


def event_record(event: Event) -> dict[str, Any]:
    """The event as JSON, without what it does not have."""
    record: dict[str, Any] = {"user_id": event.user_id, "item_id": event.item_id, "timestamp": event.timestamp}
    record |= {} if event.event_id is None else {"event_id": event.event_id}
    record |= {"type": event.type} if event.type else {}
    return record | ({} if event.value is None else {"value": event.value})


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


class HistoryStore(Protocol):
    """Events by user, and the log of all of them that counts follow.

    Each event, and each removal of events, gets the next number of the log. Counts as of a number are those of all
    events up to it that were not removed up to it; `event_changes` leads from one number to a later one. What is
    removed is unnamed at once: its items and times stay until `compact_events`, for followers to take them out.

    Safe to use from several threads and processes at once. Raises CatalogueError where it cannot be used.
    """

    durability_warnings: Sequence[str]
    """What it promises less than it should, in words; empty where it promises all."""

    log_id: str
    """A random name made with the log. Numbers of a log mean nothing in another one."""

    def add(self, events: Sequence[Event]) -> int:
        """One atomic batch, durable on return; how many were new (an `event_id` that is there already is not)."""
        ...

    def types(self) -> EventTypes:
        """Which types of events make history and count. Read anew at each call: any process may have changed it."""
        ...

    def set_types(self, types: EventTypes) -> None:
        """Change that, durably. All counts begin anew: `event_changes` raises LogTruncated once to each follower."""
        ...

    def recent(self, user_id: str, limit: int) -> list[Event]:
        """The user's newest events that make history, by time, oldest first; of equal times, the first one first."""
        ...

    def negative(self, user_id: str) -> frozenset[str]:
        """Ids of the items of the user's negative events."""
        ...

    def stored(self, user_id: str, limit: int, before: tuple[float, int] | None = None) -> list[StoredEvent]:
        """All events of the user, of any type, newest first; those before a time and number, if given."""
        ...

    def delete(self, user_id: str) -> int:
        """Remove everything about the user, durably; how many events that were."""
        ...

    def remove(self, user_id: str, event_id: str) -> bool:
        """Take one event back, durably; False if there is none of this id."""
        ...

    def scan(self) -> Iterator[Event]:
        """All events, user by user, each user's as `recent` has them. Not one view: users come and go meanwhile."""
        ...

    def events_head(self) -> int:
        """The last number of the log. Raises CatalogueReplaced where it is another log, or an older state of it."""
        ...

    def event_changes(self, after: int, limit: int, window: int) -> EventChanges:
        """What changes counts as of `after` into counts as of `after + limit`, or of the head if that comes first.

        Each user with changes has a slice around them with `window` events (if there are so many) on either side.
        Read at one moment, in O(window) for a new newest event, however many the user has. Raises LogTruncated where
        `after` is before what was compacted: `event_sequences` leads on; CatalogueReplaced as `events_head`.
        """
        ...

    def event_sequences(self) -> EventChanges:
        """The whole sequence of every user, as of one number: what counts that begin from nothing are made of."""
        ...

    def compact_events(self, through: int) -> None:
        """Forget what was removed up to this number. All kept snapshots must have counted the log up to it."""
        ...

    def close(self) -> None:
        """Give back files and connections. The store is not used after it."""
        ...


NEVER = 2**63 - 1
"""The number at which an event was removed, of one that was not."""


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
        return EventChanges(
            self._after,
            self._seq,
            self._items,
            np.array(self._offsets, dtype=np.int64),
            np.array(self._timestamps, dtype=np.float64),
            (numbers <= self._after) & (removed > self._after),
            (numbers <= self._seq) & (removed > self._seq),
            np.array(self._weights, dtype=np.float64),
        )
