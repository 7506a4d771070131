"""How a query is compared with an item, and how equal scores are ordered. A higher score is always better."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

TIE = 1e-6
"""Scores closer than this count as equal: float32 rounding differs between batch sizes, machines and libraries."""


class Metric(StrEnum):
    COSINE = "cosine"  # dot product of unit vectors
    DOT = "dot"
    L2 = "l2"  # minus the squared distance

    def scores(self, queries: npt.NDArray[np.float32], items: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Exact scores: queries [b, dim], items [n, dim] -> [b, n]. For cosine both are unit vectors."""
        products = queries @ items.T
        if self is Metric.L2:
            squares = (queries**2).sum(1)[:, None] + (items**2).sum(1)[None, :]
            products = 2 * products - squares
        return products


def ranked(item_ids: Sequence[str], scores: Sequence[float] | npt.NDArray[np.floating]) -> list[int]:
    """Positions of the items, best first. A run of scores within `TIE` of the run's best is ordered by item id.

    `item_ids` and `scores` have the same length n; the result is a permutation of range(n). To cut an answer at k and
    still agree with the whole ranking, pass every candidate whose score is within `TIE` of the k-th best.
    """
    by_score = sorted(range(len(item_ids)), key=lambda i: (-float(scores[i]), item_ids[i]))
    order: list[int] = []
    run: list[int] = []
    for i in by_score:
        if run and float(scores[run[0]]) - float(scores[i]) > TIE:
            order += sorted(run, key=lambda j: item_ids[j])
            run = []
        run.append(i)
    return order + sorted(run, key=lambda j: item_ids[j])
