"""JSON Lines, and JSON files with a list of objects. Fields of nested objects become columns, lists can become rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from seqrec.data.jsonl import json_object, kind_of, numbered_lines
from seqrec.data.tables.base import BATCH_ROWS, Rejects, TableOptions, check_columns, text_or_values
from seqrec.data.tables.json_stream import holds_lines, list_elements
from seqrec.data.tables.nested import kept, list_names, rows_of
from seqrec.errors import FileFormatError, InputError

_SAMPLE = 20_000
"""Rows that are read to find the columns."""
_MAX_LISTS = 100
_FIRST_ROWS = 5_000
"""Of the first batch: who wants to see the first rows need not wait for more."""


class JsonTable:
    """One file, read object by object. Of several lists in a document the longest is read, unless `records` names
    another."""

    def __init__(self, path: Path, options: TableOptions) -> None:
        self.path, self.name, self._rows = path, str(path), options.rows
        self._lines = holds_lines(path) or (options.format == "jsonl" and not _is_list(path))
        self.notes: dict[str, Any] = {"format": "jsonl" if self._lines else "json"}
        self._list = options.records if options.records is not None else "" if self._lines else self._longest_list()
        self.notes["records"] = self._list
        columns: dict[str, None] = {}
        lists: Counter[str] = Counter()
        left = _SAMPLE
        for _, record in self._records(Rejects("skip")):
            rows = rows_of(record, self._rows)
            for row in rows:
                columns.update(dict.fromkeys(row))
            lists.update(dict.fromkeys(list_names(record), 1))
            left -= len(rows)
            if left <= 0:
                break
        if not columns and self._list and not self._lines:
            raise FileFormatError(path, None, f"no list of objects {self._list!r}; there are {_shown(self._found())}")
        if not columns:
            raise FileFormatError(path, None, "no objects in it")
        self.columns: Sequence[str] = tuple(columns)
        self.lists: Sequence[str] = tuple(lists)

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(self.path, None, self.columns, wanted)
        rows: list[dict[str, Any]] = []
        size, keep = _FIRST_ROWS, kept(wanted)
        for _, record in self._records(rejects):
            rows += rows_of(record, self._rows, keep)
            if len(rows) >= size:
                yield _batch(rows, wanted)
                rows, size = [], BATCH_ROWS
        if rows:
            yield _batch(rows, wanted)

    def error(self, row: int, reason: str) -> FileFormatError:
        for number, (line, record) in enumerate(self._records(Rejects("skip")), 1):
            row -= len(rows_of(record, self._rows))
            if row < 0:
                return FileFormatError(self.path, line, reason if self._lines else f"object {number}: {reason}")
        return FileFormatError(self.path, None, reason)

    def _records(self, rejects: Rejects) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Objects with their lines."""
        if not self._lines:
            for name, number, part in list_elements(self.path):
                if name == self._list:
                    if not isinstance(part, Mapping):
                        raise FileFormatError(self.path, number, f"{kind_of(part)} in a list of objects")
                    yield number, part
            return
        for number, line in numbered_lines(self.path):
            if line.strip():
                try:
                    record = json_object(line)
                except InputError as error:
                    rejects.add("lines that are not JSON", FileFormatError(self.path, number, str(error)))
                    continue
                yield number, record

    def _longest_list(self) -> str:
        found = self._found()
        if not found:
            raise FileFormatError(self.path, None, "not a list of objects, nor an object with one")
        if len(found) > 1:
            self.notes["of"] = _shown(found)
        return next(iter(found))

    def _found(self) -> dict[str, int]:
        """The document's lists of objects by name, the longest first."""
        counts: Counter[str] = Counter()
        for name, _, part in list_elements(self.path):
            counts[name] += isinstance(part, Mapping)
            if len(counts) > _MAX_LISTS:  # an object of objects
                return {}
        return {name: count for name, count in counts.most_common() if count}


def _is_list(path: Path) -> bool:
    return next((line.lstrip()[:1] for _, line in numbered_lines(path, True) if line.strip()), "") == "["


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:20]) or "none"


def _batch(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pa.RecordBatch:
    arrays = [text_or_values([row.get(name) for row in rows]) for name in columns]
    return pa.RecordBatch.from_arrays(arrays, list(columns))
