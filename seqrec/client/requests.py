"""The calls of the API: what is sent and how the answer is read. Both clients send these."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

import httpx

from seqrec.client import results
from seqrec.client.errors import error_of
from seqrec.client.results import (
    EventsStored,
    FoundItem,
    ItemsStored,
    Job,
    KeyInfo,
    Popular,
    Readiness,
    Recommendation,
    Report,
    Similar,
    StoredItem,
    UserEvents,
)

T = TypeVar("T")
HistoryEntry = str | Mapping[str, Any]
"""The id of an item, or the attributes of one that need not be in the catalogue."""
Item = Mapping[str, Any]
"""{"item_id", "attributes", "available"?}, as in an items file."""

BATCH_QUERIES = 64
BATCH_ENTRIES = 1000
BATCH_BYTES = 3 * 1024 * 1024
"""Defaults of the service: SEQREC_MAX_BATCH, SEQREC_MAX_ITEMS, and well under SEQREC_MAX_BODY_BYTES."""


@dataclass(frozen=True, slots=True)
class Query:
    """One request of `recommend_batch`. `extra`: fields of the body that have no parameter here, such as rules.

    `k`: by default that of the placement, or 10. `fields`: attributes of the answer. `placement`: named rules.
    `session_id`: who is not known by a `user_id`, for experiments. `snapshot`: which one answers, of those that
    placements name. `cursor`: `next` of the page before; `paginate`: answer with one.
    """

    history: Sequence[HistoryEntry] | None = None
    user_id: str | None = None
    k: int | None = None
    exclude_seen: bool | None = None
    exclude: Sequence[str] = ()
    candidates: Sequence[str] | None = None
    filter: Mapping[str, Any] | None = None
    explain: bool = False
    min_seq: int = 0
    placement: str | None = None
    fields: Sequence[str] | None = None
    session_id: str | None = None
    snapshot: str | None = None
    paginate: bool = False
    cursor: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        history = None if self.history is None else [_entry(entry) for entry in self.history]
        optional = {
            "k": self.k,
            "history": history,
            "user_id": self.user_id,
            "exclude_seen": self.exclude_seen,
            "exclude": list(self.exclude) or None,
            "candidates": None if self.candidates is None else list(self.candidates),
            "filter": None if self.filter is None else dict(self.filter),
            "explain": self.explain or None,
            "min_seq": self.min_seq or None,
            "placement": self.placement,
            "fields": None if self.fields is None else list(self.fields),
            "session_id": self.session_id,
            "snapshot": self.snapshot,
            "paginate": self.paginate or None,
            "cursor": self.cursor,
        }
        return {**_given(optional), **self.extra}


@dataclass(frozen=True, slots=True)
class Event:
    """A user had an item. `timestamp` in Unix seconds, by default the moment it arrives.

    `event_id` makes sending again safe; the client gives one to each event that has none. `type`: what the user did.
    With the `recommendation_id` of an answer it is shown, clicked, cart or purchase, and `value` the revenue.
    """

    user_id: str
    item_id: str
    timestamp: float | None = None
    event_id: str | None = None
    type: str | None = None
    value: float | None = None
    recommendation_id: str | None = None

    def body(self) -> dict[str, Any]:
        optional = {name: getattr(self, name) for name in ("timestamp", "type", "value", "recommendation_id")}
        return {
            "user_id": self.user_id,
            "item_id": self.item_id,
            "event_id": self.event_id or uuid.uuid4().hex,
            **_given(optional),
        }


@dataclass(frozen=True)
class Call(Generic[T]):
    """`read`: the answer to a result. `slow`: it may take as long as a write.

    `accepts`: statuses that are answers, not errors. `gone`: 404 to a repeated attempt means that an earlier one was
    carried out, so the result is None.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Any = None
    params: Mapping[str, str] | None = None
    slow: bool = False
    accepts: frozenset[int] = frozenset()
    gone: bool = False

    def result(self, response: httpx.Response, attempt: int) -> T:
        """Raises ApiError for an answer that is an error."""
        if self.gone and response.status_code == 404 and attempt > 1:
            return cast(T, None)
        if not response.is_success and response.status_code not in self.accepts:
            raise error_of(response)
        return self.read(response)


def recommend(query: Query) -> Call[Recommendation]:
    return Call("POST", "/recommend", lambda answer: results.read_recommendation(answer.json()), query.body())


def recommend_batch(queries: Sequence[Query]) -> Call[list[Recommendation]]:
    def read(answer: httpx.Response) -> list[Recommendation]:
        return [results.read_recommendation(one) for one in answer.json()["answers"]]

    return Call("POST", "/recommend/batch", read, {"requests": [query.body() for query in queries]})


