"""Columns on disk as NumPy's own .npy files: written row by row, read memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt


class NpyWriter:
    """Writes a .npy file whose length is known only at its end. rows: [n, *row_shape]."""

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
        # NumPy pads the header so that the first axis may grow in place.
        shape = (self._rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:  # closed also where the disk is full
            if kind is None:
                self._file.seek(0)
                self._header()


def map_npy(path: Path) -> npt.NDArray[Any]:
    """The array, memory-mapped, read only. Raises ValueError or OSError for what is no .npy file."""
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped.view(np.ndarray)  # slices of a plain array cost half of those of np.memmap
