"""Uncertainty of means over users: bootstrap intervals, and paired tests between methods.

The sampling unit is the user: a resample draws as many users as there are, with replacement (Efron 1979; percentile
intervals). Two methods are compared on the same users, so their difference is resampled. p comes from a randomisation
test (Fisher 1935; Smucker et al. 2007 for ranked retrieval): under the null hypothesis the sign of each user's
difference is random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Members = npt.NDArray[np.bool_]

NUMBERS_AT_ONCE = 2**22
"""32 MiB of float64."""
LEVEL = 0.95


def resampled_means(values: Values, groups: Sequence[Members], resamples: int, seed: int) -> Values:
    """Means over each group in each resample of all users: values [m, f], groups g x [m] -> [g, resamples, f].

    All figures use the same resamples, so the difference of two columns is paired. NaN if a resample has no user of a
    group.
    """
    means = np.full((len(groups), resamples, values.shape[1]), np.nan)
    if not len(values):
        return means
    rng = np.random.default_rng(seed)
    for part in _parts(resamples, len(values)):
        drawn = rng.integers(len(values), size=(part.stop - part.start, len(values)))
        times = np.stack([np.bincount(users, minlength=len(values)) for users in drawn]).astype(np.float64)
        for into, members in zip(means, groups, strict=True):
            weights = times[:, members]
            with np.errstate(invalid="ignore"):
                into[part] = weights @ values[members] / weights.sum(axis=1, keepdims=True)
    return means


def interval(means: Values) -> tuple[Values, Values]:
    """Lower and upper bounds of the 95 % intervals: means [resamples, ...] -> two [...]. NaN if all are NaN."""
    known = ~np.isnan(means).all(axis=0)
    low, high = np.full(means.shape[1:], np.nan), np.full(means.shape[1:], np.nan)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if known.any():
        low[known], high[known] = np.nanquantile(means[:, known], tails, axis=0)
    return low, high


def randomization_p(differences: Values, rounds: int, seed: int) -> Values:
    """Two-sided p for a mean difference of 0: differences [m, f] of m users -> [f]. At least 1 / (rounds + 1)."""
    observed = np.abs(differences.sum(axis=0))
    reached = np.zeros(differences.shape[1], dtype=np.int64)
    rng = np.random.default_rng(seed)
    for part in _parts(rounds, len(differences)):
        signs = rng.integers(2, size=(part.stop - part.start, len(differences))) * 2.0 - 1.0
        # The tolerance keeps sums that equal the observed one from being smaller by rounding.
        reached += (np.abs(signs @ differences) >= observed * (1 - 1e-12) - 1e-15).sum(axis=0)
    p: Values = (reached + 1) / (rounds + 1)
    return p


def _parts(rounds: int, users: int) -> Iterator[slice]:
    size = max(1, NUMBERS_AT_ONCE // max(users, 1))
    for begin in range(0, rounds, size):
        yield slice(begin, min(begin + size, rounds))
