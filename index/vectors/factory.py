"""Which kind of index a snapshot gets, and how it is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from index.vectors.approximate import LEAST_VECTORS, check_factory, open_approximate
from index.vectors.base import VectorIndex, Vectors
from index.vectors.flat import FlatIndex
from index.vectors.gpu import FlatGpuIndex, gpu_available, gpu_for
from index.vectors.single_thread import SingleThreadIndex
from seqrec.metric import Metric

FLAT, AUTO = "flat", "auto"
INDEX_FILE = "index.faiss"
EXACT_UP_TO = 384_000_000
"""Numbers (vectors x dim) that `auto` compares exactly, here 1,000,000 x 384; docs/commands.md says why."""
EXACT_UP_TO_ON_GPU = 3_840_000_000  # 10,000,000 x 384


@dataclass(frozen=True)
class Choice:
    kind: str  # flat, or a factory string
    why: str


def check_kind(asked: str, dim: int, metric: Metric) -> None:
    """Raises InputError for a kind that there is not, before anything is encoded."""
    if asked not in (FLAT, AUTO):
        check_factory(asked, dim, metric)


def choose_kind(asked: str, n: int, dim: int) -> Choice:
    """What to make of n vectors where `asked` was asked for."""
    if asked == AUTO:
        most = EXACT_UP_TO_ON_GPU if gpu_available() else EXACT_UP_TO
        if n * dim <= most:
            return Choice(FLAT, f"{n:,} x {dim} are compared exactly up to {most // dim:,}")
        lists = 2 ** round(math.log2(4 * math.sqrt(n)))
        return Choice(f"IVF{lists},Flat", f"{n:,} x {dim} are more than the {most // dim:,} compared exactly")
    if asked != FLAT and n < LEAST_VECTORS:
        return Choice(FLAT, f"{n:,} vectors are too few for {asked}; it takes {LEAST_VECTORS:,}")
    return Choice(asked, "asked for")


def open_index(
    kind: str, path: Path, vectors: Vectors, metric: Metric, effort: str, device: str | None = None
) -> VectorIndex:
    """The index of `kind`, over `vectors` and, unless it is flat, the file at `path`.

    On a GPU where there is one and `device` does not say cpu; HNSW is searched on the CPU. Raises SnapshotError.
    """
    gpu = gpu_for(device)
    if kind == FLAT:
        return (
            FlatIndex(vectors, metric) if gpu is None else SingleThreadIndex(lambda: FlatGpuIndex(vectors, metric, gpu))
        )
    if gpu is None or not kind.startswith("IVF"):
        return open_approximate(path, vectors, metric, effort)
    return SingleThreadIndex(lambda: open_approximate(path, vectors, metric, effort, gpu))
