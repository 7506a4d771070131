"""Excel workbooks (.xlsx), one sheet. Needs openpyxl: pip install 'seqrec[excel]'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns, text_or_values
from seqrec.errors import FileFormatError


class ExcelTable:
    def __init__(self, path: Path, sheet: str | None) -> None:
        self.path, self.name = path, str(path)
        self._sheet = sheet
        first = next(self._rows(), ())
        self.columns: Sequence[str] = tuple(
            str(name).strip() if name is not None else f"column {place}" for place, name in enumerate(first, 1)
        )
        if not any(name is not None for name in first):
            raise FileFormatError(path, 1, "the first row of the sheet is empty; it must have the names of the columns")
        self.notes: dict[str, Any] = {"format": "excel", "sheet": self._title}

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(self.path, 1, self.columns, wanted)
        places = [self.columns.index(name) for name in wanted]
        rows: list[tuple[Any, ...]] = []
        all_rows = self._rows()
        next(all_rows, None)
        for row in all_rows:
            rows.append(tuple(row[place] if place < len(row) else None for place in places))
            if len(rows) == BATCH_ROWS:
                yield _batch(rows, wanted)
                rows = []
        if rows:
            yield _batch(rows, wanted)

    def error(self, row: int, reason: str) -> FileFormatError:
        return FileFormatError(self.path, None, f"sheet {self._title!r}, row {row + 2}: {reason}")

    def _rows(self) -> Iterator[tuple[Any, ...]]:
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
            raise FileFormatError(self.path, None, f"not an Excel workbook: {error}") from None
        try:
            if self._sheet is not None and self._sheet not in book.sheetnames:
                reason = f"no sheet {self._sheet!r}; there are {', '.join(book.sheetnames)}"
                raise FileFormatError(self.path, None, reason)
            sheet = book[self._sheet or book.sheetnames[0]]
            self._title = sheet.title
            for row in sheet.iter_rows(values_only=True):
                if any(value is not None for value in row):
                    yield row
        finally:
            book.close()


def _batch(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> pa.RecordBatch:
    arrays = [text_or_values(list(values)) for values in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, list(columns))
