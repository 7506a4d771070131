"""What users did: events kept by user, so that a request need only name the user."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from seqrec.data.items import check_item_id
from seqrec.errors import InputError


@dataclass(frozen=True, slots=True)
class Event:
    """A user had an item. `timestamp` in Unix seconds. The same `event_id` of the same user is stored once.

    Make it with `make_event`, which checks.
    """

    user_id: str
    item_id: str
    timestamp: float
    event_id: str | None = None


def make_event(user_id: object, item_id: object, timestamp: object, event_id: object = None, field: str = "") -> Event:
    """A checked Event: ids are strings like an item's id. `field` is put before names of fields. Raises InputError."""
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not math.isfinite(timestamp):
        raise InputError(f"a timestamp is a number of Unix seconds, not {timestamp!r}", f"{field}timestamp")
    return Event(
        check_item_id(user_id, f"{field}user_id"),
        check_item_id(item_id, f"{field}item_id"),
        float(timestamp),
        None if event_id is None else check_item_id(event_id, f"{field}event_id"),
    )


class HistoryStore(Protocol):
    """Safe to use from several threads and processes at once. Raises CatalogueError where it cannot be used."""

    durability_warnings: Sequence[str]
    """What it promises less than it should, in words; empty where it promises all."""

    def add(self, events: Sequence[Event]) -> int:
        """One atomic batch, durable on return; how many were new (an `event_id` that is there already is not)."""
        ...

    def recent(self, user_id: str, limit: int) -> list[Event]:
        """The user's newest events by time, oldest first; of equal times, what came first is first."""
        ...

    def seen(self, user_id: str) -> frozenset[str]:
        """Ids of all items that the user ever had."""
        ...

    def delete(self, user_id: str) -> int:
        """Remove everything about the user, durably; how many events that were."""
        ...

    def scan(self) -> Iterator[Event]:
        """All events, user by user, each user's as `recent` has them. Not one view: users come and go meanwhile."""
        ...

    def close(self) -> None:
        """Give back files and connections. The store is not used after it."""
        ...
