"""The client against answers of the test's choice: retries, batches, errors. tests/service/test_client.py: for real."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from seqrec.client import (
    ApiError,
    AsyncClient,
    BulkError,
    Client,
    Event,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    Query,
    RateLimited,
    RetryPolicy,
    Unauthorized,
    Unavailable,
)
from seqrec.client.retry_after import seconds_of

STATE = {"metric": "cosine", "model": "m", "snapshot": "s", "seq": 7}
ANSWER = {"items": [], "source": "model", "unknown": [], "degraded": [], **STATE}
Handler = Callable[[httpx.Request], httpx.Response]


def problem(status: int, kind: str = "x", headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    body = {"type": f"urn:problem-type:seqrec:{kind}", "title": "T", "status": status, "detail": "why", **fields}
    return httpx.Response(
        status, content=json.dumps(body), headers={"content-type": "application/problem+json", **(headers or {})}
    )


class Server:
    """Answers in turn; the last answer repeats. Keeps what it was sent, and how long the client slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

    def client(self, **options: Any) -> Client:
        return Client("http://test", transport=httpx.MockTransport(self), sleep=self.slept.append, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        return AsyncClient("http://test", transport=httpx.MockTransport(self), sleep=sleep, **options)

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]


def test_both_clients_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            other = getattr(AsyncClient, name)
            assert inspect.iscoroutinefunction(other), name
            assert list(inspect.signature(other).parameters) == list(inspect.signature(method).parameters), name


@pytest.mark.slow
def test_importing_it_loads_no_torch() -> None:
    code = "import sys, seqrec.client; sys.exit('torch' in sys.modules or 'fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_body_has_only_what_was_given() -> None:
    server = Server(httpx.Response(200, json=ANSWER))
    with server.client(key="seqrec_k") as client:
        client.recommend(["a", {"title": "B"}])
        client.recommend(user_id="u", k=3, exclude=["x"], candidates=[], explain=True, extra={"placement": "home"})
    assert server.bodies() == [
        {"history": ["a", {"attributes": {"title": "B"}}]},
        {"k": 3, "user_id": "u", "exclude": ["x"], "candidates": [], "explain": True, "placement": "home"},
    ]
    assert server.requests[0].headers["authorization"] == "Bearer seqrec_k"


def test_rules_pages_and_who_asks_are_sent() -> None:
    server = Server(httpx.Response(200, json={**ANSWER, "next": "page2"}))
    with server.client() as client:
        first = client.recommend(user_id="u", placement="home", fields=[], session_id="s", paginate=True)
        client.recommend(user_id="u", cursor=first.next)
    asked = {"user_id": "u", "placement": "home", "fields": [], "session_id": "s", "paginate": True}
    assert server.bodies() == [asked, {"user_id": "u", "cursor": "page2"}]


def test_answers_of_a_newer_service_are_read() -> None:
    item = {"item_id": "a", "score": 1.5, "attributes": {"title": "A"}, "new": 1}
    item["because"] = [{"item_id": "b", "similarity": 0.5, "new": 2}]
    server = Server(httpx.Response(200, json={**ANSWER, "items": [item], "variant": "b"}))
    with server.client() as client:
        answer = client.recommend([])
    assert answer.item_ids == ["a"]
    assert answer.items[0].because[0].similarity == 0.5
    assert answer.seq == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (422, InvalidRequest),
        (413, InvalidRequest),
        (500, ApiError),
    ],
)
def test_errors_are_raised_once_and_name_the_field(status: int, kind: type[ApiError]) -> None:
    server = Server(problem(status, "some-kind", {"x-request-id": "r1"}, field="k", advice="do"))
    with server.client() as client, pytest.raises(kind, match=rf"why \(HTTP {status}\)") as caught:
        client.recommend([])
    error = caught.value
    assert (error.status, error.kind, error.field, error.advice) == (status, "some-kind", "k", "do")
    assert error.request_id == "r1"
    assert len(server.requests) == 1


def test_retry_after_is_waited_for() -> None:
    server = Server(
        problem(429, headers={"retry-after": "3"}),
        problem(503, headers={"retry-after": "2"}),
        httpx.Response(200, json=ANSWER),
    )
    with server.client() as client:
        assert client.recommend([]).seq == 7
    assert server.slept == [3.0, 2.0]
    ids = [request.headers["x-request-id"] for request in server.requests]
    assert [one.partition(".")[2] for one in ids] == ["1", "2", "3"]
    assert len({one.partition(".")[0] for one in ids}) == 1


def test_a_wait_beyond_the_limit_is_an_error_at_once() -> None:
    server = Server(problem(429, "key-limit", {"retry-after": "86000"}))
    with server.client() as client, pytest.raises(RateLimited) as caught:
        client.recommend([])
    assert caught.value.retry_after == 86_000
    assert server.slept == []


def test_an_error_that_repeats_is_not_tried_again() -> None:
    server = Server(problem(503, "catalogue-replaced"))
    with server.client() as client, pytest.raises(Unavailable):
        client.recommend([])
    assert len(server.requests) == 1


def test_errors_of_a_proxy_and_lost_connections_are_tried_again() -> None:
    server = Server(
        httpx.ConnectError("refused"),
        httpx.Response(502, html="<h1>Bad gateway</h1>"),
        httpx.ReadTimeout("slow"),
        httpx.Response(200, json=ANSWER),
    )
    with server.client() as client:
        assert client.recommend([]).seq == 7
    assert len(server.slept) == 3
    assert all(0 <= wait <= 0.1 * 2**n for n, wait in enumerate(server.slept))


