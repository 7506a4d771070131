"""From a request to an answer, without threads: `RecommendRequest` -> `Plan` -> `Answer`.

A plan is made of a request, the stored history of its user and a view. It says what to encode and what to search for.
Plans are executed together, in batches; the hits become items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from seqrec.data.items import Item, check_attributes, check_item_id
from seqrec.errors import InputError, ItemNotFound
from seqrec.metric import Metric
from seqrec.text.item_text import TokenizedHistory, TokenizedItem, has_model_input
from service.deadline import Deadline
from service.engine.explain import Reason, explain_sum, reasons
from service.engine.user_history import UserHistory
from service.engine.vector_cache import VectorCache, cache_key
from service.live.filters import Filter, FilterMask
from service.live.hybrid import HybridSearch, SparseQuery, empty_query, sparse_query
from service.live.search import Hit, SearchSpec, search
from service.live.state import Towers, View

T = TypeVar("T")
Vector = npt.NDArray[np.float32]
Source = Literal["model", "fallback:popular"]
ONLY_IDS = "this model reads item ids, not text, and finds only the items of its training data"
UNAVAILABLE = "an item that is not available is in no answer"
NO_POPULARITY = "no events are counted yet: the popular items are in the order of their ids"
_UNKNOWN_ATTRIBUTE = "filter: no item has the attribute {!r}"
_IDS_PER_TOKEN = 100
"""Excluded or candidate ids that cost as much time as encoding one token."""


@dataclass(frozen=True)
class RecommendRequest:
    """One recommendation to make. `history` is oldest first: item ids, or attributes of items in no catalogue.

    `field` is prepended to the names of fields in errors, such as `requests[3].`.
    """

    history: Sequence[str | Mapping[str, Any]]
    k: int = 10
    exclude_seen: bool | None = None  # None: as the model's repeat rule says, or yes
    exclude: Sequence[str] = ()
    candidates: Sequence[str] | None = None
    field: str = ""
    user_id: str | None = None
    filter: Filter | None = None
    explain: bool = False


@dataclass(frozen=True, eq=False)
class HistoryQuery:
    """Encode a history. Its vector is cached under `key`, unless that is None."""

    history: TokenizedHistory
    cost: int  # tokens
    key: bytes | None = None


@dataclass(frozen=True, eq=False)
class ItemQuery:
    """Encode an item."""

    item: TokenizedItem

    @property
    def cost(self) -> int:
        return len(self.item.ids) + 1


@dataclass(frozen=True, eq=False)
class VectorQuery:
    """Search for a vector [dim] that is known."""

    vector: Vector
    cost: int = 1


@dataclass(frozen=True)
class PopularQuery:
    """Rank by popularity: the history has nothing that the model can read."""


Query = HistoryQuery | ItemQuery | VectorQuery
"""What to search with."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What one answer takes: `query` to search with, `spec` for what to find, in `view`."""

    view: View
    spec: SearchSpec
    query: Query | PopularQuery
    sparse: SparseQuery | None = None  # what a hybrid searches with beside the vector
    history: Sequence[int] = ()  # positions of the history's items that are in the catalogue, oldest first
    unknown: Sequence[str] = ()  # ids of the history that are not
    degraded: Sequence[str] = ()  # what could not be taken into account
    explain: bool = False

    @property
    def cost(self) -> int:
        """Work on the compute threads, in tokens."""
        ids = len(self.spec.excluded) + len(self.spec.candidates or ())
        return (0 if isinstance(self.query, PopularQuery) else self.query.cost) + ids // _IDS_PER_TOKEN


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
    source: Source
    unknown: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    because: list[list[Reason]] | None = None  # for each item, if the request wants explanations
    parts: list[Mapping[str, float]] | None = None  # the same, of a hybrid: they sum to the score


def plan_recommendations(
    view: View,
    requests: Sequence[RecommendRequest],
    users: Mapping[str, UserHistory],
    max_history: int,
    cache: VectorCache,
    deadline: Deadline,
) -> list[Plan]:
    """Look ids up, tokenize attributes, evaluate filters.

    `users` has the history of each user_id of the requests. Of stored and given history together the `max_history`
    newest are read. A history whose vector is cached is not encoded. Raises InputError, DeadlineExceeded.
    """
    seen: dict[str, frozenset[int]] = {}  # of each user, looked up once for all requests of a batch
    texts = iter(_tokenize_attributes(view, requests))
    plans = []
    for request in requests:
        deadline.check()
        user = UserHistory() if request.user_id is None else users[request.user_id]
        plans.append(_plan(view, request, user, max_history, texts, seen, deadline))
    return _use_cache(view, plans, cache)


