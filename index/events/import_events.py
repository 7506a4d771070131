"""Imports interactions into the log of events. Each row is stored once, however often its file is imported."""

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
from seqrec.data.items import Interactions
from seqrec.data.timestamps import unix_seconds

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 5000
"""In one transaction or script; others wait for it, about 50 ms."""

_ID_BYTES = 12


@dataclass(frozen=True)
class ImportedEvents:
    new: int
    known: int  # stored by an earlier import
    unit: str  # that the timestamps were assumed to have


def import_interactions(
    store: HistoryStore,
    interactions: Interactions,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ImportedEvents:
    """Store interactions as events of their users. `progress` is called with the number done and the total.

    The id of an event is derived from user, item, time, type and the occurrence among equal rows. So rows that were
    imported before, perhaps from a shorter file, are not stored again, and an interrupted import can be repeated.
    Timestamps are converted to Unix seconds. Events that were posted with other ids are different events.
    """
    unit, seconds = unix_seconds(interactions.timestamps)
    if unit != "seconds":
        log.info("the timestamps are assumed to be %s", unit)
    newest = float(seconds.max(initial=0))
    if newest > time.time() + 86_400:
        log.warning("the newest event is at %.0f, in the future: present events will count as older", newest)
    new = done = 0
    for batch in batches(_events(interactions, seconds), EVENTS_AT_ONCE):
        new += store.add(batch)
        done += len(batch)
        progress(done, len(interactions))
    return ImportedEvents(new, done - new, unit)


def _events(interactions: Interactions, seconds: npt.NDArray[np.float64]) -> Iterator[Event]:
    """By user, then time; equal times in file order. So the store writes each of its pages once."""
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
