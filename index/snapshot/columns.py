"""Columns on disk as .npy files: written in parts, read memory-mapped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<|][bifu]\d+)', 'fortran_order': False, 'shape': \((?P<shape>[\d, ]*)\), \} *\n"
)


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
