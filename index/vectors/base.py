"""The contract of vector indexes. They know rows, not item ids; a higher score is always better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from seqrec.errors import InputError

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Allowed = Sequence[npt.NDArray[np.bool_] | None]
"""For each query a mask [n] of the rows it may return, or None for all rows."""


class VectorIndex(Protocol):
    """Immutable. Safe for concurrent searches (`index.vectors.factory` wraps those that are not)."""

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        """The best k rows for each query: queries [b, dim] -> rows [b, k], scores [b, k], best first.

        If fewer than k rows are allowed, the remaining places have row -1 and score -inf. Raises InputError for k < 1,
        and for queries or masks of another shape.
        """
        ...


def check_search(shape: tuple[int, int], queries: Vectors, k: int, allowed: Allowed | None) -> None:
    """Raises InputError for arguments that no index accepts. `shape`: [n, dim] of the index."""
    n, dim = shape
    if k < 1:
        raise InputError(f"must be at least 1, not {k}", "k")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise InputError(f"queries must be [b, {dim}], not {list(queries.shape)}", "queries")
    if allowed is not None:
        if len(allowed) != len(queries):
            raise InputError(
                f"needs one mask or None for each of {len(queries)} queries, not {len(allowed)}", "allowed"
            )
        for mask in allowed:
            if mask is not None and mask.shape != (n,):
                raise InputError(f"a mask must be [{n}], not {list(mask.shape)}", "allowed")


def nothing(queries: int, k: int) -> tuple[Rows, Vectors]:
    """Rows and scores before anything is found."""
    return np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)
