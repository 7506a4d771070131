"""Recall of an index against exact search in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from index.vector_index import VectorIndex
from seqrec.metric import TIE, Metric

K = 10
QUERIES = 100
_ROWS_AT_ONCE = 100_000


def measure_recall(vectors: npt.NDArray[np.float32], metric: Metric, index: VectorIndex) -> float:
    """Recall@10: the mean share of the index's rows that are among the exact best 10, 1.0 where all are.

    vectors [n, dim] is what the index was made of; a sample of 100 of its rows queries. A row counts where its exact
    score reaches the exact 10th best within `TIE`, so equal vectors may stand for each other.
    """
    n = len(vectors)
    k = min(K, n)
    if not n:
        return 1.0
    sample = np.sort(np.random.default_rng(0).choice(n, size=min(QUERIES, n), replace=False))
    queries = np.array(vectors[sample])
    best = np.full((len(queries), k), -np.inf, np.float32)
    for begin in range(0, n, _ROWS_AT_ONCE):
        scores = metric.scores(queries, vectors[begin : begin + _ROWS_AT_ONCE])
        merged = np.concatenate([best, scores], axis=1)
        best = np.partition(merged, merged.shape[1] - k, axis=1)[:, -k:]
    # Rounding differs between libraries, and grows with the scores.
    reach = best.min(axis=1) - TIE * np.maximum(1, np.abs(best).max(axis=1))
    rows, _ = index.search(queries, k)
    found = 0
    for query, row, border in zip(queries, rows, reach, strict=True):
        distinct = np.unique(row[row >= 0])
        found += int((metric.scores(query[None], vectors[distinct])[0] >= border).sum())
    return found / rows.size
