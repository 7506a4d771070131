"""What a dump holds, into a catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO

from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.batches import batches
from index.catalogue.dump import Contents, Progress, equal_entries, read_dump
from index.catalogue.histories import Event, HistoryStore
from seqrec.errors import CatalogueError

_USERS = 100  # whose events are written together


@dataclass(frozen=True)
class Restored:
    contents: Contents
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    events: int = 0  # new ones


def restore(
    file: IO[bytes],
    name: Path,
    contents: Contents,
    catalogue: Catalogue,
    histories: HistoryStore,
    merge: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Restored:
    """Write what a dump holds, 1,000 items at a time. `contents` is what `check_dump` says of the file.

    With `merge`, items of the dump replace those of the same id, others stay, and what is there already is not written
    again: so a restore that was broken off goes on. Raises CatalogueError where there are items or events already and
    `merge` is not said.
    """
    if not merge:
        if catalogue.count():
            raise CatalogueError(
                f"there are {catalogue.count():,} items in catalogue {catalogue.catalogue_id} already; --merge puts "
                "those of the dump among them"
            )
        if contents.events and next(histories.scan(), None) is not None:
            raise CatalogueError("there are histories of users already; --merge puts those of the dump among them")
    restored = Restored(contents)
    for are_events, parts in groupby(read_dump(file, name), key=lambda part: isinstance(part, Event)):
        if are_events:
            events = (part for part in parts if isinstance(part, Event))
            restored = replace(restored, events=_restore_events(histories, events, contents, progress))
        else:
            items = (part for part in parts if isinstance(part, CatalogueItem))
            restored = _restore_items(catalogue, items, restored, progress)
    return restored


def _restore_items(
    catalogue: Catalogue, items: Iterable[CatalogueItem], restored: Restored, progress: Progress
) -> Restored:
    done = 0
    for batch in batches(items):
        there = catalogue.get_many([entry.item.item_id for entry in batch])
        fresh = [
            entry
            for entry in batch
            if entry.item.item_id not in there or not equal_entries(there[entry.item.item_id][1], entry)
        ]
        result = catalogue.put(fresh)
        restored = replace(
            restored,
            created=restored.created + result.created,
            updated=restored.updated + result.updated,
            unchanged=restored.unchanged + len(batch) - len(fresh),
        )
        done += len(batch)
        progress("items", done, restored.contents.items)
    return restored


def _restore_events(histories: HistoryStore, events: Iterable[Event], contents: Contents, progress: Progress) -> int:
    new = done = 0
    for users in batches((list(theirs) for _, theirs in groupby(events, key=lambda event: event.user_id)), _USERS):
        for some in batches(event for theirs in users for event in _missing(histories, theirs)):
            new += histories.add(some)
        done += sum(map(len, users))
        progress("events", done, contents.events)
    return new


def _missing(histories: HistoryStore, events: Sequence[Event]) -> list[Event]:
    """A user's events without those that are there already: an event without an id is known by all it says."""
    there = Counter(histories.recent(events[0].user_id, 2**31))
    missing = []
    for event in events:
        if there[event]:
            there[event] -= 1
        else:
            missing.append(event)
    return missing
