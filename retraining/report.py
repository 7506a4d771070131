"""The report of a retraining, for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from retraining.checks import EventCheck
from retraining.comparison import CANDIDATE, FIGURE, SERVED, Comparison, ShownUser
from retraining.data import ExportedData
from retraining.recipe import TrainingRecipe
from seqrec.data.items import attribute_text
from seqrec.encoder import Encoder
from training.data.dataset import Dataset
from training.evaluation import report as tables

_TITLES = {
    "published": "published",
    "not published": "not published",
    "refused": "refused, nothing was trained",
}


@dataclass(frozen=True, eq=False)
class Report:
    result: str
    reason: str
    began: float  # Unix seconds
    seconds: float
    data: ExportedData
    events: EventCheck | None
    snapshot_before: str
    snapshot: str | None
    folder: Path
    recipe: TrainingRecipe | None
    dataset: Dataset | None
    served: Encoder | None
    candidate: Encoder | None
    comparison: Comparison | None
    users: Sequence[ShownUser]


def markdown(report: Report) -> str:
    blocks = [f"# Retraining of {_time(report.began)}: {_TITLES[report.result]}", f"{_sentence(report.reason)}"]
    blocks.append(_served_now(report))
    if report.comparison is not None:
        blocks += _compared(report.comparison)
        blocks += _changed(report)
    blocks += _data(report)
    if report.users and report.dataset is not None:
        blocks += _users(report.users, report.dataset)
    return "\n\n".join(blocks) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    record: dict[str, Any] = {
        "format": 1,
        "result": report.result,
        "reason": report.reason,
        "began": report.began,
        "seconds": round(report.seconds, 1),
        "snapshot_before": report.snapshot_before,
        "snapshot": report.snapshot,
        "data": {name: getattr(report.data, name) for name in ("items", "available", "events", "unknown", "ignored")},
        "events": None if report.events is None else asdict(report.events),
    }
    if report.comparison is None or report.recipe is None:
        return record
    verdict = report.comparison.verdict
    return record | {
        "verdict": {
            "figure": FIGURE,
            "mode": verdict.mode,
            "passed": verdict.passed,
            "limit": verdict.limit,
            "tolerance": verdict.tolerance,
            "served": asdict(verdict.served),
            "candidate": asdict(verdict.candidate),
            "difference": asdict(verdict.test),
        },
        "parts": report.comparison.parts,
        "settings": {SERVED: _settings(report.served), CANDIDATE: _settings(report.candidate)},
        "recipe": {"source": report.recipe.source, "start": report.recipe.start, "stages": report.recipe.config.stages},
        "evaluation": tables.as_json(report.comparison.evaluation),
        "users": [asdict(user) for user in report.users],
    }


def _served_now(report: Report) -> str:
    if report.snapshot is not None:
        return (
            f"Snapshot {report.snapshot} is served since; `seqrec index rollback` goes back to "
            f"{report.snapshot_before}."
        )
    served = f"Snapshot {report.snapshot_before} is served as before."
    if report.comparison is None:
        return served
    checkpoint = report.folder / "checkpoint"
    return f"{served} The candidate is kept; to serve it all the same: `seqrec reindex --checkpoint {checkpoint}`."


def _compared(comparison: Comparison) -> list[str]:
    evaluation, verdict = comparison.evaluation, comparison.verdict
    rows = []
    for group in dict.fromkeys(row.group for row in evaluation.rows if row.breakdown == "targets"):
        served, candidate = (evaluation.row(name, verdict.mode, group) for name in (SERVED, CANDIDATE))
        cells = [_figure(row.figures[FIGURE]) for row in (served, candidate)]
        recall = [f"{row.figures['Recall@10'].value:.4f}" for row in (served, candidate)]
        rows.append([group, f"{served.users:,}", *cells, *recall])
    header = ["", "users", "NDCG@10 served", "NDCG@10 candidate", "Recall@10 served", "Recall@10 candidate"]
    test = verdict.test
    blocks = [
        "## Before and after",
        f"{tables.heading(evaluation)}. Candidates: {verdict.mode}. 95 % intervals in brackets; ties count against.",
        tables.markdown_table(header, rows),
        f"Difference over the same users: {test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}], "
        f"p = {test.p:.2g}. Published if the lower end is at least {verdict.limit:+.4f}, which is "
        f"{verdict.tolerance:.0%} of the served model's NDCG@10.",
    ]
    if any(comparison.parts.values()):
        names = list(dict.fromkeys(name for parts in comparison.parts.values() for name in parts))
        parts = [
            [name, *(_number(comparison.parts[model].get(name)) for model in (SERVED, CANDIDATE))] for name in names
        ]
        blocks += ["Each part of the score alone, NDCG@10:", tables.markdown_table(["part", SERVED, CANDIDATE], parts)]
    return blocks


def _changed(report: Report) -> list[str]:
    assert report.recipe is not None
    lines = [
        f"- Recipe: {report.recipe.source}; stages {', '.join(report.recipe.config.stages)}.",
        f"- Started from {report.recipe.start}.",
    ]
    before, after = _settings(report.served), _settings(report.candidate)
    changed = [
        [name, _plain(before.get(name)), _plain(after.get(name))] for name in after if before.get(name) != after[name]
    ]
    blocks = ["## What changed", "\n".join(lines)]
    if changed:
        blocks.append(tables.markdown_table(["setting", SERVED, CANDIDATE], changed))
    elif after:
        blocks.append("The weights of the parts are the same.")
    return blocks


def _data(report: Report) -> list[str]:
    data = report.data
    lines = [
        f"- {data.items:,} items, {data.available:,} of them available.",
        f"- {data.events:,} events; not counted: {data.unknown:,} of items that are not in the catalogue, "
        f"{data.ignored:,} of types that make no history.",
    ]
    if report.events is not None:
        newest, before = report.events.newest, report.events.before
        lines.append(
            f"- Plain co-occurrence finds {newest.value:.4f} (NDCG@10) in the newest events, and found "
            f"{before.value:.4f} in the period before."
        )
    if report.dataset is not None and report.dataset.cuts.moments:
        valid, test = report.dataset.cuts.moments
        lines.append(f"- Trained on events before {_time(valid)}, settings chosen on those before {_time(test)}.")
    lines.append(f"- It took {report.seconds / 60:.1f} minutes.")
    return ["## Data", "\n".join(lines)]


def _users(users: Sequence[ShownUser], dataset: Dataset) -> list[str]:
    titles = {item.item_id: next((attribute_text(v) for v in item.attributes.values()), "") for item in dataset.items}

    def names(item_ids: Sequence[str], marked: str = "") -> str:
        return "; ".join(
            f"{'**' if item_id == marked else ''}{titles[item_id][:60] or item_id}{'**' if item_id == marked else ''}"
            for item_id in item_ids
        )

    blocks = [f"## {len(users)} users before and after", "In bold: what the user had next."]
    for user in users:
        lines = [
            f"- had, newest last: {names(user.history)}",
            f"- next: {names([user.next_item])}",
            f"- served: {names(user.served, user.next_item)}",
            f"- candidate: {names(user.candidate, user.next_item)}",
        ]
        blocks += [f"**{user.user_id}**", "\n".join(lines)]
    return blocks


def _settings(encoder: Encoder | None) -> Mapping[str, Any]:
    """Of a hybrid, flat."""
    settings = None if encoder is None else encoder.hybrid
    if settings is None:
        return {}
    own = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "cooccurrence"}
    return own | {f"co-occurrence {name}": value for name, value in asdict(settings.cooccurrence).items()}


def _figure(figure: Any) -> str:
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
