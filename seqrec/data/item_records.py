"""The records of item files, before they are checked: {"item_id": ..., "attributes": {...}, "available": ...}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqrec.data.jsonl import json_object, numbered_lines
from seqrec.errors import FileFormatError, InputError

BATCH_ROWS = 65_536
_FIELDS = {"item_id", "attributes", "available"}

Record = tuple[Path, int, Mapping[str, Any] | InputError]
"""File, line or row counted from 1, and what is there."""


def item_records(path: Path) -> Iterator[Record]:
    """Of a JSON Lines file (`.gz` too), a Parquet file or a directory of them. Raises FileFormatError."""
    return _parquet_records(path) if path.suffix == ".parquet" or _is_directory(path) else _json_records(path)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long; whoever opens it says so
        return False


def _json_records(path: Path) -> Iterator[Record]:
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            record = json_object(line)
            if unknown := record.keys() - _FIELDS:
                raise InputError(f"unknown field {sorted(unknown)[0]!r}; put it into attributes")
            if "item_id" not in record or "attributes" not in record:
                raise InputError('a line is {"item_id": "...", "attributes": {...}}; item_id or attributes is missing')
        except InputError as error:
            yield path, number, error
        else:
            yield path, number, record


def _parquet_records(path: Path) -> Iterator[Record]:
    """Of a directory, its files *.parquet in the order of their names. Columns without a meaning are attributes."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise FileFormatError(path, None, "reading Parquet needs pyarrow: pip install 'seqrec[parquet]'") from None
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise FileFormatError(path, None, "a directory, not a file, and without any *.parquet in it")
    for one in files:
        row = 0
        try:
            with pq.ParquetFile(one) as file:
                names = file.schema_arrow.names
                if "item_id" not in names:
                    raise FileFormatError(one, None, f"no column item_id, only {names!r:.200}")
                for batch in file.iter_batches(BATCH_ROWS):
                    for values in batch.to_pylist():
                        row += 1
                        yield one, row, _parquet_record(values)
        except FileNotFoundError:
            raise FileFormatError(one, None, "no such file") from None
        except (pa.ArrowException, OSError) as error:
            raise FileFormatError(one, None, f"not a Parquet file that can be read: {error}") from None


def _parquet_record(values: dict[str, Any]) -> Mapping[str, Any]:
    item_id, available = values.pop("item_id"), values.pop("available", None)
    # Columns of ids are often integers, which become text.
    item_id = str(item_id) if isinstance(item_id, int) and not isinstance(item_id, bool) else item_id
    return {"item_id": item_id, "attributes": values, "available": True if available is None else available}
