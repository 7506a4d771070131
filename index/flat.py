"""Exact search on the CPU with FAISS."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

from index.vector_index import Allowed, Rows, Vectors, check_search, nothing
from seqrec.metric import Metric

# Below this many numbers (queries x dim) FAISS leaves BLAS aside and computes products one by one: at batch 32 over
# 200,000 x 768 that took 3.5 times as long.
faiss.cvar.distance_compute_blas_threshold = 1


class FlatIndex:
    """Compares with every vector. The vectors are the index: they are read where they lie, memory-mapped or not."""

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._metric = metric

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        rows, scores = nothing(len(queries), k)
        if not len(self._vectors):
            return rows, scores
        masks = [None] * len(queries) if allowed is None else list(allowed)
        # Queries without a mask in one matrix product; the others one by one, since FAISS takes one selector a call.
        plain = [query for query, mask in enumerate(masks) if mask is None]
        groups: list[tuple[list[int], npt.NDArray[np.bool_] | None]] = [(plain, None)] if plain else []
        groups += [([query], mask) for query, mask in enumerate(masks) if mask is not None and mask.any()]
        for members, mask in groups:
            best = min(k, len(self._vectors))
            rows[members, :best], scores[members, :best] = self._search(queries[members], best, mask)
        return rows, scores

    def _search(self, queries: Vectors, k: int, mask: npt.NDArray[np.bool_] | None) -> tuple[Rows, Vectors]:
        # The functions under faiss.IndexFlat: an IndexFlat would copy the vectors.
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = nothing(len(queries), k)
        bits = None if mask is None else np.packbits(mask, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        (n, dim), pointer = self._vectors.shape, faiss.swig_ptr
        shared = (pointer(queries), pointer(self._vectors), dim, len(queries), n, k, pointer(scores), pointer(rows))
        if self._metric is Metric.L2:
            faiss.knn_L2sqr(*shared, None, selector)
            scores = -scores
        else:
            faiss.knn_inner_product(*shared, selector)
        scores[rows < 0] = -np.inf
        return rows, scores
