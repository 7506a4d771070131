"""Items, histories and interactions, and the files they come in.

Items are JSON Lines: {"item_id": "...", "attributes": {"title": "...", ...}, "available": true}
Interactions are CSV or Parquet with the columns user_id, item_id, timestamp. `.gz` is read too.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqrec.data.jsonl import BrokenLines, json_object, kind_of, numbered_lines
from seqrec.data.jsonl import OnError as OnError
from seqrec.errors import FileFormatError, InputError

MAX_ITEM_ID_BYTES = 256
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_BYTES = 8192

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_Row = tuple[object, object, object]  # user_id, item_id, timestamp as they are in the file
AttributeValue = str | int | float | tuple[str, ...]
Timestamps = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a catalogue. Make it with `make_item`, which checks; the order of the attributes is kept.

    `available` False hides the item from answers; it still counts in histories.
    """

    item_id: str
    attributes: Mapping[str, AttributeValue]
    available: bool = True


@dataclass(frozen=True, slots=True)
class History:
    """What a user had, oldest first. `user_id` is None where the user is not known."""

    items: tuple[Item, ...]
    user_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Events as columns, in file order. user_ids, item_ids: n strings; timestamps: [n], any number that grows."""

    user_ids: list[str]
    item_ids: list[str]
    timestamps: Timestamps

    def __len__(self) -> int:
        return len(self.user_ids)


def check_item_id(item_id: object, field: str = "item_id") -> str:
    """The id, if it is 1-256 bytes of UTF-8 without control characters. Raises InputError."""
    if not isinstance(item_id, str):
        raise InputError(f"an item id is a string, not {kind_of(item_id)}", field)
    try:
        size = len(item_id.encode())
    except UnicodeEncodeError:
        raise InputError("not valid Unicode (a lone surrogate)", field) from None
    if not 1 <= size <= MAX_ITEM_ID_BYTES:
        raise InputError(f"an item id has 1 to {MAX_ITEM_ID_BYTES} bytes of UTF-8, this one has {size}", field)
    control = _CONTROL.search(item_id)
    if control:
        raise InputError(f"an item id has no control characters, this one has U+{ord(control[0]):04X}", field)
    return item_id


def check_attributes(attributes: object, field: str = "attributes") -> dict[str, AttributeValue]:
    """Attributes as they are stored, in their order. A null value means that the attribute is absent: it is dropped.

    Raises InputError for anything but strings, finite numbers and lists of strings, and past the limits.
    """
    if not isinstance(attributes, Mapping):
        raise InputError(f"attributes are an object of names and values, not {kind_of(attributes)}", field)
    if len(attributes) > MAX_ATTRIBUTES:
        raise InputError(f"an item has at most {MAX_ATTRIBUTES} attributes, this one has {len(attributes)}", field)
    checked: dict[str, AttributeValue] = {}
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
                raise InputError("a list holds strings only", where)
            value = tuple(value)
        try:
            size = len(name.encode()) + len(attribute_text(value).encode())
        except UnicodeEncodeError:
            raise InputError("not valid Unicode (a lone surrogate)", field) from None
        if size > MAX_ATTRIBUTE_BYTES:
            raise InputError(f"an attribute has at most {MAX_ATTRIBUTE_BYTES} bytes with its name, not {size}", where)
        checked[name] = value
    return checked


def attribute_text(value: AttributeValue) -> str:
    """A value as text: a list is joined with ", "; a whole number has no ".0"."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return ", ".join(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def make_item(item_id: object, attributes: object, available: object = True, field: str = "") -> Item:
    """A checked Item. `field` is put before the names of fields in errors, e.g. `items[3].`. Raises InputError."""
    if not isinstance(available, bool):
        raise InputError(f"true or false, not {kind_of(available)}", f"{field}available")
    return Item(
        check_item_id(item_id, f"{field}item_id"), check_attributes(attributes, f"{field}attributes"), available
    )


def read_items(path: str | Path, on_error: OnError = "raise") -> list[Item]:
    """All items of a JSON Lines file (`.gz` too), in file order.

    A broken line raises FileFormatError with its number, or is skipped and counted with `on_error="skip"`. The same
    id twice is an error of the second line.
    """
    path = Path(path)
    items: list[Item] = []
    line_of: dict[str, int] = {}
    skipped = BrokenLines(path, on_error)
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            record = json_object(line)
            unknown = record.keys() - {"item_id", "attributes", "available"}
            if unknown:
                raise InputError(f"unknown field {sorted(unknown)[0]!r}; put it into attributes")
            if "item_id" not in record or "attributes" not in record:
                raise InputError('a line is {"item_id": "...", "attributes": {...}}; item_id or attributes is missing')
            item = make_item(record["item_id"], record["attributes"], record.get("available", True))
            if item.item_id in line_of:
                raise InputError(f"item {item.item_id!r} is there already, in line {line_of[item.item_id]}")
        except InputError as error:
            skipped.add(number, str(error))
            continue
        line_of[item.item_id] = number
        items.append(item)
    skipped.report()
    if not items:
        raise FileFormatError(path, None, "no items in it")
    return items


