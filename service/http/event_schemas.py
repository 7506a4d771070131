"""The HTTP bodies of events, users and reports."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field

from index.catalogue.outcomes import OUTCOMES
from seqrec.data.items import MAX_TYPE_BYTES
from service.http.schemas import Answer, UserId
from service.reports.receipts import MAX_CHARACTERS
from service.rules.body import DEFAULTS, Body, ItemId

EventTypeName = Annotated[
    str, Field(description=f"1 to {MAX_TYPE_BYTES} bytes of UTF-8 without control characters", examples=["view"])
]


_TYPE_OF_AN_OUTCOME: dict[str, Any] = {
    "anyOf": [
        {"properties": {"recommendation_id": {"type": "null"}}},
        {"required": ["type"], "properties": {"type": {"enum": list(OUTCOMES)}}},
    ]
}


class PostedEvent(Body):
    model_config = ConfigDict(json_schema_extra=_TYPE_OF_AN_OUTCOME)

    user_id: UserId
    item_id: ItemId
    timestamp: float | None = Field(
        default=None, description="Unix seconds, at most a day ahead; default: now", json_schema_extra={"minimum": 0}
    )
    event_id: ItemId | None = Field(
        default=None, description="chosen by the client; an event of the same user with the same id is stored once"
    )
    type: EventTypeName | None = Field(
        default=None, description="what the user did; `seqrec events types` sets which types count, and how much"
    )
    recommendation_id: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)] | None = Field(
        default=None,
        description="of the answer that showed the item; `type` is then shown, clicked, cart or purchase, and `value` "
        "of a purchase its revenue",
    )
    value: float | None = Field(
        default=None, description="a number of your own, such as a price; stored and given back"
    )


class EventsBody(Body):
    events: list[PostedEvent] = Field(
        min_length=1,
        fail_fast=True,
        description="at most SEQREC_MAX_ITEMS",
        json_schema_extra={"maxItems": DEFAULTS["max_items"]},
    )


class EventsAnswer(Answer):
    stored: int = Field(description="number of new events")
    known: int = Field(description="number of events whose `event_id` was stored before")
    unknown: list[str] = Field(
        description="ids of items that are not in the catalogue, or unknown to a model of ids; their events are stored "
        "nevertheless"
    )


class UserEvent(Answer):
    item_id: str
    timestamp: float
    event_id: str | None = None
    type: str | None = None
    value: float | None = None


class DayView(Answer):
    day: str = Field(description="ISO 8601, in UTC")
    type: str | None = Field(description="null: events without one")
    events: int


class EventDaysAnswer(Answer):
    users: int = Field(description="with such events")
    events: int = Field(description="all of them, of any type")
    today: int = Field(description="of these, with a time in today, in UTC")
    days: list[DayView] = Field(description="days with events, oldest first, by type")


class UserAnswer(Answer):
    user_id: str
    events: list[UserEvent] = Field(description="newest first; all that are stored, of any type")
    next: str | None = Field(default=None, description="the `cursor` that the next page begins at; absent on the last")


class RemoveEventAnswer(Answer):
    removed: bool = Field(description="false: there was no event of this id")


class DeleteUserAnswer(Answer):
    deleted: int = Field(description="number of deleted events")


class IntervalView(NamedTuple):
    low: float
    high: float


class ReportRow(Answer):
    """Of one placement and one group; rates are per impression."""

    placement: str = Field(description="or the endpoint, where the request named none")
    experiment: str | None = Field(description="of the variant, in a report by variant")
    group: str = Field(description='the value of `by`; "" or 0: none. For `cold`, 1: the item had no events')
    impressions: int
    clicks: int
    carts: int
    purchases: int
    revenue: float = Field(description="the sum of `value` of purchases")
    click_through: float
    click_through_interval: IntervalView = Field(description="95 %, for one look")
    conversion: float
    conversion_interval: IntervalView
    revenue_per_impression: float
    revenue_per_impression_interval: IntervalView | None


class LiftView(Answer):
    lift: float = Field(description="over the first variant, relative: 0.05 is 5 % more")
    interval: IntervalView = Field(description="95 %, valid however often it is looked at")
    p: float = Field(description="always-valid p-value")


class MetricView(Answer):
    value: float
    interval: IntervalView | None = Field(description="95 %, for one look; null for fewer than two users")
    lift: LiftView | None = Field(description="null for the first variant, and while there is too little to tell")


class VariantView(Answer):
    variant: str
    users: int
    impressions: int
    clicks: int
    carts: int
    purchases: int
    revenue: float
    click_through: MetricView
    conversion: MetricView
    revenue_per_user: MetricView


class ExperimentView(Answer):
    placement: str
    experiment: str
    variants: list[VariantView] = Field(description="the first is what the others are compared with")


class ShadowView(Answer):
    placement: str
    snapshot: str
    compared: int = Field(description="answers that it was compared with")
    left_out: int = Field(description="requests that it did not answer: the service was busy, or it was not loaded")
    overlap: float | None = Field(description="mean share of the first ten items that both answers have")
    same_first: float | None = Field(description="share of answers with the same first item")
    seconds_ratio: float | None = Field(description="time of computing, over that of the answers to users")


class ReportAnswer(Answer):
    by: str
    since: str = Field(description="first day of the answers, UTC")
    until: str = Field(description="last day")
    rows: list[ReportRow] = Field(description="by placement and group")
    experiments: list[ExperimentView] = Field(description="since each began, whatever the days are")
    shadows: list[ShadowView] = Field(
        default=[], description="since this service started, of all its workers, whatever the days are"
    )
