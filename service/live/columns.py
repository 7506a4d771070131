"""Attributes as columns, so that a filter over a million items is a few comparisons of arrays.

A column is made when a filter first needs its attribute, which reads every item once (seconds for a million items), and
is kept from then on. Rows are only ever appended: what was read of them stays true.
"""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seqrec.data.items import AttributeValue

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]
Parsed = npt.NDArray[np.float64]
Parse = Callable[[str | float], tuple[float, float] | None]
"""A module's function that reads a value as two numbers, such as a place; None where it is none."""
Check = Callable[[], object]
"""Called in long loops; raises where the work is not wanted any more."""
MOST_COLUMNS = 64
"""The most columns that are kept; the least recently used one is dropped."""
RANGES: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_FIRST_CAPACITY = 256
_EXACT = 2**53
"""Whole numbers up to this one are exact in float64."""
_CHECK_ROWS = 256
_LOCK_SECONDS = 0.05


class Column:
    """One attribute of rows 0 to `length` - 1. An item may have several values of it (a list) or none."""

    def __init__(self, length: int = 0) -> None:
        """The first `length` rows do not have the attribute."""
        self.length = length
        self._codes_of: dict[str | float, int] = {}  # 1 and 1.0 are one key, "1" is another
        self._entries = 0
        self._rows = np.empty(_FIRST_CAPACITY, np.int32)  # of each entry, ascending
        self._codes = np.empty(_FIRST_CAPACITY, np.int32)  # of each entry
        self._numbers = np.full(max(_FIRST_CAPACITY, length), np.nan)  # [length]; NaN for what is not a number
        self._parsed: dict[Parse, Parsed] = {}  # by distinct value, in the order of their codes
        self._large: dict[int, int] = {}  # by row, whole numbers that float64 rounds

    def append(self, value: AttributeValue | None) -> None:
        """The value of the next row."""
        self._numbers = _with_room(self._numbers, self.length)
        self._numbers[self.length] = value if isinstance(value, int | float) else np.nan
        if isinstance(value, int) and abs(value) > _EXACT:
            self._large[self.length] = value
        values = () if value is None else value if isinstance(value, tuple) else (value,)
        for one in dict.fromkeys(values):
            self._rows, self._codes = _with_room(self._rows, self._entries), _with_room(self._codes, self._entries)
            self._rows[self._entries] = self.length
            self._codes[self._entries] = self._codes_of.setdefault(one, len(self._codes_of))
            self._entries += 1
        self.length += 1

    def having(self, values: Collection[str | float], length: int, every: bool = False) -> Mask:
        """Which of the first `length` rows have one of the values, or with `every` all of them."""
        different = set(values)
        codes = [code for value in different if (code := self._codes_of.get(value)) is not None]
        wanted = np.zeros(len(self._codes_of), np.bool_)
        wanted[codes] = True
        return self._count(wanted, length) >= (len(different) if every else 1)

    def present(self, length: int) -> Mask:
        """Which of the first `length` rows have the attribute. An empty list is no value."""
        return self._count(np.ones(len(self._codes_of), np.bool_), length) >= 1

    def where(self, parse: Parse, met: Callable[[Parsed], Mask], length: int) -> Mask:
        """Which of the first `length` rows have a value that `parse` can read and for which `met` is true.

        Each distinct value is parsed once, when it is first needed. `met` gets the parsed values as [v, 2] and gives
        [v]; NaN stands for what cannot be read, and must meet nothing.
        """
        known = self._parsed.get(parse)
        done = 0 if known is None else len(known)
        if known is None or done < len(self._codes_of):
            more = [parse(value) for value in islice(self._codes_of, done, None)]
            rows = np.array([(np.nan, np.nan) if one is None else one for one in more], np.float64).reshape(-1, 2)
            known = rows if known is None else np.concatenate([known, rows])
            self._parsed[parse] = known
        with np.errstate(invalid="ignore"):
            return self._count(met(known), length) >= 1

    def _count(self, wanted: Mask, length: int) -> npt.NDArray[np.int64]:
        """[length] How many of the wanted values, [v], each row has."""
        rows = self._rows[: self._entries][wanted[self._codes[: self._entries]]]
        return np.bincount(rows, minlength=self.length)[:length]

    def compare(self, name: str, bound: int | float, length: int) -> Mask:
        """Which of the first `length` rows have a number in the range: `name` is gt, gte, lt or lte. Exact."""
        compare = RANGES[name]
        near = float(bound)
        if near == bound:
            mask: Mask = compare(self._numbers[:length], near)  # never true of NaN
        elif name in ("gt", "gte"):  # no float64 equals the bound: above is at least the next one
            mask = self._numbers[:length] >= (near if near > bound else np.nextafter(near, np.inf))
        else:
            mask = self._numbers[:length] <= (near if near < bound else np.nextafter(near, -np.inf))
        for row, value in self._large.items():
            if row < length:
                mask[row] = compare(value, bound)
        return mask


