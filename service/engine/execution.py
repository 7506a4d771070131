"""Executes plans in batches, and makes answers of what they find: `Plan` -> `Result` -> `Answer`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from seqrec.data.items import Item
from seqrec.metric import TIE
from seqrec.text.item_text import TokenizedItem
from service.deadline import Deadline
from service.engine.attributes import AttributeBudget
from service.engine.explain import Reason, explain_sum, reasons
from service.engine.plan import HistoryQuery, ItemQuery, Plan, Vector, VectorQuery
from service.engine.requests import DEFAULT_K, NO_EXPOSURE, Exposure, PopularQuery
from service.live.hybrid import HybridSearch, empty_query, sparse_query
from service.live.search import Hit, Source, answerable, best_hits, score_all, search
from service.live.state import View
from service.rules.ranking import Ruled, Scores

T = TypeVar("T")
AnswerSource = Literal["model", "fallback:popular"]
NO_POPULARITY = "no events are counted yet: the popular items are in the order of their ids"
TRENDING_SECONDS = 7 * 86400
"""Window of the fallback `trending`."""


@dataclass(frozen=True, eq=False)
class Result:
    """The hits of an executed plan and the vector it searched with; seconds that its whole batch took."""

    hits: list[Hit]
    vector: Vector
    encode: float
    search: float


@dataclass(frozen=True, eq=False)
class Answer:
    """Items with their scores, best first, and the view they were found in."""

    view: View
    items: list[tuple[Item, float]]
    source: AnswerSource
    unknown: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    because: list[list[Reason]] | None = None  # for each item, if the request wants explanations
    parts: list[Mapping[str, float]] | None = None  # the same, of a hybrid: they sum to the score
    hits: Sequence[Hit] = ()  # how each item came there
    k: int = DEFAULT_K
    ruled: bool = False  # whether rules applied
    cold: Sequence[bool] = ()  # for each item, whether it had no events
    exposure: Exposure = NO_EXPOSURE
    shown_before: int = 0  # items on earlier pages


def execute(plans: Sequence[Plan], parts: float = 0.0) -> list[Result]:
    """Encode and search a batch of plans, none of them popular. Right after a swap views and models may differ.

    parts: share of the plans, drawn at random, whose hits get the part of a hybrid's score that added most.
    """
    begin = time.perf_counter()
    vectors: list[Vector | None] = [
        plan.query.vector if isinstance(plan.query, VectorQuery) else None for plan in plans
    ]
    for towers, rows in _group_by(plans, lambda plan: plan.view.towers):
        histories = {row: query.history for row in rows if isinstance(query := plans[row].query, HistoryQuery)}
        items = {row: query.item for row in rows if isinstance(query := plans[row].query, ItemQuery)}
        if histories:
            for row, vector in zip(histories, towers.encode_histories(list(histories.values())), strict=True):
                vectors[row] = vector
        if items:
            for row, vector in zip(items, towers.encode_items(list(items.values())), strict=True):
                vectors[row] = vector
    encoded = time.perf_counter()
    hits: list[list[Hit]] = [[] for _ in plans]
    for view, rows in _group_by(plans, lambda plan: plan.view):
        matrix = np.stack([vector for row in rows if (vector := vectors[row]) is not None])  # [b, dim]
        for row, found in zip(rows, _search(view, matrix, [plans[row] for row in rows], parts), strict=True):
            hits[row] = found
    searched = time.perf_counter()
    return [
        Result(found, vector, encoded - begin, searched - encoded)
        for found, vector in zip(hits, vectors, strict=True)
        if vector is not None
    ]


def answer(plan: Plan, result: Result | None, budget: AttributeBudget, deadline: Deadline) -> Answer:
    """The items that were found, and their explanation. `result` None: a popular plan, whose items are found here.

    The attributes of the items are taken from the `budget`.
    """
    view = plan.view
    hits = _most_popular(plan) if result is None else result.hits
    because: list[list[Reason]] | None = None
    parts: list[Mapping[str, float]] | None = None
    if plan.explain and plan.sparse is not None and result is not None:
        explained = []
        for hit in hits:
            deadline.check()
            explained.append(explain_sum(view, result.vector, plan.sparse, hit.position))
        because = [reasons for _, reasons in explained]
        parts = [_with_rules(plan.ruled, hit, of_parts) for hit, (of_parts, _) in zip(hits, explained, strict=True)]
    elif plan.explain:
        because = reasons(view, _explaining(plan), [hit.position for hit in hits])
    items, left_out = budget.read(len(hits), lambda row: view.item(hits[row].position), plan.fields)
    return Answer(
        view,
        [(item, hit.score) for item, hit in zip(items, hits, strict=True)],
        "fallback:popular" if result is None else "model",
        list(plan.unknown),
        [
            *plan.degraded,
            *([NO_POPULARITY] if result is None and hits and not hits[0].score else []),
            *budget.left_out_message(left_out),
        ],
        because,
        parts,
        hits,
        plan.spec.k,
        plan.ruled is not None,
        [not view.counts.events_of(item.item_id) for item in items],
        plan.exposure,
        plan.shown_before,
    )


def answers(
    plans: Sequence[Plan], results: Sequence[Result | None], budget: AttributeBudget, deadline: Deadline
) -> list[Answer]:
    made = []
    for plan, result in zip(plans, results, strict=True):
        deadline.check()
        made.append(answer(plan, result, budget, deadline))
    return made


def _search(view: View, vectors: npt.NDArray[np.float32], plans: Sequence[Plan], parts: float) -> list[list[Hit]]:
    """Of plans with one view; vectors: [b, dim]"""
    settings = view.towers.encoder.hybrid
    hits: list[list[Hit]] = [[] for _ in plans]
    plain = []
    for row, (vector, plan) in enumerate(zip(vectors, plans, strict=True)):
        if settings is None and plan.ruled is None:
            plain.append(row)
            continue
        scored = None if settings is None else HybridSearch(view, settings, vector, plan.sparse or empty_query(view))
        if plan.ruled is not None:
            everything = partial(score_all, view, vector) if scored is None else scored.all_scores
            hits[row] = _fill(plan, plan.ruled, [("model", everything), *_fallbacks(plan)])
        elif scored is not None:
            hits[row] = scored.search(plan.spec)
        if scored is not None and hits[row] and random.random() < parts:
            hits[row] = _with_parts(scored, hits[row])
    if plain:
        for row, found in zip(plain, search(view, vectors[plain], [plans[row].spec for row in plain]), strict=True):
            hits[row] = found
    return hits


def _with_parts(scored: HybridSearch, hits: Sequence[Hit]) -> list[Hit]:
    parts = scored.main_parts(np.array([hit.position for hit in hits], np.int64))
    return [
        replace(hit, part=part) if part and hit.source == "model" else hit
        for hit, part in zip(hits, parts, strict=True)
    ]


def _fill(plan: Plan, ruled: Ruled, sources: Sequence[tuple[Source, Callable[[], Scores]]]) -> list[Hit]:
    allowed = np.zeros(plan.view.size, np.bool_)
    allowed[answerable(plan.view, plan.spec)] = True
    return ruled.fill(plan.spec.k, allowed, sources)


def _fallbacks(plan: Plan) -> list[tuple[Source, Callable[[], Scores]]]:
    """What goes on where the ranking ends."""
    assert plan.ruled is not None
    popular = {"popular": PopularQuery(), "trending": PopularQuery(time.time() - TRENDING_SECONDS)}
    sources: list[tuple[Source, Callable[[], Scores]]] = []
    for source in plan.ruled.rules.fallback:
        if source in popular:
            sources.append((source, partial(_popularity, plan.view, popular[source])))
        elif plan.last is not None:
            sources.append((source, partial(_similarity, plan.view, *plan.last)))
    return sources


def _popularity(view: View, query: PopularQuery) -> Scores:
    """[size] Numbers of events."""
    events = view.popularity if query.since is None else view.popularity_since(query.since)
    return events.astype(np.float32)


def _similarity(view: View, tokens: TokenizedItem, position: int | None) -> Scores:
    """[size] To one item: of words where the model is a hybrid, else of vectors."""
    settings = view.towers.encoder.hybrid
    if settings is not None:
        sparse = sparse_query(view, [(tokens, position)], pairs=False) or empty_query(view)
        no_vector = np.zeros(view.towers.encoder.dim, np.float32)
        return HybridSearch(view, settings, no_vector, sparse).words(np.arange(view.size))
    if position is None:
        return np.zeros(view.size, np.float32)
    return score_all(view, view.vectors([position])[0])


def _most_popular(plan: Plan) -> list[Hit]:
    """The most popular items; the score is the number of events."""
    view, query = plan.view, plan.query
    assert isinstance(query, PopularQuery)
    if plan.ruled is not None:
        source: Source = "popular" if query.since is None else "trending"
        hits = _fill(plan, plan.ruled, [(source, partial(_popularity, view, query)), *_fallbacks(plan)])
        return [hit for hit in hits if hit.score or not plan.counted]
    events = view.popularity if query.since is None else view.popularity_since(query.since)
    rows = answerable(view, plan.spec)
    if plan.counted:
        rows = rows[events[rows] > 0]
    return best_hits(view, events[rows], plan.spec.k, rows)


def _with_rules(ruled: Ruled | None, hit: Hit, parts: Mapping[str, float]) -> Mapping[str, float]:
    """The parts of a score, with what boosts changed of it, and then `rotate`."""
    if hit.source != "model" or ruled is None:
        return parts
    boosted = hit.score if ruled.rotation is None else ruled.rotation.before(hit.position, hit.score)
    changes = {"boost": boosted - sum(parts.values()), "rotate": hit.score - boosted}
    return {**parts, **{name: change for name, change in changes.items() if abs(change) > 10 * TIE}}


def _explaining(plan: Plan) -> list[int]:
    """Positions that may explain an answer; popularity is not explained by the history."""
    return [] if isinstance(plan.query, PopularQuery) else sorted(set(plan.history))


def _group_by(plans: Sequence[Plan], key: Callable[[Plan], T]) -> list[tuple[T, list[int]]]:
    """Rows of the plans by the object, compared by identity, that `key` gives."""
    groups: dict[int, tuple[T, list[int]]] = {}
    for row, plan in enumerate(plans):
        of = key(plan)
        groups.setdefault(id(of), (of, []))[1].append(row)
    return list(groups.values())
