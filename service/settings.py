"""The service's settings: read once from the environment (`SEQREC_*`), checked, then handed to whoever needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from seqrec.errors import InputError

PREFIX = "SEQREC_"


class Settings(BaseSettings):
    """One field, one variable: `port` is SEQREC_PORT. Times are seconds, sizes bytes, work is counted in tokens."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True, allow_inf_nan=False
    )

    home: Path = Field(default=Path("var"), description="all state: catalogue, snapshots, jobs")
    redis_url: str | None = Field(
        default=None,
        pattern="^(redis|rediss|unix)://",
        description="the Redis that holds catalogue and histories for several hosts; unset: SQLite in SEQREC_HOME",
    )
    accept_weaker: bool = Field(
        default=False,
        description="use a Redis that may lose what it acknowledged; /readyz then says what is not promised",
    )
    host: str = Field(default="127.0.0.1", description="the address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="the port to listen on; 0: any free one")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="processes that answer; unset: one, or one a GPU, which is the most there",
    )
    device: str | None = Field(default=None, description="cpu or cuda; unset: a GPU where there is one")
    precision: Literal["float32", "bfloat16", "int8"] | None = Field(
        default=None, description="what the encoder computes in; unset: what made the snapshot's vectors"
    )
    threads: int = Field(
        default=0, ge=0, description="threads a worker computes with; 0: one a core, divided among the workers"
    )

    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="largest request body")
    max_items: int = Field(default=1_000, ge=1, description="items in one POST /items, events in one POST /events")
    max_history: int = Field(
        default=1_000, ge=1, description="entries in one history; the newest that fit the model are read"
    )
    max_k: int = Field(default=1_000, ge=1, description="items in one answer")
    max_ids: int = Field(
        default=10_000,
        ge=1,
        description="ids in `exclude`, in `candidates`, and newest events of a user that count as seen",
    )
    max_batch: int = Field(default=64, ge=1, description="histories in one POST /recommend/batch")

    max_open_requests: int | None = Field(
        default=None,
        ge=1,
        description="recommendations, and other requests, a worker works on at once; beyond: 429; unset: 32 a core, at "
        "least 64, or 2048 on a GPU",
    )
    max_connections: int = Field(default=1_000, ge=8, description="open connections of a worker; idle ones make room")
    allowed_hosts: str | None = Field(
        default=None,
        description="host names that requests may be sent to, separated by commas, * for all; unset: addresses, "
        "SEQREC_HOST and names without a dot",
    )

    deadline: float = Field(
        default=2.0, gt=0, description="how long a recommendation may take before it is refused (504)"
    )
    write_deadline: float = Field(
        default=60.0, gt=0, description="how long a POST /items may take: it encodes up to max_items"
    )
    batch_tokens: int | None = Field(
        default=None, ge=1, description="tokens computed at once, on a CPU by each core; unset: what suits the device"
    )
    queue_tokens: int = Field(default=65_536, ge=1, description="tokens of recommendations that may wait; beyond: 429")
    item_queue_tokens: int = Field(
        default=262_144, ge=1, description="tokens of posted items that may wait; beyond: 429"
    )

    cache_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        description="memory of each worker for user vectors: an unchanged history is not encoded again; 0: none",
    )
    cache_url: str | None = Field(
        default=None,
        pattern="^(redis|rediss|unix)://",
        description="a Redis for user vectors of all workers and hosts; it may evict, so not that of SEQREC_REDIS_URL",
    )

    follow_seconds: float = Field(
        default=0.1, gt=0, description="how often the log is followed; with SQLite each request looks as well"
    )
    reindex_threads: int = Field(default=1, ge=1, description="threads the reindex job computes with")
    reindex_at: float = Field(
        default=0.2,
        ge=0,
        description="share of the snapshot's items; when more have changed since, a reindex starts by itself; 0: never",
    )
    reindex_min: int = Field(
        default=10_000, ge=1, description="changes below which no reindex starts by itself, whatever their share"
    )
    retrain_every: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,6}(\.[0-9]+)?[mhd]$",
        description="how often `seqrec retrain` starts by itself, such as 24h or 7d (m, h, d); unset: never",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="what is logged")

    @property
    def retrain_seconds(self) -> float | None:
        """`retrain_every` in seconds, at least a minute."""
        if self.retrain_every is None:
            return None
        unit = {"m": 60.0, "h": 3600.0, "d": 86_400.0}[self.retrain_every[-1]]
        return max(60.0, float(self.retrain_every[:-1]) * unit)

    @property
    def host_list(self) -> frozenset[str]:
        """Names that a Host header may have, apart from addresses and names without a dot."""
        names = [] if self.allowed_hosts is None else self.allowed_hosts.split(",")
        return frozenset(name.strip().lower() for name in [*names, self.host] if name.strip())


def load_settings() -> Settings:
    """Settings from the environment. Raises InputError that names the variable, its value and what it may be."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise InputError(f"no such setting; there are {', '.join(sorted(known))}", unknown[0])
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper().removeprefix(PREFIX)
        raise InputError(f"{first['msg']}, not {first['input']!r}", name) from None
