"""Limits of connections, with sockets against a real server on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.http import protocol
from service.http.protocol import STATE_KEY, ConnectionLimits, LimitedHttpProtocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"


class Server:
    """An application that reads the body and answers with `content`."""

    def __init__(self, max_connections: int = 1000) -> None:
        self.content = b"ok"
        self.closed: list[str] = []
        self.requests = 0
        self.clients: list[socket.socket] = []
        self.go_on = threading.Event()
        self.go_on.set()
        limits = ConnectionLimits(max_connections, self.closed.append)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                scope["state"][STATE_KEY] = limits
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            self.requests += 1
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break
            while not self.go_on.is_set():
                await asyncio_sleep()
            length = str(len(self.content)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            await send({"type": "http.response.body", "body": self.content})

        config = uvicorn.Config(
            app, http=LimitedHttpProtocol, ws="none", log_config=None, lifespan="on", timeout_graceful_shutdown=30
        )
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), timeout=20)
        self.clients.append(client)
        client.sendall(data)
        return client

    def stop(self) -> float:
        begin = time.monotonic()
        self.server.should_exit = True
        self.thread.join(60)
        return time.monotonic() - begin


async def asyncio_sleep() -> None:
    import asyncio

    await asyncio.sleep(0.01)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "WRITE_SECONDS", "SHUTDOWN_SECONDS"):
        monkeypatch.setattr(protocol, name, 0.3)
    monkeypatch.setattr(protocol, "_TICK_SECONDS", 0.05)
    servers: list[Server] = []

    def make(max_connections: int = 1000) -> Server:
        servers.append(Server(max_connections))
        return servers[-1]

    yield make
    for server in servers:
        server.go_on.set()
        server.stop()
        for client in [server.listener, *server.clients]:
            client.close()


def received(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionError:
        pass
    return data


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", GET + b"GET / HT"], ids=["silent", "half header", "second"]
)
def test_a_request_whose_headers_do_not_come_is_given_up(start: Callable[..., Server], data: bytes) -> None:
    server = start()
    client = server.connect(data)
    assert b"400" not in received(client)
    assert server.closed == ["header_time"]


@pytest.mark.slow
def test_a_body_that_does_not_come_is_given_up(start: Callable[..., Server]) -> None:
    server = start()
    assert received(server.connect(HALF_BODY)) == b""
    assert server.closed == ["body_time"]


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"GET /"], ids=["header", "path"])
def test_long_headers_are_refused_before_they_are_read(start: Callable[..., Server], first: bytes) -> None:
    server = start()
    client = server.connect(first)
    sent = 0
    try:
        for _ in range(400):
            client.sendall(b"a" * 65536)
            sent += 65536
    except ConnectionError:
        pass
    assert sent < 20 << 20
    assert server.closed == ["header_size"]
    assert server.requests == 0


def test_headers_within_the_limit_pass(start: Callable[..., Server]) -> None:
    client = start().connect(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: " + b"a" * 60_000 + b"\r\n\r\n")
    assert received(client).startswith(b"HTTP/1.1 200")


def test_few_pipelined_requests_are_answered_and_many_are_not_kept(start: Callable[..., Server]) -> None:
    server = start()
    client = server.connect(GET * 10)
    answers = b""
    while answers.count(b"200 OK") < 10:
        answers += client.recv(65536)
    server.go_on.clear()
    many = server.connect(GET * 1000)
    received(many)
    assert server.closed == ["pipeline"]
    assert server.requests < 30


@pytest.mark.slow
def test_an_answer_that_is_not_read_is_given_up(start: Callable[..., Server]) -> None:
    server = start()
    server.content = b"x" * (32 << 20)
    client = socket.socket()
    server.clients.append(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(server.listener.getsockname())
    client.sendall(GET)
    end = time.monotonic() + 10
    while not server.closed and time.monotonic() < end:
        time.sleep(0.02)
    assert server.closed == ["write_time"]


def test_silent_connections_make_room(start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 30)
    server = start(max_connections=8)
    for _ in range(12):
        server.connect()
    time.sleep(0.1)
    client = server.connect(GET)
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert set(server.closed) == {"connections"}


@pytest.mark.slow
def test_a_half_sent_body_does_not_delay_the_stop(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 60)
    server = start()
    server.connect(HALF_BODY)
    time.sleep(0.1)
    assert server.stop() < 5
