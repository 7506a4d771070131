"""What a data set in another format gives: items and events, one at a time, read line by line.

A source is made of what lies on the disk; nothing is held but the line at hand.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from seqrec.data.items import MAX_ATTRIBUTE_BYTES, Item, check_event, make_item
from seqrec.data.jsonl import BrokenLines, OnError, numbered_lines
from seqrec.errors import FileFormatError, InputError

log = logging.getLogger(__name__)

T = TypeVar("T")
RawItem = tuple[object, Mapping[str, object]]
"""item_id, attributes: not checked."""
RawEvent = tuple[object, object, object, object]
"""user_id, item_id, timestamp, rating (None where there is none): not checked."""


class Event(NamedTuple):
    user_id: str
    item_id: str
    timestamp: int | float
    rating: float | None


class Source(Protocol):
    def items(self, on_error: OnError) -> Iterator[Item]:
        """Every item that is described. The same id may come twice. Raises FileFormatError."""

    def events(self, on_error: OnError) -> Iterator[Event]:
        """Every event, in the order of the files. Raises FileFormatError."""


def item_lines(path: Path, parse: Callable[[str], RawItem], on_error: OnError, header: bool = False) -> Iterator[Item]:
    """The items of a file, one a line. `parse` gets the line without its end and raises InputError if it is broken."""
    cut = 0
    for (item_id, attributes), broken in _parsed(path, parse, on_error, header):
        try:
            fitted = {name: fit(name, value) for name, value in attributes.items()}
            item = make_item(item_id, fitted)
        except InputError as error:
            broken(str(error))
            continue
        cut += sum(fitted[name] is not value for name, value in attributes.items())
        yield item
    if cut:
        log.warning("%s: %d attributes were longer than %d bytes and were cut", path, cut, MAX_ATTRIBUTE_BYTES)


def event_lines(
    path: Path, parse: Callable[[str], RawEvent], on_error: OnError, header: bool = False
) -> Iterator[Event]:
    """The events of a file, one a line. `parse` gets the line without its end and raises InputError if it is broken."""
    for (user_id, item_id, timestamp, rating), broken in _parsed(path, parse, on_error, header):
        try:
            event = Event(*check_event(user_id, item_id, timestamp), _rating(rating))
        except InputError as error:
            broken(str(error))
            continue
        yield event


def fit(name: str, value: object) -> object:
    """A text or list of texts that is longer than an attribute may be, cut where that ends; all else as it is."""
    room = MAX_ATTRIBUTE_BYTES - len(name.encode(errors="replace"))
    if isinstance(value, str) and len(value) * 4 > room:
        encoded = value.encode(errors="surrogateescape")
        return value if len(encoded) <= room else encoded[:room].decode(errors="ignore")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        for position, part in enumerate(value):
            room -= len(part.encode(errors="surrogateescape")) + len(", ") * (position > 0)
            if room < 0:
                return value[:position]
    return value


def number(text: str) -> int | float:
    """A number as it was written: "120" is whole, "120.0" is not. Raises InputError."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} is not a finite number")
    return value


def present(folder: Path, name: str) -> Path | None:
    """The file `name` in a folder, or `name.gz`, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def first_line(path: Path) -> str:
    """Raises FileFormatError for a file without a line."""
    for _, line in numbered_lines(path):
        return line.rstrip("\r\n")
    raise FileFormatError(path, None, "empty")


def _parsed(
    path: Path, parse: Callable[[str], T], on_error: OnError, header: bool
) -> Iterator[tuple[T, Callable[[str], None]]]:
    """What each line is, and what to call if it turns out to be broken after all. Empty lines are passed over."""
    broken = BrokenLines(path, on_error)
    for line_number, line in numbered_lines(path):
        if not line.strip() or (header and line_number == 1):
            continue
        try:
            value = parse(line.rstrip("\r\n"))
        except InputError as error:
            broken.add(line_number, str(error))
            continue
        yield value, partial(broken.add, line_number)
    broken.report()


def _rating(value: object) -> float | None:
    if value is None or isinstance(value, int | float):
        return value
    try:
        return number(str(value))
    except InputError as error:
        raise InputError(error.reason, "rating") from None
