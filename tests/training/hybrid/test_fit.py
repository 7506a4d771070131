"""The search over settings: its fast scores against the scorer's, and that it finds what a small world hides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.items import Interactions, Item
from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.scoring import HybridScorer
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Dataset, join
from training.hybrid import search as searching
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


def search_of(dataset: Dataset) -> searching.Search:
    cases = dataset.cases("valid")
    terms = Vocabulary.of(dataset.items).vectors(dataset.items)
    return searching.Search(*dataset.known_events("valid"), list(cases.histories), cases.targets, terms)


@pytest.mark.slow
@given(SETTINGS, st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=8), min_size=2, max_size=8))
def test_scores_of_candidates_are_those_of_the_scorer(chosen: CooccurrenceSettings, sequences: list[list[int]]) -> None:
    search = search_of(dataset_of(sequences, [f"word{row % 3}" for row in range(10)]))
    settings = HybridSettings(cooccurrence=chosen, pairs=0.7)
    candidates = np.tile(np.array([3, 0, 9, -1]), (len(search.histories), 1))
    found = search.pairs_of(settings, candidates)
    expected = HybridScorer.of(settings, search.counts(chosen), search.terms).cooccurrence(search.histories)
    np.testing.assert_allclose(found[:, :3], expected[:, [3, 0, 9]], rtol=1e-5, atol=1e-7)
    assert (found[:, 3] == -np.inf).all()


@pytest.mark.parametrize("start", [1.0, 0.0, 2.0])
def test_values_near_the_start_come_first(start: float) -> None:
    assert searching.nearest_first((0.0, 0.5, 1.0, 2.0), 0.9) == [1.0, 0.5, 2.0, 0.0], "of another version's grid"
    expected = {1.0: [0.5, 2.0, 0.0], 0.0: [0.5, 1.0, 2.0], 2.0: [1.0, 0.5, 0.0]}
    assert searching.nearest_first((0.0, 0.5, 1.0, 2.0), start) == expected[start]


@pytest.mark.slow
def test_weights_of_seen_items_are_the_best_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "OWN_WEIGHTS", (searching.NEVER, -0.5, 0.0, 1.0))
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

    every = {(seen, last): mean(seen, last) for seen in searching.OWN_WEIGHTS for last in searching.OWN_WEIGHTS}
    if chosen.exclude_seen:
        assert max(every, key=lambda pair: every[pair])[0] == searching.NEVER
    else:
        assert every[chosen.seen, chosen.last_item] == pytest.approx(max(every.values()), abs=1e-6)


@pytest.mark.slow
def test_known_settings_are_taken_where_they_are_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "nearest_first", lambda values, start: [])  # no step leads anywhere
    rng = np.random.default_rng(3)
    # Five steps after an item comes its partner; what lies between is noise.
    sequences = []
    for user in range(400):
        noise = [int(row) for row in 40 + rng.permutation(260)[:7]]
        pair = [user // 2 % 20, *noise[:4], 20 + user // 2 % 20]
        sequences.append([*pair, *noise[4 : 5 if user % 2 else 7]])
    search = search_of(dataset_of(sequences, [f"item {row}" for row in range(300)]))
    start = HybridSettings(cooccurrence=CooccurrenceSettings(last=1))
    start = replace(start, pairs=search.pairs_weight(start))
    good = CooccurrenceSettings(last=20, recency_power=0.0, distance_power=0.0)
    assert search.cooccurrence(start).cooccurrence == start.cooccurrence
    assert search.cooccurrence(start, known=good).cooccurrence == good
    better = replace(start, cooccurrence=good)
    assert search.cooccurrence(better, known=start.cooccurrence).cooccurrence == good


@pytest.mark.slow
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


def test_cold_items_get_the_largest_boost_that_items_with_events_can_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "COLD_BOOSTS", (0.0, 1.0, 100.0))
    rng = np.random.default_rng(2)
    sequences = [[int(row) for row in user % 20 + 20 * rng.permutation(15)[:4]] for user in range(200)]
    search = search_of(dataset_of(sequences, [f"colour{row % 20} item" for row in range(300)]))
    settings = HybridSettings(last_text=0.01, recent_text=0.01, pairs=search.pairs_weight(HybridSettings()))
    monkeypatch.setattr(searching, "COLD_COST", 1.0)
    assert search.cold_boost(settings, None, seed=0) == 100.0
    monkeypatch.setattr(searching, "COLD_COST", 0.0)
    assert search.cold_boost(replace(settings, last_text=0.0, recent_text=0.0), None, seed=0) == 100.0  # costs nothing
    wrong = search_of(dataset_of(sequences, [f"colour{row % 20} item" for row in rng.permutation(300)]))
    monkeypatch.setattr(searching, "COLD_COST", 0.02)
    costly = replace(settings, last_text=1.0, recent_text=1.0)
    assert wrong.cold_boost(costly, None, seed=0) < 100.0


def test_the_columns_of_words_do_not_depend_on_the_weights_so_far() -> None:
    rng = np.random.default_rng(3)
    sequences = [[int(row) for row in user % 20 + 20 * rng.permutation(15)[:4]] for user in range(40)]
    search = search_of(dataset_of(sequences, [f"colour{row % 20} item{row % 7}" for row in range(300)]))
    settings = HybridSettings(pairs=0.0)
    first, later = (
        search.table(replace(settings, last_text=last, recent_text=recent), None)
        for last, recent in ((0.0, 0.0), (0.5, 2.0))
    )
    scorer = HybridScorer.of(
        replace(settings, last_text=0.7, recent_text=0.2), search.counts(settings.cooccurrence), search.terms
    )
    for table in (first, later):
        joined = 0.7 * table.columns["last_text"] + 0.2 * table.columns["recent_text"]
        targets = scorer.text(search.histories, np.zeros((1, 1), np.float32))[np.arange(40), search.targets]
        np.testing.assert_allclose(joined[:, 0], targets, rtol=1e-5, atol=1e-6)


def test_users_who_only_repeat_what_they_had_are_learned_from() -> None:
    sequences = [[user % 4, 4 + user % 3] * 4 for user in range(12)]
    dataset = dataset_of(sequences, [f"word{row % 3} item" for row in range(7)])
    terms = Vocabulary.of(dataset.items).vectors(dataset.items)
    assert not fit_hybrid(dataset, terms, None).settings.exclude_seen


def test_users_of_one_item_each_are_refused_with_the_reason() -> None:
    dataset = dataset_of([[user % 4] * 4 for user in range(12)], [f"word{row} item" for row in range(7)])
    with pytest.raises(InputError, match="every user has one item, again and again"):
        fit_hybrid(dataset, Vocabulary.of(dataset.items).vectors(dataset.items), None)
