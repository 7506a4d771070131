"""Columns of a snapshot as .npy files."""

from __future__ import annotations

import ast
import gc
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.snapshot.columns import map_npy


class WhenCollected:
    """Garbage in a cycle, whose finalizer runs wherever the collector comes by."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.cycle, self.do = self, do

    def __del__(self) -> None:
        self.do()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, np.uint8, np.float16])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 4), (3, 4), (2, 3, 4)])
def test_what_numpy_writes_is_mapped_as_numpy_does(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    mapped = map_npy(tmp_path / "a.npy")
    assert (mapped.dtype, mapped.shape, mapped.tolist()) == (array.dtype, shape, array.tolist())
    assert not mapped.flags.writeable


@pytest.mark.parametrize(
    ("cut", "array"),
    [
        (0, np.ones(3)),
        (9, np.ones(3)),
        (60, np.ones(3)),
        (130, np.ones(3)),
        (None, np.array([{}])),
        (None, np.ones((2, 2)).T),
    ],
)
def test_what_is_no_column_is_refused(tmp_path: Path, cut: int | None, array: Any) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:cut])
    with pytest.raises(ValueError):
        map_npy(tmp_path / "a.npy")


def test_files_are_mapped_while_another_thread_parses(tmp_path: Path) -> None:
    """NumPy parses the header with `ast`, which older CPythons cannot do on two threads at a time."""
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # so that a collection looks at little
    for allocations in range(1, 120):  # until the collector runs: some of these are within the parser
        others: list[threading.Thread] = []

        def map_on_another(others: list[threading.Thread] = others) -> None:
            others.append(threading.Thread(target=ast.literal_eval, args=("[(1,), {2: 3}]",)))
            others[-1].start()
            others[-1].join(0.02)

        gc.collect()
        try:
            gc.set_threshold(allocations)
            WhenCollected(map_on_another)
            mapped = map_npy(tmp_path / "a.npy")
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        assert mapped.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        assert len(others) == 1
        others[0].join()
    gc.unfreeze()
