"""SIGKILL in the middle of writing: everything acknowledged is there after a restart."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.service_process import environment, seqrec
from tests.e2e.processes import Server


@pytest.fixture
def home(tmp_path: Path, recformer: Path, online_retail: Path) -> Path:
    items = ("--items", str(online_retail / "items.jsonl.gz"))
    seqrec(tmp_path / "home", "index", "build", "--checkpoint", str(recformer), *items, "--publish")
    return tmp_path / "home"


def test_kill_during_post_items(start: Callable[[Path], Server], home: Path) -> None:
    server = start(home)
    acknowledged: dict[str, int] = {}

    def post(writer: int) -> None:
        for number in range(10_000):
            names = [f"new-{writer}-{number}-{part}" for part in range(3)]
            posted = [{"item_id": name, "attributes": {"title": f"Teapot {name}"}} for name in names]
            try:
                reply = server.client.post("/items", json={"items": posted})
            except httpx.HTTPError:
                return
            assert reply.status_code == 200, reply.text
            acknowledged.update(dict.fromkeys(names, reply.json()["seq"]))

    writers = [threading.Thread(target=post, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < 60:
        time.sleep(0.01)
    server.process.kill()
    for writer in writers:
        writer.join()

    again = start(home)
    for name in acknowledged:
        assert again.client.get(f"/items/{name}").json()["item_id"] == name
    body = {"history": [{"attributes": {"title": "Teapot"}}], "k": 1000, "candidates": list(acknowledged)}
    found = again.client.post("/recommend", json=body).json()["items"]
    assert {item["item_id"] for item in found} == set(acknowledged)
    more = {"items": [{"item_id": "after", "attributes": {"title": "Sugar bowl"}}]}
    assert again.client.post("/items", json=more).json()["seq"] > max(acknowledged.values())


@pytest.mark.parametrize("delay", [1.2, 1.8, 2.4])
def test_kill_during_reindex(start: Callable[[Path], Server], home: Path, delay: float) -> None:
    """At three moments of the job: the service goes on, a restart finds what was acknowledged, the next job works."""
    server = start(home)
    added = {"items": [{"item_id": "added", "attributes": {"title": "Hand Painted Gravy Boat"}}]}
    assert server.client.post("/items", json=added).status_code == 200
    served = server.client.get("/readyz").json()["snapshot"]
    job = subprocess.Popen(
        [sys.executable, "-m", "seqrec", "reindex"], env=environment(home), stderr=subprocess.DEVNULL
    )
    time.sleep(delay)
    job.kill()
    job.wait()
    server.kill()

    again = start(home)
    body = {"history": [{"attributes": {"title": "Hand Painted Gravy Boat"}}], "k": 5}
    answer = again.client.post("/recommend", json=body).json()
    assert "added" in [item["item_id"] for item in answer["items"]]
    listed = seqrec(home, "index", "list")
    assert served in listed
    reply = again.client.post("/reindex")
    assert reply.status_code == 202, reply.text
    progress: dict[str, object] = {}
    for _ in range(600):
        progress = again.client.get(f"/reindex/{reply.json()['id']}").json()
        if progress["state"] in ("done", "failed"):
            break
        time.sleep(0.1)
    assert progress["state"] == "done", progress
    for _ in range(200):
        answer = again.client.post("/recommend", json=body).json()
        if answer["snapshot"] == progress["snapshot"]:
            break
        time.sleep(0.05)
    assert answer["snapshot"] == progress["snapshot"] != served
    assert "added" in [item["item_id"] for item in answer["items"]]
