"""What a text table is written in: its encoding, delimiter, quotes and header."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from charset_normalizer import from_bytes

from seqrec.data.encoding import check_packed, is_western, quoted, unicode_encoding
from seqrec.errors import FileFormatError

SAMPLE_BYTES = 262_144
_CHUNK = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_CODE_PAGES = ["cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp932", "euc_jp",
               "gb18030", "big5", "cp949", "koi8_r", "cp866", "cp874", "mac_roman", "cp850", "iso8859_2"]  # fmt: skip
"""What exports are written in; they come before others that fit a few words as well."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ \t]*(?:\r|\n|$)')
_MAX_BEFORE = 20
_NUMBER = re.compile(r"[+-]?[\d.,]+")


@dataclass(frozen=True)
class Encoding:
    """`why` explains the choice. `damaged`: lines with bytes that are not of it, and `first` of them."""

    name: str
    why: str
    damaged: int = 0
    first: int | None = None


@dataclass(frozen=True)
class Dialect:
    """`quote` "" means that quotes are ordinary characters; `escape`: a backslash before a quote. `skip`: lines before
    the table, such as a title."""

    delimiter: str
    quote: str
    escape: bool
    header: bool
    columns: tuple[str, ...]
    skip: int = 0


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, decompressed. Raises FileFormatError if it cannot be opened or is not text."""
    try:
        file = cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))  # noqa: SIM115
    except FileNotFoundError:
        raise FileFormatError(path, None, "no such file") from None
    except OSError as error:
        raise FileFormatError(path, None, f"cannot be read: {error.strerror or error}") from None
    try:
        head = file.peek(1024)[:1024]  # type: ignore[attr-defined]
        if not head:
            raise FileFormatError(path, None, "empty")
        check_packed(path, head)
    except gzip.BadGzipFile:
        file.close()
        with path.open("rb") as raw:
            check_packed(path, raw.read(1024))
        reason = f"its name ends in .gz but it is not compressed; rename it: mv {quoted(path, path.stem)}"
        raise FileFormatError(path, None, reason) from None
    except (EOFError, OSError, zlib.error) as error:
        file.close()
        raise FileFormatError(path, 1, f"cannot be decompressed: {error}; export it again") from None
    except FileFormatError:
        file.close()
        raise
    return file


def find_encoding(path: Path) -> Encoding:
    """Reads the whole file once. A byte-order mark decides; then UTF-8 if all bytes, or most lines, are valid."""
    with open_bytes(path) as file:
        head = file.peek(1024)[:1024]  # type: ignore[attr-defined]
        unicode = unicode_encoding(head)
        if unicode:
            return Encoding(unicode.lower(), "its first bytes show it")
        if head.startswith(codecs.BOM_UTF8):
            return _utf8(path, file, "its first bytes show it")
        return _utf8(path, file, "every byte is valid UTF-8")


def _utf8(path: Path, file: IO[bytes], why: str) -> Encoding:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := file.read(_CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _other(path)
    except (EOFError, OSError, zlib.error) as error:
        raise FileFormatError(
            path, None, f"cannot be decompressed: {error}; it is probably cut off; export it again"
        ) from None
    return Encoding("utf-8", why)


def _other(path: Path) -> Encoding:
    """Of a file that is not UTF-8 as a whole: damaged UTF-8 if most lines beyond ASCII are valid."""
    valid = invalid = 0
    first = None
    sample = bytearray()
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            try:
                line.decode()
                valid += 1
            except UnicodeDecodeError:
                invalid += 1
                first = first or number
                if len(sample) < SAMPLE_BYTES:
                    sample += line
    if invalid <= valid:  # other encodings do not look like UTF-8 by chance
        return Encoding("utf-8", f"{valid:,} lines beyond ASCII are valid UTF-8", invalid, first)
    if is_western(bytes(sample)):
        name = "cp1252" if _decodes(path, "cp1252") else "latin-1"
        return Encoding(name, f"not UTF-8 from line {first}; accents stand alone, as in Western European text")
    best = from_bytes(bytes(sample), cp_isolation=_CODE_PAGES).best() or from_bytes(bytes(sample)).best()
    if best is None or not _decodes(path, best.encoding):
        raise FileFormatError(path, first, 'in an unknown encoding; name it: encoding = "..." in shop.toml')
    return Encoding(best.encoding, f"not UTF-8 from line {first}; charset-normalizer finds {best.language} text")


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open_bytes(path) as file:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


class Utf8Stream(io.RawIOBase):
    """A file of another encoding as UTF-8 bytes, in pieces. Bytes that are not of the encoding become U+FFFD."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._rest = file, b""
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            chunk = self._file.read(_CHUNK)
            text = self._decoder.decode(chunk, final=not chunk)
            if not self._begun and text:
                text, self._begun = text.removeprefix("\ufeff"), True
            self._rest = text.encode()
            if not chunk and not self._rest:
                return 0
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def open_utf8(path: Path, encoding: Encoding) -> IO[bytes]:
    """The file's bytes in UTF-8, without a byte-order mark. Raises FileFormatError for an unknown encoding."""
    try:
        known = codecs.lookup(encoding.name).name
    except LookupError:
        raise FileFormatError(path, None, f"no encoding {encoding.name!r}; for example utf-8, cp1252, utf-16") from None
    file = open_bytes(path)
    if known == "utf-8" and not encoding.damaged:
        if file.peek(3)[:3] == codecs.BOM_UTF8:  # type: ignore[attr-defined]
            file.read(3)
        return file
    return io.BufferedReader(Utf8Stream(file, "utf-8" if known == "utf-8-sig" else known), _CHUNK)


