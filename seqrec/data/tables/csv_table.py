"""CSV, TSV and their relatives: any delimiter and encoding, quoted fields of several lines, compressed or not."""

from __future__ import annotations

import atexit
import csv
import io
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from seqrec.data.csv_records import parse_line
from seqrec.data.tables.base import Rejects, TableOptions, check_columns
from seqrec.data.tables.sniff import Encoding, find_dialect, find_encoding, open_utf8, read_sample
from seqrec.errors import FileFormatError

_BLOCK_BYTES = 4 << 20
"""No record may be longer."""
_WIDTH = "rows with another number of columns"


class CsvTable:
    """One file. Every column is text; a field that is empty, or NULL as databases write it, is null."""

    def __init__(self, path: Path, options: TableOptions) -> None:
        self.path, self.name = path, str(path)
        self.encoding = Encoding(options.encoding, "as set") if options.encoding else find_encoding(path)
        sample, more = read_sample(path, self.encoding)
        delimiter = options.delimiter or ("\t" if ".tsv" in path.suffixes else None)
        self.dialect = find_dialect(path, sample, delimiter, options.quote, options.header, more)
        self.columns: Sequence[str] = self.dialect.columns
        self.lists: Sequence[str] = ()
        self.notes: dict[str, Any] = {"format": "csv", "encoding": self.encoding, "dialect": self.dialect}
        self._rejected: list[int] = []  # records, counted from 0 without the header

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(self.path, self.dialect.skip + 1, self.columns, wanted)
        self._rejected = []
        width, rejected = len(self.columns), self._rejected
        if self.encoding.damaged:
            where = self.encoding.first
            reason = f"bytes that are not UTF-8, as {self.encoding.damaged} lines have; save the file again as UTF-8"
            rejects.add("damaged characters were replaced", FileFormatError(self.path, where, reason), 0)

        def invalid(row: pcsv.InvalidRow) -> str:
            place = (row.number or 0) - 1 - self.dialect.header
            rejected.append(place)
            if not missing and rejects.wants_example(_WIDTH):
                missing.append((place, row.actual_columns))
            else:
                rejects.add(_WIDTH)
            return "error" if rejects.on_error == "raise" else "skip"

        missing: list[tuple[int, int]] = []
        try:
            with self._open() as file:
                for batch in self._reader(file, wanted, invalid):
                    self._report(missing, width, rejects)
                    yield self._checked(batch, rejects)
                self._report(missing, width, rejects)
        except pa.ArrowInvalid as error:
            self._report(missing, width, Rejects("raise"))
            raise self._explained(error) from None
        except (EOFError, OSError) as error:
            raise FileFormatError(self.path, None, f"cannot be read on: {error}; the file is damaged") from None

    def error(self, row: int, reason: str) -> FileFormatError:
        for place in sorted(self._rejected):
            row += place <= row
        first, last = self._lines(row)
        return FileFormatError(self.path, first, reason, last)

    def _open(self) -> IO[bytes]:
        """At the names of the columns, or the first row."""
        file = open_utf8(self.path, self.encoding)
        for _ in range(self.dialect.skip):
            file.readline()
        return file

    def _reader(self, file: Any, wanted: Sequence[str], invalid: Any) -> Iterator[pa.RecordBatch]:
        _wait_for_readers_at_exit()
        dialect = self.dialect
        reader: Iterator[pa.RecordBatch] = pcsv.open_csv(
            pa.PythonFile(file, mode="r"),
            read_options=pcsv.ReadOptions(
                block_size=_BLOCK_BYTES,
                use_threads=False,
                column_names=list(self.columns),
                skip_rows_after_names=int(dialect.header),
            ),
            parse_options=pcsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                escape_char="\\" if dialect.escape else False,
                newlines_in_values=bool(dialect.quote),
                invalid_row_handler=invalid,
            ),
            convert_options=pcsv.ConvertOptions(
                include_columns=list(wanted),
                column_types=dict.fromkeys(self.columns, pa.string()),
                strings_can_be_null=True,
                null_values=["", "\\N", "NULL"],
                quoted_strings_can_be_null=True,
            ),
        )
        return reader

    def _report(self, missing: list[tuple[int, int]], width: int, rejects: Rejects) -> None:
        for place, found in missing:
            first, last = self._lines(place)
            reason = f"{found} columns; the first line has {width}"
            rejects.add(_WIDTH, FileFormatError(self.path, first, reason, last))
        missing.clear()

    def _checked(self, batch: pa.RecordBatch, rejects: Rejects) -> pa.RecordBatch:
        """A field of several lines must not hide rows: a stray quote swallows them without an error."""
        width = len(self.columns)
        for column in batch.columns if self.dialect.quote and width > 1 else ():
            if column.null_count == len(column) or not pc.any(pc.match_substring(column, "\n")).as_py():
                continue
            for value in pc.drop_null(column.filter(pc.match_substring(column, "\n"))).to_pylist():
                inside = value.split("\n")[1:-1]
                hidden = [line for line in inside if len(_fields(line, self.dialect.delimiter)) == width]
                if hidden:
                    raise self._stray_quote(value, hidden)
        return batch

    def _stray_quote(self, value: str, hidden: Sequence[str]) -> FileFormatError:
        first = value.split("\n", 1)[0]
        number = next(
            (line for line, _, row in self._records() if any(f.split("\n", 1)[0] == first for f in row)), None
        )
        reason = (
            f"a quote opens here and closes {value.count(chr(10))} lines later; {len(hidden)} of these lines are rows "
            'themselves. Remove the stray quote, double it inside a quoted field, or set quote = "" in shop.toml'
        )
        return FileFormatError(self.path, number, reason)

    def _lines(self, record: int) -> tuple[int | None, int | None]:
        """First and last line of a record, counted from 0 without the header."""
        for place, (first, last, _) in enumerate(self._records()):
            if place == record + self.dialect.header:
                return first, last
        return None, None

    def _records(self) -> Iterator[tuple[int, int, list[str]]]:
        """First line, last line and fields of every record, as the standard library reads them."""
        dialect = self.dialect
        with self._open() as raw:
            text = io.TextIOWrapper(raw, "utf-8", errors="replace", newline="")
            reader = csv.reader(
                text,
                delimiter=dialect.delimiter,
                quotechar=dialect.quote or '"',
                quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
                escapechar="\\" if dialect.escape else None,
            )
            skipped, before = self.dialect.skip, 0
            try:
                for row in reader:
                    if row:
                        yield skipped + before + 1, skipped + reader.line_num, row
                    before = reader.line_num
            except csv.Error:
                yield skipped + before + 1, skipped + reader.line_num, []

    def _explained(self, error: Exception) -> FileFormatError:
        """pyarrow's error with the line, where it can be found."""
        text = str(error)
        if "straddling" in text or "out of sync" in text or "trailing" in text.lower():
            for first, last, row in self._records():
                if last - first > 100 or not row:
                    reason = 'a quote opens in this line and is not closed; remove it, or set quote = "" in shop.toml'
                    return FileFormatError(self.path, first, reason)
        return FileFormatError(self.path, None, f"not CSV: {text}")


@cache
def _wait_for_readers_at_exit() -> None:
    """pyarrow reads in threads, which release Python's buffers a moment after the last row was given. One that does so
    while the interpreter ends aborts the process: 3 of 100 commands that ended with an error right after reading."""
    atexit.register(time.sleep, 0.1)


def _fields(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r")
    return parse_line(line) if delimiter == "," else line.split(delimiter)
