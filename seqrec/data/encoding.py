"""Opens text files in UTF-8, with or without byte-order mark, `.gz` too. Errors for others name the conversion."""

from __future__ import annotations

import gzip
import io
import re
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seqrec.errors import FileFormatError

BYTE_ORDER_MARK = "\ufeff"

_HEAD_BYTES = 1024
_SAMPLE_BYTES = 65536

_UTF_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_COMPRESSED = (
    (rb"BZh[1-9]1AY&SY", "compressed with bzip2", "bzip2"),
    (rb"\xfd7zXZ\x00", "compressed with xz", "xz"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd"),
)
_NO_TEXT = (
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (rb"PAR1", "a Parquet file; it is read as events (name it .parquet), and as items next to a shop.toml"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word document; save it as CSV UTF-8"),
    (rb"SQLite format 3\x00", "an SQLite database; export its tables as text"),
    (rb"%PDF-", "a PDF document; export the table as CSV"),
)


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """The text of a file, with its line ends. Bytes that are not UTF-8 become lone surrogates.

    Raises FileFormatError if the first bytes show that the file is not UTF-8 or is packed, and for a file that cannot
    be opened. The file is opened once, so a pipe can be read.
    """
    try:
        with path.open("rb") as raw:
            head = raw.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            if path.suffix != ".gz":
                _check_head(path, head)
                yield io.TextIOWrapper(raw, "utf-8", errors="surrogateescape", newline="")
                return
            if head and not head.startswith(b"\x1f\x8b"):
                _check_head(path, head)
                reason = f"its name ends in .gz but it is not compressed; rename it: mv {quoted(path, path.stem)}"
                raise FileFormatError(path, None, reason)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                _check_head(path, unpacked.peek(_HEAD_BYTES)[:_HEAD_BYTES])
                yield io.TextIOWrapper(unpacked, "utf-8", errors="surrogateescape", newline="")
    except FileNotFoundError:
        raise FileFormatError(path, None, "no such file") from None
    except IsADirectoryError:
        raise FileFormatError(path, None, "a directory, not a file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(path, 1, f"cannot be read on: {error}") from None
    except OSError as error:  # no permission, a file where a directory should be, a name too long, a bad disk
        raise FileFormatError(path, None, f"cannot be read: {error.strerror or error}") from None


def read_text(path: Path) -> str:
    """A whole text file without its byte-order mark. Raises FileFormatError, also if any byte is not UTF-8."""
    with open_text(path) as file:
        text = file.read().lstrip(BYTE_ORDER_MARK)
    if not is_utf8(text):
        raise FileFormatError(path, None, describe_encoding(path) or "not UTF-8; save it as UTF-8")
    return text


def is_utf8(text: str) -> bool:
    """Whether a text that `open_text` read was valid UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe_encoding(path: Path) -> str | None:
    """Why a file is not UTF-8 as a whole, and how to convert it. None if only few of its lines are damaged.

    It is in another encoding if most of its lines that are not ASCII are not UTF-8 either: text in UTF-8 with a damaged
    character has other lines that are valid. A pipe cannot be read again, so it counts as another encoding.
    """
    valid = invalid = 0
    found = ""
    sample = bytearray()
    if path.is_file():
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                if line.isascii():
                    continue
                if is_utf8(line):
                    valid += 1
                    continue
                invalid += 1
                data = line.encode(errors="surrogateescape")
                if len(sample) < _SAMPLE_BYTES:
                    sample += data
                if not found:
                    found = _first_wrong_byte(data, number)
        if invalid <= valid:
            return None
    if path.is_file() and is_western(bytes(sample)):
        likely = f"not UTF-8 but probably Windows-1252 or Latin-1 ({found})"
        return f"{likely}; {_conversion(path, 'WINDOWS-1252')}"
    where = f" ({found})" if found else ""
    likely = f"not UTF-8 but a code page such as WINDOWS-1251, SHIFT_JIS or GB18030{where}"
    return f"{likely}; {_conversion(path, 'ENCODING')}, with the encoding it was written in as ENCODING"


def _check_head(path: Path, head: bytes) -> None:
    """Raises FileFormatError if a file begins like something that is not UTF-8 text."""
    check_packed(path, head)
    encoding = unicode_encoding(head)
    if encoding:
        raise FileFormatError(path, None, f"the file is {encoding}, not UTF-8; {_conversion(path, encoding)}")


def check_packed(path: Path, head: bytes) -> None:
    """Raises FileFormatError if a file begins like something that is not text in any encoding."""
    packed = "compressed twice" if path.suffix == ".gz" else "compressed with gzip, but its name does not end in .gz"
    if head.startswith(b"\x1f\x8b"):
        way_out = f"gunzip -c {quoted(path, path.stem, '>')}" if path.suffix == ".gz" else f"mv {_gz_name(path)}"
        raise FileFormatError(path, None, f"{packed}: {way_out}")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if path.suffix.lower() in (".xlsx", ".xlsm", ".ods") or b"[Content_Types].xml" in head or b"xl/" in head[:64]:
            raise FileFormatError(path, None, "an Excel workbook; save it as CSV UTF-8")
        raise FileFormatError(path, None, f"a zip archive; unpack it first: unzip {shlex.quote(str(path))}")
    if head[257:262] == b"ustar":
        raise FileFormatError(path, None, f"a tar archive; unpack it first: tar -xf {shlex.quote(str(path))}")
    for magic, kind, tool in _COMPRESSED:
        if re.match(magic, head):
            raise FileFormatError(path, None, f"{kind}; unpack it first: {tool} -dc {quoted(path, _plain(path), '>')}")
    for magic, reason in _NO_TEXT:
        if re.match(magic, head):
            raise FileFormatError(path, None, f"this is {reason}")


def unicode_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by the byte-order mark or, without one, by the zero bytes of ASCII characters."""
    for mark, encoding in _UTF_MARKS:
        if head.startswith(mark):
            return encoding
    if len(head) < 4 or head.count(0) * 4 < len(head):
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even and odd:
        return "UTF-32LE" if head[0] else "UTF-32BE"
    return "UTF-16LE" if odd else "UTF-16BE"


def is_western(data: bytes) -> bool:
    """Whether most bytes beyond ASCII have ASCII neighbours, like accents; other scripts have runs of them."""
    high = len(re.findall(rb"[\x80-\xff]", data))
    single = len(re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", data))
    return single * 2 >= high


def _first_wrong_byte(line: bytes, number: int) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of line {number}"
    return f"line {number}"


def _conversion(path: Path, encoding: str) -> str:
    source = shlex.quote(str(path))
    suffixes = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])
    target = shlex.quote(str(path.with_name(path.name.removesuffix(suffixes) + ".utf8" + suffixes)))
    if path.suffix == ".gz":
        return f"convert it: gunzip -c {source} | iconv -f {encoding} -t UTF-8 | gzip > {target}"
    return f"convert it: iconv -f {encoding} -t UTF-8 {source} > {target}"


def _plain(path: Path) -> str:
    """The name of an unpacked file."""
    return path.stem if path.suffix.lower() in (".bz2", ".xz", ".zst", ".gz") else f"unpacked-{path.name}"


def _gz_name(path: Path) -> str:
    return quoted(path, f"{path.name}.gz")


def quoted(path: Path, name: str, between: str = "") -> str:
    """The path and another file in its directory, for a shell."""
    parts = (shlex.quote(str(path)), between, shlex.quote(str(path.with_name(name))))
    return " ".join(part for part in parts if part)
