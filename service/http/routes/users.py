"""The endpoints of users: their events are stored, read and deleted."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import date, timedelta
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request

from index.catalogue.histories import Event, make_event
from seqrec.data.items import check_item_id, check_user_id
from seqrec.errors import InputError, UserNotFound
from service.http.dependencies import WRITE, AuditDep, ComponentsDep, TraceDep, problems
from service.http.event_schemas import (
    DayView,
    DeleteUserAnswer,
    EventDaysAnswer,
    EventsAnswer,
    EventsBody,
    RemoveEventAnswer,
    UserAnswer,
    UserEvent,
)
from service.http.schemas import UserPath
from service.reports.attribution import attribution

router = APIRouter(tags=["users"])

_EPOCH, _DAY_SECONDS = date(1970, 1, 1), 86_400
_AHEAD_SECONDS = _DAY_SECONDS
"""Clocks differ. A timestamp more than a day ahead is a mistake, usually milliseconds."""


@router.post("/events", responses=WRITE)
async def post_events(body: EventsBody, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> EventsAnswer:
    """Store events of users, all or none; durable when answered. With an `event_id` a request can safely be repeated.

    Events may arrive late and in any order: histories are in the order of their timestamps. Events of items that are
    not in the catalogue (yet) are stored too, and the items listed in `unknown`. With a `recommendation_id` an event is
    an outcome of that answer, which reports count.
    """
    if len(body.events) > components.settings.max_items:
        raise InputError(f"at most {components.settings.max_items} in one call, not {len(body.events)}", "events")
    audit["events"] = len(body.events)
    now = time.time()
    events: list[Event] = []
    for row, posted in enumerate(body.events):
        field = f"events[{row}]."
        event = make_event(
            posted.user_id,
            posted.item_id,
            now if posted.timestamp is None else posted.timestamp,
            posted.event_id,
            field,
            posted.type,
            posted.value,
        )
        if posted.recommendation_id is not None:
            secret, days = components.histories.secret, components.settings.attribution_days
            receipt = posted.recommendation_id
            of = attribution(secret, days * 86_400, receipt, event.type, event.item_id, field)
            event = replace(event, attribution=of)
        if not 0 <= event.timestamp <= now + _AHEAD_SECONDS:
            raise InputError(
                f"Unix seconds from 0 to now ({now:.0f}), not {posted.timestamp!r}; are they milliseconds?",
                f"{field}timestamp",
            )
        events.append(event)
    stored, unknown = await components.recommender.add_events(events, trace)
    components.metrics.outcomes(events)
    return EventsAnswer(stored=stored, known=len(events) - stored, unknown=unknown)


@router.get("/events", responses=problems(422, 429, 503, 504))
async def event_days(
    components: ComponentsDep,
    trace: TraceDep,
    item_id: Annotated[str | None, Query(max_length=256, description="the events of this item alone")] = None,
) -> EventDaysAnswer:
    """How many users and events are stored, by day and type. It reads all events: 0.5 s for a million in SQLite."""
    wanted = None if item_id is None else check_item_id(item_id)
    found = await components.recommender.read(components.histories.days, wanted, trace=trace)
    today = time.time() // _DAY_SECONDS
    return EventDaysAnswer(
        users=found.users,
        events=sum(count for *_, count in found.days),
        today=sum(count for day, _, count in found.days if day == today),
        days=[
            DayView(day=(_EPOCH + timedelta(days=day)).isoformat(), type=type or None, events=count)
            for day, type, count in found.days
        ],
    )


@router.get("/users/{user_id:path}", responses=problems(404, 422, 429, 503, 504), response_model_exclude_none=True)
async def get_user(
    user_id: UserPath,
    components: ComponentsDep,
    trace: TraceDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=100, description="`next` of the page before")] = None,
) -> UserAnswer:
    """What is stored of a user: all events, newest first."""
    before = None if cursor is None else _position(cursor)
    found = await components.recommender.read(
        components.histories.stored, check_user_id(user_id), limit, before, trace=trace
    )
    if not found and before is None:
        raise UserNotFound(user_id)
    events = [
        UserEvent(
            item_id=event.item_id,
            timestamp=event.timestamp,
            event_id=event.event_id,
            type=event.type or None,
            value=event.value,
        )
        for _, event in found
    ]
    last = found[-1] if len(found) == limit else None
    return UserAnswer(
        user_id=check_user_id(user_id),
        events=events,
        next=None if last is None else f"{last.number}@{last.event.timestamp!r}",
    )


@router.delete("/users/{user_id:path}/events/{event_id:path}", responses=problems(422, 429, 503))
async def remove_event(
    user_id: UserPath, event_id: str, components: ComponentsDep, trace: TraceDep, request: Request, audit: AuditDep
) -> RemoveEventAnswer:
    """Take one event back, as if it had never been stored. The ids may contain a slash, encoded as %2F."""
    user_id, event_id = _two_ids(request, user_id, event_id)
    audit["event_id"] = event_id
    return RemoveEventAnswer(removed=await components.recommender.remove_event(user_id, event_id, trace))


@router.delete("/users/{user_id:path}", responses=problems(422, 429, 503))
async def delete_user(
    user_id: UserPath, components: ComponentsDep, trace: TraceDep, audit: AuditDep
) -> DeleteUserAnswer:
    """Delete everything that is stored about a user."""
    audit["events"] = deleted = await components.recommender.delete_user(user_id, trace)
    return DeleteUserAnswer(deleted=deleted)


def _two_ids(request: Request, user_id: str, event_id: str) -> tuple[str, str]:
    """User and event of a path, by its slashes as they were sent. Raises InputError where those are ambiguous.

    Decoded, /users/a%2Fevents%2Fb, which deletes a user, looks as /users/a/events/b does, which takes an event back.
    """
    parts = request.scope.get("raw_path", b"").partition(b"?")[0].partition(b"/users/")[2].split(b"/events/")
    if len(parts) != 2:
        raise InputError(
            "a slash within the id of a user or an event is sent as %2F. This path takes one event back; a user whose "
            "id contains /events/ is deleted by `seqrec users delete`",
            "event_id",
        )
    return unquote(parts[0].decode()), unquote(parts[1].decode())


def _position(cursor: str) -> tuple[float, int]:
    number, _, timestamp = cursor.partition("@")
    try:
        position = float(timestamp), int(number)
        if math.isfinite(position[0]) and 0 <= position[1] < 2**63:
            return position
    except ValueError:
        pass
    raise InputError("not the `next` of a page; leave it out to begin with the newest event", "cursor")
