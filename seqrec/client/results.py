"""What the service answers, as frozen dataclasses. Fields that a newer service adds are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item was recommended: the item of the history, and what it adds (hybrid) or how alike it is."""

    item_id: str
    similarity: float | None = None
    part: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """`score` compares items within one answer only. `because` and `parts` only with `explain`.

    `source`, `pinned`, `explored`: how it came into an answer with rules, and `propensity` how likely that was.
    """

    item_id: str
    score: float
    attributes: Mapping[str, Any]
    because: tuple[Reason, ...] = ()
    parts: Mapping[str, float] | None = None
    source: str | None = None
    pinned: bool = False
    explored: bool = False
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class Similar:
    """Items, best first, and the state that answered: every change up to `seq` was searched.

    `recommendation_id`: to be sent with events of what becomes of the items, for reports. `next`: the `cursor` of the
    following page, if pages were asked for and there may be one. `experiment` and `variant`: of the placement, where
    the user or session is in one; the variant "holdout" gets the most popular items.
    """

    items: tuple[RecommendedItem, ...]
    metric: str
    model: str
    snapshot: str
    seq: int
    degraded: tuple[str, ...] = ()
    recommendation_id: str | None = None
    next: str | None = None
    experiment: str | None = None
    variant: str | None = None

    @property
    def item_ids(self) -> list[str]:
        return [item.item_id for item in self.items]


@dataclass(frozen=True, slots=True)
class Recommendation(Similar):
    """`source`: what answered, such as "model" or "fallback:popular". `unknown`: ids that were skipped."""

    source: str = "model"
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Popular:
    """Items with most events first; `score` is how many. `since`: Unix seconds where the window begins.

    `recommendation_id`, `experiment`, `variant`: as of `Similar`.
    """

    items: tuple[RecommendedItem, ...]
    snapshot: str
    seq: int
    since: float | None = None
    next: str | None = None
    degraded: tuple[str, ...] = ()
    recommendation_id: str | None = None
    experiment: str | None = None
    variant: str | None = None

    @property
    def item_ids(self) -> list[str]:
        return [item.item_id for item in self.items]


@dataclass(frozen=True, slots=True)
class ItemsStored:
    """`seq`: the number of the last change, for `min_seq`; None if there was nothing to store."""

    seq: int | None = None
    created: int = 0
    updated: int = 0
    not_searchable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventsStored:
    """`known`: events that were stored before. `unknown`: item ids that are in no catalogue."""

    stored: int = 0
    known: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundItem:
    item_id: str
    attributes: Mapping[str, Any]
    available: bool = True


@dataclass(frozen=True, slots=True)
class StoredItem:
    item_id: str
    attributes: Mapping[str, Any]
    available: bool
    seq: int
    searchable: bool


@dataclass(frozen=True, slots=True)
class UserEvents:
    """What is stored of a user, newest first. `next`: the `cursor` of the following page; None on the last."""

    user_id: str
    events: tuple[Mapping[str, Any], ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A reindex job; `done` and `total` count items. `state`: queued, running, done or failed."""

    id: str
    state: str
    done: int = 0
    total: int | None = None
    snapshot: str | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of recommendations between two days. `rows`, `experiments`, `shadows`: see docs/experiments.md."""

    by: str
    since: str
    until: str
    rows: tuple[Mapping[str, Any], ...]
    experiments: tuple[Mapping[str, Any], ...]
    shadows: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The key of this client; `name` is None where the service needs no keys. `expires` in Unix seconds."""

    scopes: tuple[str, ...]
    name: str | None = None
    expires: float | None = None
    rate: str | None = None
    quota: str | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    status: str
    worker: int
    detail: str | None = None
    degraded: tuple[str, ...] = ()
    durability_warnings: tuple[str, ...] = ()
    snapshot: str | None = None
    seq: int | None = None
    catalogue: str | None = None
    durability: str | None = None
    head: int | None = None
    ready: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ready", self.status == "ready")


def read(kind: type[T], data: Mapping[str, Any]) -> T:
    """The dataclass of a JSON object; lists become tuples."""
    known = {one.name for one in fields(kind) if one.init}  # type: ignore[arg-type]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name in known}
    return kind(**values)


def read_items(data: list[dict[str, Any]]) -> tuple[RecommendedItem, ...]:
    return tuple(
        read(RecommendedItem, {**item, "because": [read(Reason, reason) for reason in item.get("because", ())]})
        for item in data
    )


def read_similar(data: dict[str, Any]) -> Similar:
    return read(Similar, {**data, "items": list(read_items(data["items"]))})


def read_recommendation(data: dict[str, Any]) -> Recommendation:
    return read(Recommendation, {**data, "items": list(read_items(data["items"]))})


def read_popular(data: dict[str, Any]) -> Popular:
    return read(Popular, {**data, "items": list(read_items(data["items"]))})
