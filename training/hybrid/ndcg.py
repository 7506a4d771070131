"""NDCG@10 of one held-out item, with ties broken by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.hybrid.scoring import Scores

_SUMS = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2.0, 12.0)))])


def expected_ndcg(above: npt.NDArray[Any], equal: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """[m] NDCG@10 of targets behind `above` items, with `equal` others of the same score in any order."""
    first, last = np.minimum(above, 10).astype(np.int64), np.minimum(above + equal + 1, 10).astype(np.int64)
    gains: npt.NDArray[np.float64] = (_SUMS[last] - _SUMS[first]) / (equal + 1)
    return gains


def first_column_ndcg(scores: Scores) -> npt.NDArray[np.float64]:
    """[m] NDCG@10 of the first column of scores [m, c], ties broken by chance."""
    mine = scores[:, :1]
    return expected_ndcg((scores > mine).sum(axis=1), (scores == mine).sum(axis=1) - 1)
