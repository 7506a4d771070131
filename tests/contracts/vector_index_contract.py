"""What every kind of vector index holds to, against brute force in numpy. Subclass it and say how one is made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from index.vectors.base import Allowed, VectorIndex
from seqrec.errors import InputError
from seqrec.metric import Metric

METRICS = list(Metric)


def vectors(n: int, dim: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    unit: npt.NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def brute_force(
    base: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], metric: Metric, k: int, allowed: Allowed | None
) -> npt.NDArray[np.float32]:
    """The k best scores, [b, k]; -inf where nothing is allowed."""
    if metric is Metric.L2:
        scores = -((queries[:, None] - base[None]) ** 2).sum(2)
    else:
        scores = queries @ base.T
    for row, mask in enumerate(allowed or ()):
        if mask is not None:
            scores[row, ~mask] = -np.inf
    best = -np.sort(-scores, axis=1)[:, :k]
    return np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=-np.inf)


class VectorIndexContract:
    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        raise AssertionError("a subclass says how an index is made")

    def check(
        self,
        base: npt.NDArray[np.float32],
        queries: npt.NDArray[np.float32],
        metric: Metric,
        k: int,
        allowed: Allowed | None,
    ) -> None:
        rows, scores = self.make(base, metric).search(queries, k, allowed)
        assert rows.shape == scores.shape == (len(queries), k)
        assert rows.dtype == np.int64
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, brute_force(base, queries, metric, k, allowed), rtol=0, atol=1e-5)
        assert np.array_equal(rows < 0, np.isneginf(scores))
        for query, (found, given_scores) in enumerate(zip(rows, scores, strict=True)):
            real = found[found >= 0]
            assert len(set(real.tolist())) == len(real)  # no row twice
            own = brute_force(base[real], queries[query : query + 1], metric, len(real), None)[0]
            np.testing.assert_allclose(given_scores[: len(real)], own, rtol=0, atol=1e-5)
            mask = None if allowed is None else allowed[query]
            assert mask is None or mask[real].all()

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("k", [1, 5, 40, 60])
    def test_equals_brute_force(self, metric: Metric, k: int) -> None:
        self.check(vectors(40), vectors(7, seed=1), metric, k, None)

    @pytest.mark.parametrize("metric", METRICS)
    def test_masks_are_exact_for_each_query(self, metric: Metric) -> None:
        rng = np.random.default_rng(2)
        masks = [None, rng.random(100) < 0.5, np.zeros(100, bool), np.arange(100) == 42, np.ones(100, bool), None]
        self.check(vectors(100), vectors(6, seed=1), metric, 10, masks)

    @pytest.mark.parametrize("seed", range(20))
    def test_any_size_and_share(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n, k, share = int(rng.integers(1, 70)), int(rng.integers(1, 80)), rng.random()
        masks = [rng.random(n) < share if rng.random() < 0.7 else None for _ in range(3)]
        self.check(vectors(n, seed=seed), vectors(3, seed=seed + 1), METRICS[seed % len(METRICS)], k, masks)

    def test_equal_vectors_are_all_found(self) -> None:
        base = np.repeat(vectors(1), 9, axis=0)
        rows, scores = self.make(base, Metric.COSINE).search(base[:1], 9)
        assert sorted(rows[0].tolist()) == list(range(9))
        np.testing.assert_allclose(scores, 1, atol=1e-6)

    def test_a_batch_equals_its_queries_alone(self) -> None:
        index, queries = self.make(vectors(300), Metric.COSINE), vectors(20, seed=1)
        rows, scores = index.search(queries, 5)
        for query in range(len(queries)):
            alone = index.search(queries[query : query + 1], 5)
            np.testing.assert_allclose(scores[query], alone[1][0], rtol=0, atol=1e-6)
            assert rows[query].tolist() == alone[0][0].tolist()

    def test_an_empty_index_has_nothing(self) -> None:
        rows, scores = self.make(np.zeros((0, 16), np.float32), Metric.COSINE).search(vectors(2), 3)
        assert rows.tolist() == [[-1] * 3] * 2
        assert np.isneginf(scores).all()

    def test_no_queries(self) -> None:
        rows, scores = self.make(vectors(5), Metric.COSINE).search(np.zeros((0, 16), np.float32), 3)
        assert rows.shape == scores.shape == (0, 3)

    def test_several_threads_at_once(self) -> None:
        index, queries = self.make(vectors(500), Metric.COSINE), vectors(8, seed=1)
        expected = index.search(queries, 10)[0].tolist()
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: index.search(queries, 10)[0].tolist(), range(80)))
        assert answers == [expected] * 80

    def test_what_is_wrong_is_named(self) -> None:
        index = self.make(vectors(5), Metric.COSINE)
        with pytest.raises(InputError, match="k: must be at least 1, not 0"):
            index.search(vectors(1), 0)
        with pytest.raises(InputError, match=r"queries must be \[b, 16\], not \[1, 8\]"):
            index.search(vectors(1, dim=8), 3)
        with pytest.raises(InputError, match=r"a mask must be \[5\], not \[4\]"):
            index.search(vectors(1), 3, [np.ones(4, bool)])
        with pytest.raises(InputError, match="one mask or None for each of 2 queries, not 1"):
            index.search(vectors(2), 3, [None])
