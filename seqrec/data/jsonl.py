"""Lines of text files with their numbers, JSON objects in them, and the treatment of broken lines."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from seqrec.data.encoding import BYTE_ORDER_MARK, describe_encoding, is_utf8, open_text
from seqrec.errors import FileFormatError, InputError

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]


class BrokenLines:
    """Broken lines of one file: the first raises FileFormatError, or all are counted and the first five are logged."""

    def __init__(self, path: Path, on_error: OnError) -> None:
        self.path, self.on_error, self.count, self._logged = path, on_error, 0, 0

    def add(self, line: int | None, reason: str, last_line: int | None = None) -> None:
        """A record that begins in `line` and ends in `last_line`, all of whose lines count.

        `line` None: a record of a file that is not made of lines; the reason names it.
        """
        if self.on_error == "raise":
            reason = f"{reason} (--on-error skip leaves broken lines out)"
            raise FileFormatError(self.path, line, reason, last_line)
        self.count += 1 if line is None or last_line is None else last_line - line + 1
        self._logged += 1
        if self._logged <= 5:
            log.warning("skipped %s", FileFormatError(self.path, line, reason, last_line))

    def report(self) -> None:
        if self.count:
            log.warning("skipped %d lines of %s", self.count, self.path)


def numbered_lines(path: Path, any_encoding: bool = False) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and their ends, without byte-order marks (joined files have some within).

    Bytes that are not UTF-8 become lone surrogates, which every check rejects by line. Raises FileFormatError if the
    whole file is in another encoding, unless `any_encoding`, and for a file that cannot be read.
    """
    number = 0
    decodable = any_encoding
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                if line.isascii():
                    yield number, line
                    continue
                if not decodable and not is_utf8(line):
                    reason = describe_encoding(path)
                    if reason:
                        raise FileFormatError(path, None, reason)
                    decodable = True  # most other lines are UTF-8
                yield number, line.lstrip(BYTE_ORDER_MARK)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileFormatError(path, number + 1, f"cannot be read on: {error}") from None


def json_object(line: str) -> dict[str, Any]:
    """The JSON object in a line. Raises InputError."""

    def no_constant(name: str) -> float:
        raise InputError(f"{name} is not JSON; leave the attribute out")

    try:
        record = json.loads(line, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:  # ValueError also for integers of more than 4,300 digits
        raise InputError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InputError(f"a line is a JSON object, not {kind_of(record)}")
    return record


def kind_of(value: object) -> str:
    """The kind of a value in the terms of JSON, for messages."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "an object")
