"""Example recommendations as text: the history, the recommendations and the next item of some users."""

from __future__ import annotations

from collections.abc import Sequence

from seqrec.data.items import Item, attribute_text
from seqrec.text.item_text import Recipe
from training.data.dataset import Dataset, Split


def format_examples(
    dataset: Dataset,
    recipe: Recipe | None,
    users: Sequence[str],
    answers: Sequence[Sequence[tuple[str, float]]],
    split: Split,
    last: int = 5,
) -> str:
    """For each user the newest items of the history, the recommendations with scores, and the held-out item, marked."""
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
        lines.append("  recommended, unseen items only")
        for item_id, score in answer:
            mark = "   <- came next" if item_id == target.item_id else ""
            lines.append(f"    {score:.3f}  {display(item_of[item_id], recipe)}{mark}")
        if all(item_id != target.item_id for item_id, _ in answer):
            lines.append(f"  came next: {display(target, recipe)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def display(item: Item, recipe: Recipe | None) -> str:
    """The first text attribute and the id."""
    texts = [value for _, value in recipe.texts(item.attributes)] if recipe else []
    texts = texts or [attribute_text(value) for value in item.attributes.values()]
    return f"{texts[0]} ({item.item_id})" if texts else item.item_id


def sample_users_evenly(dataset: Dataset, split: Split, count: int) -> list[str]:
    """`count` users, evenly spaced among those evaluated."""
    users = dataset.cases(split).users
    count = min(count, len(users))
    return [dataset.user_ids[users[(2 * place + 1) * len(users) // (2 * count)]] for place in range(count)]
