"""Encodings and packed files: each error is one line with the file, its encoding and a command that converts it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrec.data.encoding import read_text
from seqrec.data.items import read_interactions, read_items
from seqrec.data.jsonl import numbered_lines
from seqrec.errors import FileFormatError

ITEMS = '{"item_id": "a", "attributes": {"title": "Caf\u00e9"}}\n{"item_id": "b", "attributes": {"title": "Desk"}}\n'
EVENTS = "user_id,item_id,timestamp,note\nu,a,1,Caf\u00e9\nv,b,2,Desk\n"
HEBREW = "\u05e9\u05d5\u05dc\u05d7\u05df"

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "items.jsonl": (ITEMS, read_items),
    "events.csv": (EVENTS, read_interactions),
    "smap.json": ('{"Caf\u00e9": 1, "Desk": 2}', read_text),
}

UNICODE = {
    "utf-16": "UTF-16",
    "utf-16-le with a mark": "UTF-16",
    "utf-16-be with a mark": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "utf-32": "UTF-32",
    "utf-32-le": "UTF-32LE",
    "utf-32-be": "UTF-32BE",
}


def encoded(text: str, encoding: str) -> bytes:
    name, _, mark = encoding.partition(" ")
    return (("\ufeff" if mark else "") + text).encode(name)


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> tuple[str, str, Callable[[Path], Any]]:
    return request.param, *READERS[request.param]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", [*UNICODE, "latin-1", "cp1252"])
def test_another_encoding_is_named_and_the_command_converts_it(
    tmp_path: Path, reader: tuple[str, str, Callable[[Path], Any]], encoding: str, packed: bool
) -> None:
    name, text, read = reader
    path = tmp_path / (f"{name}.gz" if packed else name)
    data = encoded(text, encoding)
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(FileFormatError) as caught:
        read(path)
    message = str(caught.value)
    likely = UNICODE.get(encoding, "Windows-1252 or Latin-1 (byte 0xe9 at byte")
    assert message.startswith(f"{path}: ")
    assert likely in message
    assert "\n" not in message
    if shutil.which("iconv") is None:
        pytest.skip("needs iconv")
    command = message.partition("convert it: ")[2]
    subprocess.run(["bash", "-c", command], check=True)
    (converted,) = (one for one in tmp_path.iterdir() if one != path)
    assert converted.suffixes == [".utf8", *path.suffixes]
    read(converted)


def test_skipping_does_not_drop_the_items_with_accents(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(ITEMS.encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"probably Windows-1252 or Latin-1 \(byte 0xe9 at byte 46 of line 1\)"):
        read_items(tmp_path / "items.jsonl", on_error="skip")


def test_a_code_page_of_another_script_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(ITEMS.replace("Caf\u00e9", HEBREW).encode("cp1255"))
    with pytest.raises(FileFormatError, match=r"not UTF-8 but a code page .*iconv -f ENCODING .*was written in as ENC"):
        read_items(tmp_path / "items.jsonl")


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf"])
def test_a_byte_order_mark_does_no_harm(
    tmp_path: Path, reader: tuple[str, str, Callable[[Path], Any]], mark: bytes
) -> None:
    name, text, read = reader
    plain, marked = tmp_path / name, tmp_path / f"marked-{name}"
    plain.write_bytes(text.encode())
    marked.write_bytes(mark + text.encode())
    if name == "events.csv":
        assert read(marked).user_ids == read(plain).user_ids
    else:
        assert read(marked) == read(plain)


def test_a_byte_order_mark_where_files_were_joined(tmp_path: Path) -> None:
    """Without this the first user of the second file would be another user."""
    (tmp_path / "events.csv").write_bytes(EVENTS.encode() + b"\xef\xbb\xbfu,b,3,x\n")
    assert read_interactions(tmp_path / "events.csv").user_ids == ["u", "v", "u"]


def archive(text: bytes) -> dict[str, tuple[bytes, str]]:
    zipped, excel, tar = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("items.jsonl", text)
    with zipfile.ZipFile(excel, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
    with tarfile.open(fileobj=tar, mode="w") as out:
        member = tarfile.TarInfo("items.jsonl")
        member.size = len(text)
        out.addfile(member, io.BytesIO(text))
    return {
        "gzip": (gzip.compress(text), "compressed with gzip, but its name does not end in .gz: mv"),
        "zip": (zipped.getvalue(), "a zip archive; unpack it first: unzip"),
        "excel": (excel.getvalue(), "an Excel workbook; save it as CSV UTF-8"),
        "tar": (tar.getvalue(), "a tar archive; unpack it first: tar -xf"),
        "bzip2": (bz2.compress(text), "compressed with bzip2; unpack it first: bzip2 -dc"),
        "xz": (lzma.compress(text), "compressed with xz; unpack it first: xz -dc"),
        "zstd": (b"\x28\xb5\x2f\xfd" + b"\x00" * 20, "compressed with zstd; unpack it first: zstd -dc"),
        "7z": (b"7z\xbc\xaf\x27\x1c" + b"\x00" * 20, "a 7z archive"),
        "parquet": (b"PAR1" + b"\x00" * 20, "a Parquet file"),
        "sqlite": (b"SQLite format 3\x00" + b"\x00" * 20, "an SQLite database"),
    }


@pytest.mark.parametrize("kind", archive(b""))
def test_a_packed_file_is_named(tmp_path: Path, reader: tuple[str, str, Callable[[Path], Any]], kind: str) -> None:
    name, text, read = reader
    data, reason = archive(text.encode())[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rename_of_a_gzip_file_works(tmp_path: Path) -> None:
    path = tmp_path / "my items.jsonl"
    path.write_bytes(gzip.compress(ITEMS.encode()))
    with pytest.raises(FileFormatError) as caught:
        read_items(path)
    subprocess.run(["bash", "-c", str(caught.value).partition("end in .gz: ")[2]], check=True)
    assert len(read_items(tmp_path / "my items.jsonl.gz")) == 2


def test_names_that_end_in_gz_and_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl.gz"
    path.write_bytes(ITEMS.encode())
    with pytest.raises(FileFormatError, match=r"ends in \.gz but it is not compressed; rename it: mv .*items\.jsonl$"):
        read_items(path)
    path.write_bytes(gzip.compress(gzip.compress(ITEMS.encode())))
    with pytest.raises(FileFormatError, match="compressed twice: gunzip -c"):
        read_items(path)
    path.write_bytes(archive(ITEMS.encode())["zip"][0])
    with pytest.raises(FileFormatError, match="a zip archive"):
        read_items(path)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "items"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(ITEMS.encode(),))
    writer.start()
    assert len(read_items(pipe)) == 2
    writer.join()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(FileFormatError, match="cannot be read: Not a directory"):
        read_items(tmp_path / "plain" / "items.jsonl")
    with pytest.raises(FileFormatError, match="cannot be read: File name too long"):
        read_items(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileFormatError, match="cannot be read: Too many levels of symbolic links"):
        read_items(tmp_path / "loop")


def test_line_ends_of_all_systems(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(json.dumps({"a": 1}).encode() + b"\rb\r\nc\n\n\xd7\xa9")
    assert [number for number, _ in numbered_lines(path)] == [1, 2, 3, 4, 5]
