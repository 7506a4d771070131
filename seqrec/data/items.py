"""Items, histories and interactions, and the readers of their files.

Items are JSON Lines: {"item_id": "...", "attributes": {"title": "...", ...}, "available": true}
Interactions are CSV or Parquet with the columns user_id, item_id, timestamp. Files ending in `.gz` are decompressed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqrec.data.csv_records import CsvRecord, CsvRecordError, csv_records, hidden_rows
from seqrec.data.item_records import item_records
from seqrec.data.jsonl import BrokenLines, kind_of, numbered_lines
from seqrec.data.jsonl import OnError as OnError
from seqrec.data.timestamps import Timestamps as Timestamps
from seqrec.data.timestamps import (
    as_array,
    count_units,
    incomparable,
    mixed_units,
    of_unit,
    parse_number,
    parse_timestamp,
)
from seqrec.errors import FileFormatError, InputError

MAX_ITEM_ID_BYTES = 256
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_BYTES = 8192
MAX_ITEM_BYTES = 65536
"""Of all attributes with their names."""
MAX_TYPE_BYTES = 64
"""Of the type of an event."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_INVISIBLE = re.compile(
    # White space and control characters; Unicode's Default_Ignorable_Code_Point; the Braille pattern without dots.
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]*"
)

_MORE = ("type", "value", "weight")
_Row = tuple[object, ...]  # user_id, item_id, timestamp, type, value, weight as in the file
AttributeValue = str | int | float | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a catalogue. `make_item` creates it with checks. The order of the attributes is kept.

    `available` False hides the item from answers; it still counts in histories.
    """

    item_id: str
    attributes: Mapping[str, AttributeValue]
    available: bool = True


@dataclass(frozen=True, slots=True)
class History:
    """The items of a user, oldest first. `user_id` is None for anonymous users."""

    items: tuple[Item, ...]
    user_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Events as columns, in file order. user_ids, item_ids: n strings; timestamps: [n], numbers that grow with time.

    types and values: n of each, "" and None where there is none; None: they were not read. weights: how often each
    counts; None: once.
    """

    user_ids: list[str]
    item_ids: list[str]
    timestamps: Timestamps
    types: list[str] | None = None
    values: list[float | None] | None = None
    weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.user_ids)


def check_item_id(item_id: object, field: str = "item_id", what: str = "an item id") -> str:
    """The id, if it is 1-256 bytes of UTF-8 without control characters; `what` names it. Raises InputError."""
    if not isinstance(item_id, str):
        raise InputError(f"{what} is a string, not {kind_of(item_id)}", field)
    try:
        size = len(item_id.encode())
    except UnicodeEncodeError:
        raise InputError("not valid Unicode (a lone surrogate)", field) from None
    if not 1 <= size <= MAX_ITEM_ID_BYTES:
        raise InputError(f"{what} has 1 to {MAX_ITEM_ID_BYTES} bytes of UTF-8, this one has {size}", field)
    control = _CONTROL.search(item_id)
    if control:
        raise InputError(f"{what} has no control characters, this one has U+{ord(control[0]):04X}", field)
    return item_id


def check_user_id(user_id: object, field: str = "user_id") -> str:
    """The id of a user in the one form it is known by: as an item id, composed (NFC). Raises InputError.

    Some systems write é as one character, others as e and an accent: that is one user. No blanks at either end.
    """
    checked = normalize_id(check_item_id(user_id, field, "a user id"))
    if checked != checked.strip():
        raise InputError(f"a user id neither begins nor ends with a blank, this one is {checked!r}", field)
    return check_item_id(checked, field, "a user id")  # it may have grown


def check_event_type(name: object, field: str = "type") -> str:
    """The type of an event, if it is 1 to 64 bytes of UTF-8 without control characters. Raises InputError."""
    if not isinstance(name, str) or not name:
        raise InputError(f"a type is a string such as view or purchase, not {name!r}", field)
    if len(name) > MAX_TYPE_BYTES or len(check_item_id(name, field, "a type").encode()) > MAX_TYPE_BYTES:
        raise InputError(f"a type has at most {MAX_TYPE_BYTES} bytes", field)
    return name


