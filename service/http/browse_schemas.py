"""The HTTP bodies of the endpoints for browsing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.http.operation_schemas import JobView
from service.http.schemas import Answer


class ValueView(Answer):
    value: str | float
    count: int = Field(description="items that have it")


class AttributeView(Answer):
    name: str
    type: Literal["text", "number", "list"] = Field(description="of most items that have it")
    count: int = Field(description="items that have it")
    distinct: int | None = Field(description="different values; null: more than are counted")
    minimum: float | None = Field(default=None, description="of the numbers; null where there is none")
    maximum: float | None = None
    values: list[ValueView] = Field(description="the most frequent ones")


class AttributesAnswer(Answer):
    items: int = Field(description="items that answers may contain and that pass the filter")
    read: int = Field(description="items that were counted: all, or of many 20,000 evenly spaced ones")
    attributes: list[AttributeView] = Field(description="the most common first")


class EventView(Answer):
    item_id: str
    timestamp: float = Field(description="Unix seconds")
    event_id: str | None = None


class UserView(Answer):
    user_id: str
    events: list[EventView] = Field(description="the newest ones, oldest first")


class UsersAnswer(Answer):
    users: list[UserView]


class SnapshotView(Answer):
    id: str
    served: bool = Field(description="whether it is the published one")
    published: bool = Field(description="whether it was published before, so that a rollback may lead to it")
    created: str | None = Field(default=None, description="ISO 8601, UTC")
    seq: int | None = Field(default=None, description="the last change of the catalogue that is in it")
    items: int | None = None
    model: str | None = None
    checkpoint: str | None = Field(default=None, description="digest")
    hybrid: bool | None = None
    dim: int | None = None
    metric: str | None = None
    precision: str | None = None
    index: str | None = None
    recall: float | None = Field(default=None, description="recall@10 of the index against exact search")
    bytes: int | None = None
    placements: list[str] = Field(default=[], description="those that name it, for a variant or as the shadow")
    answers: bool = Field(
        default=False, description="whether a request may name it: it is served, or loaded for a placement"
    )
    memory: int | None = Field(
        default=None, description="of one that is loaded for a placement: bytes in the worker that answers"
    )
    problem: str | None = Field(default=None, description="why it cannot be read, or does not answer")


class SnapshotsAnswer(Answer):
    snapshots: list[SnapshotView] = Field(description="newest first")


class PublishedAnswer(Answer):
    snapshot: str
    seq: int = Field(description="the change of the catalogue that publishes it")


class ChangedUserView(Answer):
    """Item ids."""

    user_id: str
    history: list[str] = Field(description="the newest ones, newest last")
    before: list[str] = Field(description="best first")
    after: list[str] = Field(description="best first")


class ChangesAnswer(Answer):
    before: str = Field(description="snapshot")
    after: str
    users: list[ChangedUserView]
    titles: dict[str, str] = Field(description="of the recommended items, by id")


class EvaluationAnswer(Answer):
    markdown: str | None = Field(
        description="evaluation.md in SEQREC_HOME, as `seqrec evaluate --markdown` writes it; null: there is none"
    )


class CurveView(Answer):
    """One stage of a run. Points are [step, value]; steps are counted over the whole run."""

    stage: str
    begins: int
    ends: int
    loss: list[tuple[int, float]] = Field(description="of training, at most 100 points")
    ndcg: list[tuple[int, float]] = Field(description="NDCG@10 of validation, all items")


class RunView(Answer):
    path: str = Field(description="within SEQREC_HOME")
    state: str = Field(description="done, running, stopped (can be resumed), or failed")
    updated: float | None = Field(default=None, description="when it last wrote its metrics, Unix seconds")
    model: str | None = None
    checkpoint: str | None = Field(default=None, description="digest of what it made, as in GET /snapshots")
    seconds: float = Field(default=0.0, description="of training, validation included")
    curves: list[CurveView] = Field(default=[], description="by stage")
    problem: str | None = Field(default=None, description="why it failed, or cannot be read")


class RunsAnswer(Answer):
    runs: list[RunView] = Field(description="newest first")


class RecallAnswer(Answer):
    snapshot: str
    index: str
    items: int = Field(description="items that answers may contain")
    passing: int = Field(description="of these, through the filter")
    queries: int = Field(description="searches that were compared: vectors of items that pass")
    recall: float | None = Field(description="share of the exact ten best that the served search finds")


class JobsAnswer(Answer):
    jobs: list[JobView] = Field(description="newest first")


class MapAnswer(Answer):
    """Item `ids[i]` is at `x[i]`, `y[i]`, both from -1 to 1."""

    items: int = Field(description="items that answers may contain; of more than `limit`, evenly spaced ones are here")
    explained: list[float] = Field(min_length=2, max_length=2, description="share of the variance that x and y show")
    ids: list[str]
    x: list[float]
    y: list[float]
    values: list[str | float | None] = Field(description="of the attribute, of a list the first; empty without one")
