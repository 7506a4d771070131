"""Parquet files, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns
from seqrec.data.tables.nested import arrow_lists, flat_table
from seqrec.errors import FileFormatError


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")


class ParquetTable:
    def __init__(self, path: Path, rows: str | None) -> None:
        self.path, self.name, self._rows = path, str(path), rows
        try:
            self._schema = pq.read_schema(path)
        except FileNotFoundError:
            raise FileFormatError(path, None, "no such file") from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise FileFormatError(
                path, None, f"not a Parquet file, or cut off ({_first_line(error)}); export it again"
            ) from None
        self._own = [name for name in self._schema.names if not name.startswith("__index_level")]
        self.lists: Sequence[str] = arrow_lists(self._schema)
        self.columns: Sequence[str] = flat_table(self._schema.empty_table().select(self._own), rows).column_names
        self.notes: dict[str, Any] = {"format": "parquet", "types": {f.name: str(f.type) for f in self._schema}}

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = list(self.columns if columns is None else columns)
        check_columns(self.path, None, self.columns, wanted)
        # Of a struct all fields are read: names with dots do not tell it from a column of that name.
        needed = [name for name in self._own if any(one == name or one.startswith(f"{name}.") for one in wanted)]
        if self._rows is not None:
            needed += [name for name in self._own if name not in needed and f"{self._rows}.".startswith(f"{name}.")]
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=needed, use_threads=False):
                    yield from flat_table(pa.table(batch), self._rows).select(wanted).combine_chunks().to_batches()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise FileFormatError(self.path, None, f"cannot be read on: {error}") from None

    def error(self, row: int, reason: str) -> FileFormatError:
        return FileFormatError(self.path, None, f"row {row + 1}: {reason}")
