"""Opens a table by its path: a file, a folder or pattern of files of one kind, or the URL of a database."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from seqrec.data.tables.base import Rejects, Table, TableOptions, check_columns
from seqrec.data.tables.csv_table import CsvTable
from seqrec.data.tables.excel_table import ExcelTable
from seqrec.data.tables.json_table import JsonTable
from seqrec.data.tables.parquet_table import ParquetTable
from seqrec.data.tables.source_table import FORMATS, SourceTable
from seqrec.data.tables.sql_table import SqlTable, is_url
from seqrec.errors import FileFormatError, InputError

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
}


def open_table(path: str, options: TableOptions, what: Literal["items", "events"], base: Path = Path()) -> Table:
    """`base`: the folder of relative paths. Raises FileFormatError or InputError for what cannot be read."""
    if is_url(path):
        return SqlTable(path, options.query, base)
    if options.format in FORMATS:
        return SourceTable(base / path, str(options.format), what)
    files = files_of(path, base)
    tables = [_open_file(file, options) for file in files]
    table = tables[0] if len(tables) == 1 else FolderTable(tables)
    if options.rows is not None and options.rows not in table.lists:
        found = f"its lists are {', '.join(table.lists)[:400]}" if table.lists else "its records have no lists"
        raise InputError(f"rows = {options.rows!r} is no list in its records; {found}", table.name)
    return table


def files_of(path: str, base: Path = Path()) -> list[Path]:
    """The files of a path, folder or pattern, sorted by name. Raises FileFormatError if there are none."""
    place = base / path
    if place.is_dir():
        files = sorted(
            file for file in place.rglob("*") if file.is_file() and not file.name.startswith((".", "_")) and _kind(file)
        )
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise FileFormatError(place, None, f"a folder without a file whose name ends in {kinds} (.gz too)")
        if len({_kind(file) for file in files}) > 1:
            names = ", ".join(file.name for file in files[:6])
            raise FileFormatError(
                place, None, f"a folder with files of several kinds ({names}); name one, or a pattern"
            )
        return files
    if place.exists():
        return [place]
    if any(sign in path for sign in "*?["):
        found = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if found:
            return found
        raise FileFormatError(place, None, "no file has a name of this pattern")
    raise FileFormatError(place, None, "no such file or folder")


def _kind(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return SUFFIXES.get(Path(name).suffix)


def _open_file(path: Path, options: TableOptions) -> Table:
    try:
        path.open("rb").close()
    except OSError as error:
        raise FileFormatError(path, None, f"cannot be read: {error.strerror or error}") from None
    kind = options.format or _kind(path)
    if kind in ("csv", "tsv"):
        return CsvTable(path, options)
    if kind in ("jsonl", "json"):
        return JsonTable(path, options if options.format else replace(options, format=kind))
    if kind == "parquet":
        return ParquetTable(path, options.rows)
    if kind == "excel":
        return ExcelTable(path, options.sheet)
    if kind is not None:
        known = ", ".join(sorted({*SUFFIXES.values(), *FORMATS}))
        raise InputError(f"no format {kind!r}; there are {known}", "format")
    if path.suffix.lower() in (".xls", ".ods", ".zip", ".7z", ".db", ".sqlite", ".sqlite3"):
        way_out = (
            "name it as sqlite:///FILE with a query"
            if "sq" in path.suffix or "db" in path.suffix
            else "unpack it"
            if "z" in path.suffix
            else "save it as .xlsx or CSV"
        )
        raise FileFormatError(path, None, f"files of the kind {path.suffix} are not read; {way_out}")
    return CsvTable(path, options)


class FolderTable:
    """Several files with the same columns, one after the other. Of JSON, where a record leaves out what it lacks, a
    file may lack columns of others."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        first = tables[0]
        self.name = f"{first.name} and {len(tables) - 1} others"
        self._may_lack = first.notes["format"] in ("json", "jsonl")
        every = tables if self._may_lack else tables[:1]
        self.columns: Sequence[str] = tuple(dict.fromkeys(name for table in every for name in table.columns))
        self.lists: Sequence[str] = tuple(dict.fromkeys(name for table in every for name in table.lists))
        self.notes: dict[str, Any] = {**first.notes, "files": len(tables)}
        self._begins: list[int] = []

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(Path(self.name), None, self.columns, wanted)
        self._begins, rows = [], 0
        for table in self._tables:
            there = [name for name in wanted if name in table.columns]
            if len(there) < len(wanted) and not self._may_lack:
                missing = next(name for name in wanted if name not in there)
                reason = f"no column {missing!r}, which {self._tables[0].name} has; all files need the same columns"
                raise FileFormatError(Path(table.name), None, reason)
            self._begins.append(rows)
            for batch in table.batches(there or table.columns[:1], rejects):
                rows += len(batch)
                given = {name: batch.column(name) if name in there else pa.nulls(len(batch)) for name in wanted}
                yield pa.RecordBatch.from_pydict(given)

    def error(self, row: int, reason: str) -> FileFormatError:
        place = max(place for place, begin in enumerate(self._begins) if begin <= row)
        return self._tables[place].error(row - self._begins[place], reason)
