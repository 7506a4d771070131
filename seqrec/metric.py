"""How queries are compared with items, and how ties are broken. A higher score is always better."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

TIE = 1e-6
"""Scores this close are ties: float32 rounding differs between batch sizes, machines and libraries."""


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
    """Positions of the items, best first. Scores within `TIE` of the best one of a run are ordered by item id.

    `item_ids` and `scores` have length n; the result is a permutation of range(n). For a top k that agrees with the
    whole ranking, pass all candidates with a score within `TIE` of the k-th best.
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
