"""The endpoints of recommendations: HTTP bodies to calls of the engine, and its answers back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from seqrec.data.items import Item, check_item_id, check_user_id
from seqrec.errors import InputError
from service.engine.explain import Reason
from service.engine.plan import Answer, RecommendRequest, SimilarRequest
from service.http.cursor import make_cursor, read_cursor
from service.http.dependencies import READ, ComponentsDep, TraceDep, problems
from service.http.schemas import (
    BatchAnswer,
    BatchBody,
    PlacedItem,
    QuestionBody,
    ReasonView,
    RecommendAnswer,
    RecommendBody,
    RecommendedItem,
    SimilarAnswer,
    SimilarBody,
)

router = APIRouter(tags=["recommend"])


@router.post("/recommend", responses=READ, response_model_exclude_unset=True)
async def recommend(body: RecommendBody, components: ComponentsDep, trace: TraceDep) -> RecommendAnswer:
    """What comes next after a history."""
    request = _request(body, "", components.settings.max_ids)
    [answer] = await components.recommender.recommend([request], body.min_seq, trace)
    return _recommend_answer(answer, body)


@router.post("/recommend/batch", responses=READ, response_model_exclude_unset=True)
async def recommend_batch(body: BatchBody, components: ComponentsDep, trace: TraceDep) -> BatchAnswer:
    """Many histories in one call, answered from one state."""
    most = components.settings.max_batch
    if len(body.requests) > most:
        raise InputError(f"at most {most} in one call, not {len(body.requests)}", "requests")
    max_values = components.settings.max_ids
    requests = [_request(one, f"requests[{i}].", max_values) for i, one in enumerate(body.requests)]
    min_seq = max(one.min_seq for one in body.requests)
    answers = await components.recommender.recommend(requests, min_seq, trace)
    pairs = zip(answers, body.requests, strict=True)
    return BatchAnswer(answers=[_recommend_answer(answer, one) for answer, one in pairs])


@router.post("/similar", responses=READ | problems(404), response_model_exclude_unset=True)
async def similar(body: SimilarBody, components: ComponentsDep, trace: TraceDep) -> SimilarAnswer:
    """Items that read like an item; an item of the catalogue is left out of its own answer."""
    selection = _selection(body, "", components.settings.max_ids)
    request = SimilarRequest(item_id=body.item_id, attributes=body.attributes, **selection)
    answer = await components.recommender.similar(request, body.min_seq, trace)
    items = [
        PlacedItem(**_fields(item, score), **mark)
        for (item, score), mark in zip(answer.items, _marks(answer), strict=True)
    ]
    return SimilarAnswer(items=items, degraded=answer.degraded, **_next(answer, body), **_state(answer))


def _request(body: RecommendBody, field: str, max_values: int) -> RecommendRequest:
    if body.history is None and body.user_id is None and body.context is None:
        raise InputError("give a history, or a user_id whose history is stored, or both", f"{field}history")
    history = [entry if isinstance(entry, str) else entry.attributes for entry in body.history or ()]
    selection = _selection(body, field, max_values)
    if body.exclude_seen is not None:
        selection["exclude_seen"] = body.exclude_seen
        selection["given"] |= {"exclude_seen"}
    return RecommendRequest(
        history=[*history, *_context(body, field)],
        user_id=None if body.user_id is None else check_user_id(body.user_id, f"{field}user_id"),
        explain=body.explain,
        **selection,
    )


def _context(body: RecommendBody, field: str) -> list[str]:
    if body.context is None:
        return []
    cart = [check_item_id(item_id, f"{field}context.cart[{i}]") for i, item_id in enumerate(body.context.cart)]
    looked_at = [] if body.context.item_id is None else [check_item_id(body.context.item_id, f"{field}context.item_id")]
    return cart + looked_at


def _selection(body: QuestionBody, field: str, max_values: int) -> dict[str, Any]:
    """Arguments of a `Selection`."""
    values = body.values(field, max_values)
    shown = [] if body.cursor is None else read_cursor(body.cursor, f"{field}cursor")
    return values | {"placement": body.placement, "given": frozenset(values), "shown": shown, "field": field}


def _next(answer: Answer, body: QuestionBody) -> dict[str, Any]:
    """The cursor of the next page, if the request wants one and this page is full."""
    if not (body.paginate or body.cursor) or len(answer.items) < answer.k:
        return {}
    shown = [] if body.cursor is None else read_cursor(body.cursor, "cursor")
    return {"next": make_cursor([*shown, *(item.item_id for item, _ in answer.items)])}


def _marks(answer: Answer) -> Iterator[dict[str, Any]]:
    """How each item came into the answer, where rules apply."""
    for hit in answer.hits:
        marks: dict[str, Any] = {"source": hit.source} if answer.ruled else {}
        yield marks | {name: True for name in ("pinned", "explored") if getattr(hit, name)}


def _recommend_answer(answer: Answer, body: RecommendBody) -> RecommendAnswer:
    items = [
        RecommendedItem(**_fields(item, score), **marks)
        for (item, score), marks in zip(answer.items, _marks(answer), strict=True)
    ]
    if answer.because is not None:
        items = [
            item.model_copy(update={"because": [ReasonView(**_given(reason)) for reason in reasons]})
            for item, reasons in zip(items, answer.because, strict=True)
        ]
    if answer.parts is not None:
        items = [
            item.model_copy(update={"parts": dict(parts)}) for item, parts in zip(items, answer.parts, strict=True)
        ]
    return RecommendAnswer(
        items=items,
        source=answer.source,
        unknown=answer.unknown,
        degraded=answer.degraded,
        **_next(answer, body),
        **_state(answer),
    )


def _given(reason: Reason) -> dict[str, Any]:
    return {name: value for name, value in asdict(reason).items() if value is not None}


def _state(answer: Answer) -> dict[str, Any]:
    view = answer.view
    return {
        "metric": view.towers.metric.value,
        "model": view.towers.checkpoint.digest,
        "snapshot": view.snapshot.id,
        "seq": view.seq,
    }


def _fields(item: Item, score: float) -> dict[str, Any]:
    return {"item_id": item.item_id, "attributes": dict(item.attributes), "score": score}
