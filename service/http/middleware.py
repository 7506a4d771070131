"""Around every request: its id, its log line and metrics, the limit on its body, and an end when its client goes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.recommender import Trace
from service.http.problems import TOO_LARGE, UNEXPECTED, problem
from service.metrics import Metrics

log = logging.getLogger("service.access")

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_DRAIN = 8  # times the limit on a body are read before the connection is given up
_WORKER = str(os.getpid()).encode()
_CLIENT_ID = re.compile(rb"[\w.:-]{1,64}")


class RequestMiddleware:
    """Pure ASGI. Reads the whole body first (it is bounded), so that afterwards it can listen for the client's end."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        trace = Trace()
        scope.setdefault("state", {})["trace"] = trace
        request_id = _request_id(scope)
        status = 499  # the client left before there was an answer

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = [(b"x-request-id", request_id.encode()), (b"x-worker", _WORKER)]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        try:
            body = await self._body(scope, receive)
            if body is None:
                detail = f"A body has at most {self._max_body_bytes} bytes; the rest of this one was not read."
                await problem(TOO_LARGE, detail, headers={"Connection": "close"})(scope, receive, noting)
            else:
                await self._watched(scope, receive, noting, body)
        except Exception:
            log.exception("request %s failed", request_id)
            if status != 499:  # too late to say so: the answer has begun
                raise
            await problem(UNEXPECTED, "Something went wrong inside the service.")(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - begin
            route = getattr(scope.get("route"), "path", None) or "none"
            method = scope["method"] if scope["method"] in _METHODS else "other"  # a client may make up any
            self._metrics.request(method, route, status, seconds, trace.stages)
            log.info(
                "%s %s %s %d %.1f ms snapshot=%s seq=%s batch=%d%s",
                request_id,
                method,
                route,
                status,
                seconds * 1000,
                trace.snapshot or "-",
                "-" if trace.seq is None else trace.seq,
                trace.batch,
                "".join(f" {stage}={milliseconds:.1f}" for stage, milliseconds in trace.stages.items()),
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None where it is too large, told from its header or while it comes."""
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if b"expect" in headers and announced.isdigit() and int(announced) > self._max_body_bytes:
            return None  # the client waits to be told before it sends it
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= _DRAIN * self._max_body_bytes:
            message = await receive()
            part = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            # Past the limit the rest is read and dropped: a client that is still sending would not see the answer.
            if size <= self._max_body_bytes:
                parts.append(part)
            else:
                parts.clear()
        return b"".join(parts) if size <= self._max_body_bytes else None

    async def _watched(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Run the app; when the client goes first, cancel it, which takes its work out of the queue."""
        given = answered = False

        async def noting(message: Message) -> None:
            nonlocal answered
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def replay() -> Message:
            nonlocal given
            if given:
                await asyncio.Event().wait()  # cancelled with the app: `gone` below listens for the client
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        app = asyncio.ensure_future(self._app(scope, replay, noting))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({app, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answered:  # after an answer the server says that the client has gone, too
                app.cancel()
            await asyncio.wait({app})
            if not app.cancelled():
                app.result()
        finally:
            app.cancel()
            gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _request_id(scope: Scope) -> str:
    """The client's own X-Request-Id if it is short and plain, else a new one."""
    theirs = dict(scope["headers"]).get(b"x-request-id", b"")
    return theirs.decode() if _CLIENT_ID.fullmatch(theirs) else uuid.uuid4().hex[:16]
