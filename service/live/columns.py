"""The columns of a set of rows: those that a snapshot stores, and others made when a filter first needs them.

Making one reads every item once (seconds for a million items); it is kept from then on. Rows are only ever appended:
what was read of them stays true.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from index.snapshot.attribute_columns import Column, StoredColumns
from seqrec.data.items import AttributeValue

T = TypeVar("T")
Check = Callable[[], object]
"""Called in long loops; raises where the work is not wanted any more."""
MOST_COLUMNS = 64
"""The most columns that are kept; the least recently used one is dropped."""
_CHECK_ROWS = 256
_LOCK_SECONDS = 0.05


class Columns:
    """The columns of one set of rows, each made when it is first needed. Safe to use from several threads."""

    def __init__(self, stored: StoredColumns | None = None, length: int = 0) -> None:
        """`stored`: of the first `length` rows."""
        self._stored = stored
        self._columns: OrderedDict[str, Column] = OrderedDict()
        # Of every attribute there is in the rows that were read.
        self._first_row: dict[str, int] = {} if stored is None else dict(stored.first_rows)
        self._read = 0 if stored is None else length
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
        column = self._columns.get(name)
        if column is None and self._stored is not None:
            column = self._stored.column(name)
        column = self._columns[name] = column or Column(self._first_row[name])
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
