"""Exact search on the CPU: FAISS for searches without masks, torch for those with masks.

200,000 x 384 on one core, ms for 1, 4, 8 and 64 queries: FAISS vector by vector 10, 40, 78, 656; FAISS through BLAS
53, 51, 58, 143; blocks of matrix products in torch 35, 56, 65, 193. So FAISS compares vector by vector up to four
queries; a single query then uses one thread. With many threads torch is faster for few queries, and with two or more
if the vectors fit in the processor's cache (20,000 x 384, two threads: 3.3 ms instead of 4.3). FAISS accepts one
selector a call, so queries with different masks go to torch.
"""

from __future__ import annotations

import faiss
import numpy as np
import torch

from index.vectors.base import Allowed, Rows, Vectors, check_search, nothing
from index.vectors.exact import ExactSearch, as_tensor
from seqrec.metric import Metric

FEW_QUERIES = 4
FEW_THREADS = 3
CACHED_BYTES = 1 << 26
"""Size of vectors that fit in a processor's cache. Beyond it, one thread reads memory nearly as fast as two."""


class FlatIndex:
    """Compares with every vector. The vectors are read in place, memory-mapped or not."""

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._metric = metric
        self._exact = ExactSearch(as_tensor(self._vectors), metric)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        masks = [None] * len(queries) if allowed is None else list(allowed)
        plain = [query for query, mask in enumerate(masks) if mask is None]
        threads = torch.get_num_threads()
        few = len(plain) <= FEW_QUERIES and threads > FEW_THREADS
        one = len(plain) == 1 and threads > 1 and self._vectors.nbytes <= CACHED_BYTES
        if not len(self._vectors) or not plain or few or one:
            return self._exact.search(queries, k, masks)
        if len(plain) == len(queries):
            return self._by_faiss(queries, k)
        rows, scores = nothing(len(queries), k)
        rows[plain], scores[plain] = self._by_faiss(queries[plain], k)
        masked = [query for query, mask in enumerate(masks) if mask is not None]
        rows[masked], scores[masked] = self._exact.search(queries[masked], k, [masks[query] for query in masked])
        return rows, scores

    def _by_faiss(self, queries: Vectors, k: int) -> tuple[Rows, Vectors]:
        # The functions that faiss.IndexFlat uses: an IndexFlat would copy the vectors.
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = nothing(len(queries), k)
        (n, dim), pointer = self._vectors.shape, faiss.swig_ptr
        best = min(k, n)
        found, distances = np.empty((len(queries), best), np.int64), np.empty((len(queries), best), np.float32)
        # Below this number of values FAISS does not use BLAS. A global setting, equal for all indexes of this dim.
        faiss.cvar.distance_compute_blas_threshold = (FEW_QUERIES + 1) * dim
        arguments = (pointer(queries), pointer(self._vectors), dim, len(queries), n, best)
        if self._metric is Metric.L2:
            faiss.knn_L2sqr(*arguments, pointer(distances), pointer(found), None, None)
            distances = -distances
        else:
            faiss.knn_inner_product(*arguments, pointer(distances), pointer(found), None)
        rows[:, :best], scores[:, :best] = found, distances
        return rows, scores


def inner_products(vectors: Vectors, query: Vectors, out: Vectors) -> None:
    """Writes the products of all vectors [n, dim] with one query [dim] to `out` [n]; all C-contiguous float32.

    One thread, as fast as memory is read: 200,000 x 128 take 3.0 ms, torch.mv 13 ms, numpy 5.1 ms.
    """
    n, dim = vectors.shape
    if vectors.dtype != np.float32 or not vectors.flags.c_contiguous or query.shape != (dim,) or out.shape != (n,):
        raise ValueError(f"vectors {vectors.shape} {vectors.dtype}, query {query.shape}, out {out.shape}")
    pointer = faiss.swig_ptr
    if n:
        faiss.fvec_inner_products_ny(pointer(out), pointer(query), pointer(vectors), dim, n)  # type: ignore[attr-defined]
