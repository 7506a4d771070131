"""Reports: what became of recommendations, by placement and another dimension, and how the variants of experiments do.

Stores keep sums up to date as events arrive, so a report reads a few rows per day and never an event.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from index.catalogue.base import Placement
from index.catalogue.histories import HistoryStore
from index.catalogue.outcomes import DAY, Counts, CountsRow, Dimension, Moments, Trial
from service.reports import statistics
from service.reports.statistics import Interval, Lift, Ratio
from service.rules.experiments import HOLDOUT

By = Literal[Dimension, "part"]
"""What divides the rows of each placement. Part: of a hybrid's score; items that have none are listed by source."""


@dataclass(frozen=True, slots=True)
class Row:
    """Of one placement and one group. Rates are per impression; intervals are of 95 %, for one look."""

    placement: str
    experiment: str | None
    group: str
    impressions: int
    clicks: int
    carts: int
    purchases: int
    revenue: float
    click_through: float
    click_through_interval: Interval
    conversion: float
    conversion_interval: Interval
    revenue_per_impression: float
    revenue_per_impression_interval: Interval | None


@dataclass(frozen=True, slots=True)
class Metric:
    """A number over the users of a variant, and its lift over the first variant, once there is enough to tell."""

    value: float
    interval: Interval | None
    lift: Lift | None = None


@dataclass(frozen=True, slots=True)
class VariantResult:
    variant: str
    users: int
    impressions: int
    clicks: int
    carts: int
    purchases: int
    revenue: float
    click_through: Metric
    conversion: Metric
    revenue_per_user: Metric


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """Since the experiment began. `variants`: the first is what the others are compared with."""

    placement: str
    experiment: str
    variants: list[VariantResult]


@dataclass(frozen=True, slots=True)
class Report:
    """`since`, `until`: days of answers, UTC, both included."""

    by: By
    since: str
    until: str
    rows: list[Row]
    experiments: list[ExperimentResult]


def make_report(
    histories: HistoryStore,
    placements: Mapping[str, Placement],
    by: By = "placement",
    days: int = 30,
    placement: str | None = None,
    now: float | None = None,
) -> Report:
    """Of the answers of the last `days` days, today included; experiments: since they began. Raises CatalogueError.

    placements: those there are now, whose experiments say which variant is the first.
    """
    today = int((time.time() if now is None else now) // DAY)
    since = max(0, today - days + 1)
    counted = histories.outcomes("source" if by == "part" else by, since, today)
    if by in ("source", "part"):
        counted = _joined(counted, by)
    rows = [_row(one) for one in counted if placement in (None, one.placement)]
    trials = [one for one in histories.trials() if placement in (None, one.placement)]
    return Report(by, date_of(since), date_of(today), rows, _experiments(trials, _orders(placements)))


def _joined(rows: Iterable[CountsRow], by: By) -> list[CountsRow]:
    """Stores keep the two as one, such as model:words."""
    found: dict[tuple[str, str], Counts] = {}
    for row in rows:
        source, _, part = str(row.key).partition(":")
        key = row.placement, part if by == "part" and part else source
        found[key] = found.get(key, Counts()).plus(row.counts)
    return [CountsRow(placement, "", key, counts) for (placement, key), counts in sorted(found.items())]


def _row(row: CountsRow) -> Row:
    of = row.counts
    mean = statistics.mean_interval(of.value, of.value2, of.shown)
    return Row(
        row.placement,
        row.experiment or None,
        str(row.key),
        round(of.shown),
        round(of.clicked),
        round(of.cart),
        round(of.purchase),
        of.value,
        of.clicked / of.shown,
        statistics.rate_interval(of.clicked, of.shown),
        of.purchase / of.shown,
        statistics.rate_interval(of.purchase, of.shown),
        of.value / of.shown,
        mean,
    )


def _experiments(trials: Iterable[Trial], orders: Mapping[tuple[str, str], list[str]]) -> list[ExperimentResult]:
    groups: dict[tuple[str, str], dict[str, Moments]] = {}
    for trial in trials:
        groups.setdefault((trial.placement, trial.experiment), {})[trial.variant] = trial.moments
    results = []
    for of, found in groups.items():
        # Variants that are no longer there come last, as does the holdout.
        order = [name for name in orders.get(of, ()) if name in found]
        order += sorted(found.keys() - set(order), key=lambda name: (name == HOLDOUT, name))
        base = found[order[0]]
        results.append(ExperimentResult(*of, [_variant(name, found[name], base) for name in order]))
    return results


def _orders(placements: Mapping[str, Placement]) -> dict[tuple[str, str], list[str]]:
    """The variants of the experiments that run, in the order of the placement."""
    found = {}
    for name, stored in placements.items():
        experiment = json.loads(stored.rules).get("experiment")
        if experiment is not None:
            found[name, experiment["name"]] = [one["name"] for one in experiment["variants"]]
    return found


def _variant(name: str, of: Moments, base: Moments) -> VariantResult:
    def metric(ratio: Ratio, of_base: Ratio) -> Metric:
        compared = None if of is base else statistics.lift(of_base, ratio)
        return Metric(ratio.value, statistics.ratio_interval(ratio), compared)

    return VariantResult(
        name,
        round(of.users),
        round(of.shown),
        round(of.clicked),
        round(of.cart),
        round(of.purchase),
        of.value,
        metric(statistics.click_through(of), statistics.click_through(base)),
        metric(statistics.conversion(of), statistics.conversion(base)),
        metric(statistics.revenue_per_user(of), statistics.revenue_per_user(base)),
    )


def date_of(day: int) -> str:
    """Of days since 1970."""
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()
