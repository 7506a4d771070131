"""The metrics at /metrics, for Prometheus. One registry per app, so that several apps can run in one process.

Several workers write their counters to shared files, and any of them answers for all: counters are summed, gauges
are labelled with the worker's process id.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:  # it imports torch, which the supervisor of several workers has no use for
    from index.catalogue.histories import Event
    from service.engine.batcher import BatchRecord
    from service.live.side import SideStatus
    from service.rules.experiments import Compared

SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the directory of the shared counts; prometheus_client reads it at import."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_MAX_EXPOSURES = 200
"""Pairs of a placement and a variant that have labels."""
_SHARES = tuple(n / 10 for n in range(11))
_LENGTHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
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
    "seqrec_snapshot_timestamp_seconds": "When the snapshot that is served was made",
    "seqrec_model_timestamp_seconds": "When the weights of the model that is served were written",
    "seqrec_newest_event_timestamp_seconds": "Time of the newest event that answers count; 0: none",
    "seqrec_answerable_items": "Items that answers may contain",
    "seqrec_catalogue_coverage": "Different items answered in the last 24 hours by all workers, of those answerable",
    "seqrec_history_drift": "Population stability index of histories against the events of the snapshot",
}


class ShadowTotals(NamedTuple):
    """How the answers of a shadow differ from those that users got.

    `left_out`: requests that it did not answer, since it was behind, not loaded or failed. `overlap`: mean share of the
    first ten items in common; `same_first`: share of answers with the same first item; `seconds_ratio`: time of
    computing, over that of the answers.
    """

    placement: str
    snapshot: str
    compared: int
    left_out: int
    overlap: float | None
    same_first: float | None
    seconds_ratio: float | None


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
        # Every request counts in ten of these, and `labels` takes longer than counting.
        self._requests_of, self._latency_of = cache(self._requests.labels), cache(self._latency.labels)
        self._stage_of = cache(self._stages.labels)
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
        self._outcomes = Counter(
            "seqrec_outcomes",
            "Outcomes of recommendations as posted, by type, placement and variant",
            ["type", "placement", "variant"],
            registry=of,
        )
        self._outcome_items = Counter(
            "seqrec_outcome_items",
            "Outcomes as posted, by type, and by source and part of the score of their items",
            ["type", "source", "part"],
            registry=of,
        )
        self._answers = Counter(
            "seqrec_answers",
            "Answers, by source: model, fallback:popular, similar, popular, trending or holdout",
            ["source"],
            registry=of,
        )
        self._answer_items = Counter(
            "seqrec_answer_items",
            "Items of answers, by source and by the part of a hybrid's score that added most",
            ["source", "part"],
            registry=of,
        )
        self._history_items = Counter(
            "seqrec_history_items",
            "Items of histories: counted (with events in the snapshot), cold (without) or unknown (in no catalogue)",
            ["known"],
            registry=of,
        )
        self._history_length = Histogram(
            "seqrec_history_length", "Items of a history, those given by id", buckets=_LENGTHS, registry=of
        )
        self._exposures: set[tuple[str, str]] = set()
        self.swaps = Counter("seqrec_swaps", "Snapshot swaps", registry=of)
        self.reindexes = Counter("seqrec_reindexes", "Reindex jobs started", ["by"], registry=of)
        self.retrains = Counter("seqrec_retrains", "Retraining jobs started", ["by"], registry=of)
        self._state = {
            name: Gauge(name, text, registry=of, multiprocess_mode="liveall") for name, text in _STATE.items()
        }
        self._snapshot = Gauge(
            "seqrec_snapshot", "1 for the snapshot that is served", ["id"], registry=of, multiprocess_mode="liveall"
        )
        self._side = Gauge(
            "seqrec_side_snapshot",
            "1 for a snapshot that a placement names and that answers, 0 for one that does not",
            ["id"],
            registry=of,
            multiprocess_mode="liveall",
        )
        self._side_bytes = Gauge(
            "seqrec_side_snapshot_bytes",
            "Memory of a snapshot that a placement names: shared files, and what the worker has itself",
            ["id", "memory"],
            registry=of,
            multiprocess_mode="liveall",
        )
        self._sides: set[str] = set()
        shadow = ["placement", "snapshot"]
        self._shadows = Counter(
            "seqrec_shadow_requests",
            "Requests for a shadow: compared, dropped, not_loaded or failed",
            [*shadow, "result"],
            registry=of,
        )
        self._overlap = Histogram(
            "seqrec_shadow_overlap",
            "Share of the first ten items that an answer and its shadow have in common",
            shadow,
            buckets=_SHARES,
            registry=of,
        )
        self._same_first = Counter(
            "seqrec_shadow_same_first", "Shadows with the same first item as the answer", shadow, registry=of
        )
        self._shadow_seconds = Counter(
            "seqrec_shadow_seconds", "Time of computing answers and their shadows", [*shadow, "of"], registry=of
        )
        self._read_sides: Callable[[], Mapping[str, SideStatus]] = dict
        self._served: str | None = None
        self._read: Callable[[], tuple[Mapping[str, float], str | None]] = lambda: ({}, None)

    def request(self, method: str, route: str, status: int, seconds: float, stages: dict[str, float]) -> None:
        """`route` is the template, never the path: paths contain item ids. `stages` in ms."""
        self._requests_of(method, route, status).inc()
        self._latency_of(route).observe(seconds)
        for stage, milliseconds in stages.items():
            self._stage_of(stage).observe(milliseconds / 1000)

    def connection_closed(self, reason: str) -> None:
        """`reason`: which limit of service.http.protocol."""
        self._connections_closed.labels(reason).inc()

    def key_request(self, name: str) -> None:
        """`name`: of the key."""
        self._key_requests.labels(name).inc()

    def refusal(self, reason: str) -> None:
        """`reason`: no_key, bad_key, scope, rate, quota, busy."""
        self._refusals.labels(reason).inc()

    def outcomes(self, events: Iterable[Event]) -> None:
        """Events with an attribution. Of very many placements and variants, the later ones are counted as "other"."""
        for event in events:
            if event.attribution is not None:
                slot = event.attribution.slot
                exposure = slot.placement, slot.variant
                if len(self._exposures) < _MAX_EXPOSURES:
                    self._exposures.add(exposure)
                known = exposure if exposure in self._exposures else ("other", "other")
                self._outcomes.labels(event.type, *known).inc()
                source, _, part = event.attribution.source.partition(":")
                self._outcome_items.labels(event.type, source, part).inc()

    def answer(self, source: str, items: Mapping[str, int]) -> None:
        """`items`: their number by source, such as similar or model:words."""
        self._answers.labels(source).inc()
        for name, count in items.items():
            of, _, part = name.partition(":")
            self._answer_items.labels(of, part).inc(count)

    def history(self, counted: int, cold: int, unknown: int) -> None:
        """Items of a history that were given by id."""
        for known, count in (("counted", counted), ("cold", cold), ("unknown", unknown)):
            if count:
                self._history_items.labels(known).inc(count)
        self._history_length.observe(counted + cold + unknown)

    def shadow(self, placement: str, snapshot: str, result: str, compared: Compared | None) -> None:
        """`result`: compared, dropped, not_loaded or failed."""
        self._shadows.labels(placement, snapshot, result).inc()
        if compared is None:
            return
        self._overlap.labels(placement, snapshot).observe(compared.overlap)
        self._same_first.labels(placement, snapshot).inc(compared.same_first)
        if compared.published_seconds is not None:
            self._shadow_seconds.labels(placement, snapshot, "published").inc(compared.published_seconds)
            self._shadow_seconds.labels(placement, snapshot, "shadow").inc(compared.shadow_seconds)

    def shadows(self) -> list[ShadowTotals]:
        """What `shadow` counted since the start of the service, of all its workers."""
        totals: dict[tuple[str, str], dict[str, float]] = {}
        for family in self._collector().collect():
            for name, labels, value, *_ in family.samples if family.name.startswith("seqrec_shadow") else ():
                if name.endswith(("_total", "_sum")):
                    of = totals.setdefault((labels["placement"], labels["snapshot"]), {})
                    of[labels.get("result") or labels.get("of") or name] = value
        found = []
        for (placement, snapshot), of in sorted(totals.items()):
            compared = of.get("compared", 0.0)
            left = sum(of.get(name, 0.0) for name in ("dropped", "not_loaded", "failed"))
            overlap = of.get("seqrec_shadow_overlap_sum", 0.0) / compared if compared else None
            same = of.get("seqrec_shadow_same_first_total", 0.0) / compared if compared else None
            ratio = of["shadow"] / of["published"] if of.get("published") else None
            found.append(ShadowTotals(placement, snapshot, int(compared), int(left), overlap, same, ratio))
        return found

    def batch(self, record: BatchRecord) -> None:
        self._batch_units.labels(record.lane).observe(record.units)
        self._batch_tokens.labels(record.lane).inc(record.tokens)
        self._batch_seconds.labels(record.lane).inc(record.seconds)
        if record.failed:
            self._batch_failures.labels(record.lane).inc()

    def cache(self, result: str, count: int) -> None:
        """`result`: memory, redis or miss."""
        if count:
            self._cache_lookups.labels(result).inc(count)

    def state(self, read: Callable[[], tuple[Mapping[str, float], str | None]]) -> None:
        """Set what `refresh` calls: it returns gauges by name, and the id of the snapshot that is served."""
        self._read = read

    def sides(self, read: Callable[[], Mapping[str, SideStatus]]) -> None:
        """Set what `refresh` calls for the snapshots that placements name."""
        self._read_sides = read

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
        sides = self._read_sides()
        for name, status in sides.items():
            self._side.labels(name).set(status.trouble is None)
            self._side_bytes.labels(name, "shared").set(status.shared)
            self._side_bytes.labels(name, "own").set(status.own)
        for name in self._sides - sides.keys():
            self._forget_side(name)
        self._sides = set(sides)

    def _forget_side(self, name: str) -> None:
        if self._shared is not None:  # files cannot forget a label; NaN alarms nobody
            self._side.labels(name).set(math.nan)
            for memory in ("shared", "own"):
                self._side_bytes.labels(name, memory).set(0)
        else:
            self._side.remove(name)
            for memory in ("shared", "own"):
                self._side_bytes.remove(name, memory)

    def text(self) -> bytes:
        self.refresh()
        return generate_latest(self._collector())

    def _collector(self) -> CollectorRegistry:
        """What this process counted, or all workers together."""
        if self._shared is None:
            return self.registry
        for process_id in {int(path.stem.rpartition("_")[2]) for path in Path(self._shared).glob("gauge_live*.db")}:
            if not psutil.pid_exists(process_id):
                mark_process_dead(process_id, self._shared)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._shared)  # type: ignore[no-untyped-call]
        return registry
