"""Excel workbooks (.xlsx), one sheet. Needs openpyxl: pip install 'seqrec[excel]'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns, text_or_values
from seqrec.data.tables.sniff import names_below
from seqrec.errors import FileFormatError, there_are

_HEAD = 20
"""Rows among which the names of the columns are."""


class ExcelTable:
    def __init__(self, path: Path, sheet: str | None) -> None:
        self.path, self.name = path, str(path)
        self._sheet = sheet
        head = list(islice(self._rows(), _HEAD))
        if not head:
            raise FileFormatError(path, None, f"sheet {self._title!r} is empty")
        self._header, first = _names_row(head)
        self.columns: Sequence[str] = tuple(
            str(name).strip() if name is not None else f"column {place}" for place, name in enumerate(first, 1)
        )
        self.lists: Sequence[str] = ()
        self.notes: dict[str, Any] = {"format": "excel", "sheet": self._title}

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(self.path, 1, self.columns, wanted)
        places = [self.columns.index(name) for name in wanted]
        rows: list[tuple[Any, ...]] = []
        for number, row in self._rows():
            if number <= self._header:
                continue
            rows.append(tuple(row[place] if place < len(row) else None for place in places))
            if len(rows) == BATCH_ROWS:
                yield _batch(rows, wanted)
                rows = []
        if rows:
            yield _batch(rows, wanted)

    def error(self, row: int, reason: str) -> FileFormatError:
        below = (number for number, _ in self._rows() if number > self._header)
        number = next(islice(below, row, None), None)
        return FileFormatError(self.path, None, f"sheet {self._title!r}, row {number}: {reason}")

    def _rows(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Numbers, from 1, and cells of the rows that are not empty."""
        try:
            from openpyxl import load_workbook
        except ImportError:
            reason = "reading Excel needs openpyxl: pip install 'seqrec[excel]'; or save it as CSV UTF-8"
            raise FileFormatError(self.path, None, reason) from None
        try:
            book = load_workbook(self.path, read_only=True, data_only=True)
        except FileNotFoundError:
            raise FileFormatError(self.path, None, "no such file") from None
        except Exception as error:  # openpyxl raises what its parsers raise
            raise FileFormatError(
                self.path, None, f"not an Excel workbook ({error}); if it is text, rename it to .csv"
            ) from None
        try:
            if self._sheet is not None and self._sheet not in book.sheetnames:
                reason = f"no sheet {self._sheet!r}{there_are(self._sheet, book.sheetnames)}"
                raise FileFormatError(self.path, None, reason)
            sheet = book[self._sheet or book.sheetnames[0]]
            self._title = sheet.title
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                if any(value is not None for value in row):
                    yield number, row
        finally:
            book.close()


def _names_row(head: Sequence[tuple[int, tuple[Any, ...]]]) -> tuple[int, tuple[Any, ...]]:
    """The first row that is not a title, which fills one cell only, often merged over all columns."""
    filled = [sum(value is not None for value in row) for _, row in head]
    if max(filled) < 3:
        return head[0]
    place = next(place for place, count in enumerate(filled) if count > 1)
    return head[place + names_below([row for _, row in head[place:]])]


def _batch(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> pa.RecordBatch:
    arrays = [text_or_values(list(values)) for values in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, list(columns))
