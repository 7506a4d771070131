"""Columns on disk as .npy files: written in parts, read memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt


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
    """The array, memory-mapped and read-only. Raises ValueError or OSError if it is not a .npy file."""
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped.view(np.ndarray)  # slicing a plain array takes half the time of slicing a np.memmap
