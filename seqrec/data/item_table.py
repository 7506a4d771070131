"""Items from a table: CSV with a column item_id; all other columns are attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqrec.data.csv_records import CsvRecord, CsvRecordError, csv_records
from seqrec.data.items import AttributeValue, Item, make_item, read_items
from seqrec.data.jsonl import numbered_lines
from seqrec.data.timestamps import parse_number
from seqrec.errors import FileFormatError, InputError

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?")
"""Without leading zeros, which article numbers have."""
_AVAILABLE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": True}


def read_any_items(path: Path) -> list[Item]:
    """Items of a `.csv` (`.csv.gz`) file, or of JSON Lines. Raises FileFormatError."""
    return read_item_table(path) if ".csv" in path.suffixes[-2:] else read_items(path)


def read_item_table(path: Path) -> list[Item]:
    """Items of a CSV file, in file order.

    A column of nothing but numbers has numbers, an empty field is no attribute, and `available` is true or false; where
    it is empty or there is no such column, true. Raises FileFormatError with the line.
    """
    rows = _rows(path)
    if not rows:
        raise FileFormatError(path, None, "empty")
    [header, *body] = rows
    names = header.fields
    if "item_id" not in names:
        raise FileFormatError(path, header.first_line, f"there must be a column item_id, not only {names!r:.200}")
    if len(set(names)) < len(names) or "" in names:
        raise FileFormatError(path, header.first_line, f"each column needs a name of its own: {names!r:.200}")
    numeric = {name for place, name in enumerate(names) if _is_numeric([row.fields[place] for row in body])}
    items: list[Item] = []
    line_of: dict[str, int] = {}
    for row in body:
        try:
            item = _item(dict(zip(names, row.fields, strict=True)), numeric)
            if item.item_id in line_of:
                raise InputError(f"item {item.item_id!r} occurs already in line {line_of[item.item_id]}")
        except InputError as error:
            raise FileFormatError(path, row.first_line, str(error), row.last_line) from None
        line_of[item.item_id] = row.first_line
        items.append(item)
    if not items:
        raise FileFormatError(path, None, "no items in it")
    return items


def _rows(path: Path) -> list[CsvRecord]:
    rows: list[CsvRecord] = []
    for record in csv_records(numbered_lines(path)):
        if isinstance(record, CsvRecordError):
            raise FileFormatError(path, record.first_line, record.reason, record.last_line)
        if rows and len(record.fields) != len(rows[0].fields):
            reason = f"{len(record.fields)} columns; the first line has {len(rows[0].fields)}"
            raise FileFormatError(path, record.first_line, reason, record.last_line)
        rows.append(record)
    return rows


def _is_numeric(values: Sequence[str]) -> bool:
    return any(values) and all(_NUMBER.fullmatch(value) for value in values if value)


def _item(row: Mapping[str, str], numeric: set[str]) -> Item:
    attributes: dict[str, AttributeValue] = {}
    for name, value in row.items():
        if value and name not in ("item_id", "available"):
            attributes[name] = parse_number(value) if name in numeric else value
    available = row.get("available", "").strip().lower()
    if available not in _AVAILABLE:
        raise InputError(f"true or false, not {available!r}", "available")
    return make_item(row["item_id"], attributes, _AVAILABLE[available])
