"""Counts of events and pairs by item id that follow a log of events: an immutable base, and the changes since.

The base may be memory-mapped and shared by processes. Changes are kept as levels: sorted arrays, each much larger than
the next, which are merged as new ones arrive. Nothing is changed in place, so a reader takes the current arrays and
needs no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from seqrec.errors import CatalogueError
from seqrec.hybrid.cooccurrence import (
    Blocks,
    Changes,
    CooccurrenceSettings,
    Floats,
    Rows,
    count,
    pair_keys,
    slice_changes,
    sum_by_key,
)
from seqrec.hybrid.event_times import EventTimes

Columns = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

PAIR_BYTES = 16
"""Memory of a pair that changed since the base: a key and a value."""
LEVEL_RATIO = 4
"""A level is merged into the one below unless that is so many times larger: each number moves log4 n times."""


@dataclass(frozen=True, eq=False)
class BaseCounts:
    """Counts over items 0 to n - 1 as of `seq` of an events' log; pairs as compressed sparse rows."""

    item_ids: Sequence[str]  # [n], ascending
    events: Floats  # [n]
    offsets: Rows  # [n + 1]
    columns: Columns  # [pairs]
    values: Floats  # [pairs]
    seq: int = 0
    log_id: str = ""
    """The log that was counted; `seq` is a number of this log only."""
    times: EventTimes | None = None
    """Of each event; None in snapshots of versions that did not store them."""

    @classmethod
    def empty(cls, log_id: str = "") -> BaseCounts:
        none = np.zeros(0)
        return cls([], none, np.zeros(1, np.int64), np.zeros(0, np.int32), none, 0, log_id, EventTimes.empty())


@dataclass(frozen=True, eq=False)
class EventChanges:
    """The difference between the counts of a log as of `after` and as of `seq`: slices of users' sequences.

    Slice u, oldest first, is [offsets[u]:offsets[u + 1]] of the columns. Events marked `before` count as of
    `after`, those marked `now` as of `seq`. Slices do not name their users.
    """

    after: int
    seq: int
    items: Sequence[str]  # [m], ids
    offsets: Rows  # [u + 1]
    timestamps: Floats  # [m]
    before: Flags  # [m]
    now: Flags  # [m]
    weights: Floats  # [m], how often each event counts


@dataclass(frozen=True, eq=False)
class HistoryCounts:
    """The counts that a score of one history reads: a row of pairs for each of its items, and events of all items.

    With a half-life, both are scaled (`CooccurrenceSettings.scale`). A row may contain a column several times; its
    values are to be summed.
    """

    events: Floats  # [n], of one moment; not to be changed
    rows: Sequence[tuple[Columns, Floats]]


@dataclass(frozen=True, eq=False)
class _Level:
    """Numbers to add to pairs: keys of `pair_keys`, ascending, each once."""

    keys: Rows
    values: Floats

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def sum_of(cls, levels: Sequence[_Level]) -> _Level:
        keys, values = [level.keys for level in levels], [level.values for level in levels]
        return cls(*sum_by_key(np.concatenate(keys), np.concatenate(values)))


@dataclass(frozen=True, eq=False)
class _State:
    seq: int
    stored: Floats  # [n] events
    scale: float
    events: Floats  # [n] scaled
    levels: Sequence[_Level] = field(default=())  # the largest, oldest first
    times: Sequence[EventTimes] = field(default=())  # the same of times


class EventCounts:
    """One writer at a time; any number of readers, at any time.

    `settings` None: events are counted, pairs are not.
    """

    def __init__(self, settings: CooccurrenceSettings | None, base: BaseCounts | None = None) -> None:
        self.settings = settings
        self._base = BaseCounts.empty() if base is None else base
        self.log_id = self._base.log_id
        self._known = len(self._base.item_ids)
        self._more_ids: list[str] = []
        self._id_of: dict[str, int] = {}  # of items of the base too, once they were looked up
        stored = np.array(self._base.events, dtype=np.float64)
        scale = self._scale(stored)
        self._state = _State(self._base.seq, stored, scale, _scaled(stored, scale))

    def __len__(self) -> int:
        return len(self._state.events)

    @property
    def seq(self) -> int:
        """The last number of the log that is counted."""
        return self._state.seq

    @property
    def window(self) -> int:
        """How many events on either side of a changed one determine the changes of counts."""
        return 0 if self.settings is None else self.settings.window

    def id_of(self, item_id: str) -> int | None:
        """The item's number here; None for one without any event."""
        number = self._find(item_id)
        return None if number is None or number >= len(self) else number

    @property
    def known_ids(self) -> Sequence[str]:
        """Of the numbers from 0 on, rising: all that the base has. Those after it have the order of their events."""
        return self._base.item_ids

    def item_id(self, number: int) -> str:
        return self._base.item_ids[number] if number < self._known else self._more_ids[number - self._known]

    @property
    def events(self) -> Floats:
        """[n] Events of each item, as of `seq`, as they are read: never changed in place."""
        return self._state.events

    def events_of(self, item_id: str) -> float:
        number = self.id_of(item_id)
        return 0.0 if number is None else float(self._state.events[number])

    def since(self, time: float) -> Floats:
        """[n] Events of each item from `time` on (Unix seconds), those after now too."""
        state = self._state
        return sum((part.since(time, len(state.events)) for part in self._times(state)), np.zeros(len(state.events)))

    def before(self, time: float) -> Floats:
        """[n] Events of each item before `time` (Unix seconds), as whole ones, whatever the half-life."""
        state = self._state
        return sum((part.before(time, len(state.events)) for part in self._times(state)), np.zeros(len(state.events)))

    def newest(self, time: float) -> float | None:
        """When the newest event up to `time` happened (Unix seconds), perhaps one that was taken back since."""
        newest = [part.newest(time) for part in self._times(self._state)]
        return max((one for one in newest if one is not None), default=None)

    def read(self, numbers: Sequence[int]) -> HistoryCounts:
        """The counts for a history of these items, of one moment."""
        state = self._state
        parts = [[self._base_row(number)] for number in numbers]
        begins = np.array(numbers, dtype=np.int64) << 32
        for level in state.levels:
            bounds = np.searchsorted(level.keys, np.concatenate([begins, begins + (1 << 32)])).tolist()
            for own, begin, end in zip(parts, bounds[: len(numbers)], bounds[len(numbers) :], strict=True):
                if end > begin:
                    own.append((_columns(level.keys[begin:end]), level.values[begin:end]))
        return HistoryCounts(state.events, [_row(own, state.scale) for own in parts])

    def apply(self, changes: EventChanges) -> Sequence[str]:
        """Bring the counts from `changes.after`, which must be `self.seq`, to `changes.seq`; ids that are new here."""
        state = self._state
        if changes.after != state.seq:
            raise CatalogueError(f"events after {changes.after} cannot be added to counts as of {state.seq}")
        first_new = len(self._more_ids)
        rows = self._numbers(changes.items)
        found = self._changes(rows, changes)
        stored = np.zeros(self._known + len(self._more_ids))
        stored[: len(state.stored)] = state.stored
        stored[found.events] += found.event_values
        scale = self._scale(stored)
        new = _Level(pair_keys(found.sources, found.targets), found.values)
        times = _times_of(rows, changes)
        self._state = _State(
            changes.seq,
            stored,
            scale,
            _scaled(stored, scale),
            _with_level(state.levels, new, _Level.sum_of),
            _with_level(state.times, times, EventTimes.sum_of),
        )
        return self._more_ids[first_new:]

    def compact(self) -> BaseCounts:
        """Everything as of now, items in the order of their ids: the base of a new snapshot."""
        state, base = self._state, self._base
        sources = np.repeat(np.arange(len(base.offsets) - 1), np.diff(base.offsets))
        keys, values = sum_by_key(
            np.concatenate([pair_keys(sources, base.columns), *(level.keys for level in state.levels)]),
            np.concatenate([base.values, *(level.values for level in state.levels)]),
        )
        times = None if base.times is None else EventTimes.sum_of([base.times, *state.times]).repeated()
        used = state.stored != 0
        used[keys >> 32] = True
        if times is not None:  # events that have faded to 0 still have a time
            used[times.items] = True
        order = sorted(np.flatnonzero(used).tolist(), key=self.item_id)
        place = np.zeros(len(used), np.int64)
        place[order] = np.arange(len(order))
        moved = pair_keys(place[keys >> 32], place[_columns(keys)])
        sort = np.argsort(moved)
        return BaseCounts(
            [self.item_id(number) for number in order],
            state.stored[order],
            np.searchsorted(moved[sort], np.arange(len(order) + 1, dtype=np.int64) << 32),
            _columns(moved[sort]),
            values[sort],
            state.seq,
            self.log_id,
            None if times is None else EventTimes.of(times.times, place[times.items]),
        )

    @property
    def changed_pairs(self) -> int:
        """Numbers of pairs held in memory on top of the base, of `PAIR_BYTES` each."""
        return sum(map(len, self._state.levels))

    def _times(self, state: _State) -> Sequence[EventTimes]:
        base = () if self._base.times is None else (self._base.times,)
        return (*base, *state.times)

    def _scale(self, stored: Floats) -> float:
        return 1.0 if self.settings is None else self.settings.scale(float(stored.sum()))

    def _base_row(self, number: int) -> tuple[Columns, Floats]:
        if number >= len(self._base.offsets) - 1:
            return _EMPTY
        begin, end = self._base.offsets[number], self._base.offsets[number + 1]
        return self._base.columns[begin:end], self._base.values[begin:end]

    def _changes(self, rows: Rows, changes: EventChanges) -> Changes:
        if self.settings is not None:
            times, weights = changes.timestamps, changes.weights
            return slice_changes(self.settings, rows, changes.offsets, changes.before, changes.now, times, weights)
        none = np.zeros(0, np.int64)
        signs = changes.now.astype(np.float64) - changes.before
        return Changes(none, none, np.zeros(0), rows, signs * changes.weights).summed()

    def _numbers(self, item_ids: Sequence[str]) -> Rows:
        """[m] Of items; those that are new get the next ones."""
        get = self._id_of.get
        numbers = np.array([get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        for at in np.flatnonzero(numbers < 0).tolist():
            item_id = item_ids[at]
            number = self._find(item_id)
            if number is None:
                number = self._known + len(self._more_ids)
                self._more_ids.append(item_id)
            self._id_of[item_id] = numbers[at] = number
        return numbers

    def _find(self, item_id: str) -> int | None:
        known = self._id_of.get(item_id)
        if known is not None:
            return known
        ids = self._base.item_ids
        place = bisect_left(ids, item_id)
        return place if place < len(ids) and ids[place] == item_id else None


def count_sequences(
    settings: CooccurrenceSettings | None, log_id: str, sequences: EventChanges, compute: Blocks | None = None
) -> BaseCounts:
    """Count from scratch: `sequences` are all there are, whole. Equal to `EventCounts.apply`, in less time.

    compute: as in `cooccurrence.count`.
    """
    item_ids = sorted(set(sequences.items))
    number = {item_id: place for place, item_id in enumerate(item_ids)}
    rows = np.array([number[item_id] for item_id in sequences.items], dtype=np.int64)
    times = EventTimes.of(sequences.timestamps, rows)
    if settings is None:
        none = BaseCounts.empty(log_id)
        events = np.bincount(rows, sequences.weights, len(item_ids)).astype(np.float64)
        offsets = np.zeros(len(item_ids) + 1, np.int64)
        return BaseCounts(item_ids, events, offsets, none.columns, none.values, sequences.seq, log_id, times)
    counts = count(settings, rows, sequences.offsets, len(item_ids), sequences.timestamps, sequences.weights, compute)
    pairs = counts.pairs
    return BaseCounts(
        item_ids,
        counts.events,
        pairs.indptr.astype(np.int64),
        pairs.indices.astype(np.int32),
        pairs.data,
        sequences.seq,
        log_id,
        times,
    )


Level = TypeVar("Level", bound=Sized)


def _with_level(levels: Sequence[Level], new: Level, sum_of: Callable[[Sequence[Level]], Level]) -> Sequence[Level]:
    kept = list(levels)
    while kept and len(kept[-1]) < LEVEL_RATIO * len(new):
        new = sum_of([kept.pop(), new])
    return [*kept, new] if len(new) else kept


def _times_of(rows: Rows, changes: EventChanges) -> EventTimes:
    changed = np.flatnonzero(changes.before != changes.now)
    signs = np.where(changes.now[changed], 1.0, -1.0)
    return EventTimes.of(changes.timestamps[changed], rows[changed], signs)


def _columns(keys: Rows) -> Columns:
    """The targets of pairs, in their keys' lower half."""
    return keys.astype(np.int32)


def _row(parts: Sequence[tuple[Columns, Floats]], scale: float) -> tuple[Columns, Floats]:
    columns, values = parts[0]
    if len(parts) > 1:
        columns = np.concatenate([columns for columns, _ in parts])
        values = np.concatenate([values for _, values in parts])
    return columns, _scaled(values, scale)


def _scaled(values: Floats, scale: float) -> Floats:
    return values if scale == 1.0 else values * scale


_EMPTY: tuple[Columns, Floats] = (np.zeros(0, np.int32), np.zeros(0))
