"""An evaluation as plain text, Markdown and JSON; and recommendations that a person can judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from seqrec.item_text import Recipe
from seqrec.items import Item, attribute_text
from training.data import Dataset, Split
from training.evaluation import PROTOCOLS, Evaluation, Group, K, Row
from training.metrics import Metrics

NAMES = (f"NDCG@{K}", f"Recall@{K}", "MRR")


def text_table(evaluation: Evaluation) -> str:
    """The tables with aligned columns, and what to know when reading them."""
    blocks = [_heading(evaluation)]
    for group, rows in _groups(evaluation):
        width = max(len(row.method) for row in rows)
        users = " / ".join(f"{rows[0].metrics[protocol].users:,}" for protocol in PROTOCOLS)
        lines = [f"{group} ({users} users)", " " * width + "".join(f" | {protocol:^29}" for protocol in PROTOCOLS)]
        lines.append(" " * width + (" |" + "".join(f"{name:>10}" for name in NAMES)) * len(PROTOCOLS))
        for row in rows:
            cells = ("".join(f"{value:>10}" for value in _values(row.metrics[protocol])) for protocol in PROTOCOLS)
            lines.append(f"{row.method:<{width}} |" + " |".join(cells))
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(blocks + notes(evaluation)) + "\n"


def markdown_table(evaluation: Evaluation) -> str:
    blocks = [_heading(evaluation)]
    for group, rows in _groups(evaluation):
        header = [group, *(f"{name}, {protocol}" for protocol in PROTOCOLS for name in NAMES)]
        lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
        for row in rows:
            cells = [row.method, *(value for protocol in PROTOCOLS for value in _values(row.metrics[protocol]))]
            lines.append(f"| {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks + notes(evaluation)) + "\n"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Metrics are null where no user counts."""
    record = {name: value for name, value in vars(evaluation).items() if name != "rows"}
    rows = [
        {"method": row.method, "group": row.group, "protocol": protocol, **_json_metrics(metrics)}
        for row in evaluation.rows
        for protocol, metrics in row.metrics.items()
    ]
    return record | {"k": K, "rows": rows, "warnings": tie_warnings(evaluation)}


def notes(evaluation: Evaluation) -> list[str]:
    """What the numbers do not say by themselves."""
    said = tie_warnings(evaluation)
    everyone = evaluation.rows[0].metrics
    repeats = everyone["all items"].users - everyone["unseen only"].users
    if repeats:
        said.append(f"{repeats:,} users had their held-out item before: they do not count under 'unseen only'.")
    return said


def tie_warnings(evaluation: Evaluation) -> list[str]:
    return [
        f"Warning: {row.method}, {row.group}, {protocol}: equal scores decide. Ranked behind its ties the held-out "
        f"item gives NDCG@{K} {metrics.ndcg_pessimistic:.4f} instead of {metrics.ndcg:.4f}."
        for row in evaluation.rows
        for protocol, metrics in row.metrics.items()
        if metrics.ties_matter
    ]


def shown_users(
    dataset: Dataset,
    recipe: Recipe | None,
    users: Sequence[str],
    answers: Sequence[Sequence[tuple[str, float]]],
    split: Split,
    last: int = 5,
) -> str:
    """For each user the newest items of the history, the answer with scores, and what was held out (marked)."""
    cases = dataset.cases(split)
    item_of = {item.item_id: item for item in dataset.items}
    number_of = {dataset.user_ids[user]: number for number, user in enumerate(cases.users)}
    blocks = []
    for user, answer in zip(users, answers, strict=True):
        history = cases.histories[number_of[user]]
        target = dataset.items[cases.targets[number_of[user]]]
        earlier = f", the last {last} of" if len(history) > last else ","
        lines = [f"user {user}: history{earlier} {len(history)} items, oldest first"]
        lines += [f"    {display(dataset.items[row], recipe)}" for row in history[-last:]]
        lines.append("  recommended, items not seen before")
        for item_id, score in answer:
            mark = "   <- came next" if item_id == target.item_id else ""
            lines.append(f"    {score:.3f}  {display(item_of[item_id], recipe)}{mark}")
        if all(item_id != target.item_id for item_id, _ in answer):
            lines.append(f"  came next: {display(target, recipe)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def display(item: Item, recipe: Recipe | None) -> str:
    """The first attribute that is text, and the id."""
    texts = [value for _, value in recipe.texts(item.attributes)] if recipe else []
    texts = texts or [attribute_text(value) for value in item.attributes.values()]
    return f"{texts[0]} ({item.item_id})" if texts else item.item_id


def spread_users(dataset: Dataset, split: Split, count: int) -> list[str]:
    """`count` users, evenly over all that are evaluated."""
    users = dataset.cases(split).users
    count = min(count, len(users))
    return [dataset.user_ids[users[(2 * place + 1) * len(users) // (2 * count)]] for place in range(count)]


def _heading(evaluation: Evaluation) -> str:
    held_out = {"test": "last", "valid": "last but one"}[evaluation.split]
    return (
        f"{evaluation.split}: the {held_out} item of {evaluation.users:,} users, ranked among {evaluation.items:,} "
        "items; averages over users"
    )


def _groups(evaluation: Evaluation) -> list[tuple[Group, list[Row]]]:
    groups = dict.fromkeys(row.group for row in evaluation.rows)
    return [(group, [row for row in evaluation.rows if row.group == group]) for group in groups]


def _values(metrics: Metrics) -> list[str]:
    values = (metrics.ndcg, metrics.recall, metrics.mrr)
    return ["-" if math.isnan(value) else f"{value:.4f}" for value in values]


def _json_metrics(metrics: Metrics) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(metrics).items()
    }
