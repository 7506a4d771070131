"""Interactions of a file into the log of events: each is stored once, however often its file is imported."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.catalogue.batches import batches
from index.catalogue.histories import Event, HistoryStore
from seqrec.data.items import Interactions, Timestamps

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 5000
"""In one transaction or script; others wait for it, some 50 ms."""

_UNITS = (
    ("seconds", 1.0, 1e11),
    ("milliseconds", 1e3, 1e14),
    ("microseconds", 1e6, 1e17),
    ("nanoseconds", 1e9, np.inf),
)
"""Since 1970, and from where on a number cannot be meant so: 1e11 seconds are in the year 5138."""

_ID_BYTES = 12


@dataclass(frozen=True)
class ImportedEvents:
    new: int
    known: int  # stored by an import before
    unit: str  # in which the timestamps were taken to be


def import_interactions(
    store: HistoryStore,
    interactions: Interactions,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ImportedEvents:
    """Store interactions as events of their users. `progress` gets how many are done, and of how many.

    Each gets an event id made of its user, item, time, type, and which of several such rows it is: rows that were
    imported before, perhaps from a shorter file, are not stored again, and an import that was broken off goes on.
    Timestamps become Unix seconds. Events that were posted to the service with other ids are other events.
    """
    unit, seconds = unix_seconds(interactions.timestamps)
    if unit != "seconds":
        log.info("the timestamps are taken to be %s", unit)
    newest = float(seconds.max(initial=0))
    if newest > time.time() + 86_400:
        log.warning(
            "the newest event is of %.0f, which is in the future: what users do now will count as older", newest
        )
    new = done = 0
    for batch in batches(_events(interactions, seconds), EVENTS_AT_ONCE):
        new += store.add(batch)
        done += len(batch)
        progress(done, len(interactions))
    return ImportedEvents(new, done - new, unit)


def unix_seconds(timestamps: Timestamps) -> tuple[str, npt.NDArray[np.float64]]:
    """What unit numbers of this size are in, and the same in seconds."""
    largest = float(np.abs(timestamps).max(initial=0))
    unit, each = next((name, each) for name, each, end in _UNITS if largest < end or end == np.inf)
    return unit, np.asarray(timestamps, dtype=np.float64) / each


def _events(interactions: Interactions, seconds: npt.NDArray[np.float64]) -> Iterator[Event]:
    """User by user, each oldest first and equal times in file order: so the store writes each page of it once."""
    names = sorted(set(interactions.user_ids))
    place = {user_id: number for number, user_id in enumerate(names)}
    users = np.array([place[user_id] for user_id in interactions.user_ids], dtype=np.int64)
    last, repeats = -1, Counter[tuple[str, float, str]]()
    types, values = interactions.types, interactions.values
    for row in np.lexsort((seconds, users)).tolist():
        if users[row] != last:
            last = users[row]
            repeats.clear()
        user_id, item_id, when = interactions.user_ids[row], interactions.item_ids[row], float(seconds[row])
        type, value = "" if types is None else types[row], None if values is None else values[row]
        repeats[item_id, when, type] += 1
        event_id = _event_id(user_id, item_id, when, repeats[item_id, when, type], type)
        yield Event(user_id, item_id, when, event_id, type, value)


def _event_id(user_id: str, item_id: str, when: float, occurrence: int, type: str) -> str:
    parts = [user_id, item_id, repr(when), str(occurrence), *([type] if type else ())]
    text = "\n".join(parts).encode()
    return base64.urlsafe_b64encode(hashlib.blake2b(text, digest_size=_ID_BYTES).digest()).decode()
