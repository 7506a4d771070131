"""What surrounds every request: checks of its headers, admission, its body, its id, log line and metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.keys.base import ApiKey
from service.engine.trace import Trace
from service.http.access import AccessControl
from service.http.admission import Admission
from service.http.problems import (
    BAD_JSON,
    BUSY,
    FOREIGN_HOST,
    FOREIGN_ORIGIN,
    HTTP_KINDS,
    INVALID,
    NOT_JSON,
    TOO_LARGE,
    UNEXPECTED,
    Refused,
    problem,
)
from service.keys.scopes import is_on_port, is_write
from service.logs import log_request, record_write
from service.metrics import Metrics
from service.settings import Settings
from service.tracing import Tracing

log = logging.getLogger(__name__)

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_READS = {"GET", "HEAD", "OPTIONS"}
_UNLIMITED = ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/static/")
"""Paths that are answered also when the service is busy."""
_COMPUTING = ("/recommend", "/similar")
_BODIES = 16
"""Bodies of the largest size whose bytes may be in memory at once."""
_DRAIN = 8
"""How many times the limit on a body is read and dropped before the connection is given up."""
_PATH_IDS = {"items": "item_id", "users": "user_id"}
_WORKER = str(os.getpid()).encode()
_CLIENT_ID = re.compile(rb"[\w.:-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
]


class RequestMiddleware:
    """Pure ASGI. Reads the whole body first (its size is limited), to listen for the client's disconnect."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        settings: Settings,
        open_requests: int,
        access: AccessControl,
        tracing: Tracing | None = None,
    ) -> None:
        """`open_requests`: how many recommendations, and how many other requests, are worked on at once."""
        self._app = app
        self._metrics = metrics
        self._access = access
        self._tracing = tracing
        self._max_body_bytes = settings.max_body_bytes
        self._hosts = settings.host_list
        self._origins = settings.origin_list
        self._private_port = settings.private_port
        self._computing = Admission(open_requests)
        self._other = Admission(open_requests)
        self._body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = Trace()
        state: dict[str, Any] = scope.setdefault("state", {})
        headers = dict(scope["headers"])
        state |= {"trace": trace, "audit": {}, "key": None}
        request_id = _request_id(headers)
        head = scope["method"] == "HEAD"
        status = 499  # the client left before there was an answer

        async def annotated(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = [(b"x-request-id", request_id.encode()), (b"x-worker", _WORKER), *_SECURITY_HEADERS]
                message = {**message, "headers": [*message["headers"], *ours]}
            elif head:
                message = {**message, "body": b""}
            await send(message)

        # RFC 9110, 9.3.2: HEAD is answered as GET, without the content.
        inner = {**scope, "method": "GET"} if head else scope
        try:
            await self._admitted(inner, headers, receive, annotated)
        except Refused as refused:
            await refused.response(scope, receive, annotated)
        except Exception:
            log.exception("request %s failed", request_id)
            if status != 499:  # the response has begun: its status cannot change any more
                raise
            await problem(UNEXPECTED, "Something went wrong inside the service.")(scope, receive, annotated)
        finally:
            seconds = time.perf_counter() - trace.arrived
            route = getattr(inner.get("route"), "path", None) or "none"
            method = scope["method"] if scope["method"] in _METHODS else "other"  # clients may invent methods
            self._metrics.request(method, route, status, seconds, trace.stages)
            key: ApiKey | None = state["key"]
            name = None if key is None else key.name
            trace_id = None
            if self._tracing is not None:
                about: dict[str, Any] = {
                    "seqrec.key": name,
                    "seqrec.request_id": request_id,
                    "seqrec.snapshot": trace.snapshot,
                }
                about |= {"seqrec.seq": trace.seq, "seqrec.batch": trace.batch or None}
                trace_id = self._tracing.record(headers, trace, method, route, status, about)
            log_request(request_id, method, route, status, seconds, name, trace, trace_id)
            if is_write(scope["method"], scope["path"]):
                record_write(name, _address(scope), method, route, status, request_id, state["audit"])

    async def _admitted(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        """Run the app if the request passes every check. Raises Refused."""
        _check_path(scope)
        self._check_host(headers)
        self._check_port(scope)
        if scope["method"] not in _READS:
            _check_write(scope["method"], headers, self._origins)
        key = scope["state"]["key"] = self._access.identify(scope, headers)
        scope["state"]["trace"].client = _client(scope)
        if scope["path"] == "/" or scope["path"].startswith(_UNLIMITED):
            await self._with_body(scope, receive, send, headers, None)
            return
        admission = self._computing if scope["path"].startswith(_COMPUTING) else self._other
        # Before the body is read. A place is taken once it is there: slow clients must not occupy places.
        if admission.full(_client(scope)):
            raise self._busy()
        if key is not None:
            await self._access.count(key)
        await self._with_body(scope, receive, send, headers, admission)

    async def _with_body(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        admission: Admission | None,
    ) -> None:
        announced = headers.get(b"content-length", b"0")
        if b"expect" in headers and announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large()  # the client waits for permission before it sends the body
        parts: list[bytes] = []
        size = counted = 0
        more, crowded = True, False
        try:
            while more and size <= _DRAIN * self._max_body_bytes:
                message = await receive()
                part = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(part)
                # Past the limit the rest is read and dropped: a client that is still sending would miss the answer.
                crowded = crowded or self._body_bytes + len(part) > _BODIES * self._max_body_bytes
                if size > self._max_body_bytes or crowded:
                    parts.clear()
                    self._body_bytes -= counted
                    counted = 0
                    continue
                parts.append(part)
                self._body_bytes += len(part)
                counted += len(part)
            if size > self._max_body_bytes:
                raise self._too_large()
            if crowded:
                raise self._busy()
            body = b"".join(parts)
            parts.clear()
            if body and json.detect_encoding(body) not in ("utf-8", "utf-8-sig"):
                raise Refused(BAD_JSON, "Not JSON: the body is not UTF-8.")
            if admission is None:
                await self._watched(scope, receive, send, body)
            elif admission.enter(client := _client(scope)):
                try:
                    await self._watched(scope, receive, send, body)
                finally:
                    admission.leave(client)
            else:
                raise self._busy()
        finally:
            self._body_bytes -= counted

    def _busy(self) -> Refused:
        self._metrics.refusal("busy")
        return Refused(BUSY, "the service works on as many requests as it can", Retry_After="1")

    def _too_large(self) -> Refused:
        detail = f"A body has at most {self._max_body_bytes} bytes; the rest of this one was not read."
        return Refused(TOO_LARGE, detail, Connection="close")

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Against DNS rebinding: a page of another site that resolves to this address sends its own name as Host."""
        given = headers.get(b"host", b"").decode("latin-1")
        name, public = _host_name(given)
        if not given or name in self._hosts or "*" in self._hosts or (name and not public):
            return
        raise Refused(FOREIGN_HOST, f"Host {given[:100]!r} is not allowed")

    def _check_port(self, scope: Scope) -> None:
        if self._private_port is None:
            return
        private = (scope.get("server") or ("", None))[1] == self._private_port
        if not is_on_port(scope["path"], private):
            detail = (
                f"There is no {scope['method']} {scope['path'][:100]} on {'the private' if private else 'this'} port."
            )
            raise Refused(HTTP_KINDS[404], detail)

    async def _watched(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Run the app. If the client disconnects first, cancel it, which removes its work from the queue."""
        given = answered = False

        async def annotated(message: Message) -> None:
            nonlocal answered
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def replay() -> Message:
            nonlocal given
            if given:
                await asyncio.Event().wait()  # until cancelled: `gone` below listens for the client
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        task = asyncio.current_task()
        assert task is not None
        left = False

        def cancel(_: asyncio.Task[None]) -> None:
            nonlocal left
            if not answered:  # after an answer, too, the server reports a disconnect
                left = True
                task.cancel()

        gone = asyncio.ensure_future(_disconnected(receive))
        gone.add_done_callback(cancel)
        try:
            await self._app(scope, replay, annotated)
        except asyncio.CancelledError:
            if not left or task.uncancel():
                raise
        finally:
            gone.remove_done_callback(cancel)
            gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _client(scope: Scope) -> str:
    """Whose request it is: of a key, else of an address."""
    key: ApiKey | None = scope["state"]["key"]
    return _address(scope) if key is None else f"key {key.name}"


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _check_path(scope: Scope) -> None:
    """Ids in a path are UTF-8 without control characters, as everywhere. Raises Refused."""
    raw = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    field = _PATH_IDS.get(scope["path"].split("/")[1], "path")
    try:
        path = unquote_to_bytes(raw).decode()
        unquote_to_bytes(scope.get("query_string", b"")).decode()
    except UnicodeDecodeError:
        raise Refused(INVALID, "the URL is not UTF-8", field) from None
    control = _CONTROL.search(path)
    if control:
        raise Refused(INVALID, f"an id has no control characters, this one has U+{ord(control[0]):04X}", field)


def _check_write(method: str, headers: Mapping[bytes, bytes], origins: frozenset[str]) -> None:
    """Against forms and scripts of other sites than `origins`. Raises Refused."""
    origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
    if b"origin" in headers and origin.partition("://")[2] != host and origins.isdisjoint({origin.lower(), "*"}):
        raise Refused(FOREIGN_ORIGIN, f"a page of {origin[:100]!r} may not change anything here")
    media_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if method != "DELETE" and media_type != b"application/json" and not media_type.endswith(b"+json"):
        raise Refused(NOT_JSON, f"Content-Type is {media_type.decode('latin-1')[:100]!r}, not application/json")


@lru_cache(maxsize=64)
def _host_name(host: str) -> tuple[str, bool]:
    """The name in a Host header, "" if there is none, and whether anybody could register it."""
    with suppress(ValueError):
        name = urlsplit("//" + host).hostname or ""
        return name, _is_public_name(name)
    return "", False


def _is_public_name(name: str) -> bool:
    """Whether anybody could register the name: not an address, not a name without dots, not localhost."""
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return False
    return "." in name.rstrip(".") and not name.rstrip(".").endswith(".localhost")


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's X-Request-Id if it is short and plain, else a new one."""
    theirs = headers.get(b"x-request-id", b"")
    return theirs.decode() if _CLIENT_ID.fullmatch(theirs) else os.urandom(8).hex()
