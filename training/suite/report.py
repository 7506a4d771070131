"""The report of a suite: report.md, report.json and plots. Experiments that are not done yet leave gaps."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from seqrec import __version__
from seqrec.data.files import write_text
from training.evaluation.groups import EVERYONE
from training.evaluation.metrics import ties_matter
from training.evaluation.ranking import CANDIDATE_MODES, PESSIMISTIC, CandidateMode
from training.evaluation.report import markdown_table
from training.evaluation.significance import randomization_p
from training.suite.plan import MODEL, Plan, Table, TableRow
from training.suite.plots import draw
from training.suite.recipes import TEXT_MODELS
from training.suite.results import NDCG, RECALL, Results, Value
from training.suite.store import ExperimentStore, Record

ROUNDS = 2000
WARM, COLD = "warm targets", "cold targets"
TITLES: Mapping[Table, str] = {
    "overall": "All models",
    "zero-shot": "Zero-shot: pretrained on other data, not trained on this",
    "training-data": "With less training data",
    "warm-cold": "Warm and cold targets",
    "ablations": "Ablations of Recformer",
    "pretraining-steps": "Pretraining steps",
}
Rows = Sequence[TableRow]


def write_report(out: Path, rows: Rows, plan: Plan, store: ExperimentStore, failed: Mapping[str, str]) -> None:
    """Writes report.md, report.json and the plots into `out`."""
    results = Results(store, rows)
    of_table: dict[Table, list[TableRow]] = {}
    for row in rows:
        of_table.setdefault(row.table, []).append(row)
    plots = draw(out, of_table, results)
    claims = check_claims(of_table, results)
    blocks = ["# The paper's tables", _summary(plan, store, results, failed)]
    if claims:
        blocks += ["## Does the paper's order hold here?", "\n".join(f"- {claim['text']}" for claim in claims)]
    for table, own in of_table.items():
        blocks += [f"## {TITLES[table]}", _TABLES[table](own, results, plan)]
        blocks += [] if table == "pretraining-steps" else _ties(own, results)
        blocks += [f"![{caption}]({name})" for name, caption in plots.get(table, {}).items()]
    write_text(out / "report.md", "\n\n".join(blocks) + "\n")
    record = {
        "seqrec": __version__,
        "quick": plan.recipes.quick,
        "users": len(store.dataset.evaluated("test")),
        "items": len(store.dataset.items),
        "data_digest": store.dataset.digest,
        "pretrained_on": [other.digest for other in store.others],
        "seeds": list(plan.seeds),
        "lines": [_json(row, results) for row in rows],
        "orderings": claims,
        "failed": dict(failed),
    }
    write_text(out / "report.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _summary(plan: Plan, store: ExperimentStore, results: Results, failed: Mapping[str, str]) -> str:
    dataset = store.dataset
    done = sum(record is not None for record in results.records.values())
    source = "the training part of this data set"
    if plan.pretrained:
        source = f"{len(store.others)} other data set{'s' if len(store.others) > 1 else ''}"
    quick = "Quick settings. " if plan.recipes.quick else ""
    paragraphs = [
        f"The last item of {len(dataset.evaluated('test')):,} users is ranked among {len(dataset.items):,} items, "
        f"including those of the history; columns marked *unseen only* exclude them. {quick}Text models are pretrained "
        f"on {source}, once, with seed {plan.seeds[0]}, from "
        f"{'a text encoder' if plan.text_encoder else 'random weights'}.",
        f"Seeds: {', '.join(map(str, plan.seeds))}. "
        + (
            "± is the standard deviation over seeds; brackets are the 95 % interval over users, for results with one "
            "seed."
            if len(plan.seeds) > 1
            else "Brackets are the 95 % interval over users; other seeds may differ by more."
        ),
        f"{done} of {len(results.records)} experiments are done. seqrec {__version__}, Python "
        f"{platform.python_version()}.",
    ]
    paragraphs += [f"Failed: {name}: {reason}" for name, reason in failed.items()]
    return "\n\n".join(paragraphs)


def _overall(rows: Rows, results: Results, plan: Plan) -> str:
    header = ["", NDCG, RECALL, "MRR", f"{NDCG}, unseen only", f"{RECALL}, unseen only", "minutes"]
    columns: list[tuple[str, CandidateMode]] = [(name, CANDIDATE_MODES[0]) for name in (NDCG, RECALL, "MRR")]
    columns += [(name, CANDIDATE_MODES[1]) for name in (NDCG, RECALL)]
    body = [
        [row.label, *(_format(results.value(row, figure, mode)) for figure, mode in columns), results.minutes(row)]
        for row in rows
    ]
    return markdown_table(header, body)


def _training_data(rows: Rows, results: Results, plan: Plan) -> str:
    shares = list(dict.fromkeys(row.share for row in rows))
    body = []
    for label in dict.fromkeys(row.label for row in rows):
        own = {row.share: row for row in rows if row.label == label}
        body.append([label, *(_format(results.value(own[share])) if share in own else "-" for share in shares)])
    note = "Columns: the share of users in training. Validation and test use all users."
    return f"{note}\n\n" + markdown_table([NDCG, *(f"{share:.0%}" for share in shares)], body)


def _warm_cold(rows: Rows, results: Results, plan: Plan) -> str:
    if not results.users(rows, COLD):
        return "All targets were seen in training: there are no cold targets."
    groups = [(group, results.users(rows, group)) for group in (WARM, COLD)]
    header = ["", *(f"{figure}, {group} ({users:,} users)" for group, users in groups for figure in (NDCG, RECALL))]
    body = [
        [row.label, *(_format(results.value(row, figure, group=g)) for g, _ in groups for figure in (NDCG, RECALL))]
        for row in rows
    ]
    return markdown_table(header, body)


def _ablations(rows: Rows, results: Results, plan: Plan) -> str:
    body = [
        [row.label, *(_format(results.value(row, figure)) for figure in (NDCG, RECALL)), results.minutes(row)]
        for row in rows
    ]
    note = (
        "In the paper, trainable item embeddings are a table of vectors. Here an item's vector is always computed from "
        "its text; *trained through its text* trains both towers at the same time."
    )
    return f"{note}\n\n" + markdown_table(["", NDCG, RECALL, "minutes"], body)


def _pretraining_steps(rows: Rows, results: Results, plan: Plan) -> str:
    steps = results.steps(rows[0].experiments[0])
    where = "zero-shot" if plan.pretrained else "on this data set, which it is pretrained on"
    body = [[f"{step:,}", f"{ndcg:.4f}"] for step, ndcg in steps]
    return markdown_table(["step", f"{NDCG} on test items, {where}"], body)


_TABLES: Mapping[Table, Callable[[Rows, Results, Plan], str]] = {
    "overall": _overall,
    "zero-shot": _overall,
    "training-data": _training_data,
    "warm-cold": _warm_cold,
    "ablations": _ablations,
    "pretraining-steps": _pretraining_steps,
}


def check_claims(of_table: Mapping[Table, Rows], results: Results) -> list[Record]:
    """The paper's claims and whether they hold here: Recformer above every id model overall; text models above id
    models on cold items and with 1 to 10 % of the data.

    Models are chosen and compared by NDCG@10 behind ties, so that a model whose scores tie cannot win by it. `p`: a
    randomisation test over the same users.
    """
    claims: list[Record] = []

    def behind_ties(row: TableRow, group: str) -> float:
        value = results.value(row, f"{NDCG}{PESSIMISTIC}", group=group)
        return 0.0 if value is None else value.mean

    def best(rows: Rows, group: str, of_text: bool) -> TableRow | None:
        known = [row for row in rows if row.method == MODEL and (row.label in TEXT_MODELS) is of_text]
        known = [row for row in known if results.value(row, group=group) is not None]
        return max(known, key=lambda row: behind_ties(row, group), default=None)

    def compare(claim: str, one: TableRow | None, other: TableRow | None, group: str = EVERYONE) -> None:
        if one is None or other is None:
            return
        ours, theirs = results.value(one, group=group), results.value(other, group=group)
        assert ours is not None
        assert theirs is not None
        behind = behind_ties(one, group), behind_ties(other, group)
        holds, p = behind[0] > behind[1], None
        text = f"{claim}: {'yes' if holds else '**no**'}; {one.label} {ours.mean:.4f}, {other.label} {theirs.mean:.4f}"
        if group == EVERYONE:
            difference = results.ndcg_by_user(one) - results.ndcg_by_user(other)
            p = float(randomization_p(difference[:, None], ROUNDS, 0)[0])
            text += f", p = {p:.2g}"
        if any(ties_matter(value.mean, low) for value, low in zip((ours, theirs), behind, strict=True)):
            text += f"; ranked behind their ties {behind[0]:.4f}, {behind[1]:.4f}"
        claims.append({"claim": claim, "holds": holds, "ours": ours.mean, "theirs": theirs.mean, "p": p, "text": text})

    overall = of_table.get("overall") or of_table.get("warm-cold") or []
    recformer = [row for row in overall if row.label == "recformer"]
    compare("Recformer is above every id model", best(recformer, EVERYONE, True), best(overall, EVERYONE, False))
    compare("text is above ids on cold targets", best(overall, COLD, True), best(overall, COLD, False), COLD)
    for share in (0.01, 0.05, 0.1):
        rows = [row for row in of_table.get("training-data", ()) if row.share == share]
        claim = f"text is above ids with {share:.0%} of the training data"
        compare(claim, best(rows, EVERYONE, True), best(rows, EVERYONE, False))
    return claims


def _ties(rows: Rows, results: Results) -> list[str]:
    """A note on methods with many ties, such as a model that knows so few items that the others tie in the top ten."""
    found = []
    for row in rows:
        value, behind = results.value(row), results.value(row, f"{NDCG}{PESSIMISTIC}")
        if value and behind and ties_matter(value.mean, behind.mean):
            label = row.label if row.share == 1 else f"{row.label} with {row.share:.0%}"
            found.append(f"{label} {behind.mean:.4f}")
    return [f"Ties matter. {NDCG} with the target ranked behind its ties: {', '.join(found)}."] if found else []


def _json(row: TableRow, results: Results) -> Record:
    records = results.of(row)
    return {
        "table": row.table,
        "method": row.label,
        "share": row.share,
        "cells": [results.store.path(experiment).name for experiment in row.experiments],
        "measured": len(records),
        "by_seed": [record["methods"][row.method] for record in records],
        "seconds": [record["seconds"] for record in records if "seconds" in record],
        **({"steps": results.steps(row.experiments[0])} if row.table == "pretraining-steps" else {}),
    }


def _format(value: Value | None) -> str:
    return "-" if value is None else str(value)