class Columns:
    """The columns of one set of rows, each made when it is first needed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._columns: OrderedDict[str, Column] = OrderedDict()
        self._first_row: dict[str, int] = {}  # of every attribute there is in the rows that were read
        self._read = 0
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Attributes that have a column."""
        with self._lock:
            return list(self._columns)

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Those that no row has, of the rows that `evaluate` or `read_names` has read."""
        return [name for name in names if name not in self._first_row]

    def read_names(
        self, length: int, attributes: Callable[[int], Mapping[str, AttributeValue]], check: Check = lambda: None
    ) -> None:
        """Learn the names of all attributes of the first `length` rows. What was read is kept if `check` raises."""
        if self._read >= length:
            return
        with _held(self._lock, check):
            for row in range(self._read, length):
                if row % _CHECK_ROWS == 0:
                    check()
                for name in attributes(row):
                    self._first_row.setdefault(name, row)
                self._read = row + 1

    def evaluate(
        self,
        names: Sequence[str],
        length: int,
        attributes: Callable[[int], Mapping[str, AttributeValue]],
        of: Callable[[Mapping[str, Column]], T],
        check: Check = lambda: None,
    ) -> T:
        """What `of` makes of the columns `names`, each read up to row `length` at least.

        `attributes` reads those of one row; all missing columns are read in one pass. A name that no row has gets no
        column, so that invented names cost nothing and displace nothing.
        """
        with _held(self._lock, check):
            wanted = {name: self._column(name) for name in names if name in self._first_row}
            missing = set(names) - wanted.keys()
            begin = min([self._read, *(column.length for column in wanted.values())]) if names else length
            for row in range(begin, length):
                if row % _CHECK_ROWS == 0:
                    check()
                values = attributes(row)
                if row >= self._read:
                    for name in values:
                        if name not in self._first_row:
                            self._first_row[name] = row
                            if name in missing:
                                wanted[name] = self._column(name)
                    self._read = row + 1
                for name, column in wanted.items():
                    if column.length == row:
                        column.append(values.get(name))
            while len(self._columns) > max(MOST_COLUMNS, len(names)):
                self._columns.popitem(last=False)
            nothing = Column(length)
            return of({name: wanted.get(name, nothing) for name in names})

    def _column(self, name: str) -> Column:
        column = self._columns.setdefault(name, Column(self._first_row[name]))
        self._columns.move_to_end(name)
        return column


@contextmanager
def _held(lock: threading.Lock, check: Check) -> Iterator[None]:
    """The lock, waited for as long as `check` allows."""
    while not lock.acquire(timeout=_LOCK_SECONDS):
        check()
    try:
        yield
    finally:
        lock.release()


def _with_room(array: npt.NDArray[Any], used: int) -> npt.NDArray[Any]:
    if used < len(array):
        return array
    more = np.empty(2 * len(array), array.dtype)
    more[:used] = array
    return more
