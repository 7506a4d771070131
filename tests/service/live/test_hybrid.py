"""Hybrid search over a view equals the offline scorer over what the view shows, and explains itself as a sum."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_array

from index.build.build import build_snapshot
from index.build.import_items import import_items
from index.catalogue.base import CatalogueItem, Change
from index.catalogue.open import open_catalogue
from index.snapshot.snapshot import SnapshotStore
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item, make_item
from seqrec.encoder import Encoder, load_model
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, count, with_half_life
from seqrec.hybrid.event_counts import BaseCounts, EventCounts
from seqrec.hybrid.lexical import LAST, Vocabulary
from seqrec.hybrid.scoring import HybridScorer
from seqrec.hybrid.settings import HybridSettings
from seqrec.metric import ranked
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.hybrid import Hybrid
from seqrec.text.item_text import TokenizedHistory
from service.deadline import Deadline
from service.engine.attributes import AttributeBudget
from service.engine.execution import Answer, answers, execute
from service.engine.plan import VectorQuery, plan_recommendations
from service.engine.requests import RecommendRequest
from service.engine.vector_cache import VectorCache
from service.live.filter_language import Condition, Filter
from service.live.hybrid import HybridSearch, sparse_query
from service.live.search import SearchSpec
from service.live.state import LiveState, Towers, View
from service.rules.ranking import Boost
from service.rules.rotation import Rotate, Showings

WORDS = ["oak", "pine", "desk", "lamp", "tea", "pot", "blue", "red"]
SETTINGS = HybridSettings(
    cooccurrence=CooccurrenceSettings(window=4, last=3, target_power=0.25),
    pairs=1.5,
    last_text=0.8,
    recent_text=0.4,
    dense=0.6,
    dense_items=2,
    cold_boost=1.0,
    exclude_seen=False,
    seen=-0.2,
    last_item=0.3,
)


def catalogue_of(size: int, chance: random.Random) -> list[Item]:
    return [
        make_item(f"item-{n:02d}", {"title": " ".join(chance.choices(WORDS, k=3)) + f" n{n % 7}"}) for n in range(size)
    ]


def sequences_of(items: Sequence[Item], users: int, chance: random.Random) -> list[list[str]]:
    return [[chance.choice(items).item_id for _ in range(chance.randint(1, 9))] for _ in range(users)]


def times_of(sequences: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """Of all events: each user's rise."""
    return np.array([100.0 * at + 7 * len(one) for one in sequences for at in range(len(one))])


