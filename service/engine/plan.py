"""A recommendation in three steps.

A request becomes a query, queries are encoded and searched together, hits become items.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from index.build.import_items import has_model_input
from seqrec.data.items import Item, check_attributes, check_item_id
from seqrec.errors import InputError, ItemNotFound
from seqrec.metric import Metric
from seqrec.text.item_text import TokenizedHistory, TokenizedItem
from service.engine.explain import Reason, reasons
from service.engine.vector_cache import VectorCache, cache_key
from service.live.filters import Filter
from service.live.search import Hit, SearchSpec, search
from service.live.state import Towers, View

Source = Literal["model", "fallback:popular"]
ONLY_IDS = "this model reads no text: it knows items by their ids, and only those that its training saw"


@dataclass(frozen=True)
class Request:
    """One recommendation to make. `history` oldest first: an item id, or attributes of an item in no catalogue.

    `field` goes before the names of fields in errors, such as `requests[3].`. `service.engine.user_history` fills in
    the stored history of the user.
    """

    history: Sequence[str | Mapping[str, Any]]
    k: int = 10
    exclude_seen: bool = True
    exclude: Sequence[str] = ()
    candidates: Sequence[str] | None = None
    field: str = ""
    user_id: str | None = None
    stored: Sequence[str] = ()  # ids of the user's newest items, oldest first; they come before `history`
    had: Collection[str] = ()  # ids of all items that the user ever had
    degraded: Sequence[str] = ()  # what could not be taken into account
    filter: Filter | None = None
    explain: bool = False


@dataclass(frozen=True, eq=False)
class Query:
    """What to search a view for, and with: exactly one of history, item and vector. `cost` in tokens."""

    view: View
    wanted: SearchSpec
    cost: int = 1
    history: TokenizedHistory | None = None
    item: TokenizedItem | None = None
    vector: npt.NDArray[np.float32] | None = None
    key: bytes | None = None  # under which the vector of the history is to be remembered


@dataclass(frozen=True, eq=False)
class Found:
    """The hits of one query, and its vector; seconds that its whole batch was encoded and searched."""

    hits: list[Hit]
    vector: npt.NDArray[np.float32]
    encode: float
    search: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request made ready: its query, or None and the popular items where the history says nothing."""

    unknown: list[str]
    query: Query | None
    popular: list[Hit]
    degraded: Sequence[str] = ()
    explain: Sequence[int] | None = None  # positions of the history's items, which are to explain the answer


@dataclass(frozen=True, eq=False)
class Answer:
    """Items with their scores, best first, and the view they were found in."""

    view: View
    items: list[tuple[Item, float]]
    source: Source
    unknown: list[str]
    degraded: list[str]
    because: list[list[Reason]] | None = None
    """For each item, if it was asked for."""


def prepare(view: View, requests: Sequence[Request], cache: VectorCache) -> list[Prepared]:
    """Look ids up, tokenise attributes, and count what it will cost. Raises InputError.

    A history whose vector is in the cache costs no encoding.
    """
    texts = iter(_tokenized(view, requests))
    prepared = [_prepared(view, request, texts) for request in requests]
    if not cache.enabled:
        return prepared
    keys = {
        row: cache_key(view.towers.encoder, one.query.history)
        for row, one in enumerate(prepared)
        if one.query is not None and one.query.history is not None
    }
    known = cache.get(list(keys.values()), view.towers.encoder.dim)
    for row, key in keys.items():
        query = prepared[row].query
        assert query is not None
        if key in known:
            query = Query(view, query.wanted, vector=known[key])
        else:
            query = replace(query, key=key)
        prepared[row] = replace(prepared[row], query=query)
    return prepared


def prepare_similar(view: View, item_id: str | None, attributes: Mapping[str, Any] | None, k: int) -> Query:
    """A query for what is like an item of the catalogue, or like attributes. Raises ItemNotFound, InputError."""
    if item_id is not None:
        position = view.position_of(item_id)
        if position is None:
            known = view.towers.encoder.cold_items
            raise ItemNotFound(item_id) if known else ItemNotFound(item_id, "among those that the model knows")
        wanted = SearchSpec(k, frozenset([position]))
        if view.towers.metric is Metric.COSINE:
            return Query(view, wanted, vector=view.vectors([position])[0])
        # Items and queries lie in spaces of their own: what comes after the item is what is like it.
        history = TokenizedHistory([view.tokens(position)])
        return Query(view, wanted, view.towers.checkpoint.history_model.history_tokens(history), history=history)
    assert attributes is not None
    [item] = view.towers.encoder.tokenize_items([check_attributes(attributes)])
    if not has_model_input(item):
        raise InputError(no_text(view.towers), "attributes")
    return Query(view, SearchSpec(k), len(item.ids) + 1, item=item)


