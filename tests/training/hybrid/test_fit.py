"""The search over settings: its fast scores against the scorer's, and that it finds what a small world hides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.items import Interactions, Item
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.scoring import HybridScorer
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Dataset, join
from training.hybrid import fit
from training.hybrid.fit import fit_hybrid
from training.hybrid.ndcg import expected_ndcg

SETTINGS = st.builds(
    CooccurrenceSettings,
    window=st.sampled_from([1, 3, 40]),
    last=st.integers(1, 5),
    recency_power=st.sampled_from([0.0, 1.0]),
    source_power=st.sampled_from([0.0, 0.5]),
    target_power=st.sampled_from([0.0, 0.5]),
    backward=st.sampled_from([0.0, 1.0]),
)


def dataset_of(sequences: list[list[int]], titles: list[str]) -> Dataset:
    items = [Item(f"i{row:03}", {"title": title}) for row, title in enumerate(titles)]
    users = [f"u{user}" for user, sequence in enumerate(sequences) for _ in sequence]
    rows = [row for sequence in sequences for row in sequence]
    return join(items, Interactions(users, [items[row].item_id for row in rows], np.arange(len(rows))))


def search_of(dataset: Dataset) -> fit._Search:
    cases = dataset.cases("valid")
    terms = Vocabulary.of(dataset.items).vectors(dataset.items)
    return fit._Search(*dataset.known_events("valid"), list(cases.histories), cases.targets, terms)


@given(SETTINGS, st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=8), min_size=2, max_size=8))
def test_scores_of_candidates_are_those_of_the_scorer(chosen: CooccurrenceSettings, sequences: list[list[int]]) -> None:
    search = search_of(dataset_of(sequences, [f"word{row % 3}" for row in range(10)]))
    settings = HybridSettings(cooccurrence=chosen, pairs=0.7)
    candidates = np.tile(np.array([3, 0, 9, -1]), (len(search.histories), 1))
    found = search._pairs_of(settings, candidates)
    expected = HybridScorer.of(settings, search.counts(chosen), search.terms).cooccurrence(search.histories)
    np.testing.assert_allclose(found[:, :3], expected[:, [3, 0, 9]], rtol=1e-5, atol=1e-7)
    assert (found[:, 3] == -np.inf).all()


@pytest.mark.parametrize("start", [1.0, 0.0, 2.0])
def test_values_near_the_start_come_first(start: float) -> None:
    expected = {1.0: [0.5, 2.0, 0.0], 0.0: [0.5, 1.0, 2.0], 2.0: [1.0, 0.5, 0.0]}
    assert fit._nearest_first((0.0, 0.5, 1.0, 2.0), start) == expected[start]


def test_weights_of_seen_items_are_the_best_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "OWN_WEIGHTS", (fit.NEVER, -0.5, 0.0, 1.0))
    rng = np.random.default_rng(0)
    sequences = [list(rng.integers(0, 20, 7)) for _ in range(30)]
    search = search_of(dataset_of(sequences, [f"word{row % 4} thing{row % 3}" for row in range(20)]))
    settings = HybridSettings(last_text=0.5, recent_text=0.3)
    chosen = search.own_items(settings, None)

    def mean(seen: float, last: float) -> float:
        tried = replace(settings, exclude_seen=False, seen=seen, last_item=last)
        scores = HybridScorer.of(tried, search.counts(tried.cooccurrence), search.terms).scores(
            search.histories, np.zeros((1, 1), np.float32)
        )
        mine = scores[np.arange(len(scores)), search.targets][:, None]
        return float(expected_ndcg((scores > mine).sum(axis=1), (scores == mine).sum(axis=1) - 1).mean())

    every = {(seen, last): mean(seen, last) for seen in fit.OWN_WEIGHTS for last in fit.OWN_WEIGHTS}
    if chosen.exclude_seen:
        assert max(every, key=lambda pair: every[pair])[0] == fit.NEVER
    else:
        assert every[chosen.seen, chosen.last_item] == pytest.approx(max(every.values()), abs=1e-6)


def test_words_stay_only_where_they_win() -> None:
    rng = np.random.default_rng(1)
    # In both worlds users go from an item to another of its colour; only in one of them the titles give it away.
    sequences = [[int(row) for row in user % 20 + 20 * rng.permutation(15)[:4]] for user in range(200)]
    speaking = dataset_of(sequences, [f"colour{row % 20} item" for row in range(300)])
    silent = dataset_of(sequences, [f"item {row}" for row in range(300)])
    found = {}
    for name, dataset in (("speaking", speaking), ("silent", silent)):
        found[name] = fit_hybrid(dataset, Vocabulary.of(dataset.items).vectors(dataset.items), None)
    assert "words" in found["speaking"].kept
    assert "words" in found["silent"].dropped
    assert found["speaking"].settings.exclude_seen
    assert found["speaking"].ndcg["co-occurrence + words"] > found["silent"].ndcg["co-occurrence"]
