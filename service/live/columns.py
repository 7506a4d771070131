"""Attributes as columns, so that a filter over a million items is a few comparisons of arrays.

A column is made when a filter first asks for its attribute, which reads every item once (seconds for a million), and is
kept from then on. Rows are only ever added: what was read of them stays true.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seqrec.data.items import AttributeValue

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]
MOST_COLUMNS = 64
"""Kept at once; the one that was not asked for the longest goes first."""
_FIRST_CAPACITY = 256


class Column:
    """One attribute of rows 0 to `length` - 1. An item may have several values of it (a list) or none."""

    def __init__(self) -> None:
        self.length = 0
        self._codes_of: dict[str | float, int] = {}  # 1 and 1.0 are one key, "1" is another
        self._entries = 0
        self._rows = np.empty(_FIRST_CAPACITY, np.int32)  # of each entry, rising
        self._codes = np.empty(_FIRST_CAPACITY, np.int32)  # of each entry
        self._numbers = np.empty(_FIRST_CAPACITY, np.float64)  # [length]; NaN for what is no number

    def append(self, value: AttributeValue | None) -> None:
        """The value of the next row."""
        self._numbers = _with_room(self._numbers, self.length)
        self._numbers[self.length] = value if isinstance(value, int | float) else np.nan
        values = () if value is None else value if isinstance(value, tuple) else (value,)
        for one in values:
            self._rows, self._codes = _with_room(self._rows, self._entries), _with_room(self._codes, self._entries)
            self._rows[self._entries] = self.length
            self._codes[self._entries] = self._codes_of.setdefault(one, len(self._codes_of))
            self._entries += 1
        self.length += 1

    def having(self, value: str | float, length: int) -> Mask:
        """Which of the first `length` rows are equal to the value, or have it in their list."""
        mask = np.zeros(self.length, np.bool_)
        code = self._codes_of.get(value)
        if code is not None:
            mask[self._rows[: self._entries][self._codes[: self._entries] == code]] = True
        return mask[:length]

    def numbers(self, length: int) -> npt.NDArray[np.float64]:
        """[length]; NaN for what is no number."""
        return self._numbers[:length]


class Columns:
    """The columns of one set of rows, each made when it is first asked for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._columns: OrderedDict[str, Column] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        with self._lock:
            return list(self._columns)

    def evaluate(
        self,
        names: list[str],
        length: int,
        attributes: Callable[[int], Mapping[str, AttributeValue]],
        of: Callable[[Mapping[str, Column]], T],
    ) -> T:
        """What `of` makes of the columns `names`, each read up to row `length` at least.

        `attributes` reads those of one row; all missing columns are read in one go.
        """
        with self._lock:
            for name in names:
                self._columns.setdefault(name, Column())
                self._columns.move_to_end(name)
            wanted = {name: self._columns[name] for name in names}
            begin = min((column.length for column in wanted.values()), default=length)
            for row in range(begin, length):
                values = attributes(row)
                for name, column in wanted.items():
                    if column.length == row:
                        column.append(values.get(name))
            while len(self._columns) > max(MOST_COLUMNS, len(names)):
                self._columns.popitem(last=False)
            return of(wanted)


def _with_room(array: npt.NDArray[Any], used: int) -> npt.NDArray[Any]:
    if used < len(array):
        return array
    more = np.empty(2 * len(array), array.dtype)
    more[:used] = array
    return more