def plan_similar(
    view: View,
    item_id: str | None,
    attributes: Mapping[str, Any] | None,
    k: int,
    filter: Filter | None,
    deadline: Deadline,
) -> Plan:
    """Find what is similar to an item of the catalogue, or to attributes. Raises ItemNotFound, InputError."""
    passed = None if filter is None else view.passed(filter, deadline.check)
    made = partial(Plan, view, degraded=_unknown_attributes(passed))
    if item_id is not None:
        position = view.position_of(item_id)
        if position is None:
            known = view.towers.encoder.cold_items
            raise ItemNotFound(item_id) if known else ItemNotFound(item_id, "among those that the model knows")
        spec = SearchSpec(k, frozenset([position]), passed=passed)
        if view.towers.metric is Metric.COSINE:
            return made(spec, VectorQuery(view.vectors([position])[0]))
        tokens = view.tokens(position)
        # Items and queries lie in different spaces: similar is what would come after a history of this item.
        history = TokenizedHistory([tokens])
        query = HistoryQuery(history, _history_tokens(view, history))
        return made(spec, query, sparse_query(view, [(tokens, position)], pairs=False), history=[position])
    assert attributes is not None
    [item] = view.towers.encoder.tokenize_items([check_attributes(attributes)])
    if not has_model_input(item):
        raise InputError(no_text(view.towers), "attributes")
    sparse = sparse_query(view, [(item, None)], pairs=False)
    if sparse is None:
        return made(SearchSpec(k, passed=passed), ItemQuery(item))
    history = TokenizedHistory([item])
    return made(SearchSpec(k, passed=passed), HistoryQuery(history, _history_tokens(view, history)), sparse)


def execute(plans: Sequence[Plan]) -> list[Result]:
    """Encode and search a batch of plans, none of them popular. Right after a swap views and models may differ."""
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
        for row, found in zip(rows, _search(view, matrix, [plans[row] for row in rows]), strict=True):
            hits[row] = found
    searched = time.perf_counter()
    return [
        Result(found, vector, encoded - begin, searched - encoded)
        for found, vector in zip(hits, vectors, strict=True)
        if vector is not None
    ]


def answer(plan: Plan, result: Result | None, deadline: Deadline) -> Answer:
    """The items that were found, and their explanation. `result` None: a popular plan, whose items are found here."""
    view = plan.view
    hits = _most_popular(view, plan.spec) if result is None else result.hits
    because: list[list[Reason]] | None = None
    parts: list[Mapping[str, float]] | None = None
    if plan.explain and plan.sparse is not None and result is not None:
        explained = []
        for hit in hits:
            deadline.check()
            explained.append(explain_sum(view, result.vector, plan.sparse, hit.position))
        because, parts = [reasons for _, reasons in explained], [of_parts for of_parts, _ in explained]
    elif plan.explain:
        because = reasons(view, _explaining(plan), [hit.position for hit in hits])
    return Answer(
        view,
        [(view.item(hit.position), hit.score) for hit in hits],
        "fallback:popular" if result is None else "model",
        list(plan.unknown),
        [*plan.degraded, *([NO_POPULARITY] if result is None and hits and not hits[0].score else [])],
        because,
        parts,
    )


def no_text(towers: Towers) -> str:
    """Why an item cannot be encoded, and what would help."""
    if not towers.encoder.cold_items:
        return ONLY_IDS
    item_text = towers.checkpoint.item_model.item_text
    names = None if item_text is None else item_text.recipe.attributes
    if names is None:
        return "the model finds no text in it; give at least one attribute that contains words"
    return f"the model finds no text in it; it reads {', '.join(names)}: give at least one of them"


