"""Exact search on the CPU.

Large batches go through FAISS, all else through our own blocks of matrix products: FAISS computes a single query on one
thread and takes one selector a call, but its products of large batches were a fifth faster (`benchmarks/search.py`).
"""

from __future__ import annotations

import faiss
import numpy as np

from index.exact import ExactSearch, as_tensor
from index.vector_index import Allowed, Rows, Vectors, check_search, nothing
from seqrec.metric import Metric

FAISS_FROM = 32
"""Queries, none of them with a mask."""

# Below this many numbers (queries x dim) FAISS leaves BLAS aside and computes products one by one.
faiss.cvar.distance_compute_blas_threshold = 1


class FlatIndex:
    """Compares with every vector. The vectors are the index: they are read where they lie, memory-mapped or not."""

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._metric = metric
        self._exact = ExactSearch(as_tensor(self._vectors), metric)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        unmasked = allowed is None or all(mask is None for mask in allowed)
        if unmasked and len(queries) >= FAISS_FROM and len(self._vectors):
            return self._by_faiss(queries, k)
        return self._exact.search(queries, k, allowed)

    def _by_faiss(self, queries: Vectors, k: int) -> tuple[Rows, Vectors]:
        # The functions under faiss.IndexFlat: an IndexFlat would copy the vectors.
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = nothing(len(queries), k)
        (n, dim), pointer = self._vectors.shape, faiss.swig_ptr
        best = min(k, n)
        found, distances = np.empty((len(queries), best), np.int64), np.empty((len(queries), best), np.float32)
        arguments = (pointer(queries), pointer(self._vectors), dim, len(queries), n, best)
        if self._metric is Metric.L2:
            faiss.knn_L2sqr(*arguments, pointer(distances), pointer(found), None, None)
            distances = -distances
        else:
            faiss.knn_inner_product(*arguments, pointer(distances), pointer(found), None)
        rows[:, :best], scores[:, :best] = found, distances
        return rows, scores
