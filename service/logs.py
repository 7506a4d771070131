"""The log: as text or as JSON lines, the line of each request, and the audit log of writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.settings import Settings

if TYPE_CHECKING:  # it imports torch, which the supervisor of several workers has no use for
    from service.engine.trace import Trace

access_log = logging.getLogger("service.access")
audit_log = logging.getLogger("service.audit")

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
WORKER_TEXT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, process, and the message or, in its place, the `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            line["message"] = record.getMessage()
        else:
            line |= fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def set_up(settings: Settings, text: str = TEXT) -> None:
    """Level and form of all log lines of this process, on standard error."""
    logging.basicConfig()  # a handler, where there is none
    root = logging.getLogger()
    root.setLevel(settings.log_level.upper())
    for handler in root.handlers:
        handler.setFormatter(JsonFormatter() if settings.log_format == "json" else logging.Formatter(text))


def log_request(
    request_id: str,
    method: str,
    route: str,
    status: int,
    seconds: float,
    key: str | None,
    trace: Trace,
    trace_id: str | None = None,
) -> None:
    """`route`: the template, never the path. `key`: the name of the API key. `trace_id`: of OpenTelemetry."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    fields = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "key": key,
        "snapshot": trace.snapshot,
        "seq": trace.seq,
        "batch": trace.batch,
        **({} if trace_id is None else {"trace": trace_id}),
        "stages": {stage: round(milliseconds, 1) for stage, milliseconds in trace.stages.items()},
    }
    access_log.info(
        "%s %s %s %d %.1f ms snapshot=%s seq=%s batch=%d%s%s%s",
        request_id,
        method,
        route,
        status,
        seconds * 1000,
        trace.snapshot or "-",
        "-" if trace.seq is None else trace.seq,
        trace.batch,
        "" if key is None else f" key={key}",
        "" if trace_id is None else f" trace={trace_id}",
        "".join(f" {stage}={milliseconds:.1f}" for stage, milliseconds in trace.stages.items()),
        extra={"fields": fields},
    )


def record_write(
    key: str | None, client: str, method: str, route: str, status: int, request_id: str, details: Mapping[str, object]
) -> None:
    """The audit log: one JSON line for each request that changes something, or that tried to.

    Who (the key's name), what (the route and its `details`), when, and how it ended. `route` is the template: a user's
    id is in no line, since lines outlive a user's deletion.
    """
    record = {
        "time": _time(datetime.now(UTC).timestamp()),
        "key": key,
        "client": client,
        "method": method,
        "route": route,
        "status": status,
        "request_id": request_id,
        **details,
    }
    audit_log.info("%s", json.dumps(record, ensure_ascii=True), extra={"fields": record})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
