"""Loads a user's stored history for requests that carry a user_id."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from index.catalogue.histories import HistoryStore
from seqrec.errors import CatalogueError, CatalogueReplaced

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
