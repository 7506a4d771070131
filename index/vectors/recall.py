"""Recall@10 of an index against exact search in NumPy."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from index.vectors.base import VectorIndex
from seqrec.metric import TIE, Metric

K = 10
QUERIES = 100
_ROWS_AT_ONCE = 100_000


class VectorRows(Protocol):
    """[n, dim], float32: an array, or what reads its rows when they are taken, by a slice or by their numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class RecallSample:
    """Queries with their exact results, to measure the recall of several indexes of the same vectors.

    vectors: [n, dim]. The queries are a sample of 100 of its rows.
    """

    def __init__(self, vectors: VectorRows, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric
        n = len(vectors)
        self._k = min(K, n)
        self.queries = min(QUERIES, n)
        if not n:
            return
        sample = np.sort(np.random.default_rng(0).choice(n, size=self.queries, replace=False))
        self._queries = np.array(vectors[sample])
        best = np.full((len(self._queries), self._k), -np.inf, np.float32)
        for begin in range(0, n, _ROWS_AT_ONCE):
            scores = metric.scores(self._queries, vectors[begin : begin + _ROWS_AT_ONCE])
            merged = np.concatenate([best, scores], axis=1)
            best = np.partition(merged, merged.shape[1] - self._k, axis=1)[:, -self._k :]
        # Libraries round differently, in proportion to the scores.
        self._reach = best.min(axis=1) - TIE * np.maximum(1, np.abs(best).max(axis=1))

    def recall_of(self, index: VectorIndex) -> float:
        """The mean share of returned rows that are among the exact best 10.

        A row counts if its exact score reaches the exact 10th best within `TIE`, so that equal vectors are equivalent.
        """
        if not self._k:
            return 1.0
        rows, _ = index.search(self._queries, self._k)
        found = 0
        for query, row, border in zip(self._queries, rows, self._reach, strict=True):
            distinct = np.unique(row[row >= 0])
            found += int((self._metric.scores(query[None], self._vectors[distinct])[0] >= border).sum())
        return found / rows.size


def measure_recall(vectors: npt.NDArray[np.float32], metric: Metric, index: VectorIndex) -> float:
    """Recall@10 of one index of `vectors` [n, dim]."""
    return RecallSample(vectors, metric).recall_of(index)
