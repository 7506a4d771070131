"""Exact search over vectors of one byte a number: FAISS reads a quarter of the memory, and the answers are the same.

Rounding moves a row by at most `error` (L2 norm), so its score by at most error x |query|. Candidates are taken by
their rounded scores and scored again with the exact vectors; when the best possible score of everything that was not
taken is below the k-th exact one, nothing is missing. Otherwise more candidates are taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.vectors.base import Allowed, Rows, Vectors, check_search, nothing
from index.vectors.exact import ExactSearch, as_tensor
from index.vectors.recall import RecallSample
from seqrec.errors import SnapshotError
from seqrec.metric import TIE, Metric

INT8 = "int8"
_ROWS_AT_ONCE = 65_536
_SLACK = 1e-5
"""Relative: scores of FAISS and of NumPy differ by rounding."""
_FIRST, _MORE = 10, 4
"""Times k: candidates at first. Times as many where those do not suffice."""
_MOST_SHARE = 16
"""More candidates than this part of all rows cost more than comparing all."""


def build_quantized(path: Path, vectors: Vectors, metric: Metric, sample: RecallSample) -> tuple[str, float]:
    """Write the rounded `vectors` [n, dim] to `path`; returns the search parameter "error=..." and the recall."""
    measure = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit_uniform, measure)
    # Training only finds the range of all numbers, so two rows with the extremes are enough.
    ends = np.array([_least(vectors), -_least(-vectors)], np.float32)
    index.train(np.repeat(ends[:, None], vectors.shape[1], axis=1))
    error = 0.0
    for begin in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = np.ascontiguousarray(vectors[begin : begin + _ROWS_AT_ONCE], np.float32)
        index.add(rows)
        rounded = index.sa_decode(index.sa_encode(rows))
        error = max(error, float(np.linalg.norm(rounded - rows, axis=1).max()))
    faiss.write_index(index, str(path))
    params = f"error={error * (1 + _SLACK):.9g}"
    return params, sample.recall_of(QuantizedIndex(index, vectors, metric, params))


def open_quantized(path: Path, vectors: Vectors, metric: Metric, search_params: str) -> QuantizedIndex:
    """What `build_quantized` wrote, memory-mapped. Raises SnapshotError."""
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise SnapshotError(f"{path} was altered, or FAISS cannot read it: {error}") from error
    if (index.ntotal, index.d) != vectors.shape:
        raise SnapshotError(
            f"{path} contains {index.ntotal} x {index.d}, not {list(vectors.shape)}: it belongs to another snapshot"
        )
    return QuantizedIndex(index, vectors, metric, search_params)


class QuantizedIndex:
    """Rounded rows, and the exact vectors they were made from. Searches with a mask read the exact ones."""

    def __init__(self, index: Any, vectors: Vectors, metric: Metric, search_params: str) -> None:
        name, _, value = search_params.partition("=")
        if name != "error":
            raise SnapshotError(f"the search parameter of an {INT8} index is error=..., not {search_params!r}")
        self._index, self._vectors, self._metric, self._error = index, vectors, metric, float(value)
        self._exact = ExactSearch(as_tensor(vectors), metric)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = nothing(len(queries), k)
        open_ = [query for query in range(len(queries)) if allowed is None or allowed[query] is None]
        exactly = sorted(set(range(len(queries))) - set(open_))
        n, fetched = len(self._vectors), _FIRST * k
        while open_ and fetched <= n // _MOST_SHARE:
            rounded, candidates = self._index.search(queries[open_], fetched)  # [o, fetched], best first
            missing = []
            for query, own, found in zip(open_, rounded, candidates, strict=True):
                exact = self._metric.scores(queries[query : query + 1], self._vectors[found])[0]
                best = np.argsort(-exact, kind="stable")[:k]
                if exact[best[-1]] <= self._best_unseen(queries[query], float(own[-1])):
                    missing.append(query)
                rows[query], scores[query] = found[best], exact[best]
            open_, fetched = missing, _MORE * fetched
        if again := sorted(exactly + open_):
            masks = None if allowed is None else [allowed[query] for query in again]
            rows[again], scores[again] = self._exact.search(queries[again], k, masks)
        return rows, scores

    def _best_unseen(self, query: Vectors, last: float) -> float:
        """The most that a row can score whose rounded score is `last` or worse."""
        if self._metric is Metric.L2:  # FAISS gives squared distances
            nearest = max(0.0, np.sqrt(max(last, 0.0)) * (1 - _SLACK) - self._error)
            return float(-(nearest**2)) + TIE
        return last + (self._error + _SLACK) * float(np.linalg.norm(query)) + TIE


def _least(vectors: Vectors) -> float:
    pieces = (vectors[begin : begin + _ROWS_AT_ONCE] for begin in range(0, len(vectors), _ROWS_AT_ONCE))
    return min((float(piece.min()) for piece in pieces), default=0.0)
