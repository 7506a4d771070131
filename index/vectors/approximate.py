"""Approximate search by FAISS (IVF and HNSW, by factory string) under the contract of all indexes.

Candidates are scored again with the exact vectors, so scores are comparable with those of other indexes. Searches that
find fewer than k rows are exact, computed from the vectors, and so are those with a mask of few rows, or with HNSW.
With a larger mask those lists are searched that lie nearest and together have as many allowed rows as a search without
a mask compares.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.vectors.base import Allowed, Rows, Vectors, check_search, nothing
from index.vectors.exact import ExactSearch, Mask, as_tensor
from index.vectors.gpu import MAX_K, to_gpu
from index.vectors.recall import RecallSample
from seqrec.errors import InputError, SnapshotError
from seqrec.metric import Metric

log = logging.getLogger(__name__)

LEAST_VECTORS = 1_000
"""With fewer, an approximate index can neither be trained nor save time."""
TARGET_RECALL = 0.95
_ROWS_AT_ONCE = 65_536
_TRAINING_ROWS_PER_LIST = 50  # FAISS warns below 39
_TRAINING_ROWS = 100_000  # without lists
_MORE_LISTS = 16
_SAMPLED_ROWS = 100_000
"""By which the allowed rows of a list are counted."""
MASKED_EXACTLY = 12_800_000
"""Rows of a mask x dim that are compared exactly, here 100,000 x 128: some 20 ms."""
_NO_ROWS = np.zeros(0, np.int64)
_OVERSAMPLED = 4
"""Times k: candidates to score again, since compressed codes order rows slightly differently."""


def check_factory(factory: str, dim: int, metric: Metric) -> None:
    """Raises InputError for an invalid factory string, or one of another family than IVF and HNSW."""
    new_index(factory, dim, metric)


def build_approximate(
    path: Path, vectors: Vectors, metric: Metric, factory: str, sample: RecallSample, target: float = TARGET_RECALL
) -> tuple[str, float]:
    """Build the index of `vectors` [n, dim], tune it, write it to `path`; returns its search parameter and recall.

    The parameter is the smallest power of two whose recall on the sample reaches `target`, or else the largest allowed.
    The index is in memory meanwhile; with uncompressed codes that is a copy of the vectors. Raises InputError.
    """
    index = new_index(factory, vectors.shape[1], metric)
    try:
        index.train(_training_rows(index, vectors))
    except RuntimeError as error:
        raise InputError(
            f"{factory!r} cannot be built from {len(vectors)} vectors: {_reason(error)}", "index"
        ) from error
    for begin in range(0, len(vectors), _ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[begin : begin + _ROWS_AT_ONCE], np.float32))
    faiss.write_index(index, str(path))
    made = ApproximateIndex(index, vectors, metric)
    params, recall = "", 0.0
    for params in search_params(index):
        made.set_search_params(params)
        recall = sample.recall_of(made)
        log.info("%s with %s: recall %.3f", factory, params, recall)
        if recall >= target:
            break
    else:
        log.warning("%s reaches recall %.3f at most, not %.3f; choose a finer index, or flat", factory, recall, target)
    return params, recall


def open_approximate(
    path: Path, vectors: Vectors, metric: Metric, search_params: str, gpu: int | None = None
) -> ApproximateIndex:
    """The index that `build_approximate` wrote: memory-mapped if FAISS supports that, or copied to a GPU.

    Raises SnapshotError.
    """
    flag = faiss.IO_FLAG_MMAP_IFC if _family_of(path) == "HNSW" else faiss.IO_FLAG_MMAP
    try:
        index = faiss.read_index(str(path), flag | faiss.IO_FLAG_READ_ONLY)
        if (index.ntotal, index.d) != vectors.shape:
            raise SnapshotError(
                f"{path} contains {index.ntotal} x {index.d}, not {list(vectors.shape)}: it belongs to another snapshot"
            )
        made = ApproximateIndex(index, vectors, metric)
        made.set_search_params(search_params)
        if gpu is not None:
            made = ApproximateIndex(to_gpu(index, gpu), vectors, metric, most=MAX_K)
    except RuntimeError as error:
        raise SnapshotError(f"{path} was altered, or FAISS cannot read it: {_reason(error)}") from error
    return made


class ApproximateIndex:
    """A FAISS index and the exact vectors it was built from. Safe for several threads, except `set_search_params`."""

    def __init__(self, index: Any, vectors: Vectors, metric: Metric, most: int | None = None) -> None:
        """`most`: rows that one search of `index` can return; a search for more is exact."""
        self.faiss_index = index
        self._most = most or max(1, len(vectors))
        self._vectors = vectors
        self._metric = metric
        self._lossless = isinstance(index, faiss.IndexIVFFlat | faiss.IndexHNSWFlat)
        self._exact = ExactSearch(as_tensor(vectors), metric)

    def set_search_params(self, search_params: str) -> None:
        """Such as "nprobe=16" or "efSearch=64"."""
        parameters: Any = faiss.ParameterSpace()
        parameters.set_index_parameters(self.faiss_index, search_params)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        check_search(self._vectors.shape, queries, k, allowed)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = nothing(len(queries), k)
        n = len(self._vectors)
        fetched = min(n, self._most, k if self._lossless else _OVERSAMPLED * k)
        masks = list(allowed) if allowed is not None else [None] * len(queries)
        same: dict[int, list[int]] = {}  # by identity: queries with the same filter share a mask
        for query, mask in enumerate(masks):
            same.setdefault(id(mask), []).append(query)
        exactly: list[int] = []
        for members in same.values() if n else ():
            found = self._found(queries[members], fetched, masks[members[0]])
            if found is None:
                exactly += members
                continue
            for query, candidates in zip(members, found, strict=True):
                candidates = candidates[candidates >= 0]
                if len(candidates) < min(k, n):
                    exactly.append(query)
                    continue
                own = self._metric.scores(queries[query : query + 1], self._vectors[candidates])[0]
                best = np.argsort(-own, kind="stable")[:k]
                rows[query, : len(best)], scores[query, : len(best)] = candidates[best], own[best]
        if exactly:
            exactly.sort()
            rows[exactly], scores[exactly] = self._exact.search(
                queries[exactly], k, [masks[query] for query in exactly]
            )
        return rows, scores

    def candidates(self, query: Vectors, k: int, allowed: Mask | None = None) -> Rows:
        """Rows near a query [dim], at most k of those allowed, for those who compute scores themselves.

        With lists, of more of them than a search reads, which is tuned to find the best 10. Exact with a mask of few
        rows, or with HNSW.
        """
        query = np.ascontiguousarray(query[None], np.float32)
        found = self._found(query, min(k, self._most), allowed, _MORE_LISTS)
        if found is None:
            found = self._exact.search(query, min(k, len(self._vectors)), [allowed])[0]
        rows: Rows = found[0][found[0] >= 0].astype(np.int64, copy=False)
        return rows

    def _found(self, queries: Vectors, k: int, allowed: Mask | None, times: int = 1) -> Rows | None:
        """What FAISS finds [b, k] in `times` as many lists as usual, -1 for nothing. None: compare the rows allowed."""
        index = self.faiss_index
        if not isinstance(index, faiss.IndexIVF):
            return None if allowed is not None else index.search(queries, k)[1]
        params: Any = faiss.SearchParametersIVF()
        params.nprobe = min(index.nlist, times * index.nprobe)
        if allowed is not None:
            if np.count_nonzero(allowed) * self._vectors.shape[1] <= MASKED_EXACTLY:
                return None
            params.nprobe = self._lists.needed(queries, allowed, times * index.nprobe)
            bitmap: Any = np.packbits(allowed, bitorder="little")
            params.sel = faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg]
        rows: Rows = index.search(queries, k, params=params)[1]
        return rows

    @cached_property
    def _lists(self) -> _Lists:
        return _Lists(self.faiss_index, self._metric)


class _Lists:
    """The lists of an IVF index, and a sample of their rows: every n-th of each list."""

    def __init__(self, index: Any, metric: Metric) -> None:
        self._centroids = index.quantizer.reconstruct_n(0, index.nlist)  # [lists, dim]
        self._metric = metric
        lists = index.invlists
        step = max(1, index.ntotal // _SAMPLED_ROWS)
        parts = []
        for number in range(index.nlist):
            size = lists.list_size(number)
            parts.append(faiss.rev_swig_ptr(lists.get_ids(number), size)[::step].copy() if size else _NO_ROWS)
        self._rows = np.concatenate(parts)
        self._list_of_row = np.repeat(np.arange(index.nlist), [len(part) for part in parts])

    def needed(self, queries: Vectors, allowed: Mask, lists: int) -> int:
        """How many of the nearest lists have as many allowed rows as `lists` have rows of any kind, for every query."""
        count = len(self._centroids)
        counts = np.bincount(self._list_of_row[allowed[self._rows]], minlength=count)
        order = np.argsort(-self._metric.scores(queries, self._centroids), axis=1)
        reached = np.cumsum(counts[order], axis=1)
        wanted = min(lists / count * len(self._rows), float(counts.sum()))
        return 1 + max(int(np.searchsorted(row, wanted)) for row in reached)


def new_index(factory: str, dim: int, metric: Metric) -> Any:
    if not factory.startswith(("IVF", "HNSW")):
        raise InputError(
            f"unknown index {factory!r}; there are flat, auto, and FAISS factory strings that begin with IVF or HNSW, "
            "such as IVF1024,Flat or HNSW32",
            "index",
        )
    try:
        measure = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(dim, factory, measure)
    except RuntimeError as error:
        raise InputError(f"FAISS cannot build {factory!r} for {dim} dimensions: {_reason(error)}", "index") from error
    if factory.startswith("IVF"):
        faiss.extract_index_ivf(index).cp.min_points_per_centroid = 1  # else FAISS prints to stderr
    return index


def _training_rows(index: Any, vectors: Vectors) -> Vectors:
    lists = faiss.try_extract_index_ivf(index)
    wanted = _TRAINING_ROWS if lists is None else _TRAINING_ROWS_PER_LIST * lists.nlist
    if wanted >= len(vectors):
        return np.ascontiguousarray(vectors, np.float32)
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), wanted, replace=False))
    return np.ascontiguousarray(vectors[rows], np.float32)


def search_params(index: Any) -> Iterator[str]:
    """From the fastest to the most accurate, in powers of two."""
    lists = faiss.try_extract_index_ivf(index)
    name, most = ("efSearch", 2048) if lists is None else ("nprobe", lists.nlist)
    value = 16 if lists is None else 1
    while value < most:
        yield f"{name}={value}"
        value *= 2
    yield f"{name}={most}"


def _family_of(path: Path) -> str:
    with path.open("rb") as file:
        return "HNSW" if file.read(4).startswith(b"IHN") else "IVF"


def _reason(error: RuntimeError) -> str:
    """The message of FAISS without the position in its source code."""
    return str(error).rpartition("failed: ")[2].rpartition("Error: ")[2].strip() or str(error)
