"""Answers requests while the service starts: importing and loading take seconds.

The socket listens from the beginning, so that an address in use is reported immediately. Until a worker accepts
connections, a thread of the first process does: /healthz gets 200, everything else 503.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_POLL_SECONDS = 0.1
_CLIENT_SECONDS = 2.0
DETAIL = "the service is starting"


@contextmanager
def answered_meanwhile(listeners: Sequence[socket.socket], accepting: Callable[[], bool]) -> Iterator[None]:
    """Answer inside the block while no worker is `accepting` connections. The listeners stay open."""
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(_answered(listener, accepting))
        yield


@contextmanager
def _answered(listener: socket.socket, accepting: Callable[[], bool]) -> Iterator[None]:
    listener.setblocking(False)  # another process may be quicker to accept
    server = _Server(listener, accepting)
    ended = threading.Event()

    def run() -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not ended.is_set():
                if accepting():
                    ended.wait(_POLL_SECONDS)
                elif selector.select(_POLL_SECONDS):
                    server.handle_request()  # does not wait itself, since the listener does not block

    thread = threading.Thread(target=run, name="starting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, listener: socket.socket, accepting: Callable[[], bool]) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._accepting = accepting

    def get_request(self) -> tuple[socket.socket, object]:
        if self._accepting():
            raise OSError  # leaves the connection to a worker
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_SECONDS

    def _answer(self) -> None:
        alive = self.path.partition("?")[0] == "/healthz"
        ready = self.path.partition("?")[0] == "/readyz"
        if alive:
            body: dict[str, object] = {"status": "alive", "detail": None}
        elif ready:
            body = {"status": "not ready", "detail": DETAIL, "degraded": [], "worker": os.getpid()}
        else:
            body = {
                "type": "urn:problem-type:seqrec:not-ready",
                "title": "Not ready",
                "status": 503,
                "detail": DETAIL,
                "advice": "GET /readyz says why; try again when it answers 200.",
            }
        content = json.dumps(body).encode()
        self.send_response_only(200 if alive else 503)
        self.send_header("content-type", "application/json" if alive or ready else "application/problem+json")
        self.send_header("content-length", str(len(content)))
        self.send_header("x-content-type-options", "nosniff")
        if not alive:
            self.send_header("retry-after", "1")
        self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815 (names that the base class looks for)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing: a load balancer sends requests every second."""
