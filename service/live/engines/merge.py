"""Answers of a search engine and the delta as one ranking, without what was hidden since the snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from service.live.engines.base import EngineQuery, Found, SearchEngine

Pair = tuple[int, float]
"""A row and its score."""
MARGIN = 8
"""Rows asked for beyond those needed: saves a second question where scores are equal at the border."""


@dataclass(eq=False)
class _Asked:
    """One query, and the rows that its answers had so far and that are shown."""

    query: EngineQuery
    shown: list[Pair] = field(default_factory=list)
    lowest: float = float("inf")
    done: bool = False

    def take(self, found: Found, is_shown: Callable[[int], bool]) -> None:
        pairs = list(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
        self.shown += [pair for pair in pairs if is_shown(pair[0])]
        self.done = len(pairs) < self.query.k
        if pairs:
            self.lowest = pairs[-1][1]
            excluded = {*self.query.excluded, *found.rows.tolist()}
            self.query = replace(self.query, k=2 * self.query.k, excluded=excluded)


def engine_rows(
    engine: SearchEngine,
    queries: Sequence[EngineQuery],
    is_shown: Callable[[int], bool],
    settled: Callable[[int, list[Pair], float], bool],
) -> list[list[Pair]]:
    """Rows that are shown, for each query, as many as may be in its answer.

    `settled(i, pairs, lowest)`: whether nothing with a score of `lowest` at most can be in answer i. Rows that were
    hidden since the snapshot are found too, so the engine is asked again, without those it has named.
    """
    asked = [_Asked(query) for query in queries]
    while waiting := [i for i, one in enumerate(asked) if not one.done]:
        for i, found in zip(waiting, engine.search([asked[i].query for i in waiting]), strict=True):
            asked[i].take(found, is_shown)
            asked[i].done |= settled(i, asked[i].shown, asked[i].lowest)
    return [one.shown for one in asked]
