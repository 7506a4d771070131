"""Counts of events and pairs by item id that follow a log of events: an immutable base, and the changes since.

The base may be memory-mapped and shared by processes. A row of pairs that changes is replaced by a new one. Readers
take all rows of a history at once, so they see one state, and nothing they hold changes afterwards.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqrec.hybrid.cooccurrence import Changes, CooccurrenceSettings, Floats, Rows, update_changes

Columns = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class BaseCounts:
    """Counts over items 0 to n - 1 as of `seq` of the events' log; rows of pairs in compressed form, columns rising."""

    item_ids: Sequence[str]  # [n], rising
    events: Floats  # [n]
    offsets: Rows  # [n + 1]
    columns: Columns  # [pairs]
    values: Floats  # [pairs]
    seq: int = 0

    @classmethod
    def empty(cls) -> BaseCounts:
        return cls([], np.zeros(0), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0), 0)


@dataclass(frozen=True, eq=False)
class HistoryCounts:
    """The counts that a score of one history reads: a row of pairs for each of its items, and events of all items."""

    events: Floats  # [n], of one moment; not to be changed
    rows: Sequence[tuple[Columns, Floats]]


@dataclass(frozen=True, slots=True)
class UserSlice:
    """A part of one user's sequence, oldest first: all that the change of counts depends on.

    items: ids [m]; numbers: int64 [m], where each event stands in the log; timestamps: float64 [m].
    """

    items: Sequence[str]
    numbers: Rows
    timestamps: Floats


