"""Explains a recommended item by items of the history.

A hybrid's score is a sum, and its explanation is that sum: exact. Of other models the most similar items are given.

The similarity of two items is the cosine of their vectors, whatever metric the model searches by. It does not show
what the model computed: a history becomes one vector, which depends on order and combination as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqrec.encoder import Vectors
from service.live.hybrid import HybridSearch, SparseQuery
from service.live.state import View

MOST = 3


@dataclass(frozen=True)
class Reason:
    """An item of the history, and either its similarity to the recommended item (-1 to 1) or what it adds to the score
    by one part of it."""

    item_id: str
    similarity: float | None = None
    part: str | None = None
    score: float | None = None


def reasons(view: View, history: Sequence[int], items: Sequence[int]) -> list[list[Reason]]:
    """For each of the items the `MOST` most similar of the history, the most similar first.

    `history` and `items` are positions, so history entries that are plain attributes are not among them.
    """
    if not history or not items:
        return [[] for _ in items]
    had, found = _unit(view, history), _unit(view, items)
    similarities = found @ had.T  # [items, history]
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :MOST]
    return [
        [Reason(view.item_id(history[column]), float(row[column])) for column in best]
        for row, best in zip(similarities, order, strict=True)
    ]


def explain_sum(
    view: View, vector: Vectors, sparse: SparseQuery, position: int
) -> tuple[dict[str, float], list[Reason]]:
    """What each part of a hybrid's score adds, and the MOST that items of the history add, the largest first.

    vector: [dim], what was searched with.
    """
    settings = view.towers.encoder.hybrid
    assert settings is not None
    parts, shares = HybridSearch(view, settings, vector, sparse).explain(position)
    largest = sorted(shares, key=lambda share: -abs(share[2]))[:MOST]
    return parts, [Reason(view.item_id(where), part=part, score=score) for where, part, score in largest]


def _unit(view: View, positions: Sequence[int]) -> Vectors:
    vectors = view.vectors(positions)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors
