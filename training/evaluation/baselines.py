"""The baselines of every evaluation: popularity and a tuned item-kNN.

Popularity counts training events. Item-kNN counts all events before the held-out ones, for the test split including
validation: counting needs no training, and a baseline should be as strong as it can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.hybrid.cooccurrence import CooccurrenceSettings, Counts, count, history_matrix
from training.data.dataset import Cases, Dataset, Rows, Split
from training.evaluation.ranking import case_ranks

Scores = npt.NDArray[np.float32]

GRID: Mapping[str, Sequence[Any]] = {
    "last": (1, 3, 5, 10, 20),
    "recency_power": (0.0, 0.5, 1.0, 2.0),
    "target_power": (0.0, 0.25, 0.5, 0.75),
    "source_power": (0.25, 0.5, 0.75),
    "distance_power": (0.0, 0.5, 1.0, 2.0),
    "window": (5, 10, 20, 40),
    "backward": (0.0, 0.5, 1.0),
}
"""One coordinate after the other, from the defaults of CooccurrenceSettings."""
USERS = 2000
"""Validation users that choose the settings, at most."""
FALLBACK = 1e-3
"""Share of the best score of a history; above TIE."""


def popularity(dataset: Dataset) -> Scores:
    """[n] The number of training events of each item."""
    rows, _ = dataset.known_events("valid")
    return np.bincount(rows, minlength=len(dataset.items)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ItemKnn:
    """Co-occurrence with the last items of a history (seqrec.hybrid.cooccurrence).

    Scores are divided by the best of each history. To them at most FALLBACK is added by popularity, since most items
    never co-occur with those of a history and would tie at 0.
    """

    settings: CooccurrenceSettings
    counts: Counts
    fallback: Scores  # [n]

    @classmethod
    def of(cls, dataset: Dataset, split: Split, settings: CooccurrenceSettings) -> ItemKnn:
        rows, offsets = dataset.known_events(split)
        counts = count(settings, rows, offsets, len(dataset.items), event_weights=dataset.known_weights(split))
        return cls(settings, counts, (FALLBACK * counts.events / counts.events.max()).astype(np.float32))

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """b histories -> [b, n], higher is better."""
        found = (history_matrix(self.settings, histories, self.counts.events) @ self.counts.pairs).toarray()
        if self.settings.target_power:
            found *= np.maximum(self.counts.events, 1.0) ** -self.settings.target_power
        best = found.max(axis=1, keepdims=True)
        scores: Scores = (found / np.where(best > 0, best, 1.0)).astype(np.float32)
        scores += self.fallback
        return scores

    @property
    def label(self) -> str:
        return f"item-kNN (window {self.settings.window}, last {self.settings.last})"


def best_item_knn(dataset: Dataset, split: Split) -> ItemKnn:
    """Item-kNN with the settings of the highest validation NDCG@10, all items, counted on what `split` may know."""
    settings = CooccurrenceSettings()
    if len(dataset.evaluated("valid")):  # a split by time may leave no validation users
        settings = _tuned(dataset, dataset.cases("valid").sample(USERS, seed=0))
    return ItemKnn.of(dataset, split, settings)


def _tuned(dataset: Dataset, cases: Cases) -> CooccurrenceSettings:
    def ndcg(knn: ItemKnn) -> float:
        ranks = case_ranks(
            lambda numbers: knn.scores([cases.histories[number] for number in numbers]),
            cases,
            len(dataset.items),
            ("all items",),
        )
        return ranks["all items"].metrics().ndcg_pessimistic

    best = ItemKnn.of(dataset, "valid", CooccurrenceSettings())
    highest = ndcg(best)
    for name, values in GRID.items():
        for value in values:
            settings = replace(best.settings, **{name: value})
            if settings == best.settings:
                continue
            counted = (settings.window, settings.distance_power, settings.backward)
            if counted == (best.settings.window, best.settings.distance_power, best.settings.backward):
                knn = replace(best, settings=settings)
            else:
                knn = ItemKnn.of(dataset, "valid", settings)
            found = ndcg(knn)
            if found > highest:
                best, highest = knn, found
    return best.settings
