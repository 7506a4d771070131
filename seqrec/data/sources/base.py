"""The interface of data sets in other formats: iterators over items and events, which read the files line by line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from seqrec.data.files import check_output
from seqrec.data.items import MAX_ATTRIBUTE_BYTES, Item, check_event, make_item
from seqrec.data.jsonl import BrokenLines, OnError, numbered_lines
from seqrec.data.timestamps import parse_number
from seqrec.errors import FileFormatError, InputError

log = logging.getLogger(__name__)

T = TypeVar("T")
RawItem = tuple[object, Mapping[str, object]]
"""item_id, attributes; not yet checked."""
RawEvent = tuple[object, object, object, object]
"""user_id, item_id, timestamp, rating (None if there is none); not yet checked."""


class Event(NamedTuple):
    user_id: str
    item_id: str
    timestamp: int | float
    rating: float | None


class Source(Protocol):
    mixes_units: bool
    """Whether the format itself says that files of one data set have times in different units."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        """All described items. An id may occur twice. Raises FileFormatError."""

    def events(self, on_error: OnError) -> Iterator[Event]:
        """All events, in the order of the files. Raises FileFormatError."""


def item_lines(
    path: Path,
    parse: Callable[[str], RawItem],
    on_error: OnError,
    header: bool = False,
    any_encoding: bool = False,
) -> Iterator[Item]:
    """The items of a file with one per line. `parse` gets the line without its end and raises InputError.

    `any_encoding`: `parse` decodes bytes that are not UTF-8, which are lone surrogates, itself.
    """
    cut = 0
    for (item_id, attributes), broken in _parsed(path, parse, on_error, header, any_encoding):
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
    """The events of a file with one per line. `parse` gets the line without its end and raises InputError."""
    for (user_id, item_id, timestamp, rating), broken in _parsed(path, parse, on_error, header):
        try:
            event = Event(*check_event(user_id, item_id, timestamp), _rating(rating))
        except InputError as error:
            broken(str(error))
            continue
        yield event


def fit(name: str, value: object) -> object:
    """Cuts a text or list of texts to the size limit of an attribute; returns other values unchanged."""
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


def check_replaceable(out: Path, mark: str, overwrite: bool) -> None:
    """Checks before any work that the folder `out` can be written.

    An existing one is replaced only with `overwrite`, and only if it is empty or has the file `mark`: then it was
    written by the same command. Raises InputError.
    """
    if not out.absolute().name or out.name in ("", ".."):
        raise InputError(f"{str(out)!r} is not the name of a new folder; choose one", "--out")
    check_output(out, "--out")
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out} exists already; add --overwrite to replace it")
    if out.is_symlink() or not out.is_dir():
        raise InputError(f"{out} is not a folder; choose another path", "--out")
    if any(out.iterdir()) and not (out / mark).is_file():
        raise InputError(f"{out} is not replaced, since it has other files and no {mark}; choose another path", "--out")


def present(folder: Path, name: str) -> Path | None:
    """The file `name` in a folder, or `name.gz`, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def first_line(path: Path) -> str:
    """Raises FileFormatError for a file without a line."""
    for _, line in numbered_lines(path):
        return line.rstrip("\r\n")
    raise FileFormatError(path, None, "empty")


def _parsed(
    path: Path, parse: Callable[[str], T], on_error: OnError, header: bool, any_encoding: bool = False
) -> Iterator[tuple[T, Callable[[str], None]]]:
    """The parsed value of each line that is not empty, and a function that reports the line as broken."""
    broken = BrokenLines(path, on_error)
    for line_number, line in numbered_lines(path, any_encoding):
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
        return parse_number(str(value))
    except InputError as error:
        raise InputError(error.reason, "rating") from None
