"""The endpoints of recommendations: from HTTP bodies to calls of the engine, and back."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from seqrec.data.durations import parse_duration
from seqrec.data.items import Item, check_item_id, check_user_id
from seqrec.errors import InputError
from service.components import Components
from service.engine.execution import Answer
from service.engine.explain import Reason
from service.engine.requests import PopularQuery, RecommendRequest, SimilarRequest
from service.http.cursor import make_cursor, read_cursor
from service.http.dependencies import READ, ComponentsDep, TraceDep, problems
from service.http.schemas import (
    WINDOW,
    BatchAnswer,
    BatchBody,
    PlacedItem,
    PopularAnswer,
    PopularBody,
    QuestionBody,
    ReasonView,
    RecommendAnswer,
    RecommendBody,
    RecommendedItem,
    SimilarAnswer,
    SimilarBody,
)
from service.reports.attribution import recommendation_id

router = APIRouter(tags=["recommend"])


@router.post("/recommend", responses=READ | problems(404), response_model_exclude_unset=True)
async def recommend(body: RecommendBody, components: ComponentsDep, trace: TraceDep) -> RecommendAnswer:
    """Recommend the next items for a history."""
    request = _request(body, "", components.settings.max_ids)
    [answer] = await components.recommender.recommend([request], body.min_seq, trace)
    return _recommend_answer(answer, body, components)


@router.post("/recommend/batch", responses=READ | problems(404), response_model=BatchAnswer)
async def recommend_batch(body: BatchBody, components: ComponentsDep, trace: TraceDep) -> Response:
    """Recommend for several histories in one call, all from the same state."""
    most = components.settings.max_batch
    if len(body.requests) > most:
        raise InputError(f"at most {most} in one call, not {len(body.requests)}", "requests")
    max_values = components.settings.max_ids
    requests = [_request(one, f"requests[{i}].", max_values) for i, one in enumerate(body.requests)]
    min_seq = max(one.min_seq for one in body.requests)
    answers = await components.recommender.recommend(requests, min_seq, trace)
    # Not on the event loop, where every other request would wait for it.
    content = await components.recommender.render(_batch_json, answers, body.requests, components, trace=trace)
    return Response(content, media_type="application/json")


@router.post("/popular", responses=READ | problems(404), response_model_exclude_unset=True)
async def popular(body: PopularBody, components: ComponentsDep, trace: TraceDep) -> PopularAnswer:
    """What is popular, or with a `window` trending: the items with most events, exactly as counted for recommendations.

    An event counts by its timestamp, so one that comes late counts in the windows that it belongs to.
    """
    window = parse_window(body.window)
    since = None if window is None else time.time() - window
    user_id = None if body.user_id is None else check_user_id(body.user_id, "user_id")
    request = RecommendRequest(
        history=(),
        user_id=user_id,
        popular=PopularQuery(since),
        **_selection(body, "", components.settings.max_ids, body.exclude_seen, user_id),
    )
    [answer] = await components.recommender.recommend([request], body.min_seq, trace)
    receipt = recommendation_id(components.histories.secret, answer, "/popular")
    return PopularAnswer(
        items=_placed(answer),
        since=since,
        degraded=answer.degraded,
        recommendation_id=receipt,
        **_next(answer, body),
        **_state(answer),
    )


def parse_window(value: object) -> float | None:
    """Seconds of 3600 or "7d"; None for None. Raises InputError."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(WINDOW, value):
        seconds = parse_duration(value) or 0.0
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e15 else math.inf
    else:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f'seconds above 0, or a number of s, m, h, d or w such as "7d", not {value!r}', "window")
    return seconds


@router.post("/similar", responses=READ | problems(404), response_model_exclude_unset=True)
async def similar(body: SimilarBody, components: ComponentsDep, trace: TraceDep) -> SimilarAnswer:
    """Items similar to an item, which is not returned itself."""
    selection = _selection(body, "", components.settings.max_ids)
    request = SimilarRequest(item_id=body.item_id, attributes=body.attributes, **selection)
    answer = await components.recommender.similar(request, body.min_seq, trace)
    return SimilarAnswer(
        items=_placed(answer),
        degraded=answer.degraded,
        recommendation_id=recommendation_id(components.histories.secret, answer, "/similar"),
        **_next(answer, body),
        **_state(answer),
    )


