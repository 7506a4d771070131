"""Four workers on one host: an item that was posted to one is found by every other in its next request."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.tools.service_process import Service, seqrec

WORKERS = 4
SECONDS = 120


def test_what_one_takes_every_other_finds_in_its_next_request(tmp_path: Path, bag_of_words_checkpoint: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "items.jsonl").write_text('{"item_id": "desk", "attributes": {"title": "Oak desk"}}\n')
    items = ("--items", str(tmp_path / "items.jsonl"))
    seqrec(home, "index", "build", "--checkpoint", str(bag_of_words_checkpoint), *items, "--publish")
    # No worker looks at the log by itself while this runs: it is the request that makes it look.
    service = Service(home, tmp_path / "log", workers=str(WORKERS), follow_seconds="3600")
    with ExitStack() as stack:
        stack.callback(service.kill)
        service.start()
        clients: dict[str, httpx.Client] = {}
        end = time.monotonic() + SECONDS
        while len(clients) < WORKERS:
            assert time.monotonic() < end, f"only {len(clients)} workers answered"
            client = httpx.Client(base_url=service.url, timeout=SECONDS)
            ready = client.get("/readyz")
            if ready.status_code == 200 and ready.headers["x-worker"] not in clients:
                clients[ready.headers["x-worker"]] = client
                stack.callback(client.close)
            else:
                client.close()
        for number, (one, other) in enumerate(itertools.permutations(clients, 2)):
            item = {"item_id": f"new-{number}", "attributes": {"title": f"kettle number{number}"}}
            put = clients[one].post("/items", json={"items": [item]})
            assert (put.status_code, put.headers["x-worker"]) == (200, one), put.text
            reply = clients[other].post("/recommend", json={"history": [{"attributes": item["attributes"]}], "k": 1})
            assert reply.headers["x-worker"] == other
            assert [found["item_id"] for found in reply.json()["items"]] == [item["item_id"]]
            assert reply.json()["seq"] >= put.json()["seq"]
        # Connections of no choice: whichever worker takes them.
        for number in range(20):
            item = {"item_id": f"any-{number}", "attributes": {"title": f"teapot count{number}"}}
            assert httpx.post(f"{service.url}/items", json={"items": [item]}, timeout=SECONDS).status_code == 200
            body = {"history": [{"attributes": item["attributes"]}], "k": 1}
            answer = httpx.post(f"{service.url}/recommend", json=body, timeout=SECONDS).json()
            assert [found["item_id"] for found in answer["items"]] == [item["item_id"]]