def common(
    k: int | None,
    filter: Mapping[str, Any] | None,
    placement: str | None,
    min_seq: int,
    fields: Sequence[str] | None,
    session_id: str | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the bodies of `/similar` and `/popular` have in common."""
    optional = {
        "k": k,
        "filter": filter,
        "placement": placement,
        "min_seq": min_seq or None,
        "fields": None if fields is None else list(fields),
        "session_id": session_id,
    }
    return {**_given(optional), **(extra or {})}


def similar(item_id: str | None, attributes: Mapping[str, Any] | None, common: Mapping[str, Any]) -> Call[Similar]:
    body = {**_given({"item_id": item_id, "attributes": attributes}), **common}
    return Call("POST", "/similar", lambda answer: results.read_similar(answer.json()), body)


def popular(window: str | int | None, user_id: str | None, common: Mapping[str, Any]) -> Call[Popular]:
    body = {**_given({"window": window, "user_id": user_id}), **common}
    return Call("POST", "/popular", lambda answer: results.read_popular(answer.json()), body)


def find_items(words: str, limit: int) -> Call[list[FoundItem]]:
    def read(answer: httpx.Response) -> list[FoundItem]:
        return [results.read(FoundItem, item) for item in answer.json()["items"]]

    return Call("GET", "/items", read, params={"q": words, "limit": str(limit)})


def get_item(item_id: str) -> Call[StoredItem]:
    return Call("GET", f"/items/{_quoted(item_id)}", lambda answer: results.read(StoredItem, answer.json()))


def delete_item(item_id: str) -> Call[int | None]:
    path = f"/items/{_quoted(item_id)}"
    return Call("DELETE", path, lambda answer: int(answer.json()["seq"]), slow=True, gone=True)


def put_items(items: Sequence[dict[str, Any]]) -> Call[ItemsStored]:
    return Call(
        "POST", "/items", lambda answer: results.read(ItemsStored, answer.json()), {"items": list(items)}, slow=True
    )


def patch_item(item_id: str, attributes: Mapping[str, Any] | None, available: bool | None) -> Call[int]:
    body = _given({"attributes": None if attributes is None else dict(attributes), "available": available})
    return Call("PATCH", f"/items/{_quoted(item_id)}", lambda answer: int(answer.json()["seq"]), body, slow=True)


def send_events(events: Sequence[dict[str, Any]]) -> Call[EventsStored]:
    return Call(
        "POST", "/events", lambda answer: results.read(EventsStored, answer.json()), {"events": list(events)}, slow=True
    )


def delete_user(user_id: str) -> Call[int]:
    return Call("DELETE", f"/users/{_quoted(user_id)}", lambda answer: int(answer.json()["deleted"]), slow=True)


def get_user(user_id: str, limit: int, cursor: str | None) -> Call[UserEvents]:
    params = {"limit": str(limit), **({} if cursor is None else {"cursor": cursor})}
    return Call(
        "GET", f"/users/{_quoted(user_id)}", lambda answer: results.read(UserEvents, answer.json()), params=params
    )


def placements() -> Call[dict[str, Mapping[str, Any]]]:
    def read(answer: httpx.Response) -> dict[str, Mapping[str, Any]]:
        return {one["name"]: one["rules"] for one in answer.json()["placements"]}

    return Call("GET", "/placements", read)


def put_placement(name: str, rules: Mapping[str, Any]) -> Call[int]:
    path = f"/placements/{_quoted(name)}"
    return Call("PUT", path, lambda answer: int(answer.json()["version"]), dict(rules), slow=True)


def delete_placement(name: str) -> Call[int | None]:
    path = f"/placements/{_quoted(name)}"
    return Call("DELETE", path, lambda answer: int(answer.json()["seq"]), slow=True, gone=True)


def report(by: str, days: int, placement: str | None) -> Call[Report]:
    params = {"by": by, "days": str(days), **({} if placement is None else {"placement": placement})}
    return Call("GET", "/reports", lambda answer: results.read(Report, answer.json()), params=params)


def reindex() -> Call[Job]:
    return Call("POST", "/reindex", lambda answer: results.read(Job, answer.json()), slow=True)


def job(job_id: str) -> Call[Job]:
    return Call("GET", f"/reindex/{_quoted(job_id)}", lambda answer: results.read(Job, answer.json()))


def key() -> Call[KeyInfo]:
    return Call("GET", "/key", lambda answer: results.read(KeyInfo, answer.json()))


def ready() -> Call[Readiness]:
    accepts = frozenset({503})
    return Call("GET", "/readyz", lambda answer: results.read(Readiness, answer.json()), accepts=accepts)


def add_stored(one: ItemsStored, other: ItemsStored) -> ItemsStored:
    return ItemsStored(
        other.seq,
        one.created + other.created,
        one.updated + other.updated,
        one.not_searchable + (other.not_searchable or ()),
    )


def add_events(one: EventsStored, other: EventsStored) -> EventsStored:
    unknown = tuple(dict.fromkeys(one.unknown + other.unknown))
    return EventsStored(one.stored + other.stored, one.known + other.known, unknown)


def item_body(item: Item) -> dict[str, Any]:
    return dict(item)


def event_body(event: Event | Mapping[str, Any]) -> dict[str, Any]:
    return (event if isinstance(event, Event) else Event(**event)).body()


def _entry(entry: HistoryEntry) -> str | dict[str, Any]:
    return entry if isinstance(entry, str) else {"attributes": dict(entry)}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _quoted(value: str) -> str:
    return quote(value, safe="")
