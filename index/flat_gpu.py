"""Exact search on one GPU: FAISS where every row may be returned, a masked product in torch where not.

FAISS's GpuIndexFlat ignores a selector, returns at most 2,048 rows, and is not safe for two threads even to read: so
one lock guards it, and what it cannot do is computed from the same vectors in torch. It was written for the wheel
faiss-gpu 1.15.1 and has not been run on a GPU yet (docs/gpu.md).
"""

from __future__ import annotations

import threading

import faiss
import numpy as np
import torch

from index.exact import ExactSearch
from index.vector_index import Allowed, Rows, Vectors, check_search, nothing
from seqrec.errors import InputError
from seqrec.metric import Metric

MAX_K = 2048


def gpu_available() -> bool:
    """Whether this is faiss-gpu and there is a device for it."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class FlatGpuIndex:
    """Holds the vectors twice on the device: FAISS's copy, and one for masked searches, made when first needed."""

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        """Raises InputError without faiss-gpu and a device."""
        if not gpu_available():
            raise InputError("flat-gpu needs a GPU and faiss-gpu (pip install 'seqrec[gpu]'); say flat", "index")
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._metric = metric
        self._lock = threading.Lock()
        self._resources = faiss.StandardGpuResources()
        kind = faiss.GpuIndexFlatL2 if metric is Metric.L2 else faiss.GpuIndexFlatIP
        self._index = kind(self._resources, self._vectors.shape[1])
        self._index.add(self._vectors)  # once: each add reallocates all of it
        self._masked: ExactSearch | None = None

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        rows, scores = nothing(len(queries), k)
        if not len(self._vectors) or not len(queries):
            return rows, scores
        best = min(k, len(self._vectors))
        with self._lock:
            if best > MAX_K or (allowed is not None and any(mask is not None for mask in allowed)):
                if self._masked is None:
                    self._masked = ExactSearch(torch.tensor(self._vectors, device="cuda"), self._metric)
                rows[:, :best], scores[:, :best] = self._masked.search(queries, best, allowed)
            else:
                distances, found = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), best)
                rows[:, :best] = found
                scores[:, :best] = -distances if self._metric is Metric.L2 else distances
        return rows, scores
