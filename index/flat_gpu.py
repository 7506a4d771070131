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
from torch import Tensor

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
        self._masked: MaskedSearch | None = None

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        rows, scores = nothing(len(queries), k)
        if not len(self._vectors) or not len(queries):
            return rows, scores
        best = min(k, len(self._vectors))
        with self._lock:
            if best > MAX_K or (allowed is not None and any(mask is not None for mask in allowed)):
                if self._masked is None:
                    self._masked = MaskedSearch(torch.tensor(self._vectors, device="cuda"), self._metric)
                rows[:, :best], scores[:, :best] = self._masked.search(queries, best, allowed)
            else:
                distances, found = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), best)
                rows[:, :best] = found
                scores[:, :best] = -distances if self._metric is Metric.L2 else distances
        return rows, scores


class MaskedSearch:
    """A matrix product and the best k of what a mask lets through, on whatever device the vectors are."""

    def __init__(self, vectors: Tensor, metric: Metric) -> None:
        self._vectors = vectors  # [n, dim]
        self._metric = metric

    def search(self, queries: Vectors, k: int, allowed: Allowed | None) -> tuple[Rows, Vectors]:
        """k is at most n. -> rows [b, k], scores [b, k]"""
        wanted = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).to(self._vectors.device)
        scores = wanted @ self._vectors.T  # [b, n]
        if self._metric is Metric.L2:
            scores = 2 * scores - wanted.square().sum(1)[:, None] - self._vectors.square().sum(1)
        for row, mask in enumerate(allowed or ()):
            if mask is not None:
                scores[row].masked_fill_(~torch.from_numpy(mask).to(scores.device), -torch.inf)
        best = scores.topk(k, dim=1)
        rows = best.indices.masked_fill(best.values == -torch.inf, -1)
        found: tuple[Rows, Vectors] = rows.cpu().numpy(), best.values.cpu().numpy()
        return found
