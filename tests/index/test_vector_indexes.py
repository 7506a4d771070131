"""The kinds of vector index against their contract, and what is particular to each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from index.flat import FlatIndex
from index.flat_gpu import FlatGpuIndex, MaskedSearch, gpu_available
from index.vector_index import Allowed, VectorIndex, check_search, index_class, nothing
from seqrec.errors import InputError
from seqrec.metric import Metric
from tests.contracts.vector_index_contract import VectorIndexContract, vectors


class TestFlat(VectorIndexContract):
    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        return FlatIndex(base, metric)

    def test_memory_mapped_vectors_are_not_copied(self, tmp_path: Path) -> None:
        np.save(tmp_path / "vectors.npy", vectors(50))
        mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
        index = FlatIndex(mapped, Metric.COSINE)
        assert np.shares_memory(index._vectors, mapped)
        rows, _ = index.search(vectors(50)[3:4], 1)
        assert rows.tolist() == [[3]]


if gpu_available():

    class TestFlatGpu(VectorIndexContract):
        def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
            return FlatGpuIndex(base, metric)


class _MaskedOnCpu:
    """The GPU kind's exact fallback on a CPU: everything of it but the device."""

    def __init__(self, base: npt.NDArray[np.float32], metric: Metric) -> None:
        self._shape = base.shape
        self._search = MaskedSearch(torch.from_numpy(base), metric)

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: Allowed | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        check_search(self._shape, queries, k, allowed)
        rows, scores = nothing(len(queries), k)
        best = min(k, self._shape[0])
        rows[:, :best], scores[:, :best] = self._search.search(queries, best, allowed)
        return rows, scores


class TestMaskedSearch(VectorIndexContract):
    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        return _MaskedOnCpu(base, metric)


def test_kinds_by_name() -> None:
    assert index_class("flat") is FlatIndex
    assert index_class("flat-gpu") is FlatGpuIndex
    with pytest.raises(InputError, match="no index kind 'annoy'; there are flat, flat-gpu"):
        index_class("annoy")


@pytest.mark.skipif(gpu_available(), reason="there is a GPU here")
def test_the_gpu_kind_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"flat-gpu needs a GPU and faiss-gpu .* say flat"):
        FlatGpuIndex(vectors(3), Metric.COSINE)
