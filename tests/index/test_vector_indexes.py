"""The kinds of vector index against their contract, and what is particular to each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index import exact
from index.flat import FAISS_FROM, FlatIndex
from index.flat_gpu import FlatGpuIndex, gpu_available
from index.vector_index import VectorIndex, index_class
from seqrec.errors import InputError
from seqrec.metric import Metric
from tests.contracts.vector_index_contract import METRICS, VectorIndexContract, vectors


class TestFlat(VectorIndexContract):
    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        return FlatIndex(base, metric)

    def test_memory_mapped_vectors_are_not_copied(self, tmp_path: Path) -> None:
        np.save(tmp_path / "vectors.npy", vectors(50))
        mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
        index = FlatIndex(mapped, Metric.COSINE)
        assert np.shares_memory(index._vectors, mapped)
        assert np.shares_memory(index._exact._vectors.numpy(), mapped)
        rows, _ = index.search(vectors(50)[3:4], 1)
        assert rows.tolist() == [[3]]

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("k", [1, 30, 60])
    def test_large_batches_go_another_way(self, metric: Metric, k: int) -> None:
        self.check(vectors(50), vectors(FAISS_FROM, seed=1), metric, k, None)
        self.check(vectors(50), vectors(FAISS_FROM, seed=1), metric, k, [None] * (FAISS_FROM - 1) + [np.ones(50, bool)])

    @pytest.mark.parametrize("block_scores", [1, 40, 700])
    @pytest.mark.parametrize("metric", METRICS)
    def test_blocks_of_any_size(self, block_scores: int, metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best k come from several blocks, the last of which is shorter; so do those of a mask."""
        monkeypatch.setattr(exact, "_TOPK_ROWS", 1)
        monkeypatch.setattr(exact, "_GATHER_ROWS", 3)
        monkeypatch.setitem(exact._BLOCK_SCORES, "cpu", block_scores)
        rng = np.random.default_rng(3)
        few = rng.random(300) < 0.1
        masks = [None, few, rng.random(300) < 0.9, few, np.zeros(300, bool), None, ~few]
        self.check(vectors(300), vectors(7, seed=1), metric, 13, masks)
        self.check(vectors(300), vectors(7, seed=1), metric, 13, None)


if gpu_available():

    class TestFlatGpu(VectorIndexContract):
        def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
            return FlatGpuIndex(base, metric)


def test_kinds_by_name() -> None:
    assert index_class("flat") is FlatIndex
    assert index_class("flat-gpu") is FlatGpuIndex
    with pytest.raises(InputError, match="no index kind 'annoy'; there are flat, flat-gpu"):
        index_class("annoy")


@pytest.mark.skipif(gpu_available(), reason="there is a GPU here")
def test_the_gpu_kind_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"flat-gpu needs a GPU and faiss-gpu .* say flat"):
        FlatGpuIndex(vectors(3), Metric.COSINE)
