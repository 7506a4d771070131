"""The endpoints: HTTP bodies to domain calls and back. Nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse

from index.catalogue import Catalogue
from seqrec.errors import CatalogueError, InputError
from seqrec.items import Item
from service.api import (
    BatchAnswer,
    BatchBody,
    DeleteAnswer,
    FoundItems,
    Health,
    ItemsBody,
    ItemView,
    JobView,
    PutAnswer,
    Readiness,
    RecommendAnswer,
    RecommendBody,
    ScoredItem,
    SimilarAnswer,
    SimilarBody,
    StoredItem,
)
from service.follower import Follower
from service.jobs import Reindexer
from service.metrics import Metrics
from service.problems import MEDIA_TYPE
from service.queries import Answer
from service.queries import Request as Recommendation
from service.recommender import Recommender, Trace
from service.settings import Settings

STATIC = Path(__file__).parent / "static"

router = APIRouter()


@dataclass(frozen=True)
class Parts:
    """What the endpoints work with; made when the app starts."""

    settings: Settings
    catalogue: Catalogue
    follower: Follower
    recommender: Recommender
    reindexer: Reindexer
    metrics: Metrics


# Async, since FastAPI would run a plain function on a thread of its own.
async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def _trace(request: Request) -> Trace:
    trace: Trace = request.state.trace
    return trace


With = Annotated[Parts, Depends(_parts)]
Traced = Annotated[Trace, Depends(_trace)]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors an endpoint answers with, for the OpenAPI document."""
    words = {
        400: "The body is not JSON",
        404: "There is no such thing",
        413: "The body is too large",
        422: "The request is not valid; `field` says where",
        429: "Too much is waiting; Retry-After says when to come back",
        503: "Not ready, or the catalogue cannot be used",
        504: "Not within the deadline",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": words[status], "content": content} for status in statuses}


_READ = _problems(400, 413, 422, 429, 503, 504)


@router.post("/recommend", responses=_READ, tags=["recommend"])
async def recommend(body: RecommendBody, parts: With, trace: Traced) -> RecommendAnswer:
    """What comes next after a history."""
    [answer] = await parts.recommender.recommend([_recommendation(body, "")], body.min_seq, trace)
    return _recommend_answer(answer)


@router.post("/recommend/batch", responses=_READ, tags=["recommend"])
async def recommend_batch(body: BatchBody, parts: With, trace: Traced) -> BatchAnswer:
    """Many histories in one call, answered from one state."""
    most = parts.settings.max_batch
    if len(body.requests) > most:
        raise InputError(f"at most {most} in one call, not {len(body.requests)}", "requests")
    requests = [_recommendation(one, f"requests[{i}].") for i, one in enumerate(body.requests)]
    min_seq = max(one.min_seq for one in body.requests)
    answers = await parts.recommender.recommend(requests, min_seq, trace)
    return BatchAnswer(answers=[_recommend_answer(answer) for answer in answers])


@router.post("/similar", responses=_READ | _problems(404), tags=["recommend"])
async def similar(body: SimilarBody, parts: With, trace: Traced) -> SimilarAnswer:
    """Items that read like an item; an item of the catalogue is left out of its own answer."""
    answer = await parts.recommender.similar(body.item_id, body.attributes, body.k, body.min_seq, trace)
    return SimilarAnswer(items=_scored(answer.items), **_state(answer))


@router.post("/items", responses=_READ, tags=["items"])
async def put_items(body: ItemsBody, parts: With, trace: Traced) -> PutAnswer:
    """Add items or replace them, all or none. Once answered they are durable, and the next request finds them."""
    posted = [(item.item_id, item.attributes, item.available) for item in body.items]
    result = await parts.recommender.put(posted, trace)
    return PutAnswer(seq=result.seq, created=result.created, updated=result.updated, searchable=True)


@router.get("/items", responses=_problems(422, 503), tags=["items"])
async def find_items(
    parts: With,
    trace: Traced,
    q: Annotated[str, Query(max_length=1000, description="words; the last may be the beginning of one")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FoundItems:
    """Items whose attributes hold all the words."""
    items = await parts.recommender.find(q, limit, trace)
    return FoundItems(items=[ItemView(item_id=item.item_id, attributes=dict(item.attributes)) for item in items])


@router.get("/items/{item_id:path}", responses=_problems(404, 422, 503), tags=["items"])
async def get_item(item_id: str, parts: With, trace: Traced) -> StoredItem:
    """An item as it is stored. Its id may hold a slash, plain or encoded."""
    seq, item, searchable = await parts.recommender.get(item_id, trace)
    return StoredItem(
        item_id=item.item_id,
        attributes=dict(item.attributes),
        available=item.available,
        seq=seq,
        searchable=searchable,
    )


@router.delete("/items/{item_id:path}", responses=_problems(404, 422, 503), tags=["items"])
async def delete_item(item_id: str, parts: With, trace: Traced) -> DeleteAnswer:
    """Take an item out of answers and histories."""
    return DeleteAnswer(seq=await parts.recommender.delete(item_id, trace))


@router.post("/reindex", status_code=202, responses=_problems(503), tags=["operation"])
async def reindex(parts: With) -> JobView:
    """Make a new snapshot of the catalogue in the background and serve it. One at a time: a running one is answered."""
    return JobView(**asdict(await asyncio.to_thread(parts.reindexer.start)))


@router.get("/reindex/{job_id}", responses=_problems(404, 422), tags=["operation"])
async def reindex_progress(job_id: str, parts: With) -> JobView:
    """How far a reindex job is."""
    return JobView(**asdict(await asyncio.to_thread(parts.reindexer.job, job_id)))


@router.get("/healthz", responses={503: {"model": Health, "description": "Restart the process"}}, tags=["operation"])
async def healthz(parts: With, response: Response) -> Health:
    """Whether the process can ever answer; at once, also while it loads."""
    if parts.recommender.batcher.alive:
        return Health(status="alive")
    response.status_code = 503
    return Health(status="dead", detail=f"the compute thread died: {parts.recommender.batcher.failure!r}")


@router.get(
    "/readyz", responses={503: {"model": Readiness, "description": "Not yet; `detail` says why"}}, tags=["operation"]
)
async def readyz(parts: With, response: Response) -> Readiness:
    """Whether requests are answered: a snapshot is loaded, warmed and caught up with the log."""
    try:
        head = await asyncio.to_thread(parts.catalogue.head)
        view = await asyncio.to_thread(parts.follower.view) if parts.follower.state is not None else None
        detail = parts.follower.trouble
    except CatalogueError as error:
        head, view, detail = None, None, str(error)
    if view is None or not parts.recommender.batcher.alive:
        response.status_code = 503
        return Readiness(status="not ready", detail=detail or "the compute thread died", head=head)
    return Readiness(status="ready", detail=detail, snapshot=view.snapshot.id, seq=view.seq, head=head)


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(parts: With) -> Response:
    """For Prometheus."""
    return Response(await asyncio.to_thread(parts.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


def _recommendation(body: RecommendBody, field: str) -> Recommendation:
    history = [entry if isinstance(entry, str) else entry.attributes for entry in body.history]
    return Recommendation(history, body.k, body.exclude_seen, body.exclude, body.candidates, field)


def _recommend_answer(answer: Answer) -> RecommendAnswer:
    return RecommendAnswer(items=_scored(answer.items), source=answer.source, unknown=answer.unknown, **_state(answer))


def _state(answer: Answer) -> dict[str, Any]:
    view = answer.view
    return {
        "metric": view.towers.metric.value,
        "model": view.towers.checkpoint.digest,
        "snapshot": view.snapshot.id,
        "seq": view.seq,
    }


def _scored(items: Sequence[tuple[Item, float]]) -> list[ScoredItem]:
    return [ScoredItem(item_id=i.item_id, attributes=dict(i.attributes), score=score) for i, score in items]