def normalize_id(text: str) -> str:
    """Composed letters (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def former_user_id(text: str) -> str:
    """What a user's id from before `check_user_id` is now: "" for nothing but blanks."""
    return normalize_id(text).strip()


def check_attributes(attributes: object, field: str = "attributes") -> dict[str, AttributeValue]:
    """Attributes as they are stored, in their order. A null value means that the attribute is absent: it is dropped.

    Raises InputError for other values than strings, finite numbers and lists of strings, and beyond the limits.
    """
    if not isinstance(attributes, Mapping):
        raise InputError(f"attributes are an object of names and values, not {kind_of(attributes)}", field)
    if len(attributes) > MAX_ATTRIBUTES:
        raise InputError(f"an item has at most {MAX_ATTRIBUTES} attributes, this one has {len(attributes)}", field)
    checked: dict[str, AttributeValue] = {}
    total = 0
    for name, value in attributes.items():
        where = f"{field}.{name}"
        if not isinstance(name, str) or not name:
            raise InputError("an attribute's name is a string that is not empty", field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float | list | tuple):
            raise InputError(f"a value is a string, a number or a list of strings, not {kind_of(value)}", where)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{value} is not a number that can be stored; leave the attribute out", where)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InputError("a whole number that does not fit 64 bits; write it as a string", where)
        if isinstance(value, list | tuple):
            if not all(isinstance(part, str) for part in value):
                raise InputError("a list has only strings", where)
            value = tuple(value)
        try:
            size = attribute_size(name, value)
        except UnicodeEncodeError:
            raise InputError("not valid Unicode (a lone surrogate)", field) from None
        if size > MAX_ATTRIBUTE_BYTES:
            raise InputError(f"an attribute has at most {MAX_ATTRIBUTE_BYTES} bytes with its name, not {size}", where)
        total += size
        checked[name] = value
    if total > MAX_ITEM_BYTES:
        raise InputError(f"an item has at most {MAX_ITEM_BYTES} bytes of attributes, this one has {total}", field)
    return checked


def attribute_size(name: str, value: AttributeValue) -> int:
    """Bytes of UTF-8 that an attribute takes with its name. Raises UnicodeEncodeError for a lone surrogate."""
    return len(name.encode()) + len(attribute_text(value).encode())


