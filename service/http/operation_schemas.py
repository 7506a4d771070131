"""The answers of the endpoints of operation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.http.schemas import Answer


class JobView(Answer):
    """A reindex job. `done` and `total` count items."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    done: int = 0
    total: int | None = None
    snapshot: str | None = Field(default=None, description="the snapshot that it made and published")
    error: str | None = None


class KeyView(Answer):
    name: str | None = Field(default=None, description="absent where the service needs no keys")
    scopes: list[str] = Field(description="`admin` includes all")
    expires: float | None = Field(default=None, description="Unix seconds")
    rate: str | None = Field(default=None, examples=["100/second"])
    quota: str | None = Field(default=None, examples=["1000000/day"])


class Health(Answer):
    status: Literal["alive", "dead"]
    detail: str | None = None


class Readiness(Answer):
    status: Literal["ready", "not ready"]
    detail: str | None = Field(default=None, description="why it is not ready, or the first of `degraded`")
    degraded: list[str] = Field(default=[], description="problems that do not prevent answers")
    promises: Literal["full", "weaker"] | None = Field(
        default=None,
        description="`full`: acknowledged writes are durable; `weaker`: less, as allowed by SEQREC_ACCEPT_WEAKER",
    )
    durability_warnings: list[str] = Field(default=[], description="missing guarantees")
    catalogue: str | None = None
    snapshot: str | None = None
    seq: int | None = None
    head: int | None = Field(default=None, description="number of the last change of the catalogue that was seen")
    worker: int = Field(description="id of the process that answered; also in the header x-worker of every response")