def find_dialect(
    path: Path, sample: str, delimiter: str | None, quote: str | None, header: bool | None, truncated: bool
) -> Dialect:
    """From the first lines of a file. Raises FileFormatError if they have no column."""
    if truncated:  # the last line is not whole
        sample = sample[: sample.rfind("\n") + 1] or sample
    if not sample.strip():
        raise FileFormatError(path, None, "empty")
    if re.match(r"\s*<(\?xml|rss|feed)\b", sample, re.IGNORECASE):
        raise FileFormatError(path, 1, "XML, not a table; export it as CSV, TSV or JSON (a product feed can be TSV)")
    if re.match(r"\s*<(!doctype|html)\b", sample, re.IGNORECASE):
        raise FileFormatError(path, 1, "a page of HTML, not a table; was a login page saved in its place?")
    if re.match(r"\s*(\[\s*)?\{\s*\"", sample):
        reason = f"JSON, not a table: rename it: mv {quoted(path, _json_name(path, sample))}"
        raise FileFormatError(path, 1, reason)
    named = _SEPARATOR_LINE.match(sample)
    if delimiter is None and named:
        delimiter = named[1]
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=lambda one: _fit(sample, one))
    if quote is None:
        quote = "'" if _single_quotes(sample, delimiter) else '"' if _quoted(sample, delimiter) else ""
    skip = _lines_before(sample, delimiter, quote)
    sample = "".join(sample.splitlines(keepends=True)[skip:])
    escape = bool(quote) and sample.count('\\"') > sample.count('""')
    rows = [row for row in _rows(sample, delimiter, quote, escape) if row][:200]
    if not rows:
        raise FileFormatError(path, 1, "no row can be read; name its delimiter and quote in shop.toml")
    if header is None and names_below(rows):
        skip, rows = skip + 1, rows[1:]
    names = [name.strip() for name in rows[0]]
    if header is None:
        header = _is_header(names, rows[1:])
    if header:
        columns = _unique([name or f"column {place}" for place, name in enumerate(names, 1)])
    else:
        columns = [f"column {place}" for place in range(1, len(names) + 1)]
    return Dialect(delimiter, quote, escape, header, tuple(columns), skip)