def _request(body: RecommendBody, field: str, max_values: int) -> RecommendRequest:
    if body.history is None and body.user_id is None and body.context is None:
        raise InputError("give a history, or a user_id whose history is stored, or both", f"{field}history")
    history = [entry if isinstance(entry, str) else entry.attributes for entry in body.history or ()]
    user_id = None if body.user_id is None else check_user_id(body.user_id, f"{field}user_id")
    return RecommendRequest(
        history=[*history, *_context(body, field)],
        user_id=user_id,
        explain=body.explain,
        **_selection(body, field, max_values, body.exclude_seen, user_id),
    )


def _context(body: RecommendBody, field: str) -> list[str]:
    if body.context is None:
        return []
    cart = [check_item_id(item_id, f"{field}context.cart[{i}]") for i, item_id in enumerate(body.context.cart)]
    looked_at = [] if body.context.item_id is None else [check_item_id(body.context.item_id, f"{field}context.item_id")]
    return cart + looked_at


def _selection(
    body: QuestionBody, field: str, max_values: int, exclude_seen: bool | None = None, unit: str | None = None
) -> dict[str, Any]:
    """Arguments of a `Selection`. `unit`: the user, if one is named."""
    if unit is None and body.session_id is not None:
        unit = check_user_id(body.session_id, f"{field}session_id")
    own = {"exclude_seen": exclude_seen, "snapshot": body.snapshot}
    values = body.values(field, max_values) | {name: value for name, value in own.items() if value is not None}
    return values | {
        "placement": body.placement,
        "unit": unit,
        "given": frozenset(values),
        "shown": [] if body.cursor is None else read_cursor(body.cursor, f"{field}cursor"),
        "fields": body.fields,
        "field": field,
    }


def _next(answer: Answer, body: QuestionBody) -> dict[str, Any]:
    """The cursor of the next page, if the request wants one and this page is full."""
    if not (body.paginate or body.cursor) or len(answer.items) < answer.k:
        return {}
    shown = [] if body.cursor is None else read_cursor(body.cursor, "cursor")
    return {"next": make_cursor([*shown, *(item.item_id for item, _ in answer.items)])}


def _placed(answer: Answer) -> list[PlacedItem]:
    marked = zip(answer.items, _marks(answer), strict=True)
    return [PlacedItem(**_fields(item, score), **marks) for (item, score), marks in marked]


def _marks(answer: Answer) -> Iterator[dict[str, Any]]:
    """How each item came into the answer, where rules apply."""
    for hit in answer.hits:
        marks: dict[str, Any] = {"source": hit.source} if answer.ruled else {}
        marks |= {} if hit.propensity is None else {"propensity": hit.propensity}
        yield marks | {name: True for name in ("pinned", "explored") if getattr(hit, name)}


def _recommend_answer(answer: Answer, body: RecommendBody, components: Components) -> RecommendAnswer:
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
        recommendation_id=recommendation_id(components.histories.secret, answer, "/recommend"),
        **_next(answer, body),
        **_state(answer),
    )


def _batch_json(answers: Sequence[Answer], bodies: Sequence[RecommendBody], components: Components) -> str:
    """A `BatchAnswer`. One by one, since a thread that writes JSON does not let others run."""
    written = [
        _recommend_answer(answer, body, components).model_dump_json(exclude_unset=True)
        for answer, body in zip(answers, bodies, strict=True)
    ]
    return f'{{"answers":[{",".join(written)}]}}'


def _given(reason: Reason) -> dict[str, Any]:
    return {name: value for name, value in asdict(reason).items() if value is not None}


def _state(answer: Answer) -> dict[str, Any]:
    view, exposure = answer.view, answer.exposure
    state = {
        "metric": view.towers.metric.value,
        "model": view.towers.checkpoint.digest,
        "snapshot": view.snapshot.id,
        "seq": view.seq,
    }
    return state | ({"experiment": exposure.experiment, "variant": exposure.variant} if exposure.variant else {})


def _fields(item: Item, score: float) -> dict[str, Any]:
    return {"item_id": item.item_id, "attributes": dict(item.attributes), "score": score}
