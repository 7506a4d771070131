"""Chooses and opens the index of a snapshot: flat, int8, or a FAISS factory string."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from index.vectors.approximate import LEAST_VECTORS, check_factory, open_approximate
from index.vectors.base import VectorIndex, Vectors
from index.vectors.flat import FlatIndex
from index.vectors.gpu import FlatGpuIndex, gpu_available, gpu_for
from index.vectors.quantized import INT8, open_quantized
from index.vectors.single_thread import SingleThreadIndex
from seqrec.metric import Metric

FLAT, AUTO = "flat", "auto"
INDEX_FILE = "index.faiss"
EXACT_UP_TO = 384_000_000
"""Vectors x dim up to which `auto` searches exactly, here 1,000,000 x 384. The measurements: docs/commands.md."""
EXACT_UP_TO_ON_GPU = 3_840_000_000  # 10,000,000 x 384


@dataclass(frozen=True)
class Choice:
    factory: str  # flat, int8, or a FAISS factory string
    why: str


def check_index(requested: str, dim: int, metric: Metric) -> None:
    """Raises InputError for an index that cannot be built; call it before the items are encoded."""
    if requested not in (FLAT, INT8, AUTO):
        check_factory(requested, dim, metric)


def choose_factory(requested: str, n: int, dim: int) -> Choice:
    """The index to build for n vectors. An approximate one of few vectors becomes flat."""
    if requested == AUTO:
        most = EXACT_UP_TO_ON_GPU if gpu_available() else EXACT_UP_TO
        if n * dim <= most:
            return Choice(FLAT, f"{n:,} x {dim} are compared exactly up to {most // dim:,}")
        lists = 2 ** round(math.log2(4 * math.sqrt(n)))
        return Choice(f"IVF{lists},SQ8", f"{n:,} x {dim} are more than the {most // dim:,} compared exactly")
    if requested != FLAT and n < LEAST_VECTORS:
        return Choice(FLAT, f"{n:,} vectors are too few for {requested}, which needs {LEAST_VECTORS:,}")
    return Choice(requested, "as requested")


def open_index(
    factory: str, path: Path, vectors: Vectors, metric: Metric, search_params: str, device: str | None = None
) -> VectorIndex:
    """Open an index of `vectors`; `path` is its file, unless it is flat.

    On a GPU if there is one and `device` is not cpu, but for HNSW and int8. Raises SnapshotError.
    """
    gpu = gpu_for(device)
    if factory == INT8:
        return open_quantized(path, vectors, metric, search_params)
    if factory == FLAT:
        return (
            FlatIndex(vectors, metric) if gpu is None else SingleThreadIndex(lambda: FlatGpuIndex(vectors, metric, gpu))
        )
    if gpu is None or not factory.startswith("IVF"):
        return open_approximate(path, vectors, metric, search_params)
    return SingleThreadIndex(lambda: open_approximate(path, vectors, metric, search_params, gpu))
