"""The HTTP bodies of the endpoints for operation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from index.keys.base import Scope
from service.http.schemas import Answer
from service.rules.body import Body


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


class NewKey(Body):
    """A key to create. Keys with the scope `admin` are made by the command only."""

    name: str = Field(description="who uses it: 1 to 64 letters, digits, `.`, `_`, `-`", examples=["shop"])
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=8,
        json_schema_extra={"items": {"type": "string", "enum": ["recommend", "write", "metrics"]}},
    )
    expires: str | None = Field(default=None, max_length=32, description="in how long; null: never", examples=["90d"])
    rate: str | None = Field(default=None, max_length=32, examples=["100/s"])
    quota: str | None = Field(default=None, max_length=32, examples=["1000000/day"])


class StoredKey(Answer):
    """What is stored of a key. Times in Unix seconds."""

    name: str
    state: Literal["active", "expired", "revoked"]
    scopes: list[str]
    created: float
    expires: float | None = None
    revoked: float | None = None
    rate: str | None = None
    quota: str | None = None


class KeysAnswer(Answer):
    keys: list[StoredKey] = Field(description="by name; revoked and expired ones stay")


class CreatedKey(StoredKey):
    key: str = Field(description="the secret. It is shown this once: only its SHA-256 is stored")


class Health(Answer):
    status: Literal["alive", "dead"]
    detail: str | None = None


class Readiness(Answer):
    status: Literal["ready", "not ready"]
    detail: str | None = Field(default=None, description="why it is not ready, or the first of `degraded`")
    degraded: list[str] = Field(default=[], description="problems that do not prevent answers")
    durability: Literal["full", "weaker"] | None = Field(
        default=None,
        description="`full`: acknowledged writes are durable; `weaker`: less, as allowed by SEQREC_ACCEPT_WEAKER",
    )
    durability_warnings: list[str] = Field(default=[], description="missing guarantees")
    catalogue: str | None = None
    snapshot: str | None = None
    seq: int | None = None
    head: int | None = Field(default=None, description="number of the last change of the catalogue that was seen")
    worker: int = Field(description="id of the process that answered; also in the header x-worker of every response")
