"""Who is let in: places for requests, hosts, origins, and bodies that must not cost more than their size."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.keys.base import make_key
from index.keys.open import open_keys
from seqrec.errors import CatalogueError
from service.engine import execution
from service.http.admission import Admission
from service.http.problems import without_directories

MakeClient = Callable[..., TestClient]


def test_one_client_leaves_places_for_others() -> None:
    admission = Admission(8)
    taken = [admission.enter("greedy") for _ in range(10)]
    assert taken == [True] * 6 + [False] * 4
    assert admission.enter("modest")
    admission.leave("greedy")
    admission.leave("greedy")
    assert admission.enter("greedy")


def test_a_single_place_is_used() -> None:
    admission = Admission(1)
    assert admission.enter("a")
    assert not admission.enter("b")
    admission.leave("a")
    assert admission.enter("b")


@pytest.mark.slow
def test_beyond_the_places_it_is_429_before_the_body_is_read_and_health_still_answers(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(max_open_requests=1, deadline=30)
    opened, entered = threading.Event(), threading.Event()
    search = execution.search

    def held(*arguments: Any) -> Any:
        entered.set()
        assert opened.wait(20)
        return search(*arguments)

    monkeypatch.setattr(execution, "search", held)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/recommend", json={"history": ["desk-1"]})
        assert entered.wait(20)
        refused = client.post("/recommend", content=b"[" * 1000, headers={"content-type": "application/json"})
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        assert client.get("/items/desk-1").status_code == 200  # another kind of work has places of its own
        opened.set()
        assert first.result().status_code == 200
    monkeypatch.undo()
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200


@pytest.mark.slow
def test_places_are_shared_between_keys_not_addresses(
    make_client: MakeClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greedy key that fills its places leaves one for a modest key at the same address."""
    headers = {}
    with closing(open_keys(home)) as store:
        for name in ("greedy", "modest"):
            key, secret = make_key(name, ["recommend"])
            store.add(key)
            headers[name] = {"x-api-key": secret}
    client = make_client(max_open_requests=4, deadline=60)
    opened = threading.Event()
    search = execution.search

    def held(*arguments: Any) -> Any:
        assert opened.wait(40)
        return search(*arguments)

    monkeypatch.setattr(execution, "search", held)
    with ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(client.post, "/recommend", json={"history": ["desk-1"]}, headers=headers["greedy"])
            for _ in range(6)
        ]
        while sum(one.done() for one in waiting) < 3:  # those that were refused
            time.sleep(0.01)
        modest = pool.submit(client.post, "/recommend", json={"history": ["desk-1"]}, headers=headers["modest"])
        time.sleep(0.2)
        assert not modest.done()
        opened.set()
        statuses = sorted(one.result().status_code for one in waiting)
        assert statuses == [200] * 3 + [429] * 3
        assert modest.result().status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"history":[' + b",".join([b"1"] * 200_000) + b"]}",
        b"{" + b",".join(b'"%06d":1' % n for n in range(90_000)) + b"}",
        b'{"history":[],"exclude":[' + b",".join([b"1"] * 200_000) + b"]}",
        b'{"history":[],"candidates":[' + b",".join([b"{}"] * 200_000) + b"]}",
    ],
)
def test_many_errors_are_a_short_answer(shared_client: TestClient, body: bytes) -> None:
    answer = shared_client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 4096
    assert len(answer.json().get("errors", [])) <= 20


def test_bodies_of_lists_fail_at_the_first_bad_entry(shared_client: TestClient) -> None:
    for path, name in (("/items", "items"), ("/events", "events"), ("/recommend/batch", "requests")):
        answer = shared_client.post(path, json={name: [{}] * 5000})
        assert answer.status_code == 422
        assert len(answer.json().get("errors", [])) <= 20


def test_a_sequence_number_that_no_log_reaches_is_refused(shared_client: TestClient) -> None:
    answer = shared_client.post("/recommend", json={"history": [], "min_seq": 2**80})
    assert answer.status_code == 422
    assert answer.json()["field"] == "min_seq"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/items/desk-1", "/items?q=desk"])
