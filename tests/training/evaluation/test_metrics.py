from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.metrics import Metrics, expected_ndcg, ndcg, ranks, recall, reciprocal_rank


def test_a_rank_counts_better_scores_and_the_pessimist_counts_ties_too() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]], dtype=np.float32)
    favourable, pessimistic = ranks(scores, np.array([2]))
    assert (favourable.tolist(), pessimistic.tolist()) == ([2], [4])


def test_float32_rounding_is_a_tie_and_more_than_that_is_not() -> None:
    scores = np.array([[0.5 + 5e-7, 0.5, 0.5 - 5e-7], [0.5 + 1e-5, 0.5, 0.5 - 1e-5]], dtype=np.float32)
    favourable, pessimistic = ranks(scores, np.array([1, 1]))
    assert (favourable.tolist(), pessimistic.tolist()) == ([1, 2], [3, 2])


def test_minus_infinity_is_out_of_the_running() -> None:
    scores = np.array([[-np.inf, 0.1, -np.inf, 0.2]], dtype=np.float32)
    favourable, pessimistic = ranks(scores, np.array([1]))
    assert (favourable.tolist(), pessimistic.tolist()) == ([2], [2])


def test_metrics_of_known_ranks() -> None:
    rank = np.array([1, 2, 10, 11])
    assert ndcg(rank, 10).tolist() == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0])
    assert recall(rank, 10).tolist() == [1, 1, 1, 0]
    assert reciprocal_rank(rank).tolist() == pytest.approx([1, 0.5, 0.1, 1 / 11])


def test_where_chance_breaks_ties_it_is_the_mean_over_all_orders() -> None:
    generator = np.random.default_rng(0)
    scores = np.round(generator.random((50, 12)) * 4)  # many ties
    targets = generator.integers(12, size=50)
    orders = 4_000
    shuffled = scores[:, None] + generator.random((50, orders, 12)) * 0.5  # every order of what ties is equally likely
    own = np.take_along_axis(shuffled, np.broadcast_to(targets[:, None, None], (50, orders, 1)), axis=2)
    places = 1 + np.count_nonzero(shuffled > own, axis=2)
    by_chance = ndcg(places, 5).mean(axis=1)
    assert expected_ndcg(*ranks(scores, targets), 5) == pytest.approx(by_chance, abs=0.03)


def test_without_ties_chance_has_no_say() -> None:
    rank, user = np.array([1, 3, 11, 2, 40]), np.array([0, 0, 0, 1, 1])
    assert expected_ndcg(rank, rank, 10, user) == pytest.approx(ndcg(rank, 10, user))
    assert expected_ndcg(rank, rank, 10) == pytest.approx(ndcg(rank, 10))


def test_averages_are_over_users_and_of_nobody_there_are_none() -> None:
    metrics = Metrics.of(np.array([1, 100]), np.array([3, 100]))
    assert (metrics.users, metrics.ndcg, metrics.recall, metrics.mrr) == (2, 0.5, 0.5, (1 + 0.01) / 2)
    assert metrics.ndcg_pessimistic == 0.25
    assert metrics.ties_matter
    nobody = Metrics.of(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert nobody.users == 0
    assert math.isnan(nobody.ndcg)
    assert not nobody.ties_matter
