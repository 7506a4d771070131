"""Approximate search by FAISS, IVF and HNSW by factory string, held to the contract of every index.

What an approximate index finds is scored again by the exact vectors, so its scores stand beside those of anything else.
Searches with a mask are exact: they are computed from the vectors. So is a search that comes back short.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.vectors.base import Allowed, Rows, Vectors, check_search, nothing
from index.vectors.exact import ExactSearch, as_tensor
from index.vectors.gpu import MAX_K, to_gpu
from index.vectors.recall import RecallSample
from seqrec.errors import InputError, SnapshotError
from seqrec.metric import Metric

log = logging.getLogger(__name__)

LEAST_VECTORS = 1_000
"""Below, an approximate index has nothing to learn from and nothing to save."""
TARGET_RECALL = 0.95
_ROWS_AT_ONCE = 65_536
_TRAINING_ROWS_PER_LIST = 50  # FAISS asks for 39 at least
_TRAINING_ROWS = 100_000  # without lists
_OVERSAMPLED = 4
"""Times k: what is fetched to be scored again, since codes that lose something order the rows a little otherwise."""


def check_factory(factory: str, dim: int, metric: Metric) -> None:
    """Raises InputError for a factory string that is none, or of another family than IVF and HNSW."""
    _new(factory, dim, metric)


def build_approximate(
    path: Path, vectors: Vectors, metric: Metric, factory: str, sample: RecallSample, target: float = TARGET_RECALL
) -> tuple[str, float]:
    """Make the index of `vectors` [n, dim], tune it, write it to `path`; its search parameter and measured recall.

    The parameter is the least effort, in powers of two, whose recall on the sample reaches `target`; or the most there
    is. In memory while it is made, which for uncompressed codes is a copy of the vectors. Raises InputError.
    """
    index = _new(factory, vectors.shape[1], metric)
    try:
        index.train(_training_rows(index, vectors))
    except RuntimeError as error:
        raise InputError(f"{factory!r} cannot be made of {len(vectors)} vectors: {_reason(error)}", "index") from error
    for begin in range(0, len(vectors), _ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[begin : begin + _ROWS_AT_ONCE], np.float32))
    faiss.write_index(index, str(path))
    made = ApproximateIndex(index, vectors, metric)
    effort, recall = "", 0.0
    for effort in _efforts(index):
        made.set_effort(effort)
        recall = sample.recall_of(made)
        log.info("%s with %s: recall %.3f", factory, effort, recall)
        if recall >= target:
            break
    else:
        log.warning("%s reaches recall %.3f at most, not %.3f; say a finer one, or flat", factory, recall, target)
    return effort, recall


def open_approximate(
    path: Path, vectors: Vectors, metric: Metric, effort: str, gpu: int | None = None
) -> ApproximateIndex:
    """The index that `build_approximate` wrote, mapped from its file where FAISS can, or copied to a GPU.

    Raises SnapshotError.
    """
    flag = faiss.IO_FLAG_MMAP_IFC if _kind_of(path) == "HNSW" else faiss.IO_FLAG_MMAP
    try:
        index = faiss.read_index(str(path), flag | faiss.IO_FLAG_READ_ONLY)
        if (index.ntotal, index.d) != vectors.shape:
            raise SnapshotError(f"{path} holds {index.ntotal} x {index.d}, not {list(vectors.shape)}: it is another's")
        made = ApproximateIndex(index, vectors, metric)
        made.set_effort(effort)
        if gpu is not None:
            made = ApproximateIndex(to_gpu(index, gpu), vectors, metric, most=MAX_K)
    except RuntimeError as error:
        raise SnapshotError(f"{path} was altered, or FAISS cannot read it: {_reason(error)}") from error
    return made


class ApproximateIndex:
    """A FAISS index and the exact vectors it was made of. Safe for several threads, but for `set_effort`."""

    def __init__(self, index: Any, vectors: Vectors, metric: Metric, most: int | None = None) -> None:
        """`most`: rows that one search of `index` can return; where that is too few the search is exact."""
        self._index = index
        self._most = most or max(1, len(vectors))
        self._vectors = vectors
        self._metric = metric
        self._lossless = isinstance(index, faiss.IndexIVFFlat | faiss.IndexHNSWFlat)
        self._exact = ExactSearch(as_tensor(vectors), metric)

    def set_effort(self, effort: str) -> None:
        """What one search may cost, such as "nprobe=16" or "efSearch=64"."""
        parameters: Any = faiss.ParameterSpace()
        parameters.set_index_parameters(self._index, effort)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = nothing(len(queries), k)
        n = len(self._vectors)
        plain = [query for query in range(len(queries)) if allowed is None or allowed[query] is None]
        exactly = set(range(len(queries))) - set(plain)
        if plain and n:
            fetched = min(n, self._most, k if self._lossless else _OVERSAMPLED * k)
            _, found = self._index.search(queries[plain], fetched)  # [p, fetched]
            for query, candidates in zip(plain, found, strict=True):
                candidates = candidates[candidates >= 0]
                if len(candidates) < min(k, n):
                    exactly.add(query)
                    continue
                own = self._metric.scores(queries[query : query + 1], self._vectors[candidates])[0]
                best = np.argsort(-own, kind="stable")[:k]
                rows[query, : len(best)], scores[query, : len(best)] = candidates[best], own[best]
        if exactly:
            again = sorted(exactly)
            masks = None if allowed is None else [allowed[query] for query in again]
            rows[again], scores[again] = self._exact.search(queries[again], k, masks)
        return rows, scores


def _new(factory: str, dim: int, metric: Metric) -> Any:
    if not factory.startswith(("IVF", "HNSW")):
        raise InputError(
            f"no index kind {factory!r}; there are flat, auto, and FAISS factory strings that begin with IVF or HNSW, "
            "such as IVF1024,Flat or HNSW32",
            "index",
        )
    try:
        measure = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(dim, factory, measure)
    except RuntimeError as error:
        raise InputError(f"FAISS makes no {factory!r} of {dim} dimensions: {_reason(error)}", "index") from error
    if factory.startswith("IVF"):
        faiss.extract_index_ivf(index).cp.min_points_per_centroid = 1  # it prints, where it means to warn
    return index


def _training_rows(index: Any, vectors: Vectors) -> Vectors:
    lists = faiss.try_extract_index_ivf(index)
    wanted = _TRAINING_ROWS if lists is None else _TRAINING_ROWS_PER_LIST * lists.nlist
    if wanted >= len(vectors):
        return np.ascontiguousarray(vectors, np.float32)
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), wanted, replace=False))
    return np.ascontiguousarray(vectors[rows], np.float32)


def _efforts(index: Any) -> Iterator[str]:
    """From little to all, in powers of two."""
    lists = faiss.try_extract_index_ivf(index)
    name, most = ("efSearch", 2048) if lists is None else ("nprobe", lists.nlist)
    effort = 16 if lists is None else 1
    while effort < most:
        yield f"{name}={effort}"
        effort *= 2
    yield f"{name}={most}"


def _kind_of(path: Path) -> str:
    with path.open("rb") as file:
        return "HNSW" if file.read(4).startswith(b"IHN") else "IVF"


def _reason(error: RuntimeError) -> str:
    """What FAISS says, without where in its code it says so."""
    return str(error).rpartition("failed: ")[2].rpartition("Error: ")[2].strip() or str(error)
