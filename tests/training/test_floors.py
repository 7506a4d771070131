from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
import pytest

from seqrec.items import Interactions, Item
from training.data import Dataset, join
from training.evaluation import best_item_knn
from training.floors import LAST, WINDOWS, ItemKnn, item_knns, popularity


@pytest.fixture
def shop() -> Dataset:
    rng = np.random.default_rng(2)
    items = [Item(f"i{row}", {"title": f"t{row}"}) for row in range(12)]
    users = [f"u{user}" for user in range(15) for _ in range(9)]
    rows = rng.integers(12, size=len(users))
    return join(items, Interactions(users, [f"i{row}" for row in rows], np.arange(len(users))))


def one_knn(dataset: Dataset, window: int, last: int) -> ItemKnn:
    return next(item_knns(dataset, [window], [last]))


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
            for row in range(12)
        ]
        for history in histories
    ]
    np.testing.assert_allclose(one_knn(shop, window, last=2).scores(histories), expected, rtol=1e-5)


def test_pairs_do_not_cross_from_one_user_to_the_next() -> None:
    items = [Item(name, {"title": name}) for name in "abcdefgh"]
    dataset = join(items, Interactions(["u"] * 4 + ["v"] * 4, list("abcdefgh"), np.arange(8)))
    scores = one_knn(dataset, window=5, last=1).scores([np.array([1])])[0]  # b, the last one that trains of u
    assert np.flatnonzero(scores).tolist() == [0]


def test_every_setting_is_tried_and_one_is_chosen(shop: Dataset) -> None:
    assert [(one.window, one.last) for one in item_knns(shop)] == [(w, last) for w in WINDOWS for last in LAST]
    best = best_item_knn(shop)
    assert best.window in WINDOWS
    assert best.last in LAST
