"""The endpoints of recommendations: from HTTP bodies to calls of the engine, and back."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from seqrec.data.items import Item, check_user_id
from seqrec.errors import InputError
from service.engine.explain import Reason
from service.engine.plan import Answer, PopularQuery, RecommendRequest
from service.http.dependencies import READ, ComponentsDep, TraceDep, problems
from service.http.schemas import (
    WINDOW,
    BatchAnswer,
    BatchBody,
    FilterValue,
    PopularAnswer,
    PopularBody,
    ReasonView,
    RecommendAnswer,
    RecommendBody,
    RecommendedItem,
    ScoredItem,
    SimilarAnswer,
    SimilarBody,
)
from service.live.filters import Filter, parse_filter

router = APIRouter(tags=["recommend"])

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@router.post("/recommend", responses=READ, response_model_exclude_unset=True)
async def recommend(body: RecommendBody, components: ComponentsDep, trace: TraceDep) -> RecommendAnswer:
    """Recommend the next items for a history."""
    request = _request(body, "", components.settings.max_ids)
    [answer] = await components.recommender.recommend([request], body.min_seq, trace)
    return _recommend_answer(answer)


@router.post("/recommend/batch", responses=READ, response_model_exclude_unset=True)
async def recommend_batch(body: BatchBody, components: ComponentsDep, trace: TraceDep) -> BatchAnswer:
    """Recommend for several histories in one call, all from the same state."""
    most = components.settings.max_batch
    if len(body.requests) > most:
        raise InputError(f"at most {most} in one call, not {len(body.requests)}", "requests")
    max_values = components.settings.max_ids
    requests = [_request(one, f"requests[{i}].", max_values) for i, one in enumerate(body.requests)]
    min_seq = max(one.min_seq for one in body.requests)
    answers = await components.recommender.recommend(requests, min_seq, trace)
    return BatchAnswer(answers=[_recommend_answer(answer) for answer in answers])


@router.post("/popular", responses=READ)
async def popular(body: PopularBody, components: ComponentsDep, trace: TraceDep) -> PopularAnswer:
    """What is popular, or with a `window` trending: the items with most events, exactly as counted for recommendations.

    An event counts by its timestamp, so one that comes late counts in the windows that it belongs to.
    """
    window = parse_window(body.window)
    since = None if window is None else time.time() - window
    request = RecommendRequest(
        (),
        body.k,
        body.exclude_seen,
        body.exclude,
        body.candidates,
        user_id=None if body.user_id is None else check_user_id(body.user_id, "user_id"),
        filter=_filter(body.filter, "filter", components.settings.max_ids),
        popular=PopularQuery(since),
    )
    [answer] = await components.recommender.recommend([request], body.min_seq, trace)
    return PopularAnswer(items=_scored(answer.items), since=since, degraded=answer.degraded, **_state(answer))


def parse_window(value: object) -> float | None:
    """Seconds of 3600 or "7d"; None for None. Raises InputError."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(WINDOW, value):
        seconds = float(value[:-1]) * _SECONDS[value[-1]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e15 else math.inf
    else:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f'seconds above 0, or a number of s, m, h, d or w such as "7d", not {value!r}', "window")
    return seconds


@router.post("/similar", responses=READ | problems(404))
async def similar(body: SimilarBody, components: ComponentsDep, trace: TraceDep) -> SimilarAnswer:
    """Items similar to an item, which is not returned itself."""
    passes = _filter(body.filter, "filter", components.settings.max_ids)
    answer = await components.recommender.similar(
        body.item_id, body.attributes, body.k, body.min_seq, passes, body.fields, trace
    )
    return SimilarAnswer(items=_scored(answer.items), degraded=answer.degraded, **_state(answer))


def _request(body: RecommendBody, field: str, max_values: int) -> RecommendRequest:
    if body.history is None and body.user_id is None:
        raise InputError("give a history, or a user_id whose history is stored, or both", f"{field}history")
    history = [entry if isinstance(entry, str) else entry.attributes for entry in body.history or ()]
    return RecommendRequest(
        history,
        body.k,
        body.exclude_seen,
        body.exclude,
        body.candidates,
        field,
        user_id=None if body.user_id is None else check_user_id(body.user_id, f"{field}user_id"),
        filter=_filter(body.filter, f"{field}filter", max_values),
        explain=body.explain,
        fields=body.fields,
    )


def _filter(given: FilterValue | None, field: str, max_values: int) -> Filter | None:
    return parse_filter(given, field, max_values) if given else None


def _recommend_answer(answer: Answer) -> RecommendAnswer:
    items = [RecommendedItem(**_fields(item, score)) for item, score in answer.items]
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


def _scored(items: Sequence[tuple[Item, float]]) -> list[ScoredItem]:
    return [ScoredItem(**_fields(item, score)) for item, score in items]


def _fields(item: Item, score: float) -> dict[str, Any]:
    return {"item_id": item.item_id, "attributes": dict(item.attributes), "score": score}
