"""The command `seqrec report`: what became of recommendations, with or without a running service."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from index.arguments import add_common
from index.catalogue.open import location_of, open_catalogue, open_histories
from index.snapshot.snapshot import SnapshotStore
from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser
from service.reports.candidate import CandidateReport, estimate_candidate
from service.reports.report import By, ExperimentResult, Metric, Report, make_report
from service.reports.statistics import Interval
from service.settings import load_settings


def report(argv: list[str]) -> None:
    parser = Parser(
        "seqrec report",
        description="Impressions, clicks, purchases and revenue of recommendations, and how variants compare.",
    )
    parser.add_argument("--by", choices=get_args(By), default="placement", help="default: placement")
    parser.add_argument("--days", type=int, default=30, metavar="N", help="answers of the last N days; default: 30")
    parser.add_argument("--placement", metavar="NAME", help="of this one only; with --candidate whose places")
    parser.add_argument(
        "--candidate",
        metavar="SNAPSHOT",
        help="estimate what this snapshot would bring, from places that `explore` filled at random",
    )
    add_common(parser)
    arguments = parser.parse_args(argv)
    if arguments.days < 1:
        raise InputError(f"at least 1, not {arguments.days}", "--days")
    location = location_of(arguments.home)
    if arguments.candidate is not None:
        _candidate(arguments, location)
        return
    with closing(open_catalogue(location)) as catalogue, closing(open_histories(location)) as histories:
        made = make_report(histories, catalogue.placements(), arguments.by, arguments.days, arguments.placement)
    print(json.dumps(asdict(made), ensure_ascii=False) if arguments.json else text(made))


def _candidate(arguments: argparse.Namespace, location: str | Path) -> None:
    if arguments.placement is None:
        raise InputError("name the placement whose places were filled at random", "--placement")
    if arguments.candidate not in SnapshotStore(arguments.home).list():
        raise InputError(
            f"there is no snapshot {arguments.candidate!r}; `seqrec index list` lists those there are", "--candidate"
        )
    # A candidate that was never published has no collection in Milvus; its own files are enough.
    settings = load_settings({"home": arguments.home, "milvus_url": None})
    with closing(open_catalogue(location)) as catalogue, closing(open_histories(location)) as histories:
        made = estimate_candidate(
            settings, catalogue, histories, arguments.candidate, arguments.placement, arguments.days
        )
    print(json.dumps(asdict(made), ensure_ascii=False) if arguments.json else candidate_text(made))


def candidate_text(report: CandidateReport) -> str:
    """For people."""
    lines = [
        f"{report.since} to {report.until}, snapshot {report.snapshot} in {report.placement}: "
        f"{report.places:,} random places of {report.answers:,} answers to {report.users:,} users"
    ]
    table = [["per place", "in the log", "candidate", "effective places", "support"]]
    for one in report.metrics:
        found, logged = one.candidate, _rate(one.logged, one.logged_interval)
        if found is None:
            table.append([one.metric, logged, "-", "0", "0%"])
            continue
        of = found.interval
        value = f"{found.estimate:.2%} (no interval)" if of is None else _rate(found.estimate, of)
        table.append([one.metric, logged, value, f"{found.effective:,.1f}", f"{found.support:.0%}"])
    if report.metrics:
        lines += _aligned(table, 1)
    return "\n".join([*lines, *(f"warning: {one}" for one in report.warnings)])


def text(report: Report) -> str:
    """For people."""
    lines = [f"{report.since} to {report.until}, by {report.by}"]
    if not report.rows:
        return "\n".join([*lines, "no outcomes: send recommendation_id with events, see docs/experiments.md"])
    names = ["placement", *([] if report.by == "placement" else [report.by])]
    head = [*names, "impressions", "clicks", "click-through", "purchases", "conversion", "revenue", "per impression"]
    table = [head]
    for row in report.rows:
        group = [] if report.by == "placement" else [row.group or "-"]
        table.append(
            [
                row.placement,
                *group,
                f"{row.impressions:,}",
                f"{row.clicks:,}",
                _rate(row.click_through, row.click_through_interval),
                f"{row.purchases:,}",
                _rate(row.conversion, row.conversion_interval),
                f"{row.revenue:,.2f}",
                f"{row.revenue_per_impression:.4f}",
            ]
        )
    lines += _aligned(table, len(names))
    for experiment in report.experiments:
        lines += ["", *_experiment(experiment)]
    return "\n".join(lines)


def _experiment(of: ExperimentResult) -> list[str]:
    lines = [f"experiment {of.experiment} of {of.placement}, since it began"]
    table = [["variant", "users", "impressions", "click-through", "conversion", "revenue per user"]]
    for one in of.variants:
        numbers = [f"{one.users:,}", f"{one.impressions:,}", f"{one.click_through.value:.3%}"]
        table.append([one.variant, *numbers, f"{one.conversion.value:.3%}", f"{one.revenue_per_user.value:.4f}"])
    lines += _aligned(table, 1)
    base = of.variants[0].variant
    for one in of.variants[1:]:
        metrics = (("click-through", one.click_through), ("conversion", one.conversion))
        for name, metric in (*metrics, ("revenue per user", one.revenue_per_user)):
            lines.append(f"  {one.variant} against {base}, {name}: {_compared(metric)}")
    return lines


def _compared(metric: Metric) -> str:
    lift = metric.lift
    if lift is None:
        return "not enough yet"
    said = "different" if lift.different else "no difference shown"
    return f"{lift.lift:+.1%} ({lift.interval.low:+.1%} to {lift.interval.high:+.1%}), p = {lift.p:.3g}: {said}"


def _rate(rate: float, interval: Interval) -> str:
    return f"{rate:.2%} ({interval.low:.2%}-{interval.high:.2%})"


def _aligned(table: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns as wide as their longest entry; the first `left` ones to the left."""
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
