"""Checks before a candidate is trained: whether the data resemble those that the served model was trained on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from training.data.dataset import Dataset, Split
from training.data.splits import SplitConfig
from training.evaluation.baselines import ItemKnn
from training.evaluation.ranking import case_ranks
from training.evaluation.significance import interval, resampled_means

MAX_GONE = 0.3
"""The largest share of the served items that may have been deleted or become unavailable."""
COLLAPSE = 0.5
"""If co-occurrence finds less than this share of what it found in the period before, the events are broken."""
MIN_USERS = 100
"""The least number of users with events both before and in the newest period; with fewer, nothing is compared."""
ENOUGH_USERS = 1000
SHARES = (0.01, 0.02, 0.05, 0.1)
"""Shares of the events that are tested on; the first with ENOUGH_USERS is used. As many before them validate."""
MOST_USERS = 5000
"""The most users that a period is judged by."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Figure:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EventCheck:
    """NDCG@10 of plain co-occurrence, counted before each period, in the newest one and in the one before."""

    newest: Figure
    before: Figure

    @property
    def problem(self) -> str | None:
        if self.newest.high >= COLLAPSE * self.before.value:
            return None
        return (
            f"the newest events do not look like those before them: co-occurrence, which needs no training, finds "
            f"{self.newest.value:.4f} (NDCG@10, 95 % interval to {self.newest.high:.4f}) in them, and found "
            f"{self.before.value:.4f} in the period before. Are there events of robots, or of another shop?"
        )


def items_problem(served: Collection[str], available: Collection[str]) -> str | None:
    """`served`: ids of the items that were available in the served snapshot; `available`: of those that are now."""
    gone = len(set(served).difference(available))
    if not served or gone <= MAX_GONE * len(served):
        return None
    return (
        f"{gone:,} of {len(served):,} items that are served ({gone / len(served):.0%}) have gone or become "
        f"unavailable, and at most {MAX_GONE:.0%} may. If that is meant, `seqrec reindex` first: it serves the "
        "catalogue as it is now"
    )


def split_by_time(dataset: Dataset) -> tuple[Dataset, str | None]:
    """The data set with its newest events held out, and why that leaves nothing to judge by (None: it does)."""
    users = 0
    for share in SHARES:
        # All items of the period: what is first in a basket is chance, and a user's mean over all has half the spread.
        rule = SplitConfig(split="time", targets="all", valid_share=share, test_share=share)
        split = replace(dataset, rule=rule)
        try:
            users = min(len(split.evaluated("valid")), len(split.evaluated("test")))
        except InputError:  # all events of the share at one moment
            continue
        if users >= ENOUGH_USERS:
            break
    if users < MIN_USERS or not split.trained_rows.any():
        return dataset, (
            f"too few users have events both before and in the newest {share:.0%} of events, or in as many before "
            f"them: {users:,}, and {MIN_USERS} are needed to judge a model"
        )
    return split, None


def check_events(dataset: Dataset) -> EventCheck:
    return EventCheck(_cooccurrence(dataset, "test"), _cooccurrence(dataset, "valid"))


def _cooccurrence(dataset: Dataset, split: Split) -> Figure:
    cases = dataset.cases(split).sample(MOST_USERS, seed=0)
    knn = ItemKnn.of(dataset, split, CooccurrenceSettings())
    ranks = case_ranks(
        lambda numbers: knn.scores([cases.histories[number] for number in numbers]),
        cases,
        len(dataset.items),
        ("all items",),
    )
    values = ranks["all items"].figures([10])["NDCG@10, behind ties"]
    means = resampled_means(values[:, None], [np.ones(len(values), np.bool_)], _RESAMPLES, seed=0)
    low, high = interval(means[0])
    return Figure(float(values.mean()), float(low[0]), float(high[0]))
