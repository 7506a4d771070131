"""Loads a user's stored history for requests that carry a user_id."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from index.catalogue.histories import HistoryStore
from seqrec.errors import CatalogueError, CatalogueReplaced
from service.engine.requests import Selection
from service.rules.rotation import Showings, load_showings

S = TypeVar("S", bound=Selection)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UserHistory:
    """What is stored of a user. `degraded` gives the reason where it cannot be read."""

    recent: Sequence[str] = ()  # ids of the newest items, oldest first
    seen: Collection[str] = ()  # ids of all items, of the newest events where there are very many
    negative: Collection[str] = ()  # ids of items that are never to be recommended again
    degraded: Sequence[str] = ()


def load_histories(
    histories: HistoryStore, user_ids: Iterable[str], limit: int, max_seen: int, unavailable: str | None = None
) -> dict[str, UserHistory]:
    """The history of each user, with the `limit` newest events, and the items of the `max_seen` newest.

    Where the store cannot be read, or is known to be `unavailable` (for this reason), requests are answered without.
    Raises CatalogueReplaced.
    """
    return {user_id: _load(histories, user_id, limit, max_seen, unavailable) for user_id in dict.fromkeys(user_ids)}


def _load(histories: HistoryStore, user_id: str, limit: int, max_seen: int, unavailable: str | None) -> UserHistory:
    try:
        if unavailable is not None:
            raise CatalogueError(unavailable)
        events = histories.recent(user_id, limit)
        # A user with 200,000 events must not cost a second a request: the newest decide.
        older = histories.recent(user_id, max_seen) if limit <= len(events) and limit < max_seen else events
        seen = {event.item_id for event in older}
        negative = histories.negative(user_id)
    except CatalogueReplaced:
        raise
    except CatalogueError as error:
        log.warning("answering without a user's stored history: %s", error)
        return UserHistory(degraded=[f"the user's stored history cannot be read: {error}"])
    return UserHistory([event.item_id for event in events], seen, negative)


def with_showings(histories: HistoryStore, requests: Sequence[S], unavailable: str | None = None) -> list[S]:
    """The requests with what was shown to their units, each read once. Errors as in `load_histories`."""
    units = dict.fromkeys(request.unit for request in requests if request.unit is not None)
    known = {unit: _showings(histories, unit, unavailable) for unit in units}
    return [request if request.unit is None else replace(request, showings=known[request.unit]) for request in requests]


def _showings(histories: HistoryStore, unit: str, unavailable: str | None) -> Showings:
    try:
        if unavailable is not None:
            raise CatalogueError(unavailable)
        return load_showings(histories, unit)
    except CatalogueReplaced:
        raise
    except CatalogueError as error:
        log.warning("answering without what was shown to a user: %s", error)
        return Showings(degraded=[f"what was shown to the user cannot be read, so nothing rotates: {error}"])
