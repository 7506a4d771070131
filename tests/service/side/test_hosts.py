"""Two models side by side in several workers of a host, and on several hosts that share a Redis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.reindex import Request, make_snapshot
from seqrec.data.items import Item
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import wait_until_ready
from tests.service.side.models import answers_from, ask, place, second_snapshot, until
from tests.service.test_workers import each_worker

pytestmark = pytest.mark.slow


def test_every_worker_serves_what_a_placement_names_and_they_count_together(
    home: Path, serve_process: Callable[..., Any]
) -> None:
    other = second_snapshot(home)
    process = serve_process(SEQREC_WORKERS="2", SEQREC_THREADS="1", OMP_NUM_THREADS="2")
    with ExitStack() as stack:
        clients: list[Any] = list(each_worker(process.url, 2, stack).values())
        place(clients[0], "home", {"shadow": {"snapshot": other, "share": 1.0}})
        for client in clients:
            until(lambda client=client: answers_from(client, other))
        for taking, asked in (clients, clients[::-1]):
            item = {"item_id": "new", "attributes": {"title": "Oak desk"}}
            seq = taking.post("/items", json={"items": [item]}).json()["seq"]
            answer = ask(asked, history=["desk-1"], snapshot=other)
            assert (answer["snapshot"], answer["seq"] >= seq) == (other, True)
            assert "new" in {one["item_id"] for one in answer["items"]}
            gone = taking.delete("/items/new").json()["seq"]
            assert "new" not in {one["item_id"] for one in ask(asked, snapshot=other, history=["desk-1"])["items"]}
            assert gone > seq
        for client in clients:
            for _ in range(3):
                ask(client, history=["desk-1"], placement="home")
        for client in clients:
            until(lambda client=client: [one["compared"] for one in shadows(client)] == [6])
        clients[0].delete("/placements/home")
        for client in clients:
            until(lambda client=client: not answers_from(client, other))


def shadows(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/reports").json()["shadows"]
    return found


@pytest.mark.skipif(server_program() is None, reason="no valkey-server or redis-server on the PATH")
def test_hosts_that_share_a_redis_serve_what_a_placement_names(
    tmp_path: Path, tiny_items: list[Item], bag_of_words_checkpoint: Path
) -> None:
    home = tmp_path / "shop"
    server = RedisServer(tmp_path / "redis").start()
    try:
        make_snapshot(home, Request(checkpoint=bag_of_words_checkpoint, items=tiny_items), location=server.url)
        other = second_snapshot(home, location=server.url)
        with ExitStack() as stack:
            hosts = [
                stack.enter_context(TestClient(create_app(Settings(home=home, redis_url=server.url)))) for _ in range(2)
            ]
            for host in hosts:
                wait_until_ready(host)
            variants = [{"name": "only", "snapshot": other}]
            place(hosts[0], "home", {"experiment": {"name": "one", "variants": variants}})
            for host in hosts:
                until(lambda host=host: answers_from(host, other))
            item = {"item_id": "new", "attributes": {"title": "Oak desk"}}
            seq = hosts[0].post("/items", json={"items": [item]}).json()["seq"]
            for host in hosts:
                answer = ask(host, history=["desk-1"], placement="home", session_id="u", min_seq=seq)
                assert (answer["snapshot"], answer["seq"] >= seq) == (other, True)
                assert "new" in {one["item_id"] for one in answer["items"]}
            events = [{"user_id": "ann", "item_id": "pot/1", "event_id": f"e{n}"} for n in range(9)]
            hosts[0].post("/events", json={"events": events}).raise_for_status()
            popular = hosts[0].post("/popular", json={"snapshot": other, "k": 1}).json()["items"]
            assert [(one["item_id"], one["score"]) for one in popular] == [("pot/1", 9.0)]
    finally:
        server.kill()