def test_attempts_are_limited() -> None:
    server = Server(httpx.ConnectError("refused"))
    with (
        server.client(retries=RetryPolicy(attempts=3)) as client,
        pytest.raises(NoAnswer, match="no answer after 3 attempts: ConnectError: refused"),
    ):
        client.ready()
    assert len(server.requests) == 3


def test_events_have_ids_that_stay_when_they_are_sent_again() -> None:
    server = Server(httpx.ReadError("lost"), httpx.Response(200, json={"stored": 2, "known": 0, "unknown": []}))
    with server.client() as client:
        client.send_events([Event("u", "a"), {"user_id": "u", "item_id": "b", "event_id": "mine"}])
    first, second = server.bodies()
    assert first == second
    assert len(first["events"][0]["event_id"]) == 32
    assert first["events"][1]["event_id"] == "mine"


def test_many_entries_are_sent_in_batches_with_progress() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        count = len(json.loads(request.content)["items"])
        sizes.append(count)
        return httpx.Response(200, json={"seq": len(sizes), "created": count, "updated": 0, "searchable": True})

    sizes: list[int] = []
    done: list[int] = []
    items = ({"item_id": str(n), "attributes": {"title": "x" * (1_000_000 if n % 100 == 0 else 1)}} for n in range(250))
    with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        stored = client.put_items(items, done.append, batch=60)
        assert client.put_items([]) == client.put_items(iter(()))
    assert (stored.created, stored.seq) == (250, len(sizes))
    assert sizes == [60, 60, 60, 60, 10]
    assert done == [60, 120, 180, 240, 250]


def test_batches_are_limited_in_bytes() -> None:
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sizes.append(len(request.content))
        return httpx.Response(200, json={"seq": 1, "created": 1, "updated": 0, "searchable": True})

    items = [{"item_id": str(n), "attributes": {"title": "\x01ä" * 50_000}} for n in range(20)]
    with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        client.put_items(items)
    assert max(sizes) < 4 * 2**20
    assert len(sizes) < 20


def test_a_bulk_call_that_stops_names_what_is_done_and_what_was_sent() -> None:
    good = httpx.Response(200, json={"stored": 2, "known": 0, "unknown": []})
    server = Server(good, problem(422, "invalid-input", field="events[1].item_id"))
    with server.client() as client, pytest.raises(BulkError, match="after 2 entries: why") as caught:
        client.send_events([Event("u", str(n)) for n in range(5)], batch=2)
    assert caught.value.done == 2
    assert [event["item_id"] for event in caught.value.batch] == ["2", "3"]
    assert all(event["event_id"] for event in caught.value.batch)
    assert caught.value.field == "events[1].item_id"
    assert isinstance(caught.value.__cause__, InvalidRequest)


def test_a_delete_whose_answer_was_lost_is_done() -> None:
    server = Server(httpx.ReadError("lost"), problem(404, "item-not-found"))
    with server.client() as client:
        assert client.delete_item("a/b") is None
    assert server.requests[0].url.raw_path == b"/items/a%2Fb"
    with Server(problem(404)).client() as client, pytest.raises(NotFound):
        client.delete_item("a")


def test_not_ready_is_an_answer() -> None:
    server = Server(httpx.Response(503, json={"status": "not ready", "detail": "loading", "worker": 1}))
    with server.client() as client:
        ready = client.ready()
    assert not ready.ready
    assert ready.detail == "loading"
    assert len(server.requests) == 1


def test_a_reindex_is_followed() -> None:
    states = [{"id": "j", "state": state, "done": n} for n, state in enumerate(("queued", "running", "done"))]
    server = Server(*(httpx.Response(200, json=state) for state in states))
    seen: list[int] = []
    with server.client() as client:
        assert client.reindex(wait=True, progress=lambda job: seen.append(job.done)).state == "done"
    assert seen == [1, 2]


def test_queries_are_answered_in_order_over_several_calls() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["requests"]
        return httpx.Response(200, json={"answers": [{**ANSWER, "seq": one["k"]} for one in asked]})

    with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        answers = client.recommend_batch((Query(["a"], k=n + 1) for n in range(150)), batch=64)
    assert [one.seq for one in answers] == list(range(1, 151))


def test_the_async_client_does_the_same() -> None:
    async def events() -> AsyncIterator[Event]:
        for n in range(3):
            yield Event("u", str(n))

    async def run(server: Server) -> None:
        async with server.async_client(key="k") as client:
            assert (await client.recommend(["a"])).seq == 7

    server = Server(problem(429, headers={"retry-after": "1"}), httpx.Response(200, json=ANSWER))
    asyncio.run(run(server))
    assert server.slept == [1.0]
    assert server.requests[1].headers["authorization"] == "Bearer k"

    async def bulk(server: Server) -> list[int]:
        done: list[int] = []
        async with server.async_client() as client:
            assert (await client.send_events(events(), done.append, batch=2)).stored == 4
            assert (await client.put_items(iter(()))).created == 0
        return done

    server = Server(httpx.Response(200, json={"stored": 2, "known": 0, "unknown": ["z"]}))
    assert asyncio.run(bulk(server)) == [2, 3]

    async def broken(server: Server) -> None:
        async with server.async_client() as client:
            with pytest.raises(BulkError):
                await client.send_events([Event("u", "a")])
            with pytest.raises(Unauthorized):
                await client.key()

    asyncio.run(broken(Server(problem(401))))


@pytest.mark.parametrize(("value", "seconds"), [(None, None), ("7", 7.0), ("soon", None), ("", None)])
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert seconds_of(value) == seconds


def test_retry_after_as_a_date() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    found = seconds_of(when)
    assert found is not None
    assert 85 < found <= 90
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
