"""Ranking metrics, and ranks of items with equal scores.

The favourable rank is 1 + the number of items with a strictly better score, as in the `Ranker` of the Recformer
authors; the pessimistic rank counts tied items as better. Of several relevant items that tie, each has its own rank.

For relevant items R of a user at ranks r (Jaervelin & Kekaelaeinen 2002 for NDCG):

NDCG@k    sum of 1 / log2(r + 1) over r <= k, divided by the ideal, the sum over r = 1 ... min(|R|, k)
Recall@k  share of R with r <= k; for one relevant item the hit rate
MRR@k     1 / the smallest r, or 0 if it exceeds k; MRR has no cutoff

All are averaged over users, not over batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqrec.metric import TIE

Ranks = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def ranks(scores: npt.NDArray[np.floating], targets: Rows, tie: float = TIE) -> tuple[Ranks, Ranks]:
    """Favourable and pessimistic rank of each row's target, counted from 1.

    scores: [b, n], higher is better, -inf excludes an item; targets: [b] columns. Scores within `tie` of the target's
    are treated as equal, so that float32 rounding does not decide.
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)  # [b, 1]
    better = np.count_nonzero(scores > own + tie, axis=1)
    not_worse = np.count_nonzero(scores >= own - tie, axis=1)  # includes the target
    return better.astype(np.int64) + 1, np.maximum(not_worse, 1).astype(np.int64)


def ranks_of_several(
    scores: npt.NDArray[np.floating], relevant: Sequence[Rows], tie: float = TIE
) -> tuple[Ranks, Ranks]:
    """The same for several relevant columns per row: [t] each, rows concatenated, best item first.

    Within a row all ranks are distinct: for g relevant items in one tie, the favourable ranks are the first g places of
    the tie and the pessimistic ranks the last g.
    """
    favourable, pessimistic = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row, columns in zip(np.sort(scores, axis=1), (scores[i, rows] for i, rows in enumerate(relevant)), strict=True):
        own = -np.sort(-columns)
        place = np.arange(len(own))
        better = len(row) - np.searchsorted(row, own + tie, side="right")
        not_worse = np.maximum(len(row) - np.searchsorted(row, own - tie, side="left"), 1)
        favourable.append(np.maximum.accumulate(better + 1 - place) + place)
        pessimistic.append(np.minimum.accumulate((not_worse - place)[::-1])[::-1] + place)
    return np.concatenate(favourable), np.concatenate(pessimistic)


def ndcg(rank: Ranks, k: int, user: Rows | None = None) -> Values:
    """NDCG@k of each user. `user`: the user of each rank, [t], from 0, ascending; None: one relevant item per user."""
    return _over_ideal(np.where(rank <= k, 1 / np.log2(rank + 1.0), 0.0), k, user)


def expected_ndcg(favourable: Ranks, pessimistic: Ranks, k: int, user: Rows | None = None) -> Values:
    """Expected NDCG@k of each user with ties broken at random; `user` as for `ndcg`.

    A relevant item is equally likely at each place between its two ranks: exact if no two of a user tie.
    """
    total = _total_gains(k)
    gains = total[np.minimum(pessimistic, k)] - total[np.minimum(favourable - 1, k)]
    return _over_ideal(gains / (pessimistic - favourable + 1), k, user)


def _total_gains(k: int) -> Values:
    """Cumulative gains of the first 0 ... k places, [k + 1]."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2.0))])


def _over_ideal(gains: Values, k: int, user: Rows | None) -> Values:
    """The gains of each user divided by the ideal gains."""
    if user is None:
        return gains
    values: Values = np.bincount(user, gains) / _total_gains(k)[np.minimum(np.bincount(user), k)]
    return values


def recall(rank: Ranks, k: int, user: Rows | None = None) -> Values:
    """Recall@k of each user; `user` as for `ndcg`."""
    found = (rank <= k).astype(np.float64)
    return found if user is None else np.bincount(user, found) / np.bincount(user)


def reciprocal_rank(rank: Ranks, k: int | None = None, user: Rows | None = None) -> Values:
    """1 / the best rank of each user, 0 if it exceeds `k` (None: no cutoff); `user` as for `ndcg`."""
    if user is not None and len(rank):
        rank = np.minimum.reduceat(rank, np.flatnonzero(np.diff(user, prepend=-1)))
    return 1.0 / rank if k is None else np.where(rank <= k, 1.0 / rank, 0.0)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Means over `users` users; NaN without users. `ndcg_pessimistic` ranks tied items first, `ndcg_expected` breaks
    ties at random."""

    users: int
    ndcg: float
    recall: float
    mrr: float
    ndcg_pessimistic: float
    ndcg_expected: float

    @classmethod
    def of(cls, favourable: Ranks, pessimistic: Ranks, k: int = 10, user: Rows | None = None) -> Metrics:
        if not len(favourable):
            return cls(0, *(float("nan") for _ in range(5)))
        of_users = ndcg(favourable, k, user)
        return cls(
            users=len(of_users),
            ndcg=float(of_users.mean()),
            recall=float(recall(favourable, k, user).mean()),
            mrr=float(reciprocal_rank(favourable, user=user).mean()),
            ndcg_pessimistic=float(ndcg(pessimistic, k, user).mean()),
            ndcg_expected=float(expected_ndcg(favourable, pessimistic, k, user).mean()),
        )

    @property
    def ties_matter(self) -> bool:
        """Whether the order of tied items changes NDCG by more than 2 %."""
        return self.users > 0 and ties_matter(self.ndcg, self.ndcg_pessimistic)


def ties_matter(favourable: float, pessimistic: float) -> bool:
    """Whether the order of tied items changes a mean by more than 2 %."""
    return favourable - pessimistic > 0.02 * favourable
