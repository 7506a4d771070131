"""Intervals of rates, and the comparison of two variants that may be looked at every day."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from index.catalogue.outcomes import Moments

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
PRIOR_LIFT = 0.05
"""The size of relative lifts that the comparison finds soonest; it is valid for all."""
MIN_USERS = 100
MIN_COUNT = 50
"""Of users, and of what is counted, in each variant: with fewer the normal approximation is not good enough."""


class Interval(NamedTuple):
    low: float
    high: float


def rate_interval(count: float, of: float) -> Interval:
    """Wilson's 95 % interval of count / of."""
    if of <= 0:
        return Interval(0.0, 1.0)
    rate = min(count / of, 1.0)
    center = (rate + _Z**2 / (2 * of)) / (1 + _Z**2 / of)
    half = _Z / (1 + _Z**2 / of) * math.sqrt(rate * (1 - rate) / of + _Z**2 / (4 * of**2))
    return Interval(max(0.0, center - half), min(1.0, center + half))


def mean_interval(total: float, squares: float, n: float) -> Interval | None:
    """The 95 % interval of a mean of n numbers, from their sum and that of their squares; None for fewer than 2."""
    if n < 2:
        return None
    mean = total / n
    half = _Z * math.sqrt(max(squares / n - mean**2, 0.0) / (n - 1))
    return Interval(mean - half, mean + half)


class Ratio(NamedTuple):
    """A ratio of two sums over users, and its variance, by the delta method: a user's events are not independent."""

    value: float
    variance: float
    events: float  # the numerator
    users: float


def click_through(of: Moments) -> Ratio:
    """Clicked of shown items."""
    return _ratio(of.users, of.clicked, of.shown, of.clicked_clicked, of.shown_shown, of.shown_clicked)


def conversion(of: Moments) -> Ratio:
    """Purchased of shown items."""
    return _ratio(of.users, of.purchase, of.shown, of.purchase_purchase, of.shown_shown, of.shown_purchase)


def revenue_per_user(of: Moments) -> Ratio:
    ratio = _ratio(of.users, of.value, of.users, of.value_value, of.users, of.value)
    return ratio._replace(events=of.purchase)


def _ratio(users: float, a: float, b: float, aa: float, bb: float, ab: float) -> Ratio:
    if users < 2 or b <= 0:
        return Ratio(0.0, math.inf, a, users)
    ratio = a / b
    residual = aa - 2 * ratio * ab + ratio**2 * bb  # of a - ratio * b, whose mean is 0
    return Ratio(ratio, max(residual, 0.0) * users / (users - 1) / b**2, a, users)


def ratio_interval(of: Ratio) -> Interval | None:
    """95 %, for one look."""
    if not math.isfinite(of.variance):
        return None
    half = _Z * math.sqrt(of.variance)
    return Interval(max(0.0, of.value - half), of.value + half)


@dataclass(frozen=True, slots=True)
class Lift:
    """How much better a variant is than the first one, relatively: 0.05 is 5 %.

    `interval` contains the true lift at all looks, however many there are, with 95 % probability; where it does not
    contain 0 the variants differ. `p` is the always-valid p-value of the same test.
    """

    lift: float
    interval: Interval
    p: float

    @property
    def different(self) -> bool:
        return self.p < 1 - LEVEL


def lift(base: Ratio, other: Ratio) -> Lift | None:
    """The mixture sequential probability ratio test of the logarithm of the ratio of two variants.

    https://doi.org/10.1287/opre.2021.2135 (Johari et al., Always valid inference). The effect under the alternative is
    mixed over a normal distribution around 0 with `PRIOR_LIFT` as its standard deviation, which is fixed, so that the
    result does not depend on when anybody looks. None while there is too little to tell.
    """
    if min(base.users, other.users) < MIN_USERS or min(base.events, other.events) < MIN_COUNT:
        return None
    if min(base.value, other.value) <= 0:
        return None
    effect = math.log(other.value / base.value)
    variance = base.variance / base.value**2 + other.variance / other.value**2
    if not 0 < variance < math.inf:
        return None
    prior = PRIOR_LIFT**2
    spread = math.log((variance + prior) / variance)
    evidence = prior * effect**2 / (2 * variance * (variance + prior)) - spread / 2  # log of the likelihood ratio
    half = math.sqrt(variance * (variance + prior) / prior * (spread - 2 * math.log(1 - LEVEL)))
    return Lift(
        math.expm1(effect),
        Interval(math.expm1(effect - half), math.expm1(min(effect + half, 50.0))),
        math.exp(-max(evidence, 0.0)),
    )
