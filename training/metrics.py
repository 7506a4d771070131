"""Ranking metrics for one relevant item a user, and what a rank is where scores are equal.

rank = 1 + number of items with a strictly better score (the Recformer authors' `Ranker`): ties are favourable. The
pessimistic rank counts the ties as better. With a single relevant item the ideal DCG is 1, so
NDCG@k = 1 / log2(rank + 1) within the first k places (Jaervelin & Kekaelaeinen 2002), Recall@k = 1 within them, and
the reciprocal rank is not cut. All are averaged over users, not over batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqrec.metric import TIE

Ranks = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def ranks(scores: npt.NDArray[np.floating], targets: npt.NDArray[np.int64], tie: float = TIE) -> tuple[Ranks, Ranks]:
    """Favourable and pessimistic rank of each row's target, counted from 1.

    scores: [b, n], higher is better, -inf takes an item out of the running; targets: [b] columns. Scores within `tie`
    of the target's are equal to it: float32 rounding must not decide.
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)  # [b, 1]
    better = np.count_nonzero(scores > own + tie, axis=1)
    not_worse = np.count_nonzero(scores >= own - tie, axis=1)  # the target is one of them
    return better.astype(np.int64) + 1, np.maximum(not_worse, 1).astype(np.int64)


def ndcg(rank: Ranks, k: int) -> Values:
    """NDCG@k of each rank."""
    return np.where(rank <= k, 1 / np.log2(rank + 1.0), 0.0)


def recall(rank: Ranks, k: int) -> Values:
    """Recall@k (with one relevant item the same as the hit rate) of each rank."""
    return (rank <= k).astype(np.float64)


def reciprocal_rank(rank: Ranks) -> Values:
    return 1.0 / rank


@dataclass(frozen=True, slots=True)
class Metrics:
    """Averages over `users` users; NaN where there are none. `ndcg_pessimistic` takes ties as better."""

    users: int
    ndcg: float
    recall: float
    mrr: float
    ndcg_pessimistic: float

    @classmethod
    def of(cls, favourable: Ranks, pessimistic: Ranks, k: int = 10) -> Metrics:
        if not len(favourable):
            return cls(0, float("nan"), float("nan"), float("nan"), float("nan"))
        return cls(
            users=len(favourable),
            ndcg=float(ndcg(favourable, k).mean()),
            recall=float(recall(favourable, k).mean()),
            mrr=float(reciprocal_rank(favourable).mean()),
            ndcg_pessimistic=float(ndcg(pessimistic, k).mean()),
        )

    @property
    def ties_matter(self) -> bool:
        """Whether breaking ties the other way changes NDCG by more than 2 %."""
        return self.users > 0 and self.ndcg - self.ndcg_pessimistic > 0.02 * self.ndcg
