"""Which items pass the filters of requests (`service.live.filter_language`), as masks over a view."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from index.snapshot.attribute_columns import Mask
from index.snapshot.snapshot import Snapshot
from seqrec.data.items import AttributeValue
from service.live.columns import Check, Columns
from service.live.delta import Delta
from service.live.engines.base import SearchEngine
from service.live.filter_language import Filter

MOST_MASKS = 32
"""Remembered for each snapshot, a byte a row each."""


@dataclass(frozen=True, eq=False)
class FilterMask:
    """What a filter lets through of one view. Where an engine filters, the snapshot's mask is made if it is read."""

    filter: Filter
    filters: SnapshotFilters
    delta: Mask  # [length of the delta]
    unknown: Sequence[str] = ()  # attributes of the filter that no item has
    made: Mask | None = None  # [n]

    @cached_property
    def snapshot(self) -> Mask:
        """[n]"""
        return self.filters.mask(self.filter) if self.made is None else self.made

    @cached_property
    def by_position(self) -> Mask:
        """[size of the view]"""
        return np.concatenate([self.snapshot, self.delta])

    def of(self, positions: npt.NDArray[np.int64]) -> Mask:
        """[len(positions)]; without the mask of the snapshot, the attributes of these rows are read."""
        n = self.filters.count
        in_delta = positions >= n
        met = np.zeros(len(positions), np.bool_)
        met[in_delta] = self.delta[positions[in_delta] - n]
        rows = positions[~in_delta]
        known = self.made is not None or "snapshot" in self.__dict__
        met[~in_delta] = self.snapshot[rows] if known else self.filters.passing(self.filter, rows)
        return met

    def __contains__(self, position: int) -> bool:
        return bool(self.of(np.array([position]))[0])


class SnapshotFilters:
    """The columns of a snapshot, and the masks of recent filters, since the same filter comes again and again."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._columns = Columns(snapshot.columns, len(snapshot.item_ids))
        self._masks: OrderedDict[Filter, Mask] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Rows of the snapshot."""
        return len(self._snapshot.item_ids)

    def passing(self, wanted: Filter, rows: npt.NDArray[np.int64]) -> Mask:
        """[len(rows)] Which of these rows the filter passes, by their attributes alone."""
        return Columns().evaluate(
            wanted.attributes,
            len(rows),
            lambda at: self._attributes(int(rows[at])),
            lambda columns: wanted.mask(columns, len(rows)),
        )

    def mask(self, wanted: Filter, check: Check = lambda: None) -> Mask:
        """[n]; the same object for the same filter, as long as it is remembered."""
        with self._lock:
            known = self._masks.get(wanted)
            if known is not None:
                self._masks.move_to_end(wanted)
                return known
        n = len(self._snapshot.item_ids)
        made = self._columns.evaluate(
            wanted.attributes, n, self._attributes, lambda columns: wanted.mask(columns, n, check), check
        )
        if self.unknown(wanted.attributes):  # invented names must not displace the masks of real filters
            return made
        with self._lock:
            made = self._masks.setdefault(wanted, made)
            while len(self._masks) > MOST_MASKS:
                self._masks.popitem(last=False)
        return made

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Attributes that no item of the snapshot has, as far as it was read: wholly after `mask` or `read_names`."""
        return self._columns.unknown(names)

    def read_names(self, check: Check = lambda: None) -> None:
        """Learn which attributes there are."""
        self._columns.read_names(len(self._snapshot.item_ids), self._attributes, check)

    def warm_from(self, other: SnapshotFilters) -> None:
        """Read the columns that another snapshot's filters have used, before they are needed here."""
        names = other._columns.names
        self._columns.evaluate(names, len(self._snapshot.item_ids), self._attributes, lambda columns: None)

    def _attributes(self, row: int) -> Mapping[str, AttributeValue]:
        return self._snapshot.item(row).attributes


def filter_mask(
    wanted: Filter, filters: SnapshotFilters, delta: Delta, length: int, engine: SearchEngine | None, check: Check
) -> FilterMask:
    """What the filter lets through of a snapshot and of the first `length` rows of its delta."""
    in_delta = delta.columns.evaluate(
        wanted.attributes, length, delta.attributes, lambda columns: wanted.mask(columns, length, check), check
    )
    known = filters.mask(wanted, check) if engine is None else None  # here, where `check` may end it
    unknown = unseen(wanted.attributes, filters, delta.columns, engine)
    return FilterMask(wanted, filters, in_delta, unknown, known)


def unseen(names: Sequence[str], filters: SnapshotFilters, delta: Columns, engine: SearchEngine | None) -> list[str]:
    """Attributes that nobody has, as far as it is known."""
    missing = filters.unknown(names)
    if engine is not None:
        missing = [name for name in missing if not engine.has_attribute(name)]
    return delta.unknown(missing)
