"""Traces: spans of a request and its stages, in the client's trace where it has one; and over OTLP for real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from service import app
from service.tracing import Tracing

pytestmark = pytest.mark.slow

MakeClient = Callable[..., TestClient]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(app, "open_tracing", lambda: Tracing(provider))
    return exporter


def of_route(exporter: InMemorySpanExporter, route: str) -> list[ReadableSpan]:
    """The span of a request, then those of its stages in the order of their beginning."""
    spans = exporter.get_finished_spans()
    [server] = [span for span in spans if (span.attributes or {}).get("http.route") == route]
    assert server.context is not None
    children = [span for span in spans if span.parent is not None and span.parent.span_id == server.context.span_id]
    return [server, *sorted(children, key=lambda span: span.start_time or 0)]


def test_a_request_and_its_stages_are_spans(make_client: MakeClient, exporter: InMemorySpanExporter) -> None:
    client = make_client(traces=True)
    exporter.clear()
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-request-id": "r-1"}
    assert client.post("/recommend", json={"history": ["desk-1"]}, headers=sent).status_code == 200
    server, *stages = of_route(exporter, "/recommend")
    assert server.name == "POST /recommend"
    assert server.kind.name == "SERVER"
    assert server.context is not None
    assert format(server.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
    assert server.parent is not None
    assert format(server.parent.span_id, "016x") == "b7ad6b7169203331"
    attributes = dict(server.attributes or {})
    assert attributes["http.response.status_code"] == 200
    assert attributes["seqrec.request_id"] == "r-1"
    assert attributes["seqrec.snapshot"]
    names = [span.name for span in stages]
    assert {"queue", "compute", "encode", "search", "answer"} <= set(names)
    assert names.index("queue") < names.index("search")
    for span in stages:
        assert (server.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0)
        assert (span.end_time or 0) <= (server.end_time or 0) + 1_000_000


def test_store_stages_and_errors_are_spans_too(make_client: MakeClient, exporter: InMemorySpanExporter) -> None:
    client = make_client(traces=True)
    exporter.clear()
    client.post("/items", json={"items": [{"item_id": "kite", "attributes": {"title": "Paper kite"}}]})
    _, *stages = of_route(exporter, "/items")
    assert "write" in [span.name for span in stages]
    exporter.clear()
    client.post("/recommend", json={"history": ["desk-1"], "min_seq": 10**9})
    server, *_ = of_route(exporter, "/recommend")
    assert server.status.status_code.name == "ERROR"


def test_a_request_that_is_not_sampled_makes_no_spans(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(app, "open_tracing", lambda: Tracing(provider))
    caplog.set_level("INFO", "service.access")
    assert make_client(traces=True).post("/recommend", json={"history": ["desk-1"]}).status_code == 200
    assert exporter.get_finished_spans() == ()
    assert " trace=" not in caplog.text


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_are_sent_over_otlp(
    serve_process: Callable[..., Any], collector: tuple[str, list[ExportTraceServiceRequest]]
) -> None:
    url, received = collector
    process = serve_process(SEQREC_TRACES="true", OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="100")
    answer = httpx.post(f"{process.url}/recommend", json={"history": ["desk-1"]})
    process.popen.terminate()
    assert process.popen.wait(60) == 0
    resources = [resource for request in received for resource in request.resource_spans]
    service = {pair.key: pair.value.string_value for pair in resources[0].resource.attributes}["service.name"]
    assert service == "seqrec"
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    [server] = [span for span in spans if span.name == "POST /recommend"]
    assert {"search", "queue"} <= {span.name for span in spans if span.parent_span_id == server.span_id}
    assert f"trace={server.trace_id.hex()}" in process.log()
    assert answer.headers["x-request-id"] in process.log()