def test_head_is_get_without_content(shared_client: TestClient, path: str) -> None:
    got, head = shared_client.get(path), shared_client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


def test_allow_names_the_methods_of_all_routes_of_the_path(shared_client: TestClient) -> None:
    assert shared_client.put("/items").headers["allow"] == "GET, HEAD, PATCH, POST"
    assert shared_client.put("/items/desk-1").headers["allow"] == "DELETE, GET, HEAD, PATCH"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "seqrec", "shop.localhost"])
def test_hosts_that_nobody_can_register_are_served(shared_client: TestClient, host: str) -> None:
    assert shared_client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example.:80", "a@evil.example", "[::"])
def test_a_foreign_host_is_refused(shared_client: TestClient, host: str) -> None:
    answer = shared_client.get("/items/desk-1", headers={"host": host})
    assert answer.status_code == 421
    assert "SEQREC_ALLOWED_HOSTS" in answer.json()["advice"]


@pytest.mark.slow
def test_allowed_hosts_are_served(make_client: MakeClient) -> None:
    client = make_client(allowed_hosts="shop.example, recs.example", wait=False)
    assert client.get("/healthz", headers={"host": "recs.example:8000"}).status_code == 200
    assert client.get("/healthz", headers={"host": "other.example"}).status_code == 421


def test_a_page_of_another_site_may_not_write(shared_client: TestClient) -> None:
    for origin in ("http://evil.example", "null", "http://testserver.evil.example"):
        for method, path in (("POST", "/reindex"), ("POST", "/items"), ("DELETE", "/items/desk-1")):
            assert shared_client.request(method, path, headers={"origin": origin}).status_code == 403
    same = shared_client.post("/recommend", json={"history": []}, headers={"origin": "http://testserver"})
    assert same.status_code == 200


def test_a_form_may_not_start_a_reindex(shared_client: TestClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert shared_client.post("/reindex", headers=form).status_code == 415


def test_answers_are_not_sniffed_or_framed(shared_client: TestClient) -> None:
    for path in ("/", "/healthz", "/items/unknown"):
        headers = shared_client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_than_utf8_are_refused(shared_client: TestClient, encoding: str) -> None:
    body = json.dumps({"history": []}).encode(encoding)
    answer = shared_client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/items/a%0ab", "/items/a%ffb", "/users/%0a", "/items?q=%ff"])
def test_ids_in_paths_are_checked_as_everywhere(shared_client: TestClient, path: str) -> None:
    method = "DELETE" if path.startswith("/users") else "GET"
    assert shared_client.request(method, path).status_code == 422


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the catalogue /srv/my shop/home/a.sqlite3: damaged", "the catalogue a.sqlite3: damaged"),
        ("copy /a/b/c to /d/e", "copy c to e"),
        ("in redis://127.0.0.1:7101/0: away", "in redis://127.0.0.1:7101/0: away"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_answers_do_not_tell_where_the_service_lives(text: str, shown: str) -> None:
    assert without_directories(text, Path("/srv/my shop/home")) == shown


@pytest.mark.slow
def test_a_503_names_the_file_only(client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = client.app.state.startup.components.histories  # type: ignore[attr-defined]

    def broken(*arguments: object) -> None:
        raise CatalogueError(f"the histories {home}/histories.sqlite3: it is damaged")

    monkeypatch.setattr(histories, "add", broken)
    answer = client.post("/events", json={"events": [{"user_id": "u", "item_id": "mug-1"}]})
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the histories histories.sqlite3: it is damaged"
    assert "writes fail: the histories histories.sqlite3: it is damaged" in client.get("/readyz").json()["degraded"]


def test_the_openapi_document_has_the_status_of_a_body_that_is_not_json(shared_client: TestClient) -> None:
    for path, operations in shared_client.get("/openapi.json").json()["paths"].items():
        if "post" in operations:
            assert "415" in operations["post"]["responses"], path
