"""Records of CSV files with the lines they span, so that a stray quote cannot hide rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import NamedTuple

from seqrec.errors import InputError


class CsvRecord(NamedTuple):
    first_line: int
    last_line: int
    fields: list[str]
    lines: list[str]  # as they are in the file; empty if the record has no quote


class CsvRecordError(NamedTuple):
    first_line: int
    last_line: int
    reason: str


def csv_records(lines: Iterator[tuple[int, str]]) -> Iterator[CsvRecord | CsvRecordError]:
    """Records of numbered lines; empty lines are left out. After an error, reading continues with the next line."""
    for number, line in lines:
        if '"' not in line:
            content = line.rstrip("\r\n")
            if content:
                yield CsvRecord(number, number, content.split(","), [])
            continue
        used = [line]

        def feed(used: list[str] = used) -> Iterator[str]:
            """The line, and as many more as the record needs."""
            yield used[0]
            for _, more in lines:
                used.append(more)
                yield more

        try:
            fields = next(csv.reader(feed(), strict=True))
        except csv.Error as error:
            hint = f"; a quote that opens a field in line {number} is not closed properly" if len(used) > 1 else ""
            yield CsvRecordError(number, number + len(used) - 1, f"not CSV: {error}{hint}")
            continue
        yield CsvRecord(number, number + len(used) - 1, fields, used)


def hidden_rows(record: CsvRecord, is_row: Callable[[list[str]], bool]) -> str | None:
    """Why a record of several lines is not one row: lines in a quoted field are rows themselves. None if it is one.

    The first and the last line belong to a valid record too, so they count only if both are rows.
    """
    if record.first_line == record.last_line:
        return None
    first, *within, last = (is_row(parse_line(line)) for line in record.lines)
    if not any(within) and not (first and last):
        return None
    return (
        f"the quote that opens in line {record.first_line} closes in line {record.last_line}, and "
        f"{sum(within) or 2} of these lines are rows themselves; remove the stray quote, or double it inside a "
        "quoted field"
    )


def parse_line(line: str) -> list[str]:
    """The fields of a line, read without its neighbours. Unmatched quotes are ordinary characters. Never raises."""
    content = line.rstrip("\r\n")
    try:
        return next(csv.reader([content], strict=True), [])
    except csv.Error:
        return content.split(",")


def strict_fields(line: str) -> list[str]:
    """The fields of a line that is a whole record. Raises InputError, also if a quote is not closed in the line."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        reason = "a quote that opens a field is not closed in this line" if "unexpected end" in str(error) else error
        raise InputError(f"not CSV: {reason}") from None
