"""Exact search over a view: the snapshot's index and the delta, as if they were one matrix of what is shown now.

The index is asked for more than k, since some of what it finds may be hidden or excluded, and asked again for more
until nothing that it has not returned could belong to the answer. Equal scores (within `TIE`) are ordered by item id
wherever they lie, so a run of equal scores at the border is always fetched to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from seqrec.encoder import Vectors
from seqrec.metric import TIE, ranked
from service.live.engines.base import EngineQuery, SearchEngine
from service.live.engines.merge import MARGIN, engine_rows
from service.live.filters import FilterMask
from service.live.state import View

MASK_ABOVE = 1024
"""Rows; a search that would have to fetch more gets a mask of what it may return instead."""


@dataclass(frozen=True, eq=False)
class SearchSpec:
    """What to find for one query: the k best that are shown.

    Without `excluded`, of `candidates` only, and of what the filter has `passed`.
    """

    k: int
    excluded: frozenset[int] = frozenset()  # positions
    candidates: Sequence[int] | None = None  # positions, each once
    passed: FilterMask | None = None  # what the filter lets through; None: everything


Source = Literal["model", "similar", "trending", "popular"]


@dataclass(frozen=True)
class Hit:
    """An item of an answer, and how it came there."""

    position: int
    score: float
    source: Source = "model"
    pinned: bool = False
    explored: bool = False
    propensity: float | None = None  # of a place that was drawn at random: how likely it was to get this item
    part: str = ""  # of a hybrid's score that added most; "": not known


Positions = npt.NDArray[np.int64]


def answerable(view: View, spec: SearchSpec) -> Positions:
    """All positions that may answer, rising."""
    allowed: npt.NDArray[np.bool_] = view.shown
    if spec.candidates is not None:
        rows = np.array(sorted(set(spec.candidates) - spec.excluded), dtype=np.int64)
        rows = rows[allowed[rows]]
        return rows if spec.passed is None else np.asarray(rows[spec.passed.of(rows)])
    if spec.passed is not None:
        allowed = allowed & spec.passed.by_position
    if spec.excluded:
        allowed = allowed.copy()
        allowed[list(spec.excluded)] = False
    return np.flatnonzero(allowed)


def score_all(view: View, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[size] The scores of everything, shown or not; query: [dim]."""
    metric = view.towers.metric
    parts = [metric.scores(query[None], np.asarray(part))[0] for part in (view.snapshot.vectors, view.delta_vectors)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def leave_out(view: View, spec: SearchSpec, scores: npt.NDArray[np.floating]) -> None:
    """Set the scores [size] of what may not answer to -inf; `spec` has no candidates."""
    scores[view.hidden] = -np.inf
    if spec.passed is not None:
        n = len(view.snapshot.item_ids)
        scores[:n][~spec.passed.snapshot] = -np.inf
        scores[n:][~spec.passed.delta[: view.length]] = -np.inf
    if spec.excluded:
        scores[list(spec.excluded)] = -np.inf


def best_hits(view: View, scores: npt.NDArray[np.floating], k: int, rows: Positions | None = None) -> list[Hit]:
    """The k best of positions `rows`, which rise (None: of all), best first. scores: [len(rows)], -inf: no answer."""
    k = min(k, len(scores))
    if not k:
        return []
    border = np.partition(scores, len(scores) - k)[len(scores) - k]
    near = np.flatnonzero((scores >= border - 2 * TIE) & (scores > -np.inf))
    where = near if rows is None else rows[near]
    if len(near) > k + MASK_ABOVE:
        kept = _without_many_equal(view, where, scores[near] == border, k)
        near, where = near[kept], where[kept]
    found = [Hit(position, score) for position, score in zip(where.tolist(), scores[near].tolist(), strict=True)]
    return _ranked(view, found, k)


def _without_many_equal(view: View, where: Positions, equal: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.bool_]:
    """Which positions can answer: of those in the snapshot that equal the border, often a million zeros, the first k.

    Rows of the snapshot are in the order of item ids, by which equal scores are ranked.
    """
    many = equal & (where < len(view.snapshot.item_ids))
    many[np.flatnonzero(many)[:k]] = False
    return ~many


def search(view: View, queries: Vectors, wanted: Sequence[SearchSpec]) -> list[list[Hit]]:
    """Best first, for each query. queries: float32 [b, dim]."""
    hits: list[list[Hit]] = [[] for _ in wanted]
    from_delta = _in_delta(view, queries, wanted)
    n = len(view.snapshot.item_ids)
    if view.engine is not None:
        return _by_engine(view, view.engine, queries, wanted, from_delta)
    asks: dict[int, _Fetch] = {}
    for query, want in enumerate(wanted):
        if want.candidates is None and not n:
            hits[query] = _ranked(view, from_delta[query], want.k)
        elif want.candidates is None:
            excluded = sum(position < n for position in want.excluded)
            if want.passed is None:
                asks[query] = _Fetch(want.k + excluded + min(want.k, view.snapshot_hidden) + MARGIN)
            elif excluded < MASK_ABOVE:  # so that all with one filter share its mask, and are searched together
                asks[query] = _Fetch(want.k + excluded + MARGIN, masked=True)
            else:
                asks[query] = _Fetch(want.k + MARGIN, masked=True, exclude=True)
        else:
            hits[query] = _score_candidates(view, queries[query], want, want.candidates)
    while asks:
        again: dict[int, _Fetch] = {}
        for query, (rows, scores) in _fetch(view, queries, wanted, asks).items():
            want = wanted[query]
            found = rows >= 0
            lowest = float(scores[found][-1]) if found.any() else -np.inf
            kept = [row for row in np.flatnonzero(found) if _may_answer(view, want, int(rows[row]))]
            best = [Hit(int(rows[row]), float(scores[row])) for row in kept] + from_delta[query]
            if found.all() and len(rows) < n and not _settled(best, want.k, lowest):
                again[query] = asks[query].more(want.k)
            else:
                hits[query] = _ranked(view, best, want.k)
        asks = again
    return hits


def _by_engine(
    view: View, engine: SearchEngine, queries: Vectors, wanted: Sequence[SearchSpec], from_delta: list[list[Hit]]
) -> list[list[Hit]]:
    n = len(view.snapshot.item_ids)
    free = [i for i, want in enumerate(wanted) if want.candidates is None]

    def best(i: int, pairs: Sequence[tuple[int, float]]) -> list[Hit]:
        return [Hit(*pair) for pair in pairs] + from_delta[free[i]]

    asked = []
    for i in free:
        excluded = [position for position in wanted[i].excluded if position < n]
        passed = wanted[i].passed
        k = wanted[i].k + min(wanted[i].k, view.snapshot_hidden) + MARGIN
        asked.append(EngineQuery(k, queries[i], None, None if passed is None else passed.filter, excluded))
    found = engine_rows(
        engine, asked, view.is_shown, lambda i, pairs, lowest: _settled(best(i, pairs), wanted[free[i]].k, lowest)
    )
    hits = {row: _ranked(view, best(i, found[i]), wanted[row].k) for i, row in enumerate(free)}
    for row, want in enumerate(wanted):
        if want.candidates is not None:
            hits[row] = _score_candidates(view, queries[row], want, want.candidates)
    return [hits[row] for row in range(len(wanted))]


@dataclass(frozen=True)
class _Fetch:
    """How many rows of the index a query requests, and which masks of allowed rows it passes."""

    rows: int
    masked: bool = False  # only rows that are shown and that the filter has passed
    exclude: bool = False  # and that the query does not exclude

    def more(self, k: int) -> _Fetch:
        if not self.masked and 2 * self.rows > MASK_ABOVE:
            return _Fetch(k + MARGIN, masked=True, exclude=True)
        return _Fetch(2 * self.rows, self.masked, self.exclude)


def _fetch(
    view: View, queries: Vectors, wanted: Sequence[SearchSpec], asks: dict[int, _Fetch]
) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Rows and scores for each query that asks, best first: those without a mask at once, and those with one."""
    index, n = view.snapshot.index, len(view.snapshot.item_ids)
    found = {}
    plain = [query for query, ask in asks.items() if not ask.masked]
    if plain:
        rows, scores = index.search(queries[plain], min(n, max(asks[query].rows for query in plain)))
        found.update({query: (rows[i], scores[i]) for i, query in enumerate(plain)})
    masked = [query for query, ask in asks.items() if ask.masked]
    if masked:
        shared: dict[int, npt.NDArray[np.bool_]] = {}  # by the mask of the filter
        masks = []
        for query in masked:
            want = wanted[query]
            passed = None if want.passed is None else want.passed.snapshot
            if id(passed) not in shared:
                shown = view.snapshot_shown
                shared[id(passed)] = shown if passed is None else shown & passed
            allowed = shared[id(passed)]
            if asks[query].exclude:
                allowed = allowed.copy()
                allowed[[position for position in want.excluded if position < n]] = False
            masks.append(allowed)
        rows, scores = index.search(queries[masked], min(n, max(asks[query].rows for query in masked)), masks)
        found.update({query: (rows[i], scores[i]) for i, query in enumerate(masked)})
    return found


def _settled(best: Sequence[Hit], k: int, lowest: float) -> bool:
    """Whether no row that the index has not returned, whose score is `lowest` at most, can be among the best k."""
    return len(best) >= k and sorted((hit.score for hit in best), reverse=True)[k - 1] - lowest > TIE


def _in_delta(view: View, queries: Vectors, wanted: Sequence[SearchSpec]) -> list[list[Hit]]:
    """For each query the best k rows of the delta, and all that equal the k-th."""
    n = len(view.snapshot.item_ids)
    shown = np.flatnonzero(view.delta_shown)
    if not shown.size:
        return [[] for _ in wanted]
    scores = view.towers.metric.scores(queries, view.delta_vectors)[:, shown]
    result = []
    for want, all_of_them in zip(wanted, scores, strict=True):
        passed = np.arange(shown.size) if want.passed is None else np.flatnonzero(want.passed.delta[shown])
        mine = all_of_them[passed]
        reach = want.k + sum(position >= n for position in want.excluded)
        if reach < mine.size:
            border = np.partition(mine, mine.size - reach)[mine.size - reach]
            near = np.flatnonzero(mine >= border - TIE)
        else:
            near = np.arange(mine.size)
        hits = [Hit(n + int(shown[passed[i]]), float(mine[i])) for i in near]
        result.append([hit for hit in hits if hit.position not in want.excluded])
    return result


def _score_candidates(
    view: View, query: npt.NDArray[np.float32], want: SearchSpec, candidates: Sequence[int]
) -> list[Hit]:
    positions = answerable(view, SearchSpec(want.k, want.excluded, candidates, want.passed)).tolist()
    if not positions:
        return []
    scores = view.towers.metric.scores(query[None], view.vectors(positions))[0]
    return _ranked(view, [Hit(p, float(score)) for p, score in zip(positions, scores, strict=True)], want.k)


def _may_answer(view: View, want: SearchSpec, position: int) -> bool:
    in_question = position not in want.excluded and (want.passed is None or position in want.passed)
    return in_question and view.is_shown(position)


def _ranked(view: View, hits: Sequence[Hit], k: int) -> list[Hit]:
    order = ranked([view.item_id(hit.position) for hit in hits], [hit.score for hit in hits])
    return [hits[i] for i in order[:k]]
