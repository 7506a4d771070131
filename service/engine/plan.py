"""From a request to a plan, without threads: `RecommendRequest` -> `Plan`; `service.engine.execution` answers it.

A plan is made of a request, the stored history of its user and a view. It contains what to encode, what to search for,
and the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.items import AttributeValue, check_attributes, check_item_id
from seqrec.errors import InputError, ItemNotFound
from seqrec.hybrid.lexical import LAST
from seqrec.metric import Metric
from seqrec.text.item_text import TokenizedHistory, TokenizedItem, has_model_input
from service.deadline import Deadline
from service.engine.attributes import unknown_fields
from service.engine.requests import (
    NO_EXPOSURE,
    Exposure,
    PopularQuery,
    RecommendRequest,
    Selection,
    SimilarRequest,
    with_placement,
)
from service.engine.user_history import UserHistory
from service.engine.vector_cache import VectorCache, cache_key
from service.live.hybrid import SparseQuery, sparse_query
from service.live.search import SearchSpec
from service.live.state import Towers, View
from service.rules.ranking import Ruled, prepare

Vector = npt.NDArray[np.float32]
ONLY_IDS = "this model reads item ids, not text, and finds only the items of its training data"
UNAVAILABLE = "an item that is not available is in no answer"
_UNKNOWN_ATTRIBUTE = "filter: no item has the attribute {!r}"
_NOT_OF_LAST = "filter: the newest item of the history has no {!r}, so its condition was left out"
_SEARCH_COST = 32
"""The cost, in tokens, of a hybrid search that encodes nothing: encoding that many takes as long. With a smaller cost,
the queue would accept hundreds of such requests, and the next one would wait for all of them."""
_IDS_PER_TOKEN = 100
"""Excluded or candidate ids that cost as much time as encoding one token."""


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


Query = HistoryQuery | ItemQuery | VectorQuery
"""What to search with."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What one answer takes: `query` to search with, `spec` for what to find, in `view`."""

    view: View
    spec: SearchSpec
    query: Query | PopularQuery
    sparse: SparseQuery | None = None  # of a hybrid, in addition to the vector
    history: Sequence[int] = ()  # positions of the history's items that are in the catalogue, oldest first
    unknown: Sequence[str] = ()  # ids of the history that are not
    degraded: Sequence[str] = ()  # what was not taken into account
    explain: bool = False
    counted: bool = False  # of a popular plan: only items with events
    fields: Sequence[str] | None = None  # attributes of the answer; None: all
    ruled: Ruled | None = None  # the rules, if there are any
    last: tuple[TokenizedItem, int | None] | None = None  # the newest item, and its position
    exposure: Exposure = NO_EXPOSURE
    shown_before: int = 0  # items on earlier pages
    request: Selection | None = None  # with the rules of its placement

    @property
    def cost(self) -> int:
        """Work on the compute threads, in tokens."""
        ids = len(self.spec.excluded) + len(self.spec.candidates or ())
        return (0 if isinstance(self.query, PopularQuery) else self.query.cost) + ids // _IDS_PER_TOKEN


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
    newest are read. A history whose vector is cached is not encoded. Raises InputError, PlacementNotFound,
    DeadlineExceeded.
    """
    seen: dict[str, frozenset[int]] = {}  # of each user, looked up once for all requests of a batch
    texts = iter(_tokenize_attributes(view, requests))
    plans = []
    for request in (with_placement(view, request) for request in requests):
        deadline.check()
        user = UserHistory() if request.user_id is None else users[request.user_id]
        plans.append(_plan(view, request, user, max_history, texts, seen, deadline))
    return _use_cache(view, plans, cache)


def plan_each(views: Sequence[View], requests: Sequence[RecommendRequest], *arguments: Any) -> list[Plan]:
    """As `plan_recommendations`, each request in its own view."""
    plans: dict[int, Plan] = {}
    for view in {id(view): view for view in views}.values():
        rows = [row for row, own in enumerate(views) if own is view]
        planned = plan_recommendations(view, [requests[row] for row in rows], *arguments)
        plans.update(zip(rows, planned, strict=True))
    return [plans[row] for row in range(len(requests))]


def plan_similar(view: View, request: SimilarRequest, deadline: Deadline) -> Plan:
    """Find similar items. Raises ItemNotFound, InputError, PlacementNotFound."""
    request = with_placement(view, request)
    if request.item_id is not None:
        position = view.position_of(request.item_id)
        if position is None:
            known = view.towers.encoder.cold_items
            raise (
                ItemNotFound(request.item_id)
                if known
                else ItemNotFound(request.item_id, "among those that the model knows")
            )
        tokens, attributes = view.tokens(position), view.item(position).attributes
        plan = _selected(view, request, (tokens, position), attributes, {position}, deadline)
        if request.holdout:
            return plan
        if view.towers.metric is Metric.COSINE:
            return replace(plan, query=VectorQuery(view.vectors([position])[0]))
        # Items and queries lie in different spaces: similar is what would come after a history of this item.
        sparse = sparse_query(view, [(tokens, position)], pairs=False)
        return replace(plan, query=_history_query(view, [tokens]), sparse=sparse, history=[position])
    assert request.attributes is not None
    checked = check_attributes(request.attributes)
    [item] = view.towers.encoder.tokenize_items([checked])
    if not has_model_input(item):
        raise InputError(no_text(view.towers), "attributes")
    plan = _selected(view, request, (item, None), checked, set(), deadline)
    if request.holdout:
        return plan
    sparse = sparse_query(view, [(item, None)], pairs=False)
    if sparse is None:
        return replace(plan, query=ItemQuery(item))
    return replace(plan, query=_history_query(view, [item]), sparse=sparse)


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
    entries: list[int | TokenizedItem] = []  # positions, and the tokens of plain attributes
    history: list[int] = []
    unknown: dict[str, None] = {}
    stored = user.recent[max(0, len(user.recent) + len(request.history) - max_history) :]
    for i, entry in enumerate((*stored, *request.history), -len(stored)):
        if not isinstance(entry, str):
            entries.append(next(texts))
            continue
        item_id = entry if i < 0 else check_item_id(entry, f"{request.field}history[{i}]")
        position = view.position_of(item_id)
        if position is None:
            unknown[item_id] = None
        else:
            entries.append(position)
            history.append(position)
    deadline.check()
    negative = (view.position_of(item_id) for item_id in user.negative)
    excluded = {position for position in negative if position is not None}
    if _leaves_seen_out(view, request):
        excluded.update(history)
        if request.user_id is not None and request.user_id not in seen:
            positions = (view.position_of(item_id) for item_id in user.seen)
            seen[request.user_id] = frozenset(position for position in positions if position is not None)
        excluded |= seen.get(request.user_id or "", frozenset())
    last = _with_tokens(view, entries[-1]) if entries else None
    attributes: Mapping[str, AttributeValue] = {}
    if last is not None:
        attributes = _plain_attributes(request) if last[1] is None else view.item(last[1]).attributes
    plan = _selected(view, request, last, attributes, excluded, deadline)
    plan = replace(
        plan,
        history=history,
        unknown=list(unknown),
        degraded=[*user.degraded, *plan.degraded],
        explain=request.explain,
    )
    if request.popular is not None:
        return replace(plan, query=request.popular, counted=True)
    if request.holdout or not any(has_model_input(_with_tokens(view, entry)[0]) for entry in entries):
        return plan
    query = _history_query(view, entries, request.user_id)
    newest = [_with_tokens(view, entry) for entry in entries[-LAST:]]
    earlier = [entry if isinstance(entry, int) else None for entry in entries[:-LAST]]
    return replace(plan, query=query, sparse=sparse_query(view, newest, earlier))


def _with_tokens(view: View, entry: int | TokenizedItem) -> tuple[TokenizedItem, int | None]:
    """The tokens of an entry of a history, and its position."""
    return (view.tokens(entry), entry) if isinstance(entry, int) else (entry, None)


def _selected(
    view: View,
    request: Selection,
    last: tuple[TokenizedItem, int | None] | None,
    attributes: Mapping[str, AttributeValue],
    excluded: set[int],
    deadline: Deadline,
) -> Plan:
    """A plan without a query: what the answer may contain, and its rules.

    last: the newest item and its position, `attributes` are its; excluded: more positions than those of the request.
    """
    excluded = excluded | _positions(view, request.exclude, f"{request.field}exclude")
    shown = [place for item_id in request.shown if (place := view.position_of(item_id)) is not None]
    candidates = None
    if request.candidates is not None:
        candidates = sorted(_positions(view, request.candidates, f"{request.field}candidates"))
    deadline.check()
    missing: list[str] = []
    wanted = None if request.filter is None else request.filter.resolved(attributes, missing)
    passed = None if wanted is None else view.passed(wanted, deadline.check)
    ruled = None
    if (rules := request.rules).change_anything or shown:
        ruled = prepare(view, rules, shown, attributes, deadline.check, request.showings)
    unknown = {*(passed.unknown if passed else ()), *(ruled.unknown if ruled else ())}
    degraded = [_UNKNOWN_ATTRIBUTE.format(name) for name in sorted(unknown)]
    degraded += request.degraded
    degraded += request.showings.degraded if request.rotate is not None else []
    degraded += [_NOT_OF_LAST.format(name) for name in missing]
    degraded += unknown_fields(view, request.fields, deadline)
    spec = SearchSpec(request.k, frozenset(excluded.union(shown)), candidates, passed)
    return Plan(
        view,
        spec,
        PopularQuery(),
        degraded=degraded,
        fields=request.fields,
        ruled=ruled,
        last=last,
        exposure=request.exposure,
        shown_before=len(request.shown),
        request=request,
    )


def _plain_attributes(request: RecommendRequest) -> Mapping[str, AttributeValue]:
    """Of the newest history entry that is plain attributes."""
    return check_attributes(next(entry for entry in reversed(request.history) if not isinstance(entry, str)))


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


def _history_query(
    view: View, entries: Sequence[int | TokenizedItem], user_id: str | None = None
) -> HistoryQuery | VectorQuery:
    """A hybrid that has left its dense model out has nothing to encode."""
    encoder = view.towers.encoder
    if not encoder.has_dense:
        return VectorQuery(np.zeros(encoder.dim, np.float32), _SEARCH_COST)
    history = TokenizedHistory([_with_tokens(view, entry)[0] for entry in entries], user_id)
    return HistoryQuery(history, encoder.checkpoint.history_model.history_tokens(history))


def _positions(view: View, item_ids: Collection[str], field: str) -> set[int]:
    """Positions of the ids that exist. Raises InputError for what cannot be an id."""
    found = (view.position_of(check_item_id(item_id, f"{field}[{i}]")) for i, item_id in enumerate(item_ids))
    return {position for position in found if position is not None}
