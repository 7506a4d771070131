"""The endpoints of recommendations and items: HTTP bodies to domain calls and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from seqrec.data.items import Item
from seqrec.errors import InputError
from service.engine.plan import ONLY_IDS, Answer
from service.engine.plan import Request as Recommendation
from service.http.dependencies import READ, ComponentsDep, TraceDep, problems
from service.http.schemas import (
    BatchAnswer,
    BatchBody,
    DeleteAnswer,
    FoundItems,
    ItemsBody,
    ItemView,
    PutAnswer,
    ReasonView,
    RecommendAnswer,
    RecommendBody,
    RecommendedItem,
    ScoredItem,
    SimilarAnswer,
    SimilarBody,
    StoredItem,
)
from service.live.filters import parse_filter

STATIC = Path(__file__).parents[2] / "console"

router = APIRouter()


@router.post("/recommend", responses=READ, tags=["recommend"], response_model_exclude_unset=True)
async def recommend(body: RecommendBody, parts: ComponentsDep, trace: TraceDep) -> RecommendAnswer:
    """What comes next after a history."""
    request = _recommendation(body, "", parts.settings.max_ids)
    [answer] = await parts.recommender.recommend([request], body.min_seq, trace)
    return _recommend_answer(answer)


@router.post("/recommend/batch", responses=READ, tags=["recommend"], response_model_exclude_unset=True)
async def recommend_batch(body: BatchBody, parts: ComponentsDep, trace: TraceDep) -> BatchAnswer:
    """Many histories in one call, answered from one state."""
    most = parts.settings.max_batch
    if len(body.requests) > most:
        raise InputError(f"at most {most} in one call, not {len(body.requests)}", "requests")
    max_values = parts.settings.max_ids
    requests = [_recommendation(one, f"requests[{i}].", max_values) for i, one in enumerate(body.requests)]
    min_seq = max(one.min_seq for one in body.requests)
    answers = await parts.recommender.recommend(requests, min_seq, trace)
    return BatchAnswer(answers=[_recommend_answer(answer) for answer in answers])


@router.post("/similar", responses=READ | problems(404), tags=["recommend"])
async def similar(body: SimilarBody, parts: ComponentsDep, trace: TraceDep) -> SimilarAnswer:
    """Items that read like an item; an item of the catalogue is left out of its own answer."""
    answer = await parts.recommender.similar(body.item_id, body.attributes, body.k, body.min_seq, trace)
    return SimilarAnswer(items=_scored(answer.items), **_state(answer))


@router.post("/items", responses=READ, tags=["items"], response_model_exclude_none=True)
async def put_items(body: ItemsBody, parts: ComponentsDep, trace: TraceDep) -> PutAnswer:
    """Add items or replace them, all or none. Once answered they are durable, and the next request finds them.

    A model that knows items by id cannot search those that its training did not see: they are stored, and named.
    """
    posted = [(item.item_id, item.attributes, item.available) for item in body.items]
    result, unknown = await parts.recommender.put(posted, trace)
    answer = PutAnswer(seq=result.seq, created=result.created, updated=result.updated, searchable=not unknown)
    return answer.model_copy(update={"not_searchable": unknown, "detail": ONLY_IDS}) if unknown else answer


@router.get("/items", responses=problems(422, 503), tags=["items"])
async def find_items(
    parts: ComponentsDep,
    trace: TraceDep,
    q: Annotated[str, Query(max_length=1000, description="words; the last may be the beginning of one")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FoundItems:
    """Items whose attributes hold all the words."""
    items = await parts.recommender.find(q, limit, trace)
    return FoundItems(items=[ItemView(item_id=item.item_id, attributes=dict(item.attributes)) for item in items])


@router.get("/items/{item_id:path}", responses=problems(404, 422, 503), tags=["items"])
async def get_item(item_id: str, parts: ComponentsDep, trace: TraceDep) -> StoredItem:
    """An item as it is stored. Its id may hold a slash, plain or encoded."""
    seq, item, searchable = await parts.recommender.get(item_id, trace)
    return StoredItem(
        item_id=item.item_id,
        attributes=dict(item.attributes),
        available=item.available,
        seq=seq,
        searchable=searchable,
    )


@router.delete("/items/{item_id:path}", responses=problems(404, 422, 503), tags=["items"])
async def delete_item(item_id: str, parts: ComponentsDep, trace: TraceDep) -> DeleteAnswer:
    """Take an item out of answers and histories."""
    return DeleteAnswer(seq=await parts.recommender.delete(item_id, trace))


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


def _recommendation(body: RecommendBody, field: str, max_values: int) -> Recommendation:
    if body.history is None and body.user_id is None:
        raise InputError("say a history, or a user_id whose history is stored, or both", f"{field}history")
    history = [entry if isinstance(entry, str) else entry.attributes for entry in body.history or ()]
    return Recommendation(
        history,
        body.k,
        body.exclude_seen,
        body.exclude,
        body.candidates,
        field,
        user_id=body.user_id,
        filter=parse_filter(body.filter, f"{field}filter", max_values) if body.filter else None,
        explain=body.explain,
    )


def _recommend_answer(answer: Answer) -> RecommendAnswer:
    items = [RecommendedItem(**_fields(item, score)) for item, score in answer.items]
    if answer.because is not None:
        items = [
            item.model_copy(update={"because": [ReasonView(**asdict(reason)) for reason in reasons]})
            for item, reasons in zip(items, answer.because, strict=True)
        ]
    return RecommendAnswer(
        items=items,
        source=answer.source,
        unknown=answer.unknown,
        degraded=answer.degraded,
        **_state(answer),
    )


def _state(answer: Answer) -> dict[str, Any]:
    view = answer.view
    return {
        "metric": view.towers.metric.value,
        "model": view.towers.checkpoint.digest,
        "snapshot": view.snapshot.id,
        "seq": view.seq,
    }


def _scored(items: Sequence[tuple[Item, float]]) -> list[ScoredItem]:
    return [ScoredItem(**_fields(item, score)) for item, score in items]


def _fields(item: Item, score: float) -> dict[str, Any]:
    return {"item_id": item.item_id, "attributes": dict(item.attributes), "score": score}
