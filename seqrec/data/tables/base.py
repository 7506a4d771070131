"""What every kind of table offers: its columns, its rows in batches, and the place of a row for messages.

Libraries do the reading: pyarrow parses CSV and Parquet, openpyxl Excel, SQLAlchemy databases. Memory does not grow
with the length of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from seqrec.errors import FileFormatError, there_are

BATCH_ROWS = 65_536

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class TableOptions:
    """How to read a table. None, and an empty text, mean: find out. Of nested files, `records` is the list of a
    document whose objects are read, and `rows` the list within each of them that makes the rows."""

    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None
    sheet: str | None = None
    query: str | None = None
    records: str | None = None
    rows: str | None = None


@dataclass
class Rejects:
    """Rows that are left out, by reason, with the first of each. With "raise" the first raises FileFormatError.
    `passed`: rows that are no faults and not of use, by reason."""

    on_error: OnError = "skip"
    counts: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    examples: list[FileFormatError] = field(default_factory=list)

    def add(self, reason: str, error: FileFormatError | None = None, count: int = 1) -> None:
        """`reason` groups; `error` is one of the rows with its place."""
        if self.on_error == "raise" and error is not None:
            raise error
        self.counts[reason] = self.counts.get(reason, 0) + count
        if error is not None:
            self.examples.append(error)

    def pass_over(self, reason: str, count: int) -> None:
        """Rows that are not of use, such as a page view in a log of what is done to products."""
        self.passed[reason] = self.passed.get(reason, 0) + count

    def wants_example(self, reason: str) -> bool:
        """Whether an error with the place of the row is of use: finding the place may need another reading."""
        return self.on_error == "raise" or reason not in self.counts

    @property
    def count(self) -> int:
        return sum(self.counts.values())


class Table(Protocol):
    """`name`: the file, for messages. `columns`: their names, in order. `lists`: names of the lists of its records,
    each of which could make the rows. `notes`: what was detected of the format."""

    name: str
    columns: Sequence[str]
    lists: Sequence[str]
    notes: dict[str, Any]

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        """All rows of the named columns (None: all), in order. Rows that cannot be read go into `rejects`."""

    def error(self, row: int, reason: str) -> FileFormatError:
        """An error of a row. `row` counts the rows that `batches` gave, from 0."""


def text_or_values(values: Sequence[Any]) -> pa.Array:
    """An Arrow column of Python values: of one type if they have one, lists of strings, else of strings."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds <= {int, float} or kinds <= {bool}:
        try:
            return pa.array(values, type=pa.bool_() if kinds == {bool} else None)
        except (pa.ArrowInvalid, OverflowError):
            return pa.array([None if value is None else str(value) for value in values], pa.string())
    if kinds and kinds <= {list, tuple}:
        return pa.array([None if value is None else [_text(part) for part in value] for value in values])
    if kinds and not kinds & {str, list, tuple, dict, bool, int, float}:  # dates and the like, one kind
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            pass
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return ", ".join(_text(part) for part in value)
    return str(value)


def check_columns(path: Path, line: int | None, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises FileFormatError for a column that the table lacks."""
    for name in wanted:
        if name not in found:
            raise FileFormatError(path, line, f"no column {name!r}{there_are(name, found)[:400]}")
