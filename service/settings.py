"""The settings of the service, read once from the environment (`SEQREC_*`) and checked."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from seqrec.data.durations import parse_duration
from seqrec.data.items import MAX_ITEM_BYTES
from seqrec.errors import InputError, there_are
from service.validation import reason

PREFIX = "SEQREC_"


class Settings(BaseSettings):
    """Each field is one variable: `port` is SEQREC_PORT. Times are in seconds, sizes in bytes, work in tokens."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True, allow_inf_nan=False
    )

    home: Path = Field(default=Path("var"), description="the directory of all state: catalogue, snapshots, jobs")
    redis_url: str | None = Field(
        default=None,
        pattern="^(redis|rediss|unix)://",
        description="the Redis with catalogue and histories, for several hosts; unset: SQLite in SEQREC_HOME",
    )
    accept_weaker: bool = Field(
        default=False,
        description="use a Redis that may lose acknowledged writes; /readyz then lists the missing guarantees",
    )
    milvus_url: str | None = Field(
        default=None,
        pattern="^https?://",
        description="a Milvus that searches the snapshot's vectors: http://[user:password@]host:19530[/database]; "
        "unset: each worker searches them itself",
    )
    host: str = Field(default="127.0.0.1", description="the address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="the port to listen on; 0: any free one")
    private_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="a second port for /metrics, /readyz and /reindex, which are then not on SEQREC_PORT; unset: none",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="worker processes; unset: one, or one per GPU, which is the maximum there",
    )
    tls_cert: Path | None = Field(default=None, description="certificate chain (PEM): serve HTTPS, with SEQREC_TLS_KEY")
    tls_key: Path | None = Field(default=None, description="private key (PEM, without a password) of SEQREC_TLS_CERT")
    allow_anonymous: bool | None = Field(
        default=None,
        description="serve requests without an API key while there are no keys; unset: only on a loopback address",
    )
    limits_url: str | None = Field(
        default=None,
        pattern="^(redis|rediss|unix)://",
        description="a Redis that counts rates and quotas of keys for all workers and hosts; unset: each worker counts",
    )
    cors_origins: str | None = Field(
        default=None,
        description="origins whose pages may call the service, such as https://shop.example, separated by commas, * "
        "for all; unset: none but its own",
    )
    device: str | None = Field(default=None, description="cpu or cuda; unset: a GPU if there is one")
    precision: Literal["float32", "bfloat16", "int8"] | None = Field(
        default=None, description="precision of the encoder; unset: that of the snapshot's vectors"
    )
    threads: int = Field(
        default=0, ge=0, description="compute threads of a worker; 0: one per core, divided among the workers"
    )

    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="largest size of a request body")
    max_items: int = Field(default=1_000, ge=1, description="most items in a POST /items, and events in a POST /events")
    max_history: int = Field(
        default=1_000, ge=1, description="most entries in a history; the newest that fit the model are read"
    )
    max_k: int = Field(default=1_000, ge=1, description="most items in an answer")
    max_ids: int = Field(
        default=10_000,
        ge=1,
        description="most ids in `exclude` and in `candidates`, and newest events of a user that count as seen",
    )
    max_answer_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=MAX_ITEM_BYTES,
        description="attributes in one answer; items beyond come without theirs",
    )
    max_batch: int = Field(default=64, ge=1, description="most histories in a POST /recommend/batch")

    max_open_requests: int | None = Field(
        default=None,
        ge=1,
        description="most recommendations, and most other requests, that a worker processes concurrently; beyond: 429; "
        "unset: 32 per core, at least 64, or 2048 on a GPU",
    )
    max_connections: int = Field(
        default=1_000, ge=8, description="most open connections of a worker; idle ones are closed first"
    )
    allowed_hosts: str | None = Field(
        default=None,
        description="accepted host names, separated by commas, * for all; unset: addresses, "
        "SEQREC_HOST and names without a dot",
    )

    deadline: float = Field(
        default=2.0, gt=0, description="longest time for a recommendation; then it is answered with 504"
    )
    write_deadline: float = Field(
        default=60.0, gt=0, description="longest time for a POST /items, which encodes up to max_items"
    )
    batch_tokens: int | None = Field(
        default=None, ge=1, description="tokens per batch, on a CPU for each core; unset: chosen for the device"
    )
    queue_tokens: int = Field(default=65_536, ge=1, description="most tokens of waiting recommendations; beyond: 429")
    item_queue_tokens: int = Field(default=262_144, ge=1, description="most tokens of waiting items; beyond: 429")

    cache_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        description="memory of each worker for user vectors, so that unchanged ones are not encoded again; 0: none",
    )
    cache_url: str | None = Field(
        default=None,
        pattern="^(redis|rediss|unix)://",
        description="a Redis to share cached user vectors; it may evict, so not that of SEQREC_REDIS_URL",
    )

    follow_seconds: float = Field(
        default=0.1, gt=0, description="interval of reading the log; with SQLite each request also reads it"
    )
    reindex_threads: int = Field(default=1, ge=1, description="compute threads of the reindex job")
    reindex_at: float = Field(
        default=0.2,
        ge=0,
        description="a reindex starts automatically when the changes since the snapshot exceed this share of its "
        "items, or this share of its bytes and 256 MiB; 0: never",
    )
    reindex_min: int = Field(default=10_000, ge=1, description="fewest changes for an automatic reindex")
    attribution_days: float = Field(
        default=30.0, gt=0, le=3650, description="age of a recommendation up to which an event may name its id, in days"
    )
    outcome_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="how many days impressions and what reports count are kept; unset: until their user is deleted",
    )
    parts_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of answers of a hybrid whose items are counted by the part of the score that added most",
    )
    traces: bool = Field(
        default=False,
        description="send traces over OTLP; OpenTelemetry's variables, such as OTEL_EXPORTER_OTLP_ENDPOINT, say where",
    )
    retrain_every: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,6}(\.[0-9]+)?[mhd]$",
        description="how often `seqrec retrain` starts automatically, such as 24h or 7d (m, h, d); unset: never",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="form of log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="level of the log")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.private_port == self.port:
            raise PydanticCustomError("private_port", "SEQREC_PRIVATE_PORT and SEQREC_PORT are the same")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise PydanticCustomError("tls_pair", "SEQREC_TLS_CERT and SEQREC_TLS_KEY are set together or not at all")
        return self

    @property
    def anonymous(self) -> bool:
        """Whether requests without a key are served while there are no keys."""
        return is_loopback(self.host) if self.allow_anonymous is None else self.allow_anonymous

    @property
    def origin_list(self) -> frozenset[str]:
        """Origins whose pages may call the service, apart from its own."""
        return frozenset(one.strip().lower().rstrip("/") for one in (self.cors_origins or "").split(",") if one.strip())

    @property
    def retrain_seconds(self) -> float | None:
        """`retrain_every` in seconds, at least a minute."""
        if self.retrain_every is None:
            return None
        return max(60.0, parse_duration(self.retrain_every) or 0.0)

    @property
    def host_list(self) -> frozenset[str]:
        """Names that a Host header may have, apart from addresses and names without a dot."""
        names = [] if self.allowed_hosts is None else self.allowed_hosts.split(",")
        return frozenset(name.strip().lower() for name in [*names, self.host] if name.strip())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address: every address that the name stands for is a loopback one."""
    if not host:
        return False  # all interfaces
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _unknown(name: str, known: Sequence[str]) -> InputError:
    return InputError(f"no such setting{there_are(name, known)}", name)


def load_settings(given: Mapping[str, object] | None = None) -> Settings:
    """Settings from the environment, and `given` ones by their names, which count more.

    Raises InputError that names the variable, its value and what it may be.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise _unknown(unknown[0], sorted(known))
    try:
        return Settings(**(given or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(first["msg"]) from None
        name = PREFIX + str(first["loc"][0]).upper().removeprefix(PREFIX)
        if first["type"] == "extra_forbidden":
            raise _unknown(name, sorted(known)) from None
        raise InputError(reason(first), name) from None
