"""Which items pass the filters of requests (`service.live.filter_language`), as masks over a view."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from index.snapshot.snapshot import Snapshot
from seqrec.data.items import AttributeValue
from service.live.columns import Check, Columns, Mask
from service.live.filter_language import Filter

MOST_MASKS = 32
"""Remembered for each snapshot, a byte a row each."""


@dataclass(frozen=True, eq=False)
class FilterMask:
    """What a filter lets through of one view."""

    snapshot: Mask  # [n]
    delta: Mask  # [length of the delta]
    unknown: Sequence[str] = ()  # attributes of the filter that no item has

    @cached_property
    def by_position(self) -> Mask:
        """[size of the view]"""
        return np.concatenate([self.snapshot, self.delta])

    def __contains__(self, position: int) -> bool:
        n = len(self.snapshot)
        return bool(self.snapshot[position] if position < n else self.delta[position - n])


class SnapshotFilters:
    """The columns of a snapshot, and the masks of recent filters, since the same filter comes again and again."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._columns = Columns()
        self._masks: OrderedDict[Filter, Mask] = OrderedDict()
        self._lock = threading.Lock()

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
