"""What Prometheus reads at /metrics. One registry an app, so that several apps can live in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.batcher import BatchRecord

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts as things happen; what is a state is read when Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
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
        self._batch_seconds = Counter("seqrec_batch_seconds", "Time the compute thread was busy", ["lane"], registry=of)
        self._batch_failures = Counter("seqrec_batch_failures", "Batches that failed", ["lane"], registry=of)

    def request(self, method: str, route: str, status: int, seconds: float, stages: dict[str, float]) -> None:
        """`route` is the template, never the path: paths hold item ids. `stages` in ms."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)
        for stage, milliseconds in stages.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def batch(self, record: BatchRecord) -> None:
        self._batch_units.labels(record.lane).observe(record.units)
        self._batch_tokens.labels(record.lane).inc(record.tokens)
        self._batch_seconds.labels(record.lane).inc(record.seconds)
        if record.failed:
            self._batch_failures.labels(record.lane).inc()

    def state(self, read: Callable[[], dict[str, float]], snapshot: Callable[[], str | None]) -> None:
        """Gauges by name, read at each scrape; and the id of what is served as a label."""
        self.registry.register(_State(read, snapshot))

    def text(self) -> bytes:
        return generate_latest(self.registry)


_GAUGES = {
    "seqrec_ready": "1 where requests can be answered",
    "seqrec_queue_tokens": "Tokens of recommendations that wait",
    "seqrec_queue_item_tokens": "Tokens of posted items that wait",
    "seqrec_delta_rows": "Changes since the snapshot that are searched beside it",
    "seqrec_seq_applied": "The last change that answers hold",
    "seqrec_seq_head": "The last change of the catalogue",
}


class _State(Collector):
    def __init__(self, read: Callable[[], dict[str, float]], snapshot: Callable[[], str | None]) -> None:
        self._read = read
        self._snapshot = snapshot

    def collect(self) -> Iterator[GaugeMetricFamily]:
        values = self._read()
        for name, help_text in _GAUGES.items():
            if name in values:
                yield GaugeMetricFamily(name, help_text, value=values[name])
        snapshot = self._snapshot()
        if snapshot is not None:
            served = GaugeMetricFamily("seqrec_snapshot", "The snapshot that is served", labels=["id"])
            served.add_metric([snapshot], 1)
            yield served

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield from ()