def read_interactions(
    path: str | Path, known_items: Collection[str] | None = None, on_error: OnError = "raise"
) -> Interactions:
    """All events of a CSV (`.csv`, `.csv.gz`) or Parquet (`.parquet`) file, in file order.

    With `known_items`, an event of any other item is an error too. A broken line raises FileFormatError with its
    number (for Parquet the row, counted from 1), or is skipped and counted with `on_error="skip"`.
    """
    path = Path(path)
    users: list[str] = []
    items: list[str] = []
    times: list[int | float] = []
    skipped = BrokenLines(path, on_error)
    interned: dict[str, str] = {}  # a log repeats its ids: keep one copy of each
    for number, row in _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path):
        try:
            if isinstance(row, InputError):
                raise row
            user_id, item_id, timestamp = check_event(*row, checked=interned)
            if known_items is not None and item_id not in known_items:
                raise InputError(f"item {item_id!r} is not in the items file")
        except InputError as error:
            skipped.add(number, str(error))
            continue
        users.append(interned.setdefault(user_id, user_id))
        items.append(interned.setdefault(item_id, item_id))
        times.append(timestamp)
    skipped.report()
    if not users:
        raise FileFormatError(path, None, "no interactions in it")
    if all(isinstance(time, int) for time in times):  # nanoseconds since 1970 would lose their end as floats
        return Interactions(users, items, np.array(times, dtype=np.int64))
    return Interactions(users, items, np.array(times, dtype=np.float64))


def _csv_rows(path: Path) -> Iterator[tuple[int, _Row | InputError]]:
    """Rows with the line they begin in, the header left out."""
    reader = csv.reader((line for _, line in numbered_lines(path)), strict=True)
    try:
        columns = next(reader, [])
    except csv.Error as error:
        raise FileFormatError(path, 1, f"not CSV: {error}") from None
    try:
        user, item, time = (columns.index(name) for name in ("user_id", "item_id", "timestamp"))
    except ValueError:
        raise FileFormatError(path, 1, f"the columns user_id, item_id, timestamp are needed, not {columns}") from None
    width = len(columns)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield number, InputError(f"not CSV: {error}")
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != width:
            yield number, InputError(f"{len(row)} columns; the first line has {width}")
        else:
            yield number, (row[user], row[item], row[time])


def _parquet_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise FileFormatError(path, None, "reading Parquet needs pyarrow: pip install 'seqrec[parquet]'") from None
    try:
        table = pq.read_table(path, columns=["user_id", "item_id", "timestamp"])
    except Exception as error:
        raise FileFormatError(path, None, f"not a Parquet file of user_id, item_id, timestamp: {error}") from None
    yield from enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True), 1)


def check_event(
    user_id: object, item_id: object, timestamp: object, checked: Collection[object] = ()
) -> tuple[str, str, int | float]:
    """An event's ids, and its timestamp as a number (text of one is read). Ids among `checked` are taken as they are.

    Raises InputError for what is no id, and for a timestamp that is no finite number or does not fit 64 bits.
    """
    # Parquet columns of ids are often integers: an id is its text.
    user = _id(user_id, "user_id", checked)
    item = _id(item_id, "item_id", checked)
    if isinstance(timestamp, str):
        try:
            timestamp = int(timestamp)
        except ValueError:
            try:
                timestamp = float(timestamp)
            except ValueError:
                raise InputError(f"{timestamp!r} is not a number", "timestamp") from None
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not math.isfinite(timestamp):
        raise InputError(f"{timestamp!r} is not a finite number", "timestamp")
    if isinstance(timestamp, int) and not -(2**63) <= timestamp < 2**63:
        raise InputError(f"{timestamp} does not fit 64 bits", "timestamp")
    return user, item, timestamp


def _id(value: object, field: str, checked: Collection[object]) -> str:
    if isinstance(value, str) and value in checked:
        return value
    return check_item_id(str(value) if isinstance(value, int) else value, field)
