"""What a candidate would bring, estimated from answers whose places were filled at random with known propensities."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from seqrec.errors import InputError
from service.reports.statistics import LEVEL, Interval

MIN_EFFECTIVE = 30.0
"""With fewer effective places the normal approximation is not good enough for an interval."""
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """The reward per place that a candidate would have had.

    `interval`: of 95 %, for one look; None where `effective`, the number of places that the weights are worth, is below
    `MIN_EFFECTIVE`, and where all rewards are equal, such as 0, which says nothing of their variance.
    `support`: the mean weight. Where the log can contain all that the candidate does it is about 1; where it is clearly
    lower, the estimate is of the part that the log can contain.
    """

    estimate: float
    interval: Interval | None
    effective: float
    support: float


def snips(
    rewards: Sequence[float] | npt.NDArray[np.float64],
    propensities: Sequence[float] | npt.NDArray[np.float64],
    candidate_probabilities: Sequence[float] | npt.NDArray[np.float64],
    users: Sequence[Hashable] | None = None,
) -> OffPolicy:
    """Self-normalized inverse propensity scoring (Swaminathan and Joachims, 2015) of n logged places.

    rewards: [n], such as 1 for a click. propensities: [n], how likely each place was to get the item it got, above 0;
    candidate_probabilities: [n], how likely the candidate would put the same item there, after the same items before.
    users: [n], whose places of one user depend on each other; without them all places count as independent. All
    randomised places belong here, also those without a reward. Raises InputError.
    """
    reward, logged, candidate = (
        np.asarray(one, np.float64) for one in (rewards, propensities, candidate_probabilities)
    )
    if not reward.shape == logged.shape == candidate.shape == (len(reward),):
        raise InputError("rewards, propensities and candidate probabilities are as many", "rewards")
    if not np.isfinite(reward).all():
        raise InputError("rewards are finite numbers", "rewards")
    if not ((logged > 0) & (logged <= 1)).all():
        raise InputError("above 0 and at most 1", "propensities")
    if not ((candidate >= 0) & (candidate <= 1)).all():
        raise InputError("from 0 to 1", "candidate_probabilities")
    if users is not None and len(users) != len(reward):
        raise InputError("as many as rewards", "users")
    weights = candidate / logged
    total = float(weights.sum())
    if not total:
        raise InputError("the candidate does nothing that is in the log", "candidate_probabilities")
    estimate = float(weights @ reward) / total
    effective = total**2 / float(weights @ weights)
    residuals = weights * (reward - estimate)  # they sum to 0; by the delta method for a ratio of two sums
    if users is not None:
        number = {user: n for n, user in enumerate(dict.fromkeys(users))}
        residuals = np.bincount([number[user] for user in users], residuals).astype(np.float64)
    n = len(residuals)
    interval = None
    if effective >= MIN_EFFECTIVE and n > 1 and residuals.any():
        half = _Z * math.sqrt(float(residuals @ residuals) * n / (n - 1)) / total
        interval = Interval(estimate - half, estimate + half)
    return OffPolicy(estimate, interval, effective, total / len(reward))
