"""A planted lift is found, no lift is not, however often one looks; intervals contain what they should."""

from __future__ import annotations

import numpy as np
import pytest

from index.catalogue.outcomes import Counts, Moments
from service.reports import statistics
from service.reports.statistics import Lift, Ratio

USERS = 50_000
DAYS = 28
CLICK_RATE = 0.05
SHOWN_A_DAY = 1.0
"""Items that a user sees in the placement on a day, on average: 28 in four weeks."""


class Shop:
    """Users with click rates of their own, in two variants of which the second has a lift."""

    def __init__(self, seed: int, lift: float, users: int = USERS) -> None:
        self.random = np.random.default_rng(seed)
        self.second = self.random.random(users) < 0.5
        own = self.random.gamma(2.0, 0.5, users)  # mean 1: some click often, most rarely
        self.visits = self.random.gamma(1.0, SHOWN_A_DAY, users)
        self.rate = np.minimum(CLICK_RATE * own * np.where(self.second, 1 + lift, 1.0), 1.0)
        self.shown = np.zeros(users)
        self.clicked = np.zeros(users)
        self.value = np.zeros(users)

    def day(self) -> None:
        shown = self.random.poisson(self.visits)
        clicked = self.random.binomial(shown, self.rate)
        self.shown += shown
        self.clicked += clicked
        self.value += self.random.binomial(clicked, 0.1) * 20.0

    def moments(self, second: bool) -> Moments:
        of = (self.second == second) & (self.shown > 0)
        s, c, v = self.shown[of], self.clicked[of], self.value[of]
        sums = Moments(
            users=len(s),
            shown=s.sum(),
            clicked=c.sum(),
            value=v.sum(),
            shown_shown=(s * s).sum(),
            clicked_clicked=(c * c).sum(),
            value_value=(v * v).sum(),
            shown_clicked=(s * c).sum(),
            shown_value=(s * v).sum(),
        )
        return Moments(*map(float, sums))

    def look(self) -> Lift | None:
        first, second = (statistics.click_through(self.moments(second)) for second in (False, True))
        return statistics.lift(first, second)


def looks(shop: Shop) -> list[Lift]:
    found = []
    for _ in range(DAYS):
        shop.day()
        if (lift := shop.look()) is not None:
            found.append(lift)
    return found


@pytest.mark.slow
def test_a_planted_lift_of_5_percent_is_found() -> None:
    """50,000 users, a click rate of 5 %, looked at each day."""
    found = [any(one.different for one in looks(Shop(seed, 0.05))) for seed in range(10)]
    assert sum(found) >= 8
    last = looks(Shop(0, 0.05))[-1]
    assert last.different
    assert last.lift > 0
    assert last.interval.low < 0.05 < last.interval.high


@pytest.mark.slow
def test_runs_without_a_difference_raise_at_most_5_false_alarms_of_100() -> None:
    """Looked at each day for four weeks: a test for one look would raise about four times as many."""
    alarms = naive = outside = 0
    for seed in range(100):
        shop = Shop(1000 + seed, 0.0, 5_000)
        alarmed = fixed = missed = False
        for _ in range(DAYS):
            shop.day()
            one = shop.look()
            if one is not None:
                alarmed |= one.different
                missed |= not one.interval.low <= 0 <= one.interval.high
                first, second = (statistics.click_through(shop.moments(second)) for second in (False, True))
                fixed |= abs(second.value - first.value) > 1.96 * (first.variance + second.variance) ** 0.5
        alarms += alarmed
        naive += fixed
        outside += missed
    assert alarms <= 5
    assert outside == alarms  # the interval and the p-value are one test
    assert naive > 10


@pytest.mark.slow
def test_variances_are_those_between_users() -> None:
    """Against the spread of many repetitions; binomial variances would be too small."""
    values, variances, revenues, revenue_variances, binomial = [], [], [], [], []
    for seed in range(300):
        shop = Shop(5000 + seed, 0.0, 1_000)
        for _ in range(5):
            shop.day()
        moments = shop.moments(False)
        one, revenue = statistics.click_through(moments), statistics.revenue_per_user(moments)
        values.append(one.value)
        variances.append(one.variance)
        binomial.append(one.value * (1 - one.value) / moments.shown)
        revenues.append(revenue.value)
        revenue_variances.append(revenue.variance)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.25)
    assert np.mean(revenue_variances) == pytest.approx(np.var(revenues), rel=0.25)
    assert np.mean(binomial) < 0.85 * np.mean(variances)


def test_intervals() -> None:
    low, high = statistics.rate_interval(5, 100)
    assert (low, high) == pytest.approx((0.0215, 0.1118), abs=1e-4)  # as R's prop.test without correction
    assert statistics.rate_interval(0, 0) == (0, 1)
    assert statistics.rate_interval(0, 10).low == pytest.approx(0, abs=1e-12)
    assert statistics.rate_interval(10, 10).high == 1
    assert statistics.mean_interval(6, 14, 3) == pytest.approx((2 - 1.1316, 2 + 1.1316), abs=1e-4)
    assert statistics.mean_interval(1, 1, 1) is None


def test_too_little_says_nothing() -> None:
    enough = Ratio(0.05, 1e-6, 1000, 1000)
    assert statistics.lift(enough, enough) is not None
    for few in (
        Ratio(0.05, 1e-6, 49, 1000),
        Ratio(0.05, 1e-6, 1000, 99),
        Ratio(0.0, 1e-6, 1000, 1000),
        statistics.conversion(Moments()),
        statistics.revenue_per_user(Moments(users=1)),
    ):
        assert statistics.lift(enough, few) is None
        assert statistics.lift(few, enough) is None
    one = statistics.lift(enough, enough)
    assert one is not None
    assert (one.lift, one.p) == (0, 1)


def test_moments_follow_changes() -> None:
    before, after = Counts(3, 1, 0, 1, 2.0), Counts(4, 2, 0, 1, 2.0)
    moments = Moments().changed(Counts(), before).changed(before, after)
    assert moments == Moments(1, 4, 2, 0, 1, 2.0, 16, 4, 1, 4.0, 8, 4, 8.0)
    assert moments.changed(after, Counts()) == Moments()