def attribute_text(value: AttributeValue) -> str:
    """A value as text: a list is joined with ", "; a whole number has no ".0"."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return ", ".join(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def has_visible_text(text: str) -> bool:
    """Whether a text has visible characters, other than blanks, no-break and zero-width characters."""
    return not _INVISIBLE.fullmatch(text)


def make_item(item_id: object, attributes: object, available: object = True, field: str = "") -> Item:
    """A checked Item. `field` is put before the names of fields in errors, e.g. `items[3].`. Raises InputError."""
    if not isinstance(available, bool):
        raise InputError(f"true or false, not {kind_of(available)}", f"{field}available")
    return Item(
        check_item_id(item_id, f"{field}item_id"), check_attributes(attributes, f"{field}attributes"), available
    )


def read_items(path: str | Path, on_error: OnError = "raise") -> list[Item]:
    """All items of a JSON Lines file (`.gz` too), or of a Parquet file or a directory of them, in file order.

    A broken line raises FileFormatError with its number (for Parquet the row, counted from 1), or is skipped and
    counted with `on_error="skip"`. The same id twice is an error of the second line.
    """
    path = Path(path)
    items: list[Item] = []
    place_of: dict[str, tuple[Path, int]] = {}
    skipped = BrokenLines(path, on_error)
    for file, number, record in item_records(path):
        try:
            if isinstance(record, InputError):
                raise record
            item = make_item(record["item_id"], record["attributes"], record.get("available", True))
            if item.item_id in place_of:
                other, first = place_of[item.item_id]
                elsewhere = "" if other == file else f" of {other.name}"
                raise InputError(f"item {item.item_id!r} occurs already in line {first}{elsewhere}")
        except InputError as error:
            skipped.path = file
            skipped.add(number, str(error))
            continue
        place_of[item.item_id] = file, number
        items.append(item)
    skipped.path = path
    skipped.report()
    if not items:
        raise FileFormatError(path, None, "no items in it")
    return items


def read_interactions(
    path: str | Path, known_items: Collection[str] | None = None, on_error: OnError = "raise", typed: bool = False
) -> Interactions:
    """All events of a CSV (`.csv`, `.csv.gz`) or Parquet (`.parquet`) file, in file order.

    With `known_items`, an event of any other item is an error too. A broken line raises FileFormatError with its
    number (for Parquet the row, counted from 1), or is skipped and counted with `on_error="skip"`. Timestamps of
    several units always raise it. A column weight, if there is one, says how often an event counts (empty: once).
    `typed`: read the columns type and value too, where there are any.
    """
    path = Path(path)
    clean = None if typed else _clean_parquet(path, known_items)
    if clean is not None:
        return clean
    users: list[str] = []
    items: list[str] = []
    times: list[int | float] = []
    types: list[str] = []
    values: list[float | None] = []
    weights = array("d")
    lines = array("q")
    skipped = BrokenLines(path, on_error)
    user_names: dict[str, str] = {}  # a log repeats its ids: keep one copy of each
    item_names: dict[str, str] = {}
    type_names: dict[str, str] = {}
    for number, last_line, row in _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path):
        try:
            if isinstance(row, InputError):
                raise row
            user_id, item_id, timestamp = check_event(row[0], row[1], row[2], user_names, item_names)
            type, value = (_type(row[3]), _value(row[4])) if typed else ("", None)
            weight = 1.0 if row[5] is None else _weight(row[5])
            if known_items is not None and item_id not in known_items:
                raise InputError(f"item {item_id!r} is not in the items file")
        except InputError as error:
            skipped.add(number, str(error), last_line)
            continue
        users.append(user_names.setdefault(user_id, user_id))
        items.append(item_names.setdefault(item_id, item_id))
        times.append(timestamp)
        types.append(type_names.setdefault(type, type))
        values.append(value)
        weights.append(weight)
        lines.append(number)
    odd = incomparable(times)
    if odd:
        places, reason = odd
        for place in places:
            skipped.add(lines[place], f"timestamp: {times[place]} is {reason}")
        kept = sorted(set(range(len(times))).difference(places))
        users, items, times = [users[row] for row in kept], [items[row] for row in kept], [times[row] for row in kept]
        types, values = [types[row] for row in kept], [values[row] for row in kept]
        weights = array("d", (weights[row] for row in kept))
        lines = array("q", (lines[row] for row in kept))
    skipped.report()
    if not users:
        raise FileFormatError(path, None, "no interactions in it")
    timestamps = as_array(times)
    units = count_units(timestamps)
    mixed = mixed_units(units)
    if mixed:
        first = int(np.flatnonzero(of_unit(timestamps, min(units, key=units.__getitem__)))[0])
        raise FileFormatError(path, lines[first], f"timestamp: timestamps are {mixed}")
    counted = np.array(weights)
    read = Interactions(users, items, timestamps, weights=counted if (counted != 1).any() else None)
    return replace(read, types=types, values=values) if typed else read


def _type(value: object) -> str:
    return "" if value is None or value == "" else check_event_type(value)


def _value(value: object, field: str = "value") -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = parse_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"a number, not {kind_of(value)}", field)
    return None if math.isnan(value) else float(value)


def _weight(value: object) -> float:
    number = _value(value, "weight")
    if number is None:
        return 1.0
    if not 0 <= number < math.inf:
        raise InputError(f"{number:g} is not a number from 0 up", "weight")
    return number


def _clean_parquet(path: Path, known_items: Collection[str] | None) -> Interactions | None:
    """The events of a Parquet file without a fault; None for any other file."""
    if path.suffix != ".parquet" or find_spec("pyarrow") is None:
        return None
    from seqrec.data.parquet_events import read_clean_events

    read = read_clean_events(path, known_items, check_user_id, check_item_id)
    if read is None or not len(read[2]) or mixed_units(count_units(read[2])):
        return None
    users, items, timestamps, weights = read
    return Interactions(users, items, timestamps, weights=weights)


def _csv_rows(path: Path) -> Iterator[tuple[int, int, _Row | InputError]]:
    """Rows with the first and the last line that they span, without the header."""
    records = csv_records(numbered_lines(path))
    header = next(records, CsvRecord(1, 1, [], []))
    if isinstance(header, CsvRecordError):
        raise FileFormatError(path, header.first_line, header.reason, header.last_line)
    columns = header.fields
    if not {"user_id", "item_id", "timestamp"} <= set(columns):
        found = repr(columns) if len(repr(columns)) <= 200 else f"{repr(columns)[:200]}..."
        reason = f"the columns user_id, item_id, timestamp are needed, not {found}"
        raise FileFormatError(path, header.first_line, reason, header.last_line)
    user, item, time = (columns.index(name) for name in ("user_id", "item_id", "timestamp"))
    more = [columns.index(name) if name in columns else None for name in _MORE]
    width = len(columns)

    def is_row(fields: list[str]) -> bool:
        if len(fields) != width:
            return False
        try:
            parse_timestamp(fields[time])
        except InputError:
            return False
        return True

    hidden = hidden_rows(header, is_row)
    if hidden:
        raise FileFormatError(path, header.first_line, hidden, header.last_line)
    for record in records:
        first, last = record.first_line, record.last_line
        if isinstance(record, CsvRecordError):
            yield first, last, InputError(record.reason)
            continue
        fields = record.fields
        if len(fields) != width:
            yield first, last, InputError(f"{len(fields)} columns; the first line has {width}")
            continue
        hidden = hidden_rows(record, is_row)
        yield (
            first,
            last,
            InputError(hidden)
            if hidden
            else (
                fields[user],
                fields[item],
                fields[time],
                *(None if column is None else fields[column] for column in more),
            ),
        )


def _parquet_rows(path: Path) -> Iterator[tuple[int, int, _Row]]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise FileFormatError(path, None, "reading Parquet needs pyarrow: pip install 'seqrec[parquet]'") from None
    try:
        more = [name for name in _MORE if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=["user_id", "item_id", "timestamp", *more])
    except Exception as error:
        raise FileFormatError(path, None, f"not a Parquet file of user_id, item_id, timestamp: {error}") from None
    columns = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    absent = [None] * len(table)
    names = ("user_id", "item_id", "timestamp", *_MORE)
    for number, row in enumerate(zip(*(columns.get(name, absent) for name in names), strict=True), 1):
        yield number, number, row


def check_event(
    user_id: object,
    item_id: object,
    timestamp: object,
    checked_users: Collection[object] = (),
    checked_items: Collection[object] = (),
) -> tuple[str, str, int | float]:
    """An event's ids, and its timestamp as a number (text of one is read). Checked ids are taken as they are.

    Raises InputError for an invalid id, and for a timestamp that is not a finite number or does not fit 64 bits.
    """
    # Parquet columns of ids are often integers, which become text.
    user = _id(user_id, "user_id", checked_users, check_user_id)
    item = _id(item_id, "item_id", checked_items, check_item_id)
    return user, item, parse_timestamp(timestamp)


def _id(value: object, field: str, checked: Collection[object], check: Callable[[object, str], str]) -> str:
    if isinstance(value, str) and value in checked:
        return value
    return check(str(value) if isinstance(value, int) and not isinstance(value, bool) else value, field)
