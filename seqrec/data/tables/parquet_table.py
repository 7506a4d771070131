"""Parquet files, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns
from seqrec.errors import FileFormatError


class ParquetTable:
    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._schema = pq.read_schema(path)
        except FileNotFoundError:
            raise FileFormatError(path, None, "no such file") from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise FileFormatError(path, None, f"not a Parquet file: {error}") from None
        self.columns: Sequence[str] = tuple(name for name in self._schema.names if not name.startswith("__index_level"))
        self.notes: dict[str, Any] = {"format": "parquet", "types": {f.name: str(f.type) for f in self._schema}}

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = list(self.columns if columns is None else columns)
        check_columns(self.path, None, self.columns, wanted)
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                    yield batch.select(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise FileFormatError(self.path, None, f"cannot be read on: {error}") from None

    def error(self, row: int, reason: str) -> FileFormatError:
        return FileFormatError(self.path, None, f"row {row + 1}: {reason}")
