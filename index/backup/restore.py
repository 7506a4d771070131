"""Restores a dump into a catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import IO

from index.backup.dump import Contents, DumpedItem, DumpedPlacement, Progress, equal_entries, read_dump
from index.catalogue.base import Catalogue
from index.catalogue.batches import batches
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
    popularity: dict[str, float] = field(default_factory=dict)  # events of each item that the dump only counts


def restore(
    file: IO[bytes],
    name: Path,
    contents: Contents,
    catalogue: Catalogue,
    histories: HistoryStore,
    merge: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Restored:
    """Write the items and events of a dump, 1,000 at a time. `contents`: the result of `check_dump`.

    With `merge`, items of the dump replace stored ones with the same id, others stay, and nothing that is stored
    already is written again, so an interrupted restore can be continued. Without it, raises CatalogueError if there are
    items or events already.
    """
    if not merge:
        if catalogue.count():
            raise CatalogueError(
                f"catalogue {catalogue.catalogue_id} already has {catalogue.count():,} items; --merge adds those "
                "of the dump"
            )
        if contents.events and next(histories.scan(), None) is not None:
            raise CatalogueError("there are already events of users; --merge adds those of the dump")
    restored = Restored(contents)
    if contents.event_types is not None and contents.event_types != histories.types():
        histories.set_types(contents.event_types)
    for kind, parts in groupby(read_dump(file, name), key=type):
        if kind is DumpedPlacement:
            _restore_placements(catalogue, (part for part in parts if isinstance(part, DumpedPlacement)))
        elif kind is Event:
            events = (part for part in parts if isinstance(part, Event))
            restored = replace(restored, events=_restore_events(histories, events, contents, progress))
        else:
            items = (part for part in parts if isinstance(part, DumpedItem))
            restored = _restore_items(catalogue, items, restored, progress)
    return restored


def _restore_placements(catalogue: Catalogue, placements: Iterable[DumpedPlacement]) -> None:
    stored = catalogue.placements()
    for placement in placements:
        if placement.name not in stored or stored[placement.name].rules != placement.rules:
            catalogue.set_placement(placement.name, placement.rules)


def _restore_items(
    catalogue: Catalogue, items: Iterable[DumpedItem], restored: Restored, progress: Progress
) -> Restored:
    done = 0
    counts: dict[str, float] = {}
    for dumped in batches(items):
        counts |= {part.entry.item.item_id: part.popularity for part in dumped if part.popularity}
        batch = [part.entry for part in dumped]
        stored = catalogue.get_many([entry.item.item_id for entry in batch])
        fresh = [
            entry
            for entry in batch
            if entry.item.item_id not in stored or not equal_entries(stored[entry.item.item_id][1], entry)
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
    return replace(restored, popularity=counts)


def _restore_events(histories: HistoryStore, events: Iterable[Event], contents: Contents, progress: Progress) -> int:
    new = done = 0
    for users in batches((list(theirs) for _, theirs in groupby(events, key=lambda event: event.user_id)), _USERS):
        for some in batches(event for theirs in users for event in _missing(histories, theirs)):
            new += histories.add(some)
        done += sum(map(len, users))
        progress("events", done, contents.events)
    return new


def _missing(histories: HistoryStore, events: Sequence[Event]) -> list[Event]:
    """The user's events that are not stored yet. Events without an id are compared by all their fields."""
    stored = Counter(event for _, event in histories.stored(events[0].user_id, 2**31))
    missing = []
    for event in events:
        if stored[event]:
            stored[event] -= 1
        else:
            missing.append(event)
    return missing
