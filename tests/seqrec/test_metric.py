from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.metric import TIE, Metric, ranked


def best(*pairs: tuple[str, float]) -> list[str]:
    ids, scores = [item_id for item_id, _ in pairs], [score for _, score in pairs]
    return [ids[i] for i in ranked(ids, scores)]


def test_higher_is_better() -> None:
    assert best(("a", 0.1), ("b", 0.9), ("c", -1.0)) == ["b", "a", "c"]
    assert ranked([], []) == []


def test_scores_within_a_tie_are_ordered_by_item_id() -> None:
    assert best(("b", 0.5), ("a", 0.5), ("c", 0.5)) == ["a", "b", "c"]
    assert best(("b", 0.5 + TIE / 2), ("a", 0.5)) == ["a", "b"]
    assert best(("b", 0.5 + 2 * TIE), ("a", 0.5)) == ["b", "a"]


def test_a_run_of_ties_does_not_creep() -> None:
    """c is within a tie of b and b of a, but c not of a: the run ends at a tie's width from its best."""
    assert best(("c", 1.0), ("b", 1.0 - 0.75 * TIE), ("a", 1.0 - 1.5 * TIE)) == ["b", "c", "a"]


def test_ids_are_compared_as_text() -> None:
    assert best(("10", 0.0), ("9", 0.0), ("é", 0.0), ("z", 0.0)) == ["10", "9", "z", "é"]


@pytest.mark.slow
@given(st.lists(st.tuples(st.text(max_size=3), st.integers(-5, 5)), unique_by=lambda pair: pair[0]))
def test_it_is_a_permutation_that_no_input_order_changes(pairs: list[tuple[str, int]]) -> None:
    scores = [(item_id, score * TIE / 2) for item_id, score in pairs]
    assert sorted(ranked([i for i, _ in scores], [s for _, s in scores])) == list(range(len(pairs)))
    assert best(*scores) == best(*reversed(scores))


@pytest.mark.parametrize("metric", Metric)
def test_scores_are_those_of_the_definition(metric: Metric) -> None:
    random = np.random.default_rng(0)
    queries, items = random.normal(size=(3, 5)).astype(np.float32), random.normal(size=(4, 5)).astype(np.float32)
    if metric is Metric.COSINE:
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        items /= np.linalg.norm(items, axis=1, keepdims=True)
    by_hand = {
        Metric.COSINE: lambda q, i: q @ i / np.linalg.norm(q) / np.linalg.norm(i),
        Metric.DOT: lambda q, i: q @ i,
        Metric.L2: lambda q, i: -((q - i) ** 2).sum(),
    }[metric]
    expected = [[by_hand(query, item) for item in items] for query in queries]
    np.testing.assert_allclose(metric.scores(queries, items), expected, atol=1e-5)
