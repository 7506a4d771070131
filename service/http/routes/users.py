"""The endpoints of users: events are stored, and a user's history can be deleted."""

from __future__ import annotations

import time

from fastapi import APIRouter

from index.catalogue.histories import Event, make_event
from seqrec.errors import InputError
from service.http.dependencies import WRITE, AuditDep, ComponentsDep, TraceDep, problems
from service.http.schemas import DeleteUserAnswer, EventsAnswer, EventsBody, UserPath

router = APIRouter(tags=["users"])

_AHEAD_SECONDS = 86_400
"""Clocks differ. A timestamp more than a day ahead is a mistake, usually milliseconds."""


@router.post("/events", responses=WRITE)
async def post_events(body: EventsBody, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> EventsAnswer:
    """Store events of users, all or none; durable when answered. With an `event_id` a request can safely be repeated.

    Events may arrive late and in any order: histories are in the order of their timestamps. Events of items that are
    not in the catalogue (yet) are stored too, and the items listed in `unknown`.
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
        )
        if not 0 <= event.timestamp <= now + _AHEAD_SECONDS:
            raise InputError(
                f"Unix seconds from 0 to now ({now:.0f}), not {posted.timestamp!r}; are they milliseconds?",
                f"{field}timestamp",
            )
        events.append(event)
    stored, unknown = await components.recommender.add_events(events, trace)
    return EventsAnswer(stored=stored, known=len(events) - stored, unknown=unknown)


@router.delete("/users/{user_id:path}", responses=problems(422, 429, 503))
async def delete_user(
    user_id: UserPath,
    components: ComponentsDep,
    trace: TraceDep,
    audit: AuditDep,
) -> DeleteUserAnswer:
    """Delete everything that is stored about a user."""
    audit["events"] = deleted = await components.recommender.delete_user(user_id, trace)
    return DeleteUserAnswer(deleted=deleted)
