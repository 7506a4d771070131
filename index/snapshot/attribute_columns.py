"""Attributes as columns, so that a filter over a million items is a few comparisons of arrays.

A snapshot stores them, memory-mapped, so that no request reads the attributes of all items:

columns.json           all attributes there are, with the first row that has each; of each column its distinct values
column_rows.npy        int32 [e], the entries of all columns end to end: the row of each, rising within a column
column_codes.npy       int32 [e], which of the column's distinct values it is
column_numbers.npy     float64 [c * n], for each column with numbers the number in every row, NaN for none

An attribute whose distinct values take much space, such as a description, has no column in the snapshot.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.snapshot.columns import NpyWriter, map_npy
from seqrec.data.items import AttributeValue
from seqrec.errors import SnapshotError

Mask = npt.NDArray[np.bool_]
Parsed = npt.NDArray[np.float64]
Parse = Callable[[str | float], tuple[float, float] | None]
"""A module's function that reads a value as two numbers, such as a place; None where it is none."""
RANGES: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
COLUMN_FILES = ("columns.json", "column_rows.npy", "column_codes.npy", "column_numbers.npy")
MOST_STORED = 64
"""The most columns of a snapshot."""
MOST_VALUE_BYTES = 16 * 2**20
"""Of the distinct values of a stored column."""
_VALUE_BYTES = 8
"""That a distinct value takes besides its text."""
_FIRST_CAPACITY = 256
_EXACT = 2**53
"""Whole numbers up to this one are exact in float64."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A column as it lies on disk: entries by row and by code, the place of a value in `values`."""

    values: Sequence[str | float]
    rows: npt.NDArray[np.int32]  # [e], rising
    codes: npt.NDArray[np.int32]  # [e]
    numbers: Parsed | None  # [n]
    large: Mapping[int, int]  # by row, whole numbers that float64 rounds


class Column:
    """One attribute of rows 0 to `length` - 1. An item may have several values of it (a list) or none."""

    def __init__(self, length: int = 0) -> None:
        """The first `length` rows do not have the attribute."""
        self.length = length
        self._codes_of: dict[str | float, int] = {}  # 1 and 1.0 are one key, "1" is another
        self._entries = 0
        self._rows = np.empty(_FIRST_CAPACITY, np.int32)  # of each entry, ascending
        self._codes = np.empty(_FIRST_CAPACITY, np.int32)  # of each entry
        self._numbers: Parsed | None = None  # [length]; NaN for what is not a number, None for nothing but that
        self._parsed: dict[Parse, Parsed] = {}  # by distinct value, in the order of their codes
        self._large: dict[int, int] = {}  # by row, whole numbers that float64 rounds

    @classmethod
    def of(cls, stored: Stored, length: int) -> Column:
        """All `length` rows, which nothing can be appended to."""
        made = cls(length)
        made._codes_of = {value: code for code, value in enumerate(stored.values)}
        made._entries, made._rows, made._codes = len(stored.rows), stored.rows, stored.codes
        made._numbers, made._large = stored.numbers, dict(stored.large)
        return made

    def stored(self) -> Stored:
        numbers = None if self._numbers is None else self._numbers[: self.length]
        return Stored(
            list(self._codes_of), self._rows[: self._entries], self._codes[: self._entries], numbers, self._large
        )

    @property
    def distinct(self) -> int:
        """Number of different values."""
        return len(self._codes_of)

    def skip_to(self, row: int) -> None:
        """The rows before this one do not have the attribute."""
        if self._numbers is not None:
            while len(self._numbers) < row:
                self._numbers = _with_room(self._numbers, len(self._numbers))
            self._numbers[self.length : row] = np.nan
        self.length = max(self.length, row)

    def append(self, value: AttributeValue | None) -> None:
        """The value of the next row."""
        is_number = isinstance(value, int | float)
        if self._numbers is None and is_number:
            self._numbers = np.full(max(_FIRST_CAPACITY, 2 * self.length), np.nan)
        if self._numbers is not None:
            self._numbers = _with_room(self._numbers, self.length)
            self._numbers[self.length] = value if is_number else np.nan
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
        if self._numbers is None:
            return np.zeros(length, np.bool_)
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