def read_sample(path: Path, encoding: Encoding) -> tuple[str, bool]:
    """The first characters, and whether the file goes on."""
    with open_utf8(path, encoding) as file:
        data = file.read(SAMPLE_BYTES)
        more = bool(file.read(1))
    return data.decode("utf-8", "ignore"), more


def _rows(sample: str, delimiter: str, quote: str, escape: bool = False) -> Iterator[list[str]]:
    try:
        yield from csv.reader(
            io.StringIO(sample, newline=""),
            delimiter=delimiter,
            quotechar=quote or '"',
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            escapechar="\\" if escape else None,
        )
    except csv.Error:
        return


def _fit(sample: str, delimiter: str) -> float:
    """How regular the rows are: columns of the most frequent width, times its share of the rows."""
    widths = Counter(len(row) for row in _rows(sample, delimiter, '"') if row)
    width, count = max(widths.items(), key=lambda pair: pair[1] * (pair[0] > 1), default=(1, 0))
    if width < 2:
        return 0.0
    return count / sum(widths.values()) + 0.01 * min(width, 20)


def _lines_before(sample: str, delimiter: str, quote: str) -> int:
    """Lines before the names of the columns: `sep=;` as Excel reads it, comments, a title, blank lines."""
    widths = Counter(len(row) for row in _rows(sample, delimiter, quote) if row)
    width = max(widths, key=widths.__getitem__, default=0)
    for number, line in enumerate(sample.splitlines()[:_MAX_BEFORE]):
        row = next(_rows(line, delimiter, quote), [])
        filled = sum(bool(field.strip()) for field in row)
        title = filled <= 1 and width > 1 and (len(row) != width or (width > 2 and filled and bool(row[0].strip())))
        if not (_SEPARATOR_LINE.match(line) or title or (line.startswith("#") and len(row) != width)):
            return number
    return 0


def _json_name(path: Path, sample: str) -> str:
    packed = ".gz" if path.suffix == ".gz" else ""
    kind = ".json" if sample.lstrip()[0] == "[" or "\n" not in sample.strip() else ".jsonl"
    return Path(path.name.removesuffix(packed)).stem + kind + packed


def _single_quotes(sample: str, delimiter: str) -> bool:
    """Whether each of the first lines has all its fields in single quotes, as exports of databases have."""
    separator = re.escape(delimiter)
    lines = sample.splitlines()[:3]
    return bool(lines) and all(re.fullmatch(rf"'[^']*'(?:{separator}'[^']*')+\s*", line) for line in lines)


def _quoted(sample: str, delimiter: str) -> bool:
    """Whether a quote at the begin of a field ends at the end of one, so that quotes mean something."""
    separator = re.escape(delimiter)
    opened = len(re.findall(rf'(?:^|{separator})"', sample, re.MULTILINE))
    closed = len(re.findall(rf'"(?:$|\r|{separator})', sample, re.MULTILINE))
    return not opened or closed * 2 >= opened


def _is_header(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Names are all different and none is a number."""
    filled = [name for name in names if name]
    if not rows or len(set(filled)) < len(filled) or not filled:
        return bool(filled) and not any(_NUMBER.fullmatch(name) for name in filled)
    return not any(_NUMBER.fullmatch(name) for name in filled)


def names_below(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the first row has names of groups of columns, and the second the names of the columns: in a column that
    the first leaves empty, the second has a word and all others numbers or dates."""
    if len(rows) < 3 or len(rows[0]) != len(rows[1]):
        return False
    for place, (group, name) in enumerate(zip(rows[0], rows[1], strict=True)):
        below = [row[place] for row in rows[2:] if place < len(row) and row[place] not in (None, "")]
        if group in (None, "") and _is_word(name) and below and not any(_is_word(value) for value in below):
            return all(_is_word(value) for value in rows[1] if value not in (None, ""))
    return False


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _NUMBER.match(value.strip())


def _unique(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return unique
