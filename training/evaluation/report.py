"""Reports of an evaluation as plain text, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from training.evaluation.comparison import Evaluation, Figure, PairedTest, Row
from training.evaluation.evaluate import NO_PAIRS, TRAINING_COUNTS
from training.evaluation.groups import EVERYONE
from training.evaluation.metrics import ties_matter
from training.evaluation.ranking import CANDIDATE_MODES, PESSIMISTIC, CandidateMode

FEW_USERS = 100
_HELD_OUT = {
    ("leave-one-out", "test"): "the last item",
    ("leave-one-out", "valid"): "the second to last item",
    ("last-basket", "test"): "the last basket",
    ("last-basket", "valid"): "the second to last basket",
    ("time, first later item", "test"): "the first item of the test period",
    ("time, first later item", "valid"): "the first item of the validation period",
    ("time, all later items", "test"): "all items of the test period",
    ("time, all later items", "valid"): "all items of the validation period",
}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns after the first are right-aligned."""
    lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in rows])


def text_table(evaluation: Evaluation) -> str:
    """Tables with aligned columns, tests and notes."""
    blocks = [heading(evaluation)]
    for group, rows in _groups(evaluation, "targets"):
        width = max(len(method) for method, _ in rows)
        users = " / ".join(f"{rows[0][1][protocol].users:,}" for protocol in CANDIDATE_MODES)
        lines = [f"{group} ({users} users)"]
        for k in evaluation.ks:
            lines.append(" " * width + "".join(f" | {protocol:^29}" for protocol in CANDIDATE_MODES))
            lines.append(" " * width + (" |" + "".join(f"{name:>10}" for name in _names(k))) * len(CANDIDATE_MODES))
            for method, of_protocol in rows:
                cells = ("".join(f"{cell:>10}" for cell in _cells(of_protocol[p], k)) for p in CANDIDATE_MODES)
                lines.append(f"{method:<{width}} |" + " |".join(cells))
        blocks.append("\n".join(line.rstrip() for line in lines))
    blocks += _aligned_tests(evaluation)
    return "\n\n".join(blocks + notes(evaluation)) + "\n"


def markdown_summary(evaluation: Evaluation) -> str:
    """Tables of all, warm and cold targets, and paired tests."""
    blocks = [heading(evaluation)]
    for group, rows in _groups(evaluation, "targets"):
        names = [name for k in evaluation.ks for name in (f"NDCG@{k}", f"NDCG@{k}{PESSIMISTIC}", f"Recall@{k}")]
        names.append("MRR")
        header = [group, *(f"{name}, {protocol}" for protocol in CANDIDATE_MODES for name in names)]
        table = [
            [method, *(_number(of_protocol[p].figures[name].value) for p in CANDIDATE_MODES for name in names)]
            for method, of_protocol in rows
        ]
        blocks.append(markdown_table(header, table))
    blocks.append(_intervals(evaluation))
    return "\n\n".join(blocks + notes(evaluation)) + "\n"


