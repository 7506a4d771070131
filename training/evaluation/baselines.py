"""What a trained model must clear: popularity, and item-kNN.

Popularity counts the training part. Item-kNN knows all that came before the held-out items, for the test split the
validation items too: counting costs no training, and a floor is to be as strong as it simply can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.dataset import Dataset, Rows, Split
from training.evaluation.ranking import case_ranks

Scores = npt.NDArray[np.float32]

WINDOWS = (3, 5, 10)
LAST = (1, 3, 5)
FALLBACK = 1e-3
"""Below nearly every similarity, above TIE."""


def popularity(dataset: Dataset) -> Scores:
    """[n] How many times each item stands in the training part."""
    return np.bincount(_known_events(dataset, "valid")[0], minlength=len(dataset.items)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ItemKnn:
    """Co-occurrence within `window` steps of a sequence, as a cosine: pairs / sqrt(events of one x of the other).

    The score of an item is the sum over the last `last` items of the history, plus at most FALLBACK by popularity:
    most items never stood beside those, and would tie at 0. The similarities lie in rows of compressed sparse form
    (indptr [n + 1], columns and values end to end), since most pairs never occur.
    """

    window: int
    last: int
    indptr: Rows
    columns: Rows
    values: Scores
    fallback: Scores  # [n]

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """b histories -> [b, n], higher is better."""
        out = np.repeat(self.fallback[None], len(histories), axis=0)
        for row, history in zip(out, histories, strict=True):
            for item in history[-self.last :]:
                near = slice(self.indptr[item], self.indptr[item + 1])
                row[self.columns[near]] += self.values[near]
        return out


def item_knns(
    dataset: Dataset, split: Split, windows: Sequence[int] = WINDOWS, lasts: Sequence[int] = LAST
) -> Iterator[ItemKnn]:
    """Every setting, windows rising; the best on validation is the floor."""
    events, users = _known_events(dataset, split)
    n = len(dataset.items)
    popular = np.bincount(events, minlength=n).astype(np.float64)
    fallback = (FALLBACK * popular / popular.max()).astype(np.float32)
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for steps in range(1, max(windows) + 1):
        one, other = events[:-steps], events[steps:]
        kept = (users[:-steps] == users[steps:]) & (one != other)
        pairs = np.concatenate([one[kept] * n + other[kept], other[kept] * n + one[kept]])
        new, new_counts = np.unique(pairs, return_counts=True)
        merged, place = np.unique(np.concatenate([keys, new]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, new_counts]), len(merged)).astype(np.int64)
        keys = merged
        if steps in windows:
            rows, columns = keys // n, keys % n
            values = (counts / np.sqrt(popular[rows] * popular[columns])).astype(np.float32)
            indptr = np.searchsorted(rows, np.arange(n + 1))
            for last in lasts:
                yield ItemKnn(steps, last, indptr, columns, values, fallback)


def best_item_knn(dataset: Dataset, split: Split) -> ItemKnn:
    """The setting with the highest NDCG@10 on validation, all items, counted anew on what `split` may know."""
    if not len(dataset.evaluated("valid")):  # a split by time may leave nobody to choose by
        return next(item_knns(dataset, split, WINDOWS[1:2], LAST[1:2]))
    cases = dataset.cases("valid").sample(5000, seed=0)

    def quality(knn: ItemKnn) -> float:
        of_protocol = case_ranks(
            lambda numbers: knn.scores([cases.histories[number] for number in numbers]),
            cases,
            len(dataset.items),
            ("all items",),
        )
        return of_protocol["all items"].metrics().ndcg_pessimistic

    best = max(item_knns(dataset, "valid"), key=quality)
    return next(item_knns(dataset, split, [best.window], [best.last]))


def _known_events(dataset: Dataset, split: Split) -> tuple[Rows, Rows]:
    """Items and users of all events of the known part, users end to end, oldest first. [m] each"""
    parts = [dataset.known_part(user, split) for user in range(dataset.users)]
    users = np.repeat(np.arange(dataset.users), [len(part) for part in parts])
    return np.concatenate(parts), users