def answer_queries(queries: Sequence[Query]) -> list[Found]:
    """Encode and search a batch. Its queries may hold different views, and even models, right after a swap."""
    begin = time.perf_counter()
    vectors: dict[int, npt.NDArray[np.float32]] = {
        row: query.vector for row, query in enumerate(queries) if query.vector is not None
    }
    for towers, rows in _grouped(queries, lambda query: query.view.towers):
        histories = [(row, history) for row in rows if (history := queries[row].history) is not None]
        if histories:
            encoded = towers.encode_histories([history for _, history in histories])
            vectors.update(zip([row for row, _ in histories], encoded, strict=True))
        items = [(row, item) for row in rows if (item := queries[row].item) is not None]
        if items:
            encoded = towers.encode_items([item for _, item in items])
            vectors.update(zip([row for row, _ in items], encoded, strict=True))
    encoded_at = time.perf_counter()
    hits: dict[int, list[Hit]] = {}
    for view, rows in _grouped(queries, lambda query: query.view):
        matrix = np.stack([vectors[row] for row in rows])
        hits.update(zip(rows, search(view, matrix, [queries[row].wanted for row in rows]), strict=True))
    searched_at = time.perf_counter()
    return [Found(hits[row], vectors[row], encoded_at - begin, searched_at - encoded_at) for row in range(len(queries))]


def answers(view: View, prepared: Sequence[Prepared], hits: Sequence[Sequence[Hit]]) -> list[Answer]:
    """Read the items that were found."""
    return [
        Answer(
            view,
            [(view.item(hit.position), hit.score) for hit in found],
            "fallback:popular" if one.query is None else "model",
            one.unknown,
            list(one.degraded),
            None if one.explain is None else reasons(view, one.explain, [hit.position for hit in found]),
        )
        for one, found in zip(prepared, hits, strict=True)
    ]


def no_text(towers: Towers) -> str:
    """What to say of an item without text."""
    if not towers.encoder.cold_items:
        return ONLY_IDS
    item_text = towers.checkpoint.item_model.item_text
    names = None if item_text is None else item_text.recipe.attributes
    if names is None:
        return "nothing in it that the model can read; give it at least one attribute with words in it"
    return f"nothing in it that the model can read, which is {', '.join(names)}; give it at least one of them"


def _tokenized(view: View, requests: Sequence[Request]) -> Iterable[TokenizedItem]:
    """Tokens of all plain attributes, in their order: tokenised at once."""
    plain = [
        check_attributes(entry, f"{request.field}history[{i}].attributes")
        for request in requests
        for i, entry in enumerate(request.history)
        if not isinstance(entry, str)
    ]
    return view.towers.encoder.tokenize_items(plain) if plain else []


def _prepared(view: View, request: Request, texts: Iterator[TokenizedItem]) -> Prepared:
    tokens: list[TokenizedItem] = []
    seen: set[int] = set()
    unknown: list[str] = []

    def look_up(item_id: str) -> None:
        position = view.position_of(item_id)
        if position is None:
            unknown.append(item_id)
        else:
            tokens.append(view.tokens(position))
            seen.add(position)

    for item_id in request.stored:
        look_up(item_id)
    for i, entry in enumerate(request.history):
        if isinstance(entry, str):
            look_up(check_item_id(entry, f"{request.field}history[{i}]"))
        else:
            tokens.append(next(texts))
    excluded = _positions(view, request.exclude, f"{request.field}exclude")
    if request.exclude_seen:
        excluded |= seen | {p for p in map(view.position_of, request.had) if p is not None}
    candidates = None
    if request.candidates is not None:
        candidates = sorted(_positions(view, request.candidates, f"{request.field}candidates"))
    unknown = list(dict.fromkeys(unknown))
    passed = None if request.filter is None else view.passed(request.filter)
    wanted = SearchSpec(request.k, frozenset(excluded), candidates, passed)
    if not any(has_model_input(item) for item in tokens):
        return Prepared(unknown, None, _popular(view, wanted), request.degraded, [] if request.explain else None)
    history = TokenizedHistory(tokens, request.user_id)
    cost = view.towers.checkpoint.history_model.history_tokens(history)
    explain = sorted(seen) if request.explain else None
    return Prepared(unknown, Query(view, wanted, cost, history=history), [], request.degraded, explain)


def _positions(view: View, item_ids: Sequence[str], field: str) -> set[int]:
    """Where these items are; those that are not there have no position."""
    found = (view.position_of(check_item_id(item_id, f"{field}[{i}]")) for i, item_id in enumerate(item_ids))
    return {position for position in found if position is not None}


def _popular(view: View, wanted: SearchSpec) -> list[Hit]:
    """The most popular items; the score is how often the item was had."""
    among = None if wanted.candidates is None else set(wanted.candidates)
    shown = (
        p
        for p in view.by_popularity()
        if p not in wanted.excluded and (among is None or p in among) and (wanted.passed is None or p in wanted.passed)
    )
    return [Hit(position, view.popularity(position)) for position in islice(shown, wanted.k)]


def _grouped(queries: Sequence[Query], key: Any) -> list[tuple[Any, list[int]]]:
    """Rows of the queries by the object that `key` gives of each."""
    groups: dict[int, tuple[Any, list[int]]] = {}
    for row, query in enumerate(queries):
        of = key(query)
        groups.setdefault(id(of), (of, []))[1].append(row)
    return list(groups.values())
