"""Several workers on one socket, as real processes: they agree, are started again, and end together."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from seqrec.errors import InputError
from service import workers
from service.app import create_app
from service.engine import execution as queries
from service.settings import Settings
from tests.service.conftest import wait_until_ready
from tests.service.side.models import until

pytestmark = pytest.mark.slow

ServeProcess = Callable[..., Any]
SECONDS = 120  # for a process to start: it imports torch


def each_worker(url: str, count: int, stack: ExitStack, but: set[int] | None = None) -> dict[int, httpx.Client]:
    """A client for each worker: a connection stays with the worker that took it."""
    found: dict[int, httpx.Client] = {}
    end = time.monotonic() + SECONDS
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} workers answered"
        client = stack.enter_context(httpx.Client(base_url=url, timeout=SECONDS))
        ready = client.get("/readyz")
        worker = int(ready.headers["x-worker"])
        assert ready.status_code == 200, ready.text  # a worker accepts when it can answer
        if worker not in found and worker not in (but or ()):
            found[worker] = client
        else:
            client.close()
            time.sleep(0.05)
    return found


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def put(client: httpx.Client, item_id: str) -> int:
    title = item_id.replace("-", " ")
    response = client.post("/items", json={"items": [{"item_id": item_id, "attributes": {"title": title}}]})
    assert response.status_code == 200, response.text
    return int(response.json()["seq"])


def top(client: httpx.Client, item_id: str) -> tuple[str, int]:
    body = {"history": [{"attributes": {"title": item_id.replace("-", " ")}}], "k": 1}
    answer = client.post("/recommend", json=body).json()
    return answer["items"][0]["item_id"], answer["seq"]


def test_workers_agree_share_what_they_count_and_come_back(serve_process: ServeProcess, clients: ExitStack) -> None:
    process = serve_process(SEQREC_WORKERS="2", SEQREC_THREADS="1", OMP_NUM_THREADS="2")
    of = each_worker(process.url, 2, clients)
    one, two = of.values()
    assert "computing with 1 thread (as set) each" in process.log()

    for n in range(10):  # what one takes, the other finds in its next request
        for taking, asked in ((one, two), (two, one)):
            seq = put(taking, f"umbrella-{n}")
            assert top(asked, f"umbrella-{n}") == (f"umbrella-{n}", seq)

    for asked in (one, two):  # either worker reports both
        text = asked.get("/metrics").text
        assert 'seqrec_requests_total{method="POST",route="/items",status="200"} 20.0' in text
        for state in ("seqrec_ready{pid=%s} 1.0", "seqrec_threads{pid=%s} 1.0"):
            assert set(re.findall(state % r'"(\d+)"', text)) == {str(worker) for worker in of}

    for asked, item_id in ((one, "desk-1"), (two, "mug-1")):
        body = {"history": ["lamp-1"], "candidates": [item_id]}
        assert [item["item_id"] for item in asked.post("/recommend", json=body).json()["items"]] == [item_id]

    def covered() -> dict[str, float]:
        found = re.findall(r'seqrec_catalogue_coverage\{pid="(\d+)"\} (\S+)', one.get("/metrics").text)
        return {pid: float(share) for pid, share in found if float(share)}

    def counted_together() -> bool:
        """Of 8 + 10 items both answered the same 10, and each one of its own."""
        return covered() == {str(worker): pytest.approx(12 / 18, rel=0.01) for worker in of}

    until(counted_together)

    job = one.post("/reindex").json()["id"]
    assert two.post("/reindex").json()["id"] == job, "one at a time, whoever is asked"
    assert two.get(f"/reindex/{job}").json()["state"] in ("queued", "running")

    victim = next(iter(of))
    os.kill(victim, signal.SIGKILL)
    assert put(two, "after-the-crash") > 0
    (other,) = each_worker(process.url, 1, clients, but=set(of)).values()
    assert top(other, "after-the-crash")[0] == "after-the-crash"
    text = two.get("/metrics").text
    assert f'seqrec_ready{{pid="{victim}"}}' not in text
    assert 'seqrec_requests_total{method="POST",route="/items",status="200"} 21.0' in text, "what it counted stays"

    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(60) == 0
    assert "Traceback" not in process.log()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{process.url}/healthz")


def test_workers_end_with_a_supervisor_that_is_killed(serve_process: ServeProcess, clients: ExitStack) -> None:
    process = serve_process(SEQREC_WORKERS="2")
    of = each_worker(process.url, 2, clients)
    process.popen.kill()
    end = time.monotonic() + 60
    while any(psutil.pid_exists(worker) and psutil.Process(worker).status() != "zombie" for worker in of):
        assert time.monotonic() < end, "a worker goes on without its supervisor"
        time.sleep(0.05)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{process.url}/healthz")


@pytest.mark.parametrize(("gpus", "asked", "count"), [(0, None, 1), (0, 3, 3), (1, None, 1), (4, None, 4), (4, 2, 2)])
def test_one_worker_or_one_a_gpu(monkeypatch: pytest.MonkeyPatch, gpus: int, asked: int | None, count: int) -> None:
    monkeypatch.setattr(workers, "_gpus", lambda settings: gpus)
    assert workers.worker_count(Settings(workers=asked)) == count


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_gpus", lambda settings: 2)
    with pytest.raises(InputError, match="SEQREC_WORKERS: 3 workers for 2 GPUs: a GPU serves one"):
        workers.worker_count(Settings(workers=3))


def test_each_worker_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for gpu in (0, 3):
        (tmp_path / f"gpu-{gpu}.lock").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setattr(workers, "held_locks", [])
    taken = []
    for _ in range(2):
        workers.take_gpu()
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["0", "3"]
    workers.held_locks.pop(0).close()  # its worker dies
    workers.take_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    for lock in workers.held_locks:
        lock.close()


def test_a_worker_whose_compute_thread_has_died_ends_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(*arguments: Any) -> Any:
        raise SystemExit("gone")

    ended = threading.Event()
    with TestClient(create_app(Settings(home=home), end=ended.set), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        assert not ended.is_set()
        monkeypatch.setattr(queries, "search", deadly)
        assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 503
        assert ended.wait(10)
