"""What is stored of a user, for a request that names one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from index.catalogue.histories import HistoryStore
from seqrec.errors import CatalogueError, CatalogueReplaced
from service.engine.plan import Request

log = logging.getLogger(__name__)


def with_stored(
    histories: HistoryStore, requests: Sequence[Request], max_history: int, away: str | None = None
) -> list[Request]:
    """The requests, with the stored histories of their users.

    Stored and given history are `max_history` items at most, the newest. Where the store cannot be read, or is known to
    be `away`, the request is answered without, and says so. Raises CatalogueReplaced.
    """
    read: dict[str, Request] = {}
    done = []
    for request in requests:
        user_id = request.user_id
        if user_id is None:
            done.append(request)
            continue
        if user_id not in read:
            read[user_id] = _stored(histories, request, user_id, max_history, away)
        of = read[user_id]
        newest = of.stored[max(0, len(of.stored) + len(request.history) - max_history) :]
        had = of.had if request.exclude_seen else ()
        done.append(replace(request, stored=newest, had=had, degraded=of.degraded))
    return done


def _stored(histories: HistoryStore, request: Request, user_id: str, limit: int, away: str | None) -> Request:
    try:
        if away is not None:
            raise CatalogueError(away)
        events = histories.recent(user_id, limit)
        had = histories.seen(user_id) if len(events) >= limit else {event.item_id for event in events}
    except CatalogueReplaced:
        raise
    except CatalogueError as error:
        log.warning("answered without the stored history of a user: %s", error)
        return replace(request, degraded=[f"the user's stored history cannot be read: {error}"])
    return replace(request, stored=[event.item_id for event in events], had=had)
