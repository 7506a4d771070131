from __future__ import annotations

import os
from collections import Counter
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from seqrec.data.items import Interactions, Item
from training.data.dataset import Dataset, join, read_dataset
from training.evaluation.baselines import FALLBACK, LAST, WINDOWS, ItemKnn, best_item_knn, item_knns, popularity
from training.evaluation.ranking import Scorer, case_ranks


@pytest.fixture
def shop() -> Dataset:
    rng = np.random.default_rng(2)
    items = [Item(f"i{row}", {"title": f"t{row}"}) for row in range(12)]
    users = [f"u{user}" for user in range(15) for _ in range(9)]
    rows = rng.integers(12, size=len(users))
    return join(items, Interactions(users, [f"i{row}" for row in rows], np.arange(len(users))))


def one_knn(dataset: Dataset, window: int, last: int) -> ItemKnn:
    return next(item_knns(dataset, "valid", [window], [last]))


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
    expected = [
        [
            sum(together[int(seen), row] / sqrt(events[int(seen)] * events[row]) for seen in history[-2:])
            + FALLBACK * events[row] / events.max()
            for row in range(12)
        ]
        for history in histories
    ]
    np.testing.assert_allclose(one_knn(shop, window, last=2).scores(histories), expected, rtol=1e-5)


def test_pairs_do_not_cross_from_one_user_to_the_next() -> None:
    items = [Item(name, {"title": name}) for name in "abcdefgh"]
    dataset = join(items, Interactions(["u"] * 4 + ["v"] * 4, list("abcdefgh"), np.arange(8)))
    scores = one_knn(dataset, window=5, last=1).scores([np.array([1])])[0]  # b, the last one that trains of u
    assert np.flatnonzero(scores > FALLBACK).tolist() == [0]


def test_every_setting_is_tried_and_one_is_chosen(shop: Dataset) -> None:
    assert [(one.window, one.last) for one in item_knns(shop, "valid")] == [(w, last) for w in WINDOWS for last in LAST]
    best = best_item_knn(shop, "test")
    assert best.window in WINDOWS
    assert best.last in LAST


def test_items_that_never_stood_together_are_ordered_by_popularity() -> None:
    items = [Item(name, {"title": name}) for name in "abcdefg"]
    events = [("u", "abg"), ("v", "cdg"), ("w", "ceg"), ("x", "cfg")]
    users = [user for user, bought in events for _ in bought]
    dataset = join(items, Interactions(users, [item for _, bought in events for item in bought], np.arange(12)))
    scores = one_knn(dataset, window=1, last=1).scores([np.array([0])])[0]
    assert scores[2] == pytest.approx(FALLBACK)
    assert scores[2] > scores[0] > scores[3] == 0


def test_for_the_test_split_item_knn_knows_the_validation_items(shop: Dataset) -> None:
    last = shop.sequence(0)[-2:-1]
    before, after = (next(item_knns(shop, split, [3], [1])).scores([last]) for split in ("valid", "test"))
    assert after.sum() != before.sum()


SHARED = Path(os.environ.get("SEQREC_SHARED_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "popular", "knn"),
    [
        ("online-retail", (0.0158, 0.0183), (0.1823, 0.2017)),
        ("amazon-scientific-unisrec", (0.0171, 0.0181), (0.0727, 0.0870)),
        ("amazon-beauty-2014", (0.0055, 0.0056), (0.0403, 0.0454)),
    ],
)
def test_the_floors_are_the_known_ones(
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
