"""While nobody accepts connections, the listening socket is answered with 503; then it is left to the workers."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.starting import answered_meanwhile
from tests.service.conftest import wait_until_ready


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_waiting_for_a_connection_costs_no_processor_time(listener: socket.socket) -> None:
    others = set(threading.enumerate())
    with answered_meanwhile([listener], lambda: False):
        # The clock of its thread: the process has threads that earlier tests left behind.
        [thread] = set(threading.enumerate()) - others
        clock = time.pthread_getcpuclockid(thread.ident)  # type: ignore[arg-type]
        before = time.clock_gettime(clock)
        time.sleep(1)
        assert time.clock_gettime(clock) - before < 0.2, "of the second that a spinning thread would take"


@pytest.mark.slow
def test_a_closed_app_keeps_no_file_open(home: Path) -> None:
    """FastAPI's caches keep the app itself; its snapshots and stores must not be kept with it.

    Files below the home alone: the process has others, which earlier tests left open.
    """

    def files() -> list[str]:
        return [path for path, *_ in psutil.Process().open_files() if Path(path).is_relative_to(home)]

    before = files()  # what the fixture has open
    for _ in range(3):
        with TestClient(create_app(Settings(home=home))) as client:
            wait_until_ready(client)
            assert len(files()) > len(before)
        gc.collect()
        assert files() == before
