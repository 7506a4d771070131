"""The live state against brute force: after any changes, every view answers as a search over exactly what it holds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from index.catalogue.base import CatalogueItem, Change
from index.snapshot.attribute_columns import StoredColumns
from seqrec.data.items import Item, make_item
from seqrec.encoder import load_model
from seqrec.hybrid.event_counts import BaseCounts, EventChanges
from seqrec.metric import ranked
from seqrec.text.item_text import ItemTokens
from service.live import search
from service.live import state as live
from service.live.search import SearchSpec
from service.live.state import LiveState, Towers, View

WORDS = ["oak", "pine", "desk", "lamp", "tea"]


@dataclass
class ExactIndex:
    """The contract of VectorIndex by a sort."""

    vectors: npt.NDArray[np.float32]
    asked: list[int] = field(default_factory=list)

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: Sequence[npt.NDArray[np.bool_] | None] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        self.asked.append(k)
        scores = queries @ self.vectors.T
        for row, mask in enumerate(allowed or ()):
            if mask is not None:
                scores[row, ~mask] = -np.inf
        # Equal scores in the reverse order of rows: an index promises no order among them.
        rows = len(self.vectors) - 1 - np.argsort(-scores[:, ::-1], axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, rows, axis=1)
        return np.where(np.isneginf(best), -1, rows), best.astype(np.float32)


class InMemorySnapshot:
    """The contract of Snapshot without files."""

    id = "in-memory"
    columns: StoredColumns | None = None

    def __init__(self, items: Sequence[Item], towers: Towers, seq: int, popularity: Sequence[float]) -> None:
        self.items = sorted(items, key=lambda item: item.item_id)
        self.item_ids = [item.item_id for item in self.items]
        self.tokens: ItemTokens = towers.encoder.tokenize_items(self.items)
        self.vectors = towers.encode_items(self.tokens)
        self.available = np.array([item.available for item in self.items])
        self.popularity = np.array(popularity)
        self.index = ExactIndex(self.vectors)
        self.manifest = SimpleNamespace(seq=seq, events_seq=None)
        self.counts, self.terms = BaseCounts.empty(), None

    def row_of(self, item_id: str) -> int | None:
        return self.item_ids.index(item_id) if item_id in self.item_ids else None

    def item(self, row: int) -> Item:
        return self.items[row]


@pytest.fixture
def towers(bag_of_words_checkpoint: Path) -> Towers:
    return Towers(load_model(bag_of_words_checkpoint, device="cpu"))


def random_item(choose: random.Random, ids: Sequence[str]) -> Item:
    # Few words, so that many items read the same: ties at the border are the rule.
    title = " ".join(choose.choice(WORDS) for _ in range(choose.choice([1, 1, 2])))
    return make_item(choose.choice(ids), {"title": title}, choose.random() > 0.15)


def put(towers: Towers, seq: int, item: Item) -> Change:
    tokens = towers.encoder.tokenize_items([item])
    vector = towers.encode_items(tokens)[0]
    return Change(seq, "put", item.item_id, CatalogueItem(item, tokens[0], vector, towers.checkpoint.item_tower))


def brute_force(
    view: View,
    items: dict[str, Item],
    query: npt.NDArray[np.float32],
    k: int,
    excluded: set[str],
    among: set[str] | None,
) -> list[str]:
    ids = [
        item_id
        for item_id, item in items.items()
        if item.available and item_id not in excluded and (among is None or item_id in among)
    ]
    if not ids:
        return []
    scores = view.towers.encoder.encode_items([items[item_id] for item_id in ids]) @ query
    return [ids[i] for i in ranked(ids, scores)[:k]]


def check_view(view: View, items: dict[str, Item], choose: random.Random, ids: Sequence[str]) -> None:
    towers = view.towers
    for item_id in ids:
        position = view.position_of(item_id)
        assert (position is not None) == (item_id in items)
        if position is not None:
            assert view.item_id(position) == item_id
            assert view.item(position) == items[item_id]
            assert view.is_shown(position) == items[item_id].available
            expected = towers.encoder.encode_items([items[item_id]])[0]
            np.testing.assert_allclose(view.vectors([position])[0], expected, atol=1e-6)
            assert view.tokens(position).ids.tolist() == towers.encoder.tokenize_items([items[item_id]])[0].ids.tolist()
    queries = towers.encoder.encode_histories(
        [[{"title": choose.choice(WORDS)}, {"title": choose.choice(WORDS)}] for _ in range(4)]
    )
    plans = []
    for _ in queries:
        excluded = set(choose.sample(ids, choose.choice([0, 1, 5])))
        among = None if choose.random() < 0.7 else set(choose.sample(ids, 6))
        plans.append((choose.choice([1, 3, 10, 50]), excluded, among))

    def positions(some: set[str]) -> list[int]:
        return sorted(p for p in map(view.position_of, some) if p is not None)

    wanted = [
        SearchSpec(k, frozenset(positions(excluded)), None if among is None else positions(among))
        for k, excluded, among in plans
    ]
    if choose.random() < 0.5:
        found = search.search(view, queries, wanted)
    else:
        found = [search.search(view, queries[i : i + 1], wanted[i : i + 1])[0] for i in range(len(wanted))]
    for query, hits, (k, excluded, among) in zip(queries, found, plans, strict=True):
        assert [view.item_id(hit.position) for hit in hits] == brute_force(view, items, query, k, excluded, among)
        for hit in hits:
            assert hit.score == pytest.approx(float(view.vectors([hit.position])[0] @ query), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("mask_above", "compact_above", "margin"), [(1024, 4096, 8), (1024, 10, 1), (4, 4096, 1)])
def test_every_view_answers_as_brute_force(
    towers: Towers, monkeypatch: pytest.MonkeyPatch, seed: int, mask_above: int, compact_above: int, margin: int
) -> None:
    """Puts, updates, deletes, re-adds, hidden items, exclusions, candidates; old views stay what they were."""
    monkeypatch.setattr(search, "MASK_ABOVE", mask_above)
    monkeypatch.setattr(search, "MARGIN", margin)
    monkeypatch.setattr(live, "COMPACT_ABOVE", compact_above)
    monkeypatch.setattr(live, "_FIRST_CAPACITY", 4)
    choose = random.Random(seed)
    ids = [f"item-{n:02}" for n in range(40)]
    items = {item.item_id: item for item in (random_item(choose, ids) for _ in range(60))}
    snapshot = InMemorySnapshot(list(items.values()), towers, 30, [0.0] * len(items))
    state = LiveState(snapshot, towers)  # type: ignore[arg-type]
    seq = 30
    kept: list[tuple[View, dict[str, Item]]] = []
    for _ in range(12):
        changes = []
        for _ in range(choose.choice([1, 2, 9])):
            seq += 1
            if choose.random() < 0.3 and items:
                gone = choose.choice(sorted(items))
                del items[gone]
                changes.append(Change(seq, "delete", gone))
            else:
                item = random_item(choose, ids)
                items[item.item_id] = item
                changes.append(put(towers, seq, item))
        state.apply(changes, seq)
        assert state.view.seq == seq
        kept.append((state.view, dict(items)))
        if choose.random() < 0.5:  # the others are looked at for the first time when much has changed since
            check_view(state.view, items, choose, ids)
    for view, then in kept:
        check_view(view, then, choose, ids)


@pytest.mark.slow
def test_an_item_that_changes_often_does_not_fill_the_memory(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "COMPACT_ABOVE", 20)
    snapshot = InMemorySnapshot([make_item("a", {"title": "oak"})], towers, 1, [3.0])
    state = LiveState(snapshot, towers)  # type: ignore[arg-type]
    for n in range(200):
        state.apply([put(towers, n + 2, make_item("a", {"title": f"desk {n}"}))], n + 2)
        assert state.view.length <= 2 * 20 + 2
    position = state.view.position_of("a")
    assert position is not None
    assert state.view.item(position).attributes["title"] == "desk 199"
    assert state.view.popularity[position] == 3.0


def test_what_another_tower_encoded_is_encoded_again(towers: Towers) -> None:
    state = LiveState(InMemorySnapshot([make_item("a", {"title": "oak"})], towers, 1, [0.0]), towers)  # type: ignore[arg-type]
    item = make_item("b", {"title": "tea mug"})
    foreign = CatalogueItem(item, None, np.ones(7, np.float32), "another tower")
    state.apply(
        [Change(2, "put", "b", foreign), Change(3, "put", "c", CatalogueItem(make_item("c", {"title": "pot"})))], 3
    )
    for item_id, title in (("b", "tea mug"), ("c", "pot")):
        position = state.view.position_of(item_id)
        assert position is not None
        expected = towers.encoder.encode_items([{"title": title}])
        np.testing.assert_allclose(state.view.vectors([position]), expected, atol=1e-6)


def test_an_item_that_the_model_cannot_read_is_left_out_as_it_is_of_a_snapshot(towers: Towers) -> None:
    state = LiveState(InMemorySnapshot([make_item("a", {"title": "oak"})], towers, 1, [0.0]), towers)  # type: ignore[arg-type]
    state.apply([Change(2, "put", "a", CatalogueItem(make_item("a", {"title": "?"})))], 2)
    assert state.view.position_of("a") is None


def test_without_a_snapshot_s_items_the_delta_answers(towers: Towers) -> None:
    state = LiveState(InMemorySnapshot([], towers, 1, []), towers)  # type: ignore[arg-type]
    query = towers.encoder.encode_histories([[{"title": "oak"}]])
    assert search.search(state.view, query, [SearchSpec(3)]) == [[]]
    state.apply([put(towers, 2, make_item("a", {"title": "oak"}))], 2)
    assert [hit.position for hit in search.search(state.view, query, [SearchSpec(3)])[0]] == [0]


def test_a_typical_search_asks_the_index_once_and_for_little(towers: Towers) -> None:
    items = [make_item(f"{n:04}", {"title": f"desk number {n}"}) for n in range(500)]
    snapshot = InMemorySnapshot(items, towers, 1, [0.0] * 500)
    state = LiveState(snapshot, towers)  # type: ignore[arg-type]
    queries = towers.encoder.encode_histories([[{"title": "desk 17"}], [{"title": "number 18 19"}]])
    search.search(state.view, queries, [SearchSpec(10, frozenset([17])), SearchSpec(5)])
    assert snapshot.index.asked == [10 + 1 + search.MARGIN]


def test_popular_items_in_the_order_of_popularity_then_id(towers: Towers) -> None:
    items = [make_item(item_id, {"title": "oak"}, item_id != "d") for item_id in "abcde"]
    state = LiveState(InMemorySnapshot(items, towers, 1, [1, 5, 1, 9, 0]), towers)  # type: ignore[arg-type]
    changes = [
        put(towers, 2, make_item("b", {"title": "pine"})),  # changed: as popular as before
        put(towers, 3, make_item("aa", {"title": "new"})),
        Change(4, "delete", "c"),
    ]
    state.apply(changes, 4)
    view = state.view
    rows = search.answerable(view, SearchSpec(9))
    hits = search.best_hits(view, view.popularity[rows], 9, rows)
    assert [(view.item_id(hit.position), hit.score) for hit in hits] == [("b", 5), ("a", 1), ("aa", 0), ("e", 0)]


def test_the_best_of_many_equals_are_the_first_by_id(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MASK_ABOVE", 3)
    items = [make_item(f"{n:03}", {"title": "oak"}) for n in range(100)]
    state = LiveState(InMemorySnapshot(items, towers, 1, [0.0] * 100), towers)  # type: ignore[arg-type]
    state.apply([put(towers, 2, make_item("0005", {"title": "new"})), put(towers, 3, make_item("zz", {}))], 3)
    view = state.view
    rows = search.answerable(view, SearchSpec(9))
    for border in (0.0, 0.3):  # the equals may be the lowest, or stand between others
        scores = np.full(len(rows), border)
        scores[[20, 30]] = [2.0, border + 5e-7]
        scores[50:60] = 0.1 - border
        every = sorted(range(len(rows)), key=lambda place: view.item_id(int(rows[place])))
        order = ranked([view.item_id(int(rows[place])) for place in every], [scores[place] for place in every])
        expected = [(int(rows[every[place]]), float(scores[every[place]])) for place in order]
        for k in (1, 2, 5, 40, 99, 200):
            hits = search.best_hits(view, scores, k, rows)
            assert [(hit.position, hit.score) for hit in hits] == expected[:k]


def test_events_by_position_follow_the_counts(towers: Towers) -> None:
    """Each step changes what a few events change, and is what a view that begins anew finds; also for a new item."""
    items = [make_item(item_id, {"title": "oak"}) for item_id in "abcde"]
    state = LiveState(InMemorySnapshot(items, towers, 1, [1, 0, 2, 0, 0]), towers)  # type: ignore[arg-type]
    counts, seq = state.counts, state.counts.seq
    for number, (batch, gone) in enumerate([("aab", 0), ("xc", 0), ("x", 0), ("", 2), ("bd", 0), ("", 3)]):
        if number == 2:
            state.apply([put(towers, 9, make_item("x", {"title": "new"}))], 9)
        changes = EventChanges(
            seq,
            seq + 1,
            list(batch) if batch else ["a", "b", "x"][:gone],
            np.array([0, len(batch) or gone]),
            np.zeros(len(batch) or gone),
            np.full(len(batch) or gone, not batch),
            np.full(len(batch) or gone, bool(batch)),
            np.ones(len(batch) or gone),
        )
        seq += 1
        state.follow_events(changes)
        found = state.view.popularity
        again = dataclasses.replace(state.view)  # with nothing remembered
        assert found.tolist() == again.popularity.tolist()
        here = {state.view.item_id(row): float(found[row]) for row in range(state.view.size)}
        former = {"a": 1, "c": 2}
        assert here == {item: former.get(item, 0) + counts.events_of(item) for item in here}