class ColumnWriter:
    """Collects the attributes of items, row by row, and writes their columns. In memory until then."""

    def __init__(self) -> None:
        self._first_row: dict[str, int] = {}
        self._columns: dict[str, Column] = {}
        self._bytes: dict[str, int] = {}
        self._length = 0

    def append(self, attributes: Mapping[str, AttributeValue]) -> None:
        """The next row."""
        row = self._length
        for name, value in attributes.items():
            if name not in self._first_row:
                self._first_row[name] = row
                if len(self._columns) < MOST_STORED:
                    self._columns[name], self._bytes[name] = Column(), 0
            column = self._columns.get(name)
            if column is None:
                continue
            column.skip_to(row)
            before = column.distinct
            column.append(value)
            if column.distinct > before:
                texts = value if isinstance(value, tuple) else (value,)
                size = sum(_VALUE_BYTES + len(one) if isinstance(one, str) else _VALUE_BYTES for one in texts)
                self._bytes[name] += size
                if self._bytes[name] > MOST_VALUE_BYTES:
                    del self._columns[name]
        self._length += 1

    def write(self, directory: Path) -> None:
        columns: dict[str, Any] = {}
        entries = numbers = 0
        with (
            NpyWriter(directory / "column_rows.npy", np.int32) as rows,
            NpyWriter(directory / "column_codes.npy", np.int32) as codes,
            NpyWriter(directory / "column_numbers.npy", np.float64) as all_numbers,
        ):
            for name, column in self._columns.items():
                column.skip_to(self._length)
                made = column.stored()
                rows.append(made.rows)
                codes.append(made.codes)
                record: dict[str, Any] = {"values": made.values, "begin": entries, "entries": len(made.rows)}
                if made.numbers is not None:
                    all_numbers.append(made.numbers)
                    record |= {"numbers": numbers, "large": [*made.large.items()]}
                    numbers += 1
                entries += len(made.rows)
                columns[name] = record
        text = json.dumps({"first_rows": self._first_row, "columns": columns}, ensure_ascii=False)
        (directory / "columns.json").write_text(text, encoding="utf-8")


class StoredColumns:
    """The columns of a snapshot; each is opened when it is asked for."""

    def __init__(self, directory: Path, length: int) -> None:
        """`length`: rows of the snapshot. Raises SnapshotError."""
        try:
            record = json.loads((directory / "columns.json").read_text(encoding="utf-8"))
            self.first_rows: Mapping[str, int] = record["first_rows"]
            self._records: Mapping[str, Any] = record["columns"]
            self._rows = map_npy(directory / "column_rows.npy")
            self._codes = map_npy(directory / "column_codes.npy")
            self._numbers = map_npy(directory / "column_numbers.npy").reshape(-1, length or 1)
        except (ValueError, KeyError, TypeError) as error:
            raise SnapshotError(f"{directory / 'columns.json'} or one of its columns was altered") from error
        self._length = length

    def column(self, name: str) -> Column | None:
        """None for an attribute that has no column."""
        record = self._records.get(name)
        if record is None:
            return None
        entries = slice(record["begin"], record["begin"] + record["entries"])
        return Column.of(
            Stored(
                record["values"],
                self._rows[entries],
                self._codes[entries],
                self._numbers[record["numbers"]] if "numbers" in record else None,
                dict(record.get("large", ())),
            ),
            self._length,
        )


def _with_room(array: npt.NDArray[Any], used: int) -> npt.NDArray[Any]:
    if used < len(array):
        return array
    more = np.empty(2 * len(array), array.dtype)
    more[:used] = array
    return more
