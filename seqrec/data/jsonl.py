"""The lines of a file with their numbers, and what is said of a line that is broken."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from seqrec.errors import FileFormatError, InputError

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]


class BrokenLines:
    """What becomes of broken lines: the first is raised as FileFormatError, or all are counted and five are shown."""

    def __init__(self, path: Path, on_error: OnError) -> None:
        self.path, self.on_error, self.count = path, on_error, 0

    def add(self, line: int | None, reason: str) -> None:
        """`line` None: a record of a file that is not made of lines; the reason names it."""
        if self.on_error == "raise":
            raise FileFormatError(self.path, line, f"{reason} (--on-error skip leaves broken lines out)")
        self.count += 1
        if self.count <= 5:
            log.warning("skipped %s", FileFormatError(self.path, line, reason))

    def report(self) -> None:
        if self.count:
            log.warning("skipped %d lines of %s", self.count, self.path)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines. Bytes that are not UTF-8 become lone surrogates, which every check refuses by line."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except FileNotFoundError:
        raise FileFormatError(path, None, "no such file") from None
    except IsADirectoryError:
        raise FileFormatError(path, None, "a directory, not a file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(path, number + 1, f"cannot be read on: {error}") from None


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def json_object(line: str) -> dict[str, Any]:
    """The JSON object that a line is. Raises InputError."""

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
    """What JSON would call a value, for messages."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "an object")
