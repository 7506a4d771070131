"""uvicorn's HTTP protocol with limits on what a client may send, how long it may take, and how many may connect."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

log = logging.getLogger(__name__)

STATE_KEY = "connection_limits"
MAX_HEADER_BYTES = 64 * 1024
"""Of a request's first line, headers and trailers together."""
MAX_PIPELINED = 16
"""Requests of a connection that wait for the answers to earlier ones."""
HEADER_SECONDS = 10.0
BODY_SECONDS = 30.0
WRITE_SECONDS = 10.0
"""How long a client may take to read the next `WRITE_BYTES` of an answer."""
WRITE_BYTES = 64 * 1024
SHUTDOWN_SECONDS = 2.0
"""How long an incomplete request may still arrive once the service stops."""
_TICK_SECONDS = 0.5
_LOG_SECONDS = 10.0
_RESERVED_FILES = 160
"""File descriptors for everything but connections."""
_REFUSALS = {"header_size": 431, "connections": 503}
"""Answers to refused clients. Those that are too slow get none, as with nginx: it would wait to be read."""


class ConnectionLimits:
    """The limits of a worker, and the count and log line of each connection closed because of one."""

    def __init__(self, max_connections: int, closed: Callable[[str], object]) -> None:
        """`closed` is called with the reason. The process's limit on open files bounds `max_connections`."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = max(8, min(max_connections, files - _RESERVED_FILES))
        self._closed = closed
        self._not_logged: Counter[str] = Counter()
        self._log_at: dict[str, float] = {}

    def close(self, reason: str, client: object) -> None:
        self._closed(reason)
        now = time.monotonic()
        self._not_logged[reason] += 1
        if now >= self._log_at.get(reason, 0.0):  # an attack must not fill the disk with log lines
            self._log_at[reason] = now + _LOG_SECONDS
            log.warning(
                "closed %d connections: limit %s; the last is of %s", self._not_logged.pop(reason), reason, client
            )


class _LimitReached(Exception):
    """Ends the parsing of what has arrived; the parser reports it as an invalid request."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Reads the limits from the lifespan state (`STATE_KEY`), so that uvicorn can make it by name in any process."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits: ConnectionLimits = self.app_state[STATE_KEY]
        self._reason: str | None = None
        self._active: RequestResponseCycle | None = None  # whose answer is being made
        self._in_headers = True
        self._in_body = False
        self._header_bytes = 0
        self._message_bytes = 0
        self._header_since = self.idle_since = time.monotonic()
        self._body_seconds = 0.0
        self._written: tuple[float, int] | None = None  # since when, and how many bytes were left then
        self._stopping_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        full = len(self.connections) >= self._limits.max_connections
        super().connection_made(transport)
        self._timer = self.loop.call_later(_TICK_SECONDS, self._tick)
        if full:
            idle = [other for other in self.connections if isinstance(other, LimitedHttpProtocol) and other.idle]
            min(idle, key=lambda other: other.idle_since, default=self).refuse("connections")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for cycle in [self._active, *(cycle for cycle, _ in self.pipeline)]:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered, and every answer has been read."""
        answered = self._active is None or self._active.response_complete
        return answered and not self.transport.get_write_buffer_size() and not self.transport.is_closing()

    def refuse(self, reason: str) -> None:
        """Close the connection, with an answer where no other one has begun."""
        if self._reason is not None:
            return
        self._reason = reason
        self._limits.close(reason, self.client[0] if self.client else "a socket")
        cycle = self._active
        if reason in _REFUSALS and (cycle is None or cycle.response_complete or not cycle.response_started):
            status = _REFUSALS[reason]
            headers = b"content-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True  # this is the answer: the application's must not follow it
                cycle.message_event.set()
            self.transport.write(STATUS_LINE[status] + headers)
            self.transport.close()
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._reason is not None or self.transport.is_closing():
            return
        if self._in_headers:
            if not self._header_bytes:
                self._header_since = time.monotonic()
            self._header_bytes += len(data)
            # The parser would copy a long header again and again: it must not even see it.
            if self._header_bytes - len(data) > MAX_HEADER_BYTES:
                self.refuse("header_size")
                return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        if self._reason is None:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        if self._reason is not None:
            raise _LimitReached
        super().on_message_begin()
        self._message_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self.refuse("pipeline")
            raise _LimitReached
        self._in_headers, self._in_body = False, True
        self._body_seconds = 0.0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers, self._in_body = True, False
        self._header_bytes = 0

    def on_response_complete(self) -> None:
        self.idle_since = self._header_since = time.monotonic()
        super().on_response_complete()

    def shutdown(self) -> None:
        self._stopping_at = time.monotonic()
        super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def _count_header(self, size: int) -> None:
        self._message_bytes += size
        if self._message_bytes > MAX_HEADER_BYTES:
            self.refuse("header_size")
            raise _LimitReached

    def _tick(self) -> None:
        """Enforce the limits on time."""
        self._timer = self.loop.call_later(_TICK_SECONDS, self._tick)
        now = time.monotonic()
        if self._is_reading_slowly(now):
            self._reason = "write_time"
            self._limits.close("write_time", self.client[0] if self.client else "a socket")
            self.transport.abort()
        elif self._in_body and not self.flow.read_paused:
            self._body_seconds += _TICK_SECONDS
            stopping = self._stopping_at is not None and now - self._stopping_at > SHUTDOWN_SECONDS
            if self._body_seconds > BODY_SECONDS or stopping:
                self.refuse("body_time")
        elif self._in_headers and self.idle and now - max(self._header_since, self.idle_since) > HEADER_SECONDS:
            self.refuse("header_time")

    def _is_reading_slowly(self, now: float) -> bool:
        left = self.transport.get_write_buffer_size()
        if not left:
            if self._written is not None:
                self.idle_since = now  # the client has just read the rest of an answer
            self._written = None
        elif self._written is None or self._written[1] - left >= WRITE_BYTES:
            self._written = now, left
        return self._written is not None and now - self._written[0] > WRITE_SECONDS