def markdown_report(evaluation: Evaluation, plots: Mapping[str, str]) -> str:
    """The complete report: summary, `plots` (file name -> caption), every figure with its interval, breakdowns."""
    k = evaluation.ks[0]
    blocks = ["# Evaluation", markdown_summary(evaluation).rstrip()]
    blocks += [f"![{caption}]({name})" for name, caption in plots.items()]
    blocks.append("## All figures with 95 % intervals")
    for protocol in CANDIDATE_MODES:
        rows = [row for row in evaluation.rows if row.group == EVERYONE and row.protocol == protocol]
        names = [name for name in rows[0].figures if not name.endswith(PESSIMISTIC)]
        table = [[name, *(_with_interval(row.figures[name]) for row in rows)] for name in names]
        blocks.append(markdown_table([f"{protocol} ({rows[0].users:,} users)", *(row.method for row in rows)], table))
    for breakdown in dict.fromkeys(row.breakdown for row in evaluation.rows):
        if breakdown == "targets":
            continue
        blocks.append(f"## NDCG@{k} by {breakdown}")
        for protocol in CANDIDATE_MODES:
            table = []
            for group, by_method in _groups(evaluation, breakdown):
                rows = [of_protocol[protocol] for _, of_protocol in by_method]
                values = [_with_interval(row.figures[f"NDCG@{k}"]) for row in rows]
                table.append([group, f"{rows[0].users:,}", *values])
            methods = [method for method, _ in by_method]
            blocks.append(markdown_table([protocol, "users", *methods], table))
    digests = [f"`{name}` has the digest `{digest}`" for name, digest in evaluation.checkpoints.items()]
    blocks.append(f"The data with its split has the digest `{evaluation.data_digest}`; {'; '.join(digests)}.")
    return "\n\n".join(blocks) + "\n"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Figures are null without users. `rows`: all, warm and cold targets; ndcg, recall and mrr are those at `k`."""
    rows = [_json_row(row, evaluation.ks[0]) for row in evaluation.rows]
    return {
        "split": evaluation.split,
        "split_by": evaluation.rule,
        "users": evaluation.users,
        "items": evaluation.items,
        "k": evaluation.ks[0],
        "ks": list(evaluation.ks),
        "resamples": evaluation.resamples,
        "seed": evaluation.seed,
        "data_digest": evaluation.data_digest,
        "checkpoint_digest": next(iter(evaluation.checkpoints.values())),
        "checkpoints": dict(evaluation.checkpoints),
        "rows": [row for row in rows if row["breakdown"] == "targets"],
        "breakdowns": [row for row in rows if row["breakdown"] != "targets"],
        "tests": [_no_nan(asdict(test)) for test in evaluation.tests],
        "warnings": warnings(evaluation),
    }


def notes(evaluation: Evaluation) -> list[str]:
    """Warnings, and what the two candidate modes mean."""
    lines = warnings(evaluation)
    everyone = {row.protocol: row.users for row in evaluation.rows if row.group == EVERYONE}
    repeats = everyone["all items"] - everyone["unseen only"]
    note = "'all items' ranks the whole catalogue; 'unseen only' leaves out the items of the user's history"
    if repeats:
        note += f" and does not count {repeats:,} users who had the held-out item before"
    if any(row.method.endswith(TRAINING_COUNTS) for row in evaluation.rows):
        note += (
            f". item-kNN and the hybrid count all events before the held-out item, validation included; '{NO_PAIRS}' "
            f"leaves it out, '{TRAINING_COUNTS}' counts only what published models train on"
        )
    return [*lines, f"{note}."]


def warnings(evaluation: Evaluation) -> list[str]:
    """Warnings about ties and about few users."""
    k = evaluation.ks[0]
    lines = []
    for row in evaluation.rows:
        figures = row.figures[f"NDCG@{k}"].value, row.figures[f"NDCG@{k}{PESSIMISTIC}"].value
        if row.breakdown == "targets" and row.users and ties_matter(*figures):
            lines.append(
                f"Warning: {row.method}, {row.group}, {row.protocol}: ties matter. With the held-out item ranked "
                f"behind its ties NDCG@{k} is {figures[1]:.4f} instead of {figures[0]:.4f}."
            )
    if evaluation.users < FEW_USERS:
        lines.append(f"Warning: only {evaluation.users} users are evaluated, so the figures are uncertain.")
    return lines


def heading(evaluation: Evaluation) -> str:
    held_out = next(
        what
        for (rule, split), what in _HELD_OUT.items()
        if evaluation.rule.startswith(rule) and split == evaluation.split
    )
    return (
        f"{evaluation.split}: {held_out} of {evaluation.users:,} users, ranked among "
        f"{evaluation.items:,} items; averages over users (split: {evaluation.rule})"
    )


def _groups(evaluation: Evaluation, breakdown: str) -> Iterator[tuple[str, list[tuple[str, dict[CandidateMode, Row]]]]]:
    """(group, [(method, its row under each protocol)])"""
    found: dict[str, dict[str, dict[CandidateMode, Row]]] = {}
    for row in evaluation.rows:
        if row.breakdown == breakdown:
            found.setdefault(row.group, {}).setdefault(row.method, {})[row.protocol] = row
    for group, methods in found.items():
        yield group, list(methods.items())


def _aligned_tests(evaluation: Evaluation) -> list[str]:
    k = evaluation.ks[0]
    blocks = []
    for protocol in CANDIDATE_MODES:
        rows = [row for row in evaluation.rows if row.group == EVERYONE and row.protocol == protocol]
        if not rows[0].users:
            continue
        width = max(len(row.method) for row in rows)
        lines = [
            f"{'95 % intervals, ' + protocol:<{width}}   {f'NDCG@{k}':<24}{'behind ties':>12}{f'coverage@{k}':>12}"
            f"{f'popularity@{k}':>15}"
        ]
        lines += [
            f"{row.method:<{width}}   {_with_interval(row.figures[f'NDCG@{k}']):<24}"
            f"{_number(row.figures[f'NDCG@{k}{PESSIMISTIC}'].value):>12}"
            f"{_number(row.figures[f'coverage@{k}'].value):>12}{row.figures[f'popularity@{k}'].value:>15.1f}"
            for row in rows
        ]
        lines += [_format(test) for test in evaluation.tests if (test.protocol, test.figure) == (protocol, f"NDCG@{k}")]
        blocks.append("\n".join(lines))
    return blocks


def _format(test: PairedTest) -> str:
    return f"{test.method} - {test.other}: {test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}], p = {test.p:.2g}"


def _intervals(evaluation: Evaluation) -> str:
    """Paired tests as a table."""
    k = evaluation.ks[0]
    table = [
        [
            f"{test.method} - {test.other}",
            test.protocol,
            test.figure,
            f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]",
            f"{test.p:.2g}",
        ]
        for test in evaluation.tests
        if test.figure == f"NDCG@{k}"
    ]
    caption = (
        f"Differences over the same users; 95 % intervals of {evaluation.resamples:,} resamples, seed {evaluation.seed}"
    )
    return f"{caption}:\n\n" + markdown_table(["", "protocol", "figure", "difference", "p"], table)


def _names(k: int) -> tuple[str, str, str]:
    return f"NDCG@{k}", f"Recall@{k}", "MRR"


def _cells(row: Row, k: int) -> list[str]:
    return [_number(row.figures[name].value) for name in _names(k)]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _with_interval(figure: Figure) -> str:
    digits = 4 if not figure.value >= 10 else 1  # popularity is in events
    if math.isnan(figure.value) or math.isnan(figure.low):
        return _number(figure.value)
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _json_row(row: Row, k: int) -> dict[str, Any]:
    flat = {"ndcg": f"NDCG@{k}", "recall": f"Recall@{k}", "mrr": "MRR", "ndcg_pessimistic": f"NDCG@{k}{PESSIMISTIC}"}
    record = {name: getattr(row, name) for name in ("method", "breakdown", "group", "protocol", "users")}
    record |= _no_nan({name: row.figures[figure].value for name, figure in flat.items()})
    return record | {"figures": {name: _no_nan(asdict(figure)) for name, figure in row.figures.items()}}


def _no_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in record.items()}