class EventCounts:
    """One writer at a time; any number of readers, at any time.

    `settings` None: events are counted, pairs are not.
    """

    def __init__(self, settings: CooccurrenceSettings | None, base: BaseCounts | None = None) -> None:
        self.settings = settings
        self._base = BaseCounts.empty() if base is None else base
        self._known = len(self._base.item_ids)
        self._more_ids: list[str] = []
        self._id_of: dict[str, int] = {}
        self._rows: dict[int, tuple[Columns, Floats]] = {}
        self._events: Floats = np.array(self._base.events, dtype=np.float64)
        self._lock = threading.Lock()
        self.seq = self._base.seq
        """The last number of the log that is counted."""

    def __len__(self) -> int:
        return self._known + len(self._more_ids)

    def id_of(self, item_id: str) -> int | None:
        """The item's number here; None for one without any event."""
        known = self._id_of.get(item_id)
        if known is not None:
            return known
        ids = self._base.item_ids
        place = bisect_left(ids, item_id)
        return place if place < len(ids) and ids[place] == item_id else None

    def item_id(self, number: int) -> str:
        return self._base.item_ids[number] if number < self._known else self._more_ids[number - self._known]

    @property
    def events(self) -> Floats:
        """[n] Events of each item, as of `seq`: never changed in place."""
        return self._events

    def events_of(self, item_id: str) -> float:
        number = self.id_of(item_id)
        return 0.0 if number is None else float(self._events[number])

    def read(self, numbers: Sequence[int]) -> HistoryCounts:
        """The counts for a history of these items, of one moment."""
        with self._lock:
            events = self._events
            rows = [self._row(number) for number in numbers]
        return HistoryCounts(events, rows)

    def apply(self, users: Sequence[UserSlice], removed: Sequence[UserSlice], seq: int) -> Sequence[str]:
        """Bring the counts from `self.seq` to `seq`; the ids that are new here.

        users: of each user with new events, what surrounds them: counted are the pairs of the slice less those of its
        events up to `self.seq`. removed: whole sequences of users who left; what was counted of them is taken out.
        """
        before, known = self.seq, len(self)
        found = [self._change(user, user.numbers <= before, np.ones(len(user.numbers), np.bool_)) for user in users]
        found += [self._change(user, user.numbers <= before, np.zeros(len(user.numbers), np.bool_)) for user in removed]
        changes = _total(found).summed()
        rows, events = self._changed_rows(changes), self._grown()
        events[changes.events] += changes.event_values
        with self._lock:
            self._rows.update(rows)
            self._events = events
            self.seq = seq
        return self._more_ids[known - self._known :]

    def compact(self) -> BaseCounts:
        """Everything as of now, items in the order of their ids: the base of a new snapshot."""
        order = sorted(range(len(self)), key=self.item_id)
        events = self._events[order]
        kept = [number for number, own in zip(order, events, strict=True) if own > 0 or self._row(number)[0].size]
        place = np.full(len(self), -1, np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        columns, values, sizes = [], [], []
        for number in kept:
            own, counted = self._row(number)
            moved = place[own]
            rising = np.argsort(moved, kind="stable")
            columns.append(moved[rising])
            values.append(counted[rising])
            sizes.append(len(own))
        return BaseCounts(
            [self.item_id(number) for number in kept],
            self._events[kept],
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.concatenate([np.zeros(0, np.int32), *columns]),
            np.concatenate([np.zeros(0), *values]),
            self.seq,
        )

    @property
    def changed_rows(self) -> int:
        """Rows of pairs held in memory, since they differ from the base."""
        return len(self._rows)

    def _row(self, number: int) -> tuple[Columns, Floats]:
        row = self._rows.get(number)
        if row is not None:
            return row
        if number >= self._known or len(self._base.offsets) <= number + 1:
            return _EMPTY
        begin, end = self._base.offsets[number], self._base.offsets[number + 1]
        return self._base.columns[begin:end], self._base.values[begin:end]

    def _change(self, user: UserSlice, old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> Changes:
        rows = np.array([self._number(item_id) for item_id in user.items], dtype=np.int64)
        if self.settings is None:
            return _events_only(rows[old], rows[new])
        times = user.timestamps
        return update_changes(self.settings, rows[old], rows[new], times[old], times[new])

    def _number(self, item_id: str) -> int:
        number = self.id_of(item_id)
        if number is None:
            number = len(self)
            self._more_ids.append(item_id)
            self._id_of[item_id] = number
        return number

    def _grown(self) -> Floats:
        events = np.zeros(len(self))
        events[: len(self._events)] = self._events
        return events

    def _changed_rows(self, changes: Changes) -> Mapping[int, tuple[Columns, Floats]]:
        sources, begins = np.unique(changes.sources, return_index=True)
        ends = np.append(begins, len(changes.sources))[1:]
        rows = {}
        for source, begin, end in zip(sources.tolist(), begins.tolist(), ends.tolist(), strict=True):
            columns, values = self._row(source)
            rows[source] = _merged(columns, values, changes.targets[begin:end], changes.values[begin:end])
        return rows


def _merged(columns: Columns, values: Floats, targets: Rows, added: Floats) -> tuple[Columns, Floats]:
    """A row with numbers added to it; columns rising, as are `targets`. What comes to 0 is left out."""
    joined, place = np.unique(np.concatenate([columns, targets.astype(np.int32)]), return_inverse=True)
    sums = np.bincount(place, np.concatenate([values, added]), len(joined))
    kept = sums != 0
    return joined[kept].astype(np.int32), sums[kept]


def _events_only(old: Rows, new: Rows) -> Changes:
    none = np.zeros(0, np.int64)
    values = np.concatenate([np.ones(len(new)), -np.ones(len(old))])
    return Changes(none, none, np.zeros(0), np.concatenate([new, old]), values)


def _total(changes: Sequence[Changes]) -> Changes:
    none, zeros = np.zeros(0, np.int64), np.zeros(0)
    return Changes(
        np.concatenate([none, *(change.sources for change in changes)]),
        np.concatenate([none, *(change.targets for change in changes)]),
        np.concatenate([zeros, *(change.values for change in changes)]),
        np.concatenate([none, *(change.events for change in changes)]),
        np.concatenate([zeros, *(change.event_values for change in changes)]),
    )


_EMPTY: tuple[Columns, Floats] = (np.zeros(0, np.int32), np.zeros(0))
