"""Reads a JSON document object by object, so that memory does not grow with the length of its lists."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqrec.data.tables.sniff import find_encoding, open_utf8
from seqrec.errors import FileFormatError

_CHUNK = 1 << 20
_LARGEST = 64 << 20
"""Characters of one object, at most."""
_NEAR = 16
"""An error so close to the end of what was read may be one only because the rest is missing."""
_BLANK = " \t\r\n"


def list_elements(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Of every list that is not itself within a list: its path of names with dots ("" for a document that is a list),
    the line where an element begins, and the element. Raises FileFormatError."""
    with open_utf8(path, find_encoding(path)) as raw:
        window = _Window(path, io.TextIOWrapper(raw, "utf-8", errors="replace", newline=""))
        if window.peek() not in ("[", "{"):
            raise window.error("neither a list nor an object")
        yield from _elements(window, "")
        if window.peek():
            raise window.error("Extra data; with an object a line, name the file .jsonl")


def holds_lines(path: Path) -> bool:
    """Whether a file has an object in its first line, and goes on: JSON Lines, whatever its name."""
    with open_utf8(path, find_encoding(path)) as raw:
        first = next((line for line in iter(lambda: raw.readline(_LARGEST), b"") if line.strip()), b"")
        if not first.lstrip().startswith(b"{"):
            return False
        if not any(line.strip() for line in iter(lambda: raw.readline(_CHUNK), b"")):
            return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _elements(window: _Window, path: str) -> Iterator[tuple[str, int, Any]]:
    opened = window.take()
    closing = "]" if opened == "[" else "}"
    if window.peek() == closing:
        window.take()
        return
    while True:
        if opened == "[":
            window.peek()
            yield path, window.line, window.value()
        else:
            if window.peek() != '"':
                raise window.error("a name in double quotes is missing")
            name = window.value()
            window.expect(":")
            if window.peek() in ("[", "{"):
                yield from _elements(window, f"{path}.{name}" if path else name)
            else:
                window.value()
        if window.expect("," + closing) == closing:
            return


class _Window:
    """The part of a file that is being read."""

    def __init__(self, path: Path, file: io.TextIOWrapper) -> None:
        self._path, self._file = path, file
        self._text, self._at = "", 0
        self._before, self._counted = 1, 0  # the line at the position _counted
        self._ended = False
        self._decoder = json.JSONDecoder()

    @property
    def line(self) -> int:
        """Where the next character is, from 1."""
        self._before += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._before

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._more()

    def take(self) -> str:
        found = self.peek()
        self._at += 1
        return found

    def expect(self, signs: str) -> str:
        found = self.peek()
        if not found or found not in signs:
            wanted = " or ".join(repr(sign) for sign in signs)
            raise self.error(f"{wanted} is missing" if found else "it ends too early")
        self._at += 1
        return found

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:
                    self._at = end
                    return found
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                if self._ended or not (open_string or error.pos >= len(self._text) - _NEAR):
                    self._at = error.pos
                    raise self.error(error.msg) from None
            except (ValueError, RecursionError) as error:  # numbers of more than 4,300 digits; a thousand levels
                raise self.error(str(error)) from None
            if len(self._text) - self._at > _LARGEST:
                raise self.error(f"an object of more than {_LARGEST >> 20} MiB, or a quote that is not closed")
            self._more()

    def error(self, reason: str) -> FileFormatError:
        way_out = "" if "name the file" in reason else "; it is damaged or cut off; export it again"
        return FileFormatError(self._path, self.line, f"not JSON: {reason}{way_out}")

    def _more(self) -> None:
        """Twice as much as is left, so that a long object is not parsed again for each chunk."""
        self._before = self.line
        left = self._text[self._at :]
        chunk = self._file.read(max(_CHUNK, len(left)))
        self._text, self._at, self._counted, self._ended = left + chunk, 0, 0, not chunk