def _plan(
    view: View,
    request: RecommendRequest,
    user: UserHistory,
    max_history: int,
    texts: Iterator[TokenizedItem],
    seen: dict[str, frozenset[int]],
    deadline: Deadline,
) -> Plan:
    tokens: list[TokenizedItem] = []
    places: list[int | None] = []
    history: list[int] = []
    unknown: dict[str, None] = {}
    stored = user.recent[max(0, len(user.recent) + len(request.history) - max_history) :]
    for i, entry in enumerate((*stored, *request.history), -len(stored)):
        if not isinstance(entry, str):
            tokens.append(next(texts))
            places.append(None)
            continue
        item_id = entry if i < 0 else check_item_id(entry, f"{request.field}history[{i}]")
        position = view.position_of(item_id)
        if position is None:
            unknown[item_id] = None
        else:
            tokens.append(view.tokens(position))
            places.append(position)
            history.append(position)
    deadline.check()
    excluded = _positions(view, request.exclude, f"{request.field}exclude")
    excluded.update(position for item_id in user.negative if (position := view.position_of(item_id)) is not None)
    if _leaves_seen_out(view, request):
        excluded.update(history)
        if request.user_id is not None and request.user_id not in seen:
            positions = (view.position_of(item_id) for item_id in user.seen)
            seen[request.user_id] = frozenset(position for position in positions if position is not None)
        excluded |= seen.get(request.user_id or "", frozenset())
    candidates = None
    if request.candidates is not None:
        candidates = sorted(_positions(view, request.candidates, f"{request.field}candidates"))
    deadline.check()
    passed = None if request.filter is None else view.passed(request.filter, deadline.check)
    degraded = [*user.degraded, *_unknown_attributes(passed)]
    query: HistoryQuery | PopularQuery = PopularQuery()
    sparse = None
    if any(has_model_input(item) for item in tokens):
        tokenized = TokenizedHistory(tokens, request.user_id)
        query = HistoryQuery(tokenized, _history_tokens(view, tokenized))
        sparse = sparse_query(view, list(zip(tokens, places, strict=True)))
    spec = SearchSpec(request.k, frozenset(excluded), candidates, passed)
    return Plan(view, spec, query, sparse, history, list(unknown), degraded, request.explain)


def _unknown_attributes(passed: FilterMask | None) -> list[str]:
    return [] if passed is None else [_UNKNOWN_ATTRIBUTE.format(name) for name in passed.unknown]


def _search(view: View, vectors: npt.NDArray[np.float32], plans: Sequence[Plan]) -> list[list[Hit]]:
    """Of plans with one view; vectors: [b, dim]"""
    settings = view.towers.encoder.hybrid
    if settings is None:
        return search(view, vectors, [plan.spec for plan in plans])
    return [
        HybridSearch(view, settings, vector, plan.sparse or empty_query(view)).search(plan.spec)
        for vector, plan in zip(vectors, plans, strict=True)
    ]


def _leaves_seen_out(view: View, request: RecommendRequest) -> bool:
    if request.exclude_seen is not None:
        return request.exclude_seen
    settings = view.towers.encoder.hybrid
    return settings is None or settings.exclude_seen


def _use_cache(view: View, plans: list[Plan], cache: VectorCache) -> list[Plan]:
    """The plans, with a vector for each history whose vector is cached, and a cache key for all others."""
    if not cache.enabled:
        return plans
    keys = {
        row: cache_key(view.towers.encoder, plan.query.history)
        for row, plan in enumerate(plans)
        if isinstance(plan.query, HistoryQuery)
    }
    known = cache.get(list(keys.values()), view.towers.encoder.dim)

    def cached(row: int, plan: Plan) -> Plan:
        if not isinstance(plan.query, HistoryQuery):
            return plan
        key = keys[row]
        return replace(plan, query=VectorQuery(known[key]) if key in known else replace(plan.query, key=key))

    return [cached(row, plan) for row, plan in enumerate(plans)]


def _tokenize_attributes(view: View, requests: Sequence[RecommendRequest]) -> Iterable[TokenizedItem]:
    """Tokens of all history entries that are attributes, in their order: tokenized in one call."""
    plain = [
        check_attributes(entry, f"{request.field}history[{i}].attributes")
        for request in requests
        for i, entry in enumerate(request.history)
        if not isinstance(entry, str)
    ]
    return view.towers.encoder.tokenize_items(plain) if plain else []


def _history_tokens(view: View, history: TokenizedHistory) -> int:
    return view.towers.checkpoint.history_model.history_tokens(history)


def _positions(view: View, item_ids: Collection[str], field: str) -> set[int]:
    """Positions of the ids that exist. Raises InputError for what cannot be an id."""
    found = (view.position_of(check_item_id(item_id, f"{field}[{i}]")) for i, item_id in enumerate(item_ids))
    return {position for position in found if position is not None}


def _most_popular(view: View, spec: SearchSpec) -> list[Hit]:
    """The most popular items; the score is the popularity."""
    candidates = None if spec.candidates is None else set(spec.candidates)
    allowed = (
        position
        for position in view.by_popularity()
        if position not in spec.excluded
        and (candidates is None or position in candidates)
        and (spec.passed is None or position in spec.passed)
    )
    return [Hit(position, view.popularity(position)) for position in islice(allowed, spec.k)]


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
