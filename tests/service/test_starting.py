"""While nobody accepts connections, the listening socket is answered with 503; then it is left to the workers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from service.starting import answered_meanwhile


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_it_is_alive_and_not_ready(listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with answered_meanwhile([listener], lambda: False):
        assert httpx.get(f"{url}/healthz").json() == {"status": "alive", "detail": None}
        ready = httpx.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["status"], ready.headers["retry-after"]) == (503, "not ready", "1")
        posted = httpx.post(f"{url}/recommend", json={"history": []})
        assert (posted.status_code, posted.headers["content-type"]) == (503, "application/problem+json")
        assert posted.json()["detail"] == "the service is starting"
        head = httpx.head(f"{url}/readyz")
        assert (head.status_code, head.content) == (503, b"")
    assert listener.fileno() >= 0, "it stays open"


def test_a_client_that_sends_nothing_holds_nobody_up(listener: socket.socket) -> None:
    address = listener.getsockname()
    with answered_meanwhile([listener], lambda: False), socket.create_connection(address):
        assert httpx.get(f"http://127.0.0.1:{address[1]}/readyz", timeout=1).status_code == 503


def test_connections_are_left_to_who_accepts(listener: socket.socket) -> None:
    accepting = threading.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with answered_meanwhile([listener], accepting.is_set):
        assert httpx.get(f"{url}/readyz").status_code == 503
        accepting.set()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{url}/readyz", timeout=0.5)
        accepting.clear()  # all workers have died
        assert httpx.get(f"{url}/readyz", timeout=2).status_code == 503
