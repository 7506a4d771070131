"""JSON Lines, and JSON files with a list of objects. Nested objects become columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from seqrec.data.jsonl import json_object, numbered_lines
from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns, text_or_values
from seqrec.data.tables.sniff import Encoding, find_encoding, open_utf8
from seqrec.errors import FileFormatError, InputError

_SAMPLE = 2000
"""Objects that are read to find the columns."""


class JsonTable:
    """One file. `lines`: an object a line; otherwise one list of objects, or an object that has one."""

    def __init__(self, path: Path, lines: bool) -> None:
        self.path, self.name, self._lines = path, str(path), lines
        self._objects = [] if lines else _objects(path)
        columns: dict[str, None] = {}
        for place, record in enumerate(self._records(Rejects("skip"))):
            columns.update(dict.fromkeys(flatten(record)))
            if place >= _SAMPLE:
                break
        if not columns:
            raise FileFormatError(path, None, "no objects in it")
        self.columns: Sequence[str] = tuple(columns)
        self.notes: dict[str, Any] = {"format": "jsonl" if lines else "json"}
        self._numbers: list[int] = []  # lines that were left out, before the rows that follow them

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(self.path, None, self.columns, wanted)
        rows: list[dict[str, Any]] = []
        for record in self._records(rejects):
            rows.append(flatten(record))
            if len(rows) >= BATCH_ROWS:
                yield _batch(rows, wanted)
                rows = []
        if rows:
            yield _batch(rows, wanted)

    def error(self, row: int, reason: str) -> FileFormatError:
        if not self._lines:
            return FileFormatError(self.path, None, f"object {row + 1}: {reason}")
        good = -1
        for number, line in numbered_lines(self.path):
            if line.strip():
                try:
                    json_object(line)
                except InputError:
                    continue
                good += 1
                if good == row:
                    return FileFormatError(self.path, number, reason)
        return FileFormatError(self.path, None, reason)

    def _records(self, rejects: Rejects) -> Iterator[Mapping[str, Any]]:
        if not self._lines:
            yield from self._objects
            return
        for number, line in numbered_lines(self.path):
            if line.strip():
                try:
                    record = json_object(line)
                except InputError as error:
                    rejects.add("lines that are not JSON", FileFormatError(self.path, number, str(error)))
                    continue
                yield record


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by column. A nested object's names have no prefix, unless they would hide another column."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            for inner, own in flatten(value).items():
                flat[inner if inner not in record and inner not in flat else f"{name}.{inner}"] = own
        elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            flat[prefix + name] = [_name_of(part) for part in value]
        else:
            flat[prefix + name] = value
    return flat


def _name_of(part: Any) -> str:
    """Of an object in a list, such as {"id": 3, "name": "Toys"}: its name, or all of it."""
    if isinstance(part, Mapping):
        for name in ("name", "title", "label", "value"):
            if isinstance(part.get(name), str):
                return str(part[name])
        return json.dumps(part, ensure_ascii=False)
    return str(part)


def _batch(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pa.RecordBatch:
    arrays = [text_or_values([row.get(name) for row in rows]) for name in columns]
    return pa.RecordBatch.from_arrays(arrays, list(columns))


def _objects(path: Path) -> list[Mapping[str, Any]]:
    encoding: Encoding = find_encoding(path)
    with open_utf8(path, encoding) as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            line = getattr(error, "lineno", None)
            problem = getattr(error, "msg", str(error))
            way_out = "with an object a line, name the file .jsonl"
            if problem != "Extra data":
                way_out = "it is damaged or cut off; export it again"
            raise FileFormatError(path, line, f"not JSON: {problem}; {way_out}") from None
    if isinstance(content, Mapping):
        lists = {name: value for name, value in content.items() if isinstance(value, list) and value}
        lists = {name: value for name, value in lists.items() if all(isinstance(part, Mapping) for part in value)}
        if len(lists) != 1:
            found = ", ".join(lists) or "none"
            raise FileFormatError(path, None, f"an object with one list of objects is needed; lists found: {found}")
        [content] = lists.values()
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise FileFormatError(path, None, "not a list of objects")
    return content
