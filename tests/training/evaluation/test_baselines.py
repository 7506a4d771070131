from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from seqrec.data.items import Interactions, Item
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from training.data.dataset import Dataset, join, read_dataset
from training.evaluation.baselines import FALLBACK, ItemKnn, best_item_knn, popularity
from training.evaluation.ranking import Scorer, case_ranks


@pytest.fixture
def shop() -> Dataset:
    rng = np.random.default_rng(2)
    items = [Item(f"i{row}", {"title": f"t{row}"}) for row in range(12)]
    users = [f"u{user}" for user in range(15) for _ in range(9)]
    rows = rng.integers(12, size=len(users))
    return join(items, Interactions(users, [f"i{row}" for row in rows], np.arange(len(users))))


COSINE = CooccurrenceSettings(
    window=3, last=2, distance_power=0.0, backward=1.0, recency_power=0.0, source_power=0.5, target_power=0.5
)
"""Plain item-kNN: pairs within the window over the root of both counts."""


def test_popularity_counts_the_training_part_only(shop: Dataset) -> None:
    counted = Counter(int(row) for user in range(shop.users) for row in shop.training_part(user))
    assert popularity(shop).tolist() == [counted[row] for row in range(12)]


@pytest.mark.parametrize("window", [1, 3])
def test_item_knn_is_what_plain_loops_give(shop: Dataset, window: int) -> None:
    together: Counter[tuple[int, int]] = Counter()
    for user in range(shop.users):
        part = [int(row) for row in shop.training_part(user)]
        for place, one in enumerate(part):
            for other in part[place + 1 : place + 1 + window]:
                if one != other:
                    together[one, other] += 1
                    together[other, one] += 1
    events = popularity(shop)
    histories = [shop.sequence(user) for user in range(shop.users)]

    def cosine(one: int, other: int) -> float:
        return together[one, other] / sqrt(events[one] * events[other])

    similar = np.array([[sum(cosine(int(seen), row) for seen in h[-2:]) for row in range(12)] for h in histories])
    expected = similar / similar.max(axis=1, keepdims=True) + FALLBACK * events / events.max()
    knn = ItemKnn.of(shop, "valid", replace(COSINE, window=window))
    np.testing.assert_allclose(knn.scores(histories), expected, rtol=1e-5)


def test_pairs_do_not_cross_from_one_user_to_the_next() -> None:
    items = [Item(name, {"title": name}) for name in "abcdefgh"]
    dataset = join(items, Interactions(["u"] * 4 + ["v"] * 4, list("abcdefgh"), np.arange(8)))
    scores = ItemKnn.of(dataset, "valid", COSINE).scores([np.array([1])])[0]  # b, the last training event of u
    assert np.flatnonzero(scores > FALLBACK).tolist() == [0]


def test_settings_are_tuned_on_validation(shop: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """Not worse on validation than the defaults, and than plain item-kNN."""
    cases = shop.cases("valid")

    def ndcg(knn: ItemKnn) -> float:
        ranks = case_ranks(lambda numbers: knn.scores([cases.histories[n] for n in numbers]), cases, 12)
        return ranks["all items"].metrics().ndcg_pessimistic

    best = best_item_knn(shop, "test")
    tuned = ndcg(ItemKnn.of(shop, "valid", best.settings))
    assert tuned > ndcg(ItemKnn.of(shop, "valid", CooccurrenceSettings()))
    assert best.label == f"item-kNN (window {best.settings.window}, last {best.settings.last})"


def test_items_that_never_stood_together_are_ordered_by_popularity() -> None:
    items = [Item(name, {"title": name}) for name in "abcdefg"]
    events = [("u", "abg"), ("v", "cdg"), ("w", "ceg"), ("x", "cfg")]
    users = [user for user, bought in events for _ in bought]
    dataset = join(items, Interactions(users, [item for _, bought in events for item in bought], np.arange(12)))
    scores = ItemKnn.of(dataset, "valid", COSINE).scores([np.array([0])])[0]
    assert scores[2] == pytest.approx(FALLBACK)
    assert scores[2] > scores[0] > scores[3] == 0


def test_for_the_test_split_item_knn_knows_the_validation_items(shop: Dataset) -> None:
    before, after = (ItemKnn.of(shop, split, COSINE).counts.events.sum() for split in ("valid", "test"))
    assert after == before + shop.users


SHARED = Path(os.environ.get("SEQREC_SHARED_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "popular", "knn"),
    [
        ("online-retail", (0.0158, 0.0183), (0.1947, 0.2159)),
        ("amazon-scientific-unisrec", (0.0171, 0.0181), (0.0839, 0.0932)),
        ("amazon-beauty-2014", (0.0055, 0.0056), (0.0570, 0.0610)),
    ],
)
def test_the_baselines_are_the_known_ones(
    root: Path, name: str, popular: tuple[float, float], knn: tuple[float, float]
) -> None:
    folder = root / "data" / name if (root / "data" / name).is_dir() else SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no data set {name} in {SHARED}; SEQREC_SHARED_DATA says where")
    dataset = read_dataset(folder / "items.jsonl.gz", folder / "interactions.csv.gz")
    cases, counts, neighbours = dataset.cases("test"), popularity(dataset), best_item_knn(dataset, "test")

    def ndcg(scorer: Scorer) -> list[float]:
        return [found.metrics().ndcg for found in case_ranks(scorer, cases, len(dataset.items)).values()]

    assert ndcg(lambda n: np.repeat(counts[None], len(n), 0)) == pytest.approx(popular, abs=1e-4)
    assert ndcg(lambda n: neighbours.scores([cases.histories[i] for i in n])) == pytest.approx(knn, abs=1e-4)
