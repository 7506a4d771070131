"""OpenTelemetry traces: one span a request, and one for each of its stages. Needs the extra `[otel]`.

Spans are made when a request is answered, from the times that it has taken anyway, so a request that is not sampled
costs almost nothing. Where they go, and how many, is set by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seqrec.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from service.engine.trace import Trace


class Tracing:
    """Records requests with a tracer of `provider`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("seqrec")
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self,
        headers: Mapping[bytes, bytes],
        trace: Trace,
        method: str,
        route: str,
        status: int,
        attributes: Mapping[str, Any],
    ) -> str | None:
        """The spans of a request that ends now; its trace id if it is sampled.

        The header traceparent makes it part of the client's trace. `attributes` that are None are left out.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        carrier = {name: headers[name.encode()].decode("latin-1") for name in _CONTEXT if name.encode() in headers}
        offset = time.time_ns() - time.perf_counter_ns()
        known = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            **{name: value for name, value in attributes.items() if value is not None},
        }
        span = self._tracer.start_span(
            f"{method} {route}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            known,
            start_time=_nanoseconds(trace.arrived, offset),
        )
        if not span.is_recording():
            return None
        within = set_span_in_context(span)
        for stage, start, end in trace.spans:
            child = self._tracer.start_span(stage, within, start_time=_nanoseconds(start, offset))
            child.end(_nanoseconds(end, offset))
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        return format(span.get_span_context().trace_id, "032x")

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


_CONTEXT = ("traceparent", "tracestate")


def open_tracing() -> Tracing:
    """Sends spans over OTLP (HTTP). Raises InputError where the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InputError(
            f"traces need OpenTelemetry ({error}); install it with: pip install 'seqrec[otel]'", "SEQREC_TRACES"
        ) from None
    resource = Resource.create({SERVICE_NAME: "seqrec"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _nanoseconds(perf_counter: float, offset: int) -> int:
    return int(perf_counter * 1e9) + offset
