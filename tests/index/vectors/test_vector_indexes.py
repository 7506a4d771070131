"""The kinds of vector index against their contract, and what is particular to each."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.vectors import exact
from index.vectors.base import VectorIndex
from index.vectors.flat import FEW_QUERIES, FEW_THREADS, FlatIndex
from index.vectors.gpu import FlatGpuIndex, gpu_available, gpu_for
from index.vectors.single_thread import SingleThreadIndex
from seqrec.errors import InputError
from seqrec.metric import Metric
from tests.contracts.vector_index_contract import METRICS, VectorIndexContract, vectors


class TestFlat(VectorIndexContract):
    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        return FlatIndex(base, metric)

    def test_memory_mapped_vectors_are_not_copied(self, tmp_path: Path) -> None:
        np.save(tmp_path / "vectors.npy", vectors(50))
        index = FlatIndex(np.load(tmp_path / "vectors.npy", mmap_mode="r"), Metric.COSINE)
        queries, masks = vectors(50)[3:5], [np.ones(50, bool)] * 2
        assert index.search(queries, 1)[0].tolist() == index.search(queries, 1, masks)[0].tolist() == [[3], [4]]
        np.load(tmp_path / "vectors.npy", mmap_mode="r+")[:] = vectors(50)[::-1]  # a copy would not notice
        assert index.search(queries, 1)[0].tolist() == index.search(queries, 1, masks)[0].tolist() == [[46], [45]]

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("queries", [1, FEW_QUERIES, FEW_QUERIES + 1, 40])
    @pytest.mark.parametrize("threads", [FEW_THREADS, FEW_THREADS + 1])
    def test_every_way_finds_the_same(
        self, metric: Metric, queries: int, threads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.get_num_threads", lambda: threads)
        for k in (1, 30, 60):
            self.check(vectors(50), vectors(queries, seed=1), metric, k, None)
            masks = [None, *(np.arange(50) % 3 > 0 for _ in range(queries - 1))]
            self.check(vectors(50), vectors(queries, seed=1), metric, k, masks)

    @pytest.mark.parametrize("block_scores", [1, 40, 700])
    @pytest.mark.parametrize("metric", METRICS)
    def test_blocks_of_any_size(self, block_scores: int, metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best k come from several blocks, the last of which is shorter; so do those of a mask."""
        monkeypatch.setattr(exact, "_TOPK_ROWS", 1)
        monkeypatch.setattr(exact, "_GATHER_ROWS", 3)
        monkeypatch.setitem(exact.BLOCK_SCORES, "cpu", block_scores)
        rng = np.random.default_rng(3)
        few = rng.random(300) < 0.1
        masks = [None, few, rng.random(300) < 0.9, few, np.zeros(300, bool), None, ~few]
        self.check(vectors(300), vectors(7, seed=1), metric, 13, masks)
        self.check(vectors(300), vectors(7, seed=1), metric, 13, None)


class TestOwned(VectorIndexContract):
    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        return SingleThreadIndex(lambda: FlatIndex(base, metric))

    def test_one_thread_makes_it_and_searches_it(self) -> None:
        threads: list[str] = []
        idents: set[int] = set()

        class Recording(FlatIndex):
            def __init__(self) -> None:
                super().__init__(vectors(5), Metric.COSINE)
                threads.append(threading.current_thread().name)
                idents.add(threading.get_ident())

            def search(self, *arguments: Any) -> Any:
                threads.append(threading.current_thread().name)
                return super().search(*arguments)

        index = SingleThreadIndex(Recording)
        with ThreadPoolExecutor(4) as asking:
            list(asking.map(index.search, [vectors(2)] * 8, [1] * 8))
        assert len(threads) == 9
        assert set(threads) == {"index_0"}
        [thread] = [thread for thread in threading.enumerate() if thread.ident in idents]
        del index
        thread.join(10)
        assert not thread.is_alive()

    def test_what_cannot_be_made_says_so(self) -> None:
        with pytest.raises(InputError, match="no such thing"):
            SingleThreadIndex(lambda: (_ for _ in ()).throw(InputError("no such thing")))


if gpu_available():

    class TestFlatGpu(VectorIndexContract):
        def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
            return SingleThreadIndex(lambda: FlatGpuIndex(base, metric))


@pytest.mark.parametrize(("device", "number"), [("cpu", None), (None, 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_the_gpu_that_is_asked_for(device: str | None, number: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.vectors.gpu.gpu_available", lambda: True)
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 2, raising=False)
    assert gpu_for(device) == number
    with pytest.raises(InputError, match="no cuda:2: FAISS finds 2 GPUs"):
        gpu_for("cuda:2")
    monkeypatch.setattr("index.vectors.gpu.gpu_available", lambda: False)
    assert gpu_for(device) is None


@pytest.mark.skipif(gpu_available(), reason="there is a GPU here")
def test_the_gpu_kind_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"faiss-gpu is not installed .* set SEQREC_DEVICE=cpu"):
        FlatGpuIndex(vectors(3), Metric.COSINE)
