"""Search on one GPU: flat and IVF by FAISS for searches without masks, torch for those with masks.

FAISS's GpuIndexFlat ignores a selector, returns at most 2,048 rows, reallocates all of it at each `add`, and is not
safe for concurrent searches. So it is filled once, `index.vectors.single_thread` gives it one thread, and torch
does the rest. Written for the wheel faiss-gpu 1.15.1; not yet run on a GPU (docs/gpu.md).
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import torch

from index.vectors.base import Allowed, Rows, Vectors, check_search, nothing
from index.vectors.exact import ExactSearch
from seqrec.errors import InputError
from seqrec.metric import Metric

MAX_K = 2048


def gpu_available() -> bool:
    """Whether faiss-gpu is installed and finds a device."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def gpu_for(device: str | None) -> int | None:
    """The number of the GPU to search on, None for the CPU. `device`: cpu, cuda, cuda:1; None: a GPU if there is one.

    Raises InputError for a GPU that does not exist.
    """
    if not gpu_available() or (device or "cuda").partition(":")[0] != "cuda":
        return None
    number = int((device or "cuda").partition(":")[2] or 0)
    if number >= faiss.get_num_gpus():
        raise InputError(f"there is no {device}: FAISS finds {faiss.get_num_gpus()} GPUs, numbered from 0", "device")
    return number


def to_gpu(index: Any, number: int) -> Any:
    """A copy of a FAISS index on a GPU, with its search parameters."""
    _require_gpu()
    resources = faiss.StandardGpuResources()
    return faiss.index_cpu_to_gpu(resources, number, index)  # keeps a reference to the resources


class FlatGpuIndex:
    """For one thread. Keeps FAISS's copy of the vectors on the device, and after a search with a mask a second one."""

    def __init__(self, vectors: Vectors, metric: Metric, number: int = 0) -> None:
        """`number` of the GPU. Raises InputError if faiss-gpu or a device is missing."""
        _require_gpu()
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._metric = metric
        self._number = number
        self._resources = faiss.StandardGpuResources()
        config = faiss.GpuIndexFlatConfig()
        config.device = number
        kind = faiss.GpuIndexFlatL2 if metric is Metric.L2 else faiss.GpuIndexFlatIP
        self._index = kind(self._resources, self._vectors.shape[1], config)
        self._index.add(self._vectors)
        self._exact: ExactSearch | None = None

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        rows, scores = nothing(len(queries), k)
        if not len(self._vectors) or not len(queries):
            return rows, scores
        best = min(k, len(self._vectors))
        if best > MAX_K or (allowed is not None and any(mask is not None for mask in allowed)):
            if self._exact is None:
                self._exact = ExactSearch(torch.tensor(self._vectors, device=f"cuda:{self._number}"), self._metric)
            return self._exact.search(queries, k, allowed)
        distances, found = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), best)
        rows[:, :best] = found
        scores[:, :best] = -distances if self._metric is Metric.L2 else distances
        return rows, scores


def _require_gpu() -> None:
    if not gpu_available():
        raise InputError(
            "there is no GPU, or faiss-gpu is not installed (pip install 'seqrec[gpu]'); set SEQREC_DEVICE=cpu",
            "index",
        )
