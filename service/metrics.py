"""The metrics at /metrics, for Prometheus. One registry per app, so that several apps can run in one process.

Several workers write their counters to shared files, and any of them answers for all: counters are summed, gauges
are labelled with the worker's process id.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:  # it imports torch, which the supervisor of several workers has no use for
    from service.engine.batcher import BatchRecord

SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the directory of the shared counts; prometheus_client reads it at import."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_STATE = {
    "seqrec_ready": "1 while requests can be answered",
    "seqrec_degraded": "Number of reasons why the service is degraded; /readyz names them",
    "seqrec_threads": "Compute threads of the model and the search",
    "seqrec_queue_tokens": "Tokens of recommendations waiting",
    "seqrec_queue_item_tokens": "Tokens of posted items waiting",
    "seqrec_cache_bytes": "Bytes of cached user vectors",
    "seqrec_cache_entries": "Cached user vectors",
    "seqrec_snapshot_items": "Items of the snapshot",
    "seqrec_delta_rows": "Changes since the snapshot, searched together with it",
    "seqrec_tombstones": "Items of the snapshot that were replaced or deleted since",
    "seqrec_seq_applied": "The last change that answers contain",
    "seqrec_seq_head": "The last change of the catalogue that was seen",
    "seqrec_lag": "Changes that were seen and that answers do not contain yet",
    "seqrec_log_read_timestamp_seconds": "When the log was last read successfully; its age is time() minus this",
}


def shared_directory() -> str | None:
    """The directory in which several workers count together; None for a process of its own."""
    return os.environ.get(SHARED_DIRECTORY)


class Metrics:
    """Counters count as things happen; gauges are set by `refresh`."""

    def __init__(self, shared: str | None = None) -> None:
        """`shared`: the directory in which several workers count together (PROMETHEUS_MULTIPROC_DIR)."""
        self._shared = shared
        self.registry = of = CollectorRegistry()
        self._requests = Counter("seqrec_requests", "Requests answered", ["method", "route", "status"], registry=of)
        self._latency = Histogram(
            "seqrec_request_seconds", "Time to answer a request", ["route"], buckets=_SECONDS, registry=of
        )
        self._stages = Histogram(
            "seqrec_stage_seconds", "Time of each stage of a request", ["stage"], buckets=_SECONDS, registry=of
        )
        self._batch_units = Histogram(
            "seqrec_batch_units", "Histories or items in a batch", ["lane"], buckets=_UNITS, registry=of
        )
        self._batch_tokens = Counter("seqrec_batch_tokens", "Tokens computed", ["lane"], registry=of)
        self._batch_seconds = Counter("seqrec_batch_seconds", "Total time of batches", ["lane"], registry=of)
        self._batch_failures = Counter("seqrec_batch_failures", "Batches that failed", ["lane"], registry=of)
        self._cache_lookups = Counter(
            "seqrec_cache_lookups",
            "Lookups of user vectors, by where they were found",
            ["result"],
            registry=of,
        )
        self._connections_closed = Counter(
            "seqrec_connections_closed", "Connections closed because of a limit", ["reason"], registry=of
        )
        self._key_requests = Counter("seqrec_key_requests", "Requests with a valid API key", ["key"], registry=of)
        self._refusals = Counter(
            "seqrec_refusals", "Requests refused before their body was read, by why", ["reason"], registry=of
        )
        self.swaps = Counter("seqrec_swaps", "Snapshot swaps", registry=of)
        self.reindexes = Counter("seqrec_reindexes", "Reindex jobs started", ["by"], registry=of)
        self.retrains = Counter("seqrec_retrains", "Retraining jobs started", ["by"], registry=of)
        self._state = {
            name: Gauge(name, text, registry=of, multiprocess_mode="liveall") for name, text in _STATE.items()
        }
        self._snapshot = Gauge(
            "seqrec_snapshot", "1 for the snapshot that is served", ["id"], registry=of, multiprocess_mode="liveall"
        )
        self._served: str | None = None
        self._read: Callable[[], tuple[Mapping[str, float], str | None]] = lambda: ({}, None)

    def request(self, method: str, route: str, status: int, seconds: float, stages: dict[str, float]) -> None:
        """`route` is the template, never the path: paths contain item ids. `stages` in ms."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)
        for stage, milliseconds in stages.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def connection_closed(self, reason: str) -> None:
        """`reason`: which limit of service.http.protocol."""
        self._connections_closed.labels(reason).inc()

    def key_request(self, name: str) -> None:
        """`name`: of the key."""
        self._key_requests.labels(name).inc()

    def refusal(self, reason: str) -> None:
        """`reason`: no_key, bad_key, scope, rate, quota, busy."""
        self._refusals.labels(reason).inc()

    def batch(self, record: BatchRecord) -> None:
        self._batch_units.labels(record.lane).observe(record.units)
        self._batch_tokens.labels(record.lane).inc(record.tokens)
        self._batch_seconds.labels(record.lane).inc(record.seconds)
        if record.failed:
            self._batch_failures.labels(record.lane).inc()

    def cache(self, result: str, count: int) -> None:
        """`result`: memory, redis or miss."""
        self._cache_lookups.labels(result).inc(count)

    def state(self, read: Callable[[], tuple[Mapping[str, float], str | None]]) -> None:
        """Set what `refresh` calls: it returns gauges by name, and the id of the snapshot that is served."""
        self._read = read

    def refresh(self) -> None:
        """Set the gauges, so that any worker can report them."""
        values, snapshot = self._read()
        for name, value in values.items():
            self._state[name].set(value)
        if self._served != snapshot:
            if self._served is not None:
                self._snapshot.labels(self._served).set(0)
                if self._shared is None:  # files cannot forget a label
                    self._snapshot.remove(self._served)
            self._served = snapshot
        if snapshot is not None:
            self._snapshot.labels(snapshot).set(1)

    def text(self) -> bytes:
        self.refresh()
        if self._shared is None:
            return generate_latest(self.registry)
        for process_id in {int(path.stem.rpartition("_")[2]) for path in Path(self._shared).glob("gauge_live*.db")}:
            if not psutil.pid_exists(process_id):
                mark_process_dead(process_id, self._shared)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._shared)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
