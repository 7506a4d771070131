"""Columns on disk as .npy files and lines of ids: written in parts, read memory-mapped."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<|][bifu]\d+)', 'fortran_order': False, 'shape': \((?P<shape>[\d, ]*)\), \} *\n"
)

_BLOCK = 64
"""Lines. The first id of each block is in memory, the others are read where they are needed."""
_BYTES_AT_ONCE = 1 << 22
_NEWLINE = ord("\n")


class NpyWriter:
    """Writes a .npy file whose length is known only at the end. rows: [n, *row_shape]."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = 0
        self._file = path.open("wb")
        self._header()

    def append(self, rows: npt.ArrayLike) -> None:
        array = np.ascontiguousarray(rows, dtype=self._dtype)
        assert array.shape[1:] == self._row_shape
        self._file.write(array.tobytes())
        self._rows += len(array)

    def _header(self) -> None:
        # NumPy pads the header so that it can be rewritten with a longer first axis.
        shape = (self._rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:  # closed even if the disk is full
            if kind is None:
                self._file.seek(0)
                self._header()


def map_npy(path: Path) -> npt.NDArray[Any]:
    """The array, memory-mapped and read-only. Raises ValueError or OSError if it is not a .npy file of this version.

    `np.load` parses the header with `ast`, which fails in CPython before 3.11.8 and 3.12.2 if another thread parses
    meanwhile, of a notebook for example: "AST constructor recursion depth mismatch" (python/cpython issue 106905).
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = _HEADER.fullmatch(file.read(int.from_bytes(file.read(2), "little")))
        offset = file.tell()
    if version != (1, 0) or header is None:
        raise ValueError(f"{path.name}: not a column of numbers")
    shape = tuple(int(length) for length in header["shape"].replace(b",", b" ").split())
    mapped: npt.NDArray[Any] = np.memmap(path, header["dtype"].decode(), "r", offset, shape)
    return mapped.view(np.ndarray)  # slicing a plain array takes half the time of slicing a np.memmap


def map_bytes(path: Path) -> mmap | bytes:
    if path.stat().st_size == 0:  # mmap refuses empty files
        return b""
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)


class IdLines(Sequence[str]):
    """Rising ids, one a line, memory-mapped: a list of ten million would be 700 MB in every process.

    Raises UnicodeDecodeError for a file that is not UTF-8. An id is shorter than 4 MiB.
    """

    def __init__(self, path: Path) -> None:
        self._content = content = map_bytes(path)
        begins = [np.zeros(0, np.int64)]
        lines = place = 0
        while place < len(content):
            piece = content[place : content.rfind(b"\n", place, place + _BYTES_AT_ONCE) + 1 or len(content)]
            piece.decode()
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == _NEWLINE) + 1
            starts = place + np.concatenate([[0], ends])[: len(ends)]
            begins.append(starts[-lines % _BLOCK :: _BLOCK])
            lines, place = lines + len(ends), place + len(piece)
        self._length = lines
        self._begins = np.concatenate([*begins, [len(content)]])
        self._firsts = [self._line(begin) for begin in self._begins[:-1].tolist()]  # of each block

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        for block in range(len(self._firsts)):
            yield from self._block(block)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(self._length))]
        if not -self._length <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        block, place = divmod(row % self._length, _BLOCK)
        return self._firsts[block] if place == 0 else self._block(block)[place]

    def row_of(self, item_id: str) -> int | None:
        """The row of an id; None for one that is not here."""
        block = bisect_right(self._firsts, item_id) - 1
        if block < 0:
            return None
        ids = self._block(block)
        place = bisect_left(ids, item_id)
        return block * _BLOCK + place if place < len(ids) and ids[place] == item_id else None

    def _line(self, begin: int) -> str:
        return self._content[begin : self._content.find(b"\n", begin)].decode()

    def _block(self, block: int) -> list[str]:
        begin, end = self._begins[block : block + 2].tolist()
        return self._content[begin:end].decode().split("\n")[:-1]