def counts_of(sequences: Sequence[Sequence[str]], settings: CooccurrenceSettings) -> BaseCounts:
    ids = sorted({item_id for sequence in sequences for item_id in sequence})
    number = {item_id: place for place, item_id in enumerate(ids)}
    rows = np.array([number[item_id] for sequence in sequences for item_id in sequence], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    counts = count(settings, rows, offsets, len(ids), times_of(sequences))
    pairs = counts.pairs
    return BaseCounts(
        ids, counts.events, pairs.indptr.astype(np.int64), pairs.indices.astype(np.int32), np.asarray(pairs.data)
    )


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return encoder_of(tmp_path, SETTINGS)


def encoder_of(folder: Path, settings: HybridSettings) -> Encoder:
    items = catalogue_of(40, random.Random(1))
    model = Hybrid.of("bag_of_words", BagOfWords(BagOfWordsConfig(dim=16)), Vocabulary.of(items), ["title"], settings)
    save_checkpoint(folder / "checkpoint", "hybrid", model)
    return load_model(folder / "checkpoint")


def live_state(home: Path, encoder: Encoder, items: Sequence[Item], counts: BaseCounts, index: str) -> LiveState:
    catalogue = open_catalogue(home, create=True)
    import_items(catalogue, encoder, items)
    store = SnapshotStore(home)
    manifest = build_snapshot(store, catalogue, encoder, index=index, event_counts=counts)
    catalogue.close()
    return LiveState(store.open(manifest.snapshot_id), Towers(encoder))


def put(encoder: Encoder, item: Item, seq: int) -> Change:
    [tokens] = encoder.tokenize_items([item])
    [vector] = encoder.encode_item_tokens([tokens])
    return Change(seq, "put", item.item_id, CatalogueItem(item, tokens, vector, encoder.item_tower))


def offline(
    encoder: Encoder, items: Sequence[Item], sequences: Sequence[Sequence[str]], history: Sequence[str]
) -> dict[str, float]:
    """Scores by item id, computed from scratch over exactly these items."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    kept = [[row_of[item_id] for item_id in sequence if item_id in row_of] for sequence in sequences]
    assert kept == [[row_of[item_id] for item_id in sequence] for sequence in sequences], (
        "events of items that are gone"
    )
    rows = np.array([row for sequence in kept for row in sequence], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in kept])]).astype(np.int64)
    settings = encoder.hybrid
    assert settings is not None
    tokens = list(encoder.tokenize_items(items))
    terms: csr_array = encoder.term_vectors(tokens)
    counts = count(settings.cooccurrence, rows, offsets, len(items), times_of(sequences))
    scorer = HybridScorer.of(settings, counts.as_read(settings.cooccurrence), terms)
    past = np.array([row_of[item_id] for item_id in history], dtype=np.int64)
    query = encoder.encode_history_tokens([TokenizedHistory([tokens[row] for row in past])])
    scores = scorer.scores([past], query @ encoder.encode_item_tokens(tokens).T)[0]
    return {item.item_id: float(score) for item, score in zip(items, scores, strict=True)}


def search_of(view: View, history: Sequence[str]) -> HybridSearch:
    positions = [position for item_id in history if (position := view.position_of(item_id)) is not None]
    entries = [(view.tokens(position), position) for position in positions]
    sparse = sparse_query(view, entries)
    assert sparse is not None
    [vector] = view.towers.encode_histories([TokenizedHistory([tokens for tokens, _ in entries])])
    settings = view.towers.encoder.hybrid
    assert settings is not None
    return HybridSearch(view, settings, vector, sparse)


def online(view: View, history: Sequence[str], k: int) -> list[tuple[str, float]]:
    return [(view.item_id(hit.position), hit.score) for hit in search_of(view, history).search(SearchSpec(k))]


@pytest.mark.slow
@pytest.mark.parametrize("index", ["flat", "HNSW8"])
def test_it_answers_as_the_offline_scorer_does(tmp_path: Path, encoder: Encoder, index: str) -> None:
    chance = random.Random(2)
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, chance)
    state = live_state(tmp_path, encoder, items, counts_of(sequences, SETTINGS.cooccurrence), index)
    for _ in range(20):
        history = [chance.choice(items).item_id for _ in range(chance.randint(1, 6))]
        expected = offline(encoder, items, sequences, history)
        order = ranked(list(expected), list(expected.values()))
        best = [list(expected)[place] for place in order][:10]
        found = online(state.view, history, 10)
        assert [item_id for item_id, _ in found] == best
        np.testing.assert_allclose([score for _, score in found], [expected[item_id] for item_id in best], atol=1e-5)


@pytest.mark.slow
def test_with_a_half_life_it_answers_as_the_offline_scorer_does(tmp_path: Path) -> None:
    chance = random.Random(2)
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, chance)
    # Trained on the first half: what came since changes the scale.
    pairs = with_half_life(SETTINGS.cooccurrence, 150.0, times_of(sequences[:30]))
    settings = replace(SETTINGS, cooccurrence=pairs)
    encoder = encoder_of(tmp_path, settings)
    state = live_state(tmp_path, encoder, items, counts_of(sequences, pairs), "flat")
    differ = 0
    for _ in range(20):
        history = [chance.choice(items).item_id for _ in range(chance.randint(1, 6))]
        expected = offline(encoder, items, sequences, history)
        found = dict(online(state.view, history, 40))
        assert found.keys() == expected.keys()
        np.testing.assert_allclose([found[i] for i in sorted(found)], [expected[i] for i in sorted(found)], atol=1e-5)
        order = [list(expected)[place] for place in ranked(list(expected), list(expected.values()))]
        assert list(found) == order
        plain = online(live_state_of(state, counts_of(sequences, SETTINGS.cooccurrence)), history, 40)
        differ += [item_id for item_id, _ in plain] != order
    assert differ > 10


def live_state_of(state: LiveState, counts: BaseCounts) -> View:
    """The same items with other counts, which do not fade."""
    return LiveState(state.snapshot, state.towers, EventCounts(SETTINGS.cooccurrence, counts)).view


@pytest.mark.slow
def test_posted_items_are_scored_by_their_words_and_counts(tmp_path: Path, encoder: Encoder) -> None:
    chance = random.Random(3)
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, chance)
    state = live_state(tmp_path, encoder, items[:30], counts_of(sequences, SETTINGS.cooccurrence), "flat")
    seq = state.view.seq
    changed = make_item("item-03", {"title": "tea pot blue n3"})
    state.apply([put(encoder, item, seq + n) for n, item in enumerate([*items[30:], changed], 1)], seq + 20)
    now = [changed if item.item_id == changed.item_id else item for item in items]
    for _ in range(10):
        history = [chance.choice(now).item_id for _ in range(4)]
        expected = offline(encoder, now, sequences, history)
        found = dict(online(state.view, history, len(now)))
        assert found.keys() == expected.keys()
        np.testing.assert_allclose([found[i] for i in sorted(found)], [expected[i] for i in sorted(found)], atol=1e-5)


def test_a_deleted_item_is_no_answer_and_adds_nothing(tmp_path: Path, encoder: Encoder) -> None:
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, random.Random(4))
    state = live_state(tmp_path, encoder, items, counts_of(sequences, SETTINGS.cooccurrence), "flat")
    before = dict(online(state.view, ["item-01", "item-02"], 40))
    state.apply([Change(state.view.seq + 1, "delete", "item-05", None)], state.view.seq + 1)
    after = dict(online(state.view, ["item-01", "item-02"], 40))
    assert "item-05" not in after
    assert after == {item_id: score for item_id, score in before.items() if item_id != "item-05"}


@pytest.mark.slow
def test_the_explanation_is_the_score_as_a_sum(tmp_path: Path, encoder: Encoder) -> None:
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, random.Random(5))
    state = live_state(tmp_path, encoder, items, counts_of(sequences, SETTINGS.cooccurrence), "flat")
    found = search_of(state.view, ["item-07", "item-01", "item-02"])
    seen = set()
    for hit in found.search(SearchSpec(40)):
        parts, shares = found.explain(hit.position)
        assert sum(parts.values()) == pytest.approx(hit.score, abs=1e-5)
        for part in ("co-occurrence", "words"):
            assert sum(score for _, name, score in shares if name == part) == pytest.approx(
                parts.get(part, 0), abs=1e-5
            )
        assert {state.view.item_id(where) for where, _, _ in shares} <= {"item-07", "item-01", "item-02"}
        seen |= parts.keys()
    assert seen == {"co-occurrence", "words", "dense", "repeat"}


def test_the_main_part_is_the_largest_of_the_explanation(tmp_path: Path, encoder: Encoder) -> None:
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, random.Random(5))
    state = live_state(tmp_path, encoder, items, counts_of(sequences, SETTINGS.cooccurrence), "flat")
    late = [make_item("new", {"title": "oak desk n1"}), make_item("item-03", {"title": "red tea pot n2"})]
    state.apply([put(encoder, item, 100 + n) for n, item in enumerate(late)], 101)
    found = search_of(state.view, ["item-07", "item-01", "item-02"])
    rows = [hit.position for hit in found.search(SearchSpec(41))]
    assert len(rows) == 41
    explained = [found.explain(row)[0] for row in rows]
    expected = [max(parts, key=lambda part: parts[part]) for parts in explained]
    assert found.main_parts(np.array(rows)) == expected
    assert set(expected) == {"co-occurrence", "words", "dense"}


def test_parts_of_a_score_name_what_rules_changed(tmp_path: Path, encoder: Encoder) -> None:
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, random.Random(5))
    state = live_state(tmp_path, encoder, items, counts_of(sequences, SETTINGS.cooccurrence), "flat")
    request = RecommendRequest(
        history=["item-07", "item-01"],
        k=40,
        explain=True,
        exclude_seen=False,
        boosts=(Boost(Filter((Condition("title", "exists", (1,)),)), add=1.0),),
        rotate=Rotate(0.5),
        showings=Showings(["item-02", "item-02", "item-03"], [time.time()] * 3),
    )

    def answer_to(request: RecommendRequest) -> Answer:
        plans = plan_recommendations(state.view, [request], {}, 50, VectorCache(0), Deadline(10))
        [answer] = answers(plans, execute(plans), AttributeBudget(10**6), Deadline(10))
        return answer

    without = {item.item_id: score for item, score in answer_to(replace(request, rotate=None)).items}
    answer = answer_to(request)
    assert answer.parts is not None
    assert len(answer.items) == len(without) == 40
    for (item, score), parts in zip(answer.items, answer.parts, strict=True):
        assert sum(parts.values()) == pytest.approx(score, abs=1e-5)
        assert parts["boost"] == pytest.approx(1.0, abs=1e-5)
        times = {"item-02": 2, "item-03": 1}.get(item.item_id, 0)
        assert score == pytest.approx(without[item.item_id] * 0.5**times, abs=1e-5)
        assert parts.get("rotate", 0.0) == pytest.approx(score - without[item.item_id], abs=1e-5)


def test_filters_candidates_and_exclusions_hold(tmp_path: Path, encoder: Encoder) -> None:
    items = catalogue_of(40, random.Random(1))
    state = live_state(
        tmp_path, encoder, items, counts_of(sequences_of(items, 60, random.Random(6)), SETTINGS.cooccurrence), "flat"
    )
    found = search_of(state.view, ["item-01"])
    everything = [hit.position for hit in found.search(SearchSpec(40))]
    spec = SearchSpec(5, frozenset(everything[:3]))
    assert [hit.position for hit in found.search(spec)] == everything[3:8]
    some = sorted(everything[10:20])
    assert [hit.position for hit in found.search(replace(spec, candidates=some))] == everything[10:15]


def test_a_hybrid_without_its_dense_model_encodes_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    items = catalogue_of(30, chance)
    sequences = sequences_of(items, 20, chance)
    encoder = encoder_of(tmp_path, replace(SETTINGS, dense=0.0))

    def never(*_: object) -> None:
        raise AssertionError("a history was encoded")

    state = live_state(tmp_path / "home", encoder, items, counts_of(sequences, SETTINGS.cooccurrence), "flat")
    monkeypatch.setattr(encoder.checkpoint.history_model, "encode_histories", never)
    history = [items[3].item_id, items[8].item_id]
    expected = offline(encoder, items, sequences, history)
    found = online(state.view, history, 30)
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    requests = [RecommendRequest(history=history, k=5)] * 3
    plans = plan_recommendations(state.view, requests, {}, 50, VectorCache(0), Deadline(10))
    assert all(isinstance(plan.query, VectorQuery) for plan in plans)
    # Searching takes time too, and the queue must know.
    assert min(plan.cost for plan in plans) >= 32
    assert [hit.position for hit in execute(plans)[0].hits]


def test_words_are_read_of_the_newest_items_only(tmp_path: Path, encoder: Encoder) -> None:
    chance = random.Random(4)
    items = catalogue_of(40, random.Random(1))
    sequences = sequences_of(items, 60, chance)
    view = live_state(tmp_path, encoder, items, counts_of(sequences, SETTINGS.cooccurrence), "flat").view
    positions = [chance.randrange(40) for _ in range(3 * LAST)]
    entries = [(view.tokens(position), position) for position in positions]
    settings = encoder.hybrid
    assert settings is not None
    no_vector = np.zeros(encoder.dim, np.float32)
    whole, newest = sparse_query(view, entries), sparse_query(view, entries[-LAST:], positions[:-LAST])
    assert whole is not None
    assert newest is not None
    assert len(newest.words) == LAST
    of_whole, of_newest = (HybridSearch(view, settings, no_vector, one).all_scores() for one in (whole, newest))
    np.testing.assert_array_equal(of_whole, of_newest)
