"""The Python client against a running service, and the examples of docs/client.md."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.keys.base import Scope, make_key
from index.keys.open import open_keys
from seqrec.client import (
    AsyncClient,
    Client,
    Event,
    Forbidden,
    InvalidRequest,
    NotFound,
    Popular,
    Query,
    RetryPolicy,
    Unauthorized,
)

pytestmark = pytest.mark.slow

ServeProcess = Callable[..., Any]


def new_key(home: Path, name: str, *scopes: Scope, **limits: Any) -> str:
    key, secret = make_key(name, scopes, **limits)
    with closing(open_keys(home)) as store:
        store.add(key)
    return secret


def test_every_call(serve_process: ServeProcess, home: Path) -> None:
    secret = new_key(home, "ops", "admin")
    process = serve_process()
    with Client(process.url, secret) as client:
        assert client.ready().ready
        assert client.key().name == "ops"
        stored = client.put_items([{"item_id": "kite/1", "attributes": {"title": "Paper kite"}}])
        assert (stored.created, stored.updated) == (1, 0)
        answer = client.recommend([{"title": "paper kite"}], k=2, min_seq=stored.seq or 0)
        assert (answer.item_ids[0], answer.source) == ("kite/1", "model")
        assert client.recommend(["desk-1"], k=1, explain=True).items[0].because[0].item_id == "desk-1"
        assert client.recommend([]).source == "fallback:popular"
        assert "desk-2" in client.similar("desk-1", k=3, filter={"brand": "Acme"}).item_ids
        assert client.similar(attributes={"title": "kite"}, k=1).item_ids == ["kite/1"]
        assert [found.item_id for found in client.find_items("paper")] == ["kite/1"]
        assert client.get_item("kite/1").seq == stored.seq
        assert client.send_events([Event("ann/b", "kite/1"), Event("ann/b", "gone")]).unknown == ("gone",)
        assert {event["item_id"] for event in client.get_user("ann/b").events} == {"kite/1", "gone"}
        assert client.popular("7d", k=1).item_ids == ["kite/1"]
        changed = client.patch_item("kite/1", {"price": 3})
        assert client.get_item("kite/1").attributes == {"title": "Paper kite", "price": 3}
        assert client.put_placement("home", {"k": 1, "candidates": ["lamp-1", "lamp-2"]}) > changed
        assert client.placements() == {"home": {"k": 1, "candidates": ["lamp-1", "lamp-2"]}}
        assert set(client.recommend(["desk-1"], placement="home", k=5).item_ids) == {"lamp-1", "lamp-2"}
        assert client.recommend(["desk-1"], k=1, fields=["brand"]).items[0].attributes.keys() <= {"brand"}
        page = client.recommend(["desk-1"], k=2, paginate=True)
        following = client.recommend(["desk-1"], k=2, cursor=page.next)
        assert not set(page.item_ids) & set(following.item_ids)
        assert client.delete_placement("home") is not None
        events = [
            Event("ann/b", "kite/1", type=type, value=2.5, recommendation_id=answer.recommendation_id)
            for type in ("shown", "purchase")
        ]
        assert client.send_events(events).stored == 2
        [row] = client.report("position", days=1).rows
        assert (row["group"], row["impressions"], row["revenue"]) == ("1", 1, 2.5)
        batch = client.recommend_batch([Query(user_id="ann/b", k=1), Query(["nobody knows"], k=1)])
        assert [one.source for one in batch] == ["model", "fallback:popular"]
        assert batch[1].unknown == ("nobody knows",)
        assert client.delete_user("ann/b") == 4
        assert client.delete_item("kite/1") == (stored.seq or 0) + 4  # a patch, and a placement that came and went
        with pytest.raises(NotFound, match="no item 'kite/1'"):
            client.get_item("kite/1")
        with pytest.raises(InvalidRequest) as caught:
            client.recommend(["desk-1"], k=0)
        assert caught.value.field == "k"
        assert caught.value.request_id
        assert client.reindex(wait=True).state == "done"
    for wrong, error in ((None, Unauthorized), ("seqrec_x", Unauthorized), (new_key(home, "shop", "write"), Forbidden)):
        with Client(process.url, wrong) as client:
            time.sleep(0.3)  # the new key is known
            with pytest.raises(error):
                client.recommend([])


def test_what_shaped_an_answer(serve_process: ServeProcess) -> None:
    process = serve_process()
    pins = {"pin": [{"position": 1, "item_ids": ["lamp-1"]}], "explore": {"share": 0.5, "random": 2}}
    with Client(process.url) as client:
        client.put_placement("home", {"k": 2, **pins, "experiment": {"name": "first", "variants": [{"name": "a"}]}})
        answer = client.recommend(["desk-1"], user_id="ann", placement="home")
        assert (answer.experiment, answer.variant) == ("first", "a")
        pinned, drawn = answer.items
        assert (pinned.item_id, pinned.source, pinned.pinned, pinned.propensity) == ("lamp-1", "model", True, None)
        assert drawn.propensity in (0.25, 0.75)
        assert drawn.explored == (drawn.propensity == 0.25)
        assert client.recommend(["desk-1"]).variant is None
        assert len(client.recommend_batch([Query(["desk-1"], placement="home")])[0].items) == 2
        similar = client.similar("desk-1", placement="home", session_id="ann", fields=["title"])
        assert (len(similar.items), similar.variant, set(similar.items[0].attributes)) == (2, "a", {"title"})
        assert client.similar("desk-1", extra={"exclude": ["lamp-1"]}).variant is None
        assert client.popular(placement="home", session_id="ann").variant == "a"
        popular = client.popular(k=1)
        assert client.send_events([Event("ann", popular.item_ids[0], type="clicked", **of(popular))]).stored == 1
        [row] = [row for row in client.report(days=1).rows if row["placement"] == "/popular"]
        assert row["clicks"] == 1


def of(answer: Popular) -> dict[str, Any]:
    return {"recommendation_id": answer.recommendation_id}


def test_events_are_stored_once_when_answers_are_lost(serve_process: ServeProcess) -> None:
    """The transport drops every second answer after the service has stored what was sent."""
    process = serve_process()

    class Losing(httpx.HTTPTransport):
        lost = 0
        calls = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            self.calls += 1
            if self.calls % 2:
                response.read()
                self.lost += 1
                raise httpx.ReadError("lost")
            return response

    transport = Losing()
    with Client(process.url, transport=transport, sleep=lambda seconds: None) as client:
        done: list[int] = []
        stored = client.send_events((Event("ann", "desk-1", float(n)) for n in range(50)), done.append, batch=10)
        assert transport.lost == 5
        assert done == [10, 20, 30, 40, 50]
        assert (stored.stored, stored.known) == (0, 50), "the second time they were there already"
        assert client.delete_user("ann") == 0, "the first attempt has deleted them"
        assert client.recommend(user_id="ann").source == "fallback:popular"


def test_a_rate_is_waited_for(serve_process: ServeProcess, home: Path) -> None:
    secret = new_key(home, "shop", "recommend", rate="5/second")
    process = serve_process()
    with Client(process.url, secret, retries=RetryPolicy(attempts=50)) as client:
        begin = time.monotonic()
        for _ in range(12):
            client.recommend(["desk-1"], k=1)
        assert time.monotonic() - begin >= 1


def test_a_service_that_starts_again_is_waited_for(serve_process: ServeProcess) -> None:
    process = serve_process()
    port = process.url.rpartition(":")[2]
    process.popen.kill()
    process.popen.wait()
    answers: list[str] = []

    def ask() -> None:
        policy = RetryPolicy(attempts=1000, seconds=100, longest_wait=0.5)
        with Client(process.url, retries=policy) as client:
            answers.append(client.recommend(["desk-1"]).source)

    thread = threading.Thread(target=ask)
    thread.start()
    serve_process(SEQREC_PORT=port)
    thread.join(100)
    assert answers == ["model"]


def test_the_async_client(serve_process: ServeProcess) -> None:
    process = serve_process()

    async def run() -> None:
        async with AsyncClient(process.url) as client:
            answers = await asyncio.gather(*(client.recommend(["desk-1"], k=1) for _ in range(20)))
            assert len({answer.item_ids[0] for answer in answers}) == 1
            assert (await client.put_items([{"item_id": "a", "attributes": {"title": "b"}}])).created == 1
            assert (await client.ready()).ready
            assert (await client.reindex(wait=True)).state == "done"

    asyncio.run(run())


def test_the_examples_of_the_page_run(
    serve_process: ServeProcess, home: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = new_key(home, "ops", "admin")
    process = serve_process()
    page = (root / "docs" / "client.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        exec(compile(example.replace("http://localhost:8000", process.url), "client.md", "exec"), {"KEY": secret})
    printed = capsys.readouterr().out.splitlines()
    assert "1000 items" in printed
    assert "2500 items" in printed
    assert "2" in printed
    assert "model" in printed
