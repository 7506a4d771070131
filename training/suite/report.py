"""What a suite found, as report.md, report.json and pictures; cells that are not made yet are gaps."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from seqrec import __version__
from seqrec.data.files import write_text
from training.evaluation.groups import EVERYONE
from training.evaluation.metrics import ties_matter
from training.evaluation.ranking import PESSIMISTIC, PROTOCOLS, Protocol
from training.evaluation.significance import randomization_p
from training.suite.plan import MODEL, Line, Plan, Table
from training.suite.plots import draw
from training.suite.recipes import TEXT_MODELS
from training.suite.results import NDCG, RECALL, Results, Value
from training.suite.store import ExperimentStore, Record

ROUNDS = 2000
WARM, COLD = "warm targets", "cold targets"
TITLES: Mapping[Table, str] = {
    "overall": "All models",
    "zero-shot": "Zero-shot: pretrained on other data, and not trained on this",
    "training-data": "With less training data",
    "warm-cold": "Warm and cold targets",
    "ablations": "What Recformer's parts are worth",
    "pretraining-steps": "Pretraining, step by step",
}


def write_report(
    out: Path, lines: Sequence[Line], plan: Plan, workshop: ExperimentStore, failed: Mapping[str, str]
) -> None:
    """Raises InputError without matplotlib."""
    results = Results(workshop, lines)
    of_table: dict[Table, list[Line]] = {}
    for line in lines:
        of_table.setdefault(line.table, []).append(line)
    pictures = draw(out, of_table, results)
    orders = orderings(of_table, results)
    blocks = ["# The paper's tables", _about(plan, workshop, results, failed)]
    if orders:
        blocks += ["## Does the paper's order hold here?", "\n".join(f"- {order['said']}" for order in orders)]
    for table, own in of_table.items():
        blocks += [f"## {TITLES[table]}", _TABLES[table](own, results, plan)]
        blocks += [] if table == "pretraining-steps" else _ties(own, results)
        blocks += [f"![{caption}]({name})" for name, caption in pictures.get(table, {}).items()]
    write_text(out / "report.md", "\n\n".join(blocks) + "\n")
    record = {
        "seqrec": __version__,
        "quick": plan.recipes.quick,
        "users": len(workshop.dataset.evaluated("test")),
        "items": len(workshop.dataset.items),
        "data_digest": workshop.dataset.digest,
        "pretrained_on": [other.digest for other in workshop.others],
        "seeds": list(plan.seeds),
        "lines": [_json(line, results) for line in lines],
        "orderings": orders,
        "failed": dict(failed),
    }
    write_text(out / "report.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _about(plan: Plan, workshop: ExperimentStore, results: Results, failed: Mapping[str, str]) -> str:
    dataset = workshop.dataset
    made = sum(record is not None for record in results.records.values())
    began = "what trains of this data set itself"
    if plan.pretrained:
        began = f"{len(workshop.others)} other data set{'s' if len(workshop.others) > 1 else ''}"
    quick = "Quick settings. " if plan.recipes.quick else ""
    said = [
        f"The last item of {len(dataset.evaluated('test')):,} users, ranked among {len(dataset.items):,} items, those "
        f"of the history too unless *unseen only* is said. {quick}Text models are pretrained on {began}, once, with "
        f"seed {plan.seeds[0]}, from {'a text encoder' if plan.text_encoder else 'random weights'}.",
        f"Seeds: {', '.join(map(str, plan.seeds))}. "
        + (
            "Behind ± is the standard deviation over them; in brackets, of what is made once, the 95 % interval over "
            "users."
            if len(plan.seeds) > 1
            else "In brackets is the 95 % interval over users; it says nothing about other seeds."
        ),
        f"{made} of {len(results.records)} cells are made. seqrec {__version__}, Python {platform.python_version()}.",
    ]
    said += [f"Failed: {name}: {reason}" for name, reason in failed.items()]
    return "\n\n".join(said)


def _overall(lines: Sequence[Line], results: Results, plan: Plan) -> str:
    header = ["", NDCG, RECALL, "MRR", f"{NDCG}, unseen only", f"{RECALL}, unseen only", "minutes"]
    rows = []
    for line in lines:
        columns: list[tuple[str, Protocol]] = [(name, PROTOCOLS[0]) for name in (NDCG, RECALL, "MRR")]
        columns += [(name, PROTOCOLS[1]) for name in (NDCG, RECALL)]
        cells = [_said(results.value(line, figure, protocol)) for figure, protocol in columns]
        rows.append([line.label, *cells, results.minutes(line)])
    return _markdown(header, rows)


def _training_data(lines: Sequence[Line], results: Results, plan: Plan) -> str:
    shares = list(dict.fromkeys(line.share for line in lines))
    rows = []
    for label in dict.fromkeys(line.label for line in lines):
        own = {line.share: line for line in lines if line.label == label}
        rows.append([label, *(_said(results.value(own[share])) if share in own else "-" for share in shares)])
    note = "All users are evaluated, and validated on; the share is of those who train."
    return f"{note}\n\n" + _markdown([NDCG, *(f"{share:.0%}" for share in shares)], rows)


def _warm_cold(lines: Sequence[Line], results: Results, plan: Plan) -> str:
    if not results.users(lines, COLD):
        return "Every target was seen in training: there is nothing cold here."
    groups = [(group, results.users(lines, group)) for group in (WARM, COLD)]
    header = ["", *(f"{figure}, {group} ({users:,} users)" for group, users in groups for figure in (NDCG, RECALL))]
    rows = [
        [line.label, *(_said(results.value(line, figure, group=g)) for g, _ in groups for figure in (NDCG, RECALL))]
        for line in lines
    ]
    return _markdown(header, rows)


def _ablations(lines: Sequence[Line], results: Results, plan: Plan) -> str:
    rows = [
        [line.label, *(_said(results.value(line, figure)) for figure in (NDCG, RECALL)), results.minutes(line)]
        for line in lines
    ]
    note = (
        "The paper's trainable item embeddings are a table of vectors; here an item's vector is always made from its "
        "text, and *trained through its text* trains both sides at once."
    )
    return f"{note}\n\n" + _markdown(["", NDCG, RECALL, "minutes"], rows)


def _pretraining_steps(lines: Sequence[Line], results: Results, plan: Plan) -> str:
    steps = results.steps(lines[0].cells[0])
    what = "zero-shot" if plan.pretrained else "on this data set, which it is pretrained on"
    return _markdown(["step", f"{NDCG} on test items, {what}"], [[f"{step:,}", f"{ndcg:.4f}"] for step, ndcg in steps])


_TABLES: Mapping[Table, Callable[[Sequence[Line], Results, Plan], str]] = {
    "overall": _overall,
    "zero-shot": _overall,
    "training-data": _training_data,
    "warm-cold": _warm_cold,
    "ablations": _ablations,
    "pretraining-steps": _pretraining_steps,
}


def orderings(of_table: Mapping[Table, Sequence[Line]], results: Results) -> list[Record]:
    """The paper's claims, each with whether it holds here: Recformer above every model of ids overall; text models
    above those on cold items and with 1 to 10 % of the data. `p`: of the same users, by a randomisation test."""
    found: list[Record] = []

    def best(lines: Sequence[Line], group: str, of_text: bool) -> Line | None:
        known = [line for line in lines if line.method == MODEL and (line.label in TEXT_MODELS) is of_text]
        known = [line for line in known if results.value(line, group=group) is not None]
        return max(known, key=lambda line: getattr(results.value(line, group=group), "mean", 0.0), default=None)

    def compare(claim: str, one: Line | None, other: Line | None, group: str = EVERYONE) -> None:
        if one is None or other is None:
            return
        ours, theirs = results.value(one, group=group), results.value(other, group=group)
        assert ours is not None
        assert theirs is not None
        holds, p = ours.mean > theirs.mean, None
        said = f"{claim}: {'yes' if holds else '**no**'}; {one.label} {ours.mean:.4f}, {other.label} {theirs.mean:.4f}"
        if group == EVERYONE:
            difference = results.of_users(one) - results.of_users(other)
            p = float(randomization_p(difference[:, None], ROUNDS, 0)[0])
            said += f", p = {p:.2g}"
        behind = [results.value(line, f"{NDCG}{PESSIMISTIC}", group=group) for line in (one, other)]
        if any(b and ties_matter(v.mean, b.mean) for v, b in zip((ours, theirs), behind, strict=True)):
            said += "; ranked behind their ties " + ", ".join(f"{b.mean:.4f}" for b in behind if b)
        found.append({"claim": claim, "holds": holds, "ours": ours.mean, "theirs": theirs.mean, "p": p, "said": said})

    overall = of_table.get("overall") or of_table.get("warm-cold") or []
    recformer = [line for line in overall if line.label == "recformer"]
    compare("Recformer is above every model of ids", best(recformer, EVERYONE, True), best(overall, EVERYONE, False))
    compare("text is above ids on cold targets", best(overall, COLD, True), best(overall, COLD, False), COLD)
    for share in (0.01, 0.05, 0.1):
        lines = [line for line in of_table.get("training-data", ()) if line.share == share]
        claim = f"text is above ids with {share:.0%} of the training data"
        compare(claim, best(lines, EVERYONE, True), best(lines, EVERYONE, False))
    return found


def _ties(lines: Sequence[Line], results: Results) -> list[str]:
    """Such as where a model knows so few items that all others tie within the first ten."""
    said = []
    for line in lines:
        value, behind = results.value(line), results.value(line, f"{NDCG}{PESSIMISTIC}")
        if value and behind and ties_matter(value.mean, behind.mean):
            of = line.label if line.share == 1 else f"{line.label} with {line.share:.0%}"
            said.append(f"{of} {behind.mean:.4f}")
    return [f"Equal scores decide. {NDCG} ranked behind its ties: {', '.join(said)}."] if said else []


def _json(line: Line, results: Results) -> Record:
    records = results.of(line)
    return {
        "table": line.table,
        "method": line.label,
        "share": line.share,
        "cells": [results.workshop.path(cell).name for cell in line.cells],
        "measured": len(records),
        "by_seed": [record["methods"][line.method] for record in records],
        "seconds": [record["seconds"] for record in records if "seconds" in record],
        **({"steps": results.steps(line.cells[0])} if line.table == "pretraining-steps" else {}),
    }


def _said(value: Value | None) -> str:
    return "-" if value is None else str(value)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
