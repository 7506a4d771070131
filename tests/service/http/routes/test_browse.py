"""Looking around: attributes and their values, users, snapshots, the map; what the console is made from."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from index.build.cli import index
from seqrec.errors import DeadlineExceeded
from service.deadline import Deadline
from service.engine import browse
from service.live.search import search

pytestmark = pytest.mark.slow


def get(client: TestClient, path: str, **params: Any) -> dict[str, Any]:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def add(client: TestClient, item_id: str, attributes: dict[str, Any], available: bool = True) -> None:
    item = {"item_id": item_id, "attributes": attributes, "available": available}
    assert client.post("/items", json={"items": [item]}).status_code == 200


def found(client: TestClient, **params: Any) -> list[str]:
    return [item["item_id"] for item in get(client, "/items", **params)["items"]]


class TestAttributes:
    def test_types_values_and_counts(self, shared_client: TestClient) -> None:
        answer = get(shared_client, "/attributes")
        assert (answer["items"], answer["read"]) == (8, 8)
        by_name = {one["name"]: one for one in answer["attributes"]}
        assert list(by_name) == ["title", "brand", "price", "tags"]  # the most common first
        assert {name: one["type"] for name, one in by_name.items()} == {
            "title": "text",
            "brand": "text",
            "price": "number",
            "tags": "list",
        }
        assert by_name["brand"]["count"] == 8
        assert by_name["brand"]["distinct"] == 4
        assert by_name["brand"]["values"][0] == {"value": "Potter", "count": 3}
        assert (by_name["price"]["minimum"], by_name["price"]["maximum"]) == (30.5, 120)
        assert by_name["tags"]["values"] == [{"value": "kitchen", "count": 2}, {"value": "gift", "count": 1}]
        assert by_name["title"]["minimum"] is None

    def test_a_filter_narrows_what_is_counted(self, shared_client: TestClient) -> None:
        answer = get(shared_client, "/attributes", filter=json.dumps({"price": {"gte": 60}}), values=1)
        assert answer["items"] == 3
        brand = next(one for one in answer["attributes"] if one["name"] == "brand")
        assert brand["values"] == [{"value": "Acme", "count": 2}]
        assert brand["distinct"] == 2

    def test_what_changed_counts_at_once_and_what_is_hidden_does_not(self, client: TestClient) -> None:
        add(client, "new", {"title": "Kite", "colour": "red"})
        add(client, "hidden", {"title": "Kite", "smell": "pine"}, available=False)
        answer = get(client, "/attributes")
        names = {one["name"] for one in answer["attributes"]}
        assert answer["items"] == 9
        assert "colour" in names
        assert "smell" not in names
        assert get(client, "/attributes", filter='{"colour": "red"}')["items"] == 1

    def test_of_many_items_some_are_read_and_of_many_values_none_is_listed(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(browse, "_spaced", lambda positions: positions[:5])
        monkeypatch.setattr(browse, "_DISTINCT", 4)
        answer = get(client, "/attributes")
        assert (answer["items"], answer["read"]) == (8, 5)
        title = next(one for one in answer["attributes"] if one["name"] == "title")
        assert (title["count"], title["distinct"], title["values"]) == (5, None, [])

    @pytest.mark.parametrize("text", ["[]", "{", "3", '{"a": {"about": 1}}', "[" * 9_000])
    def test_a_filter_that_is_none_is_refused(self, shared_client: TestClient, text: str) -> None:
        for path in ("/attributes", "/items"):
            response = shared_client.get(path, params={"filter": text})
            assert response.status_code == 422, response.text
            assert response.json()["field"].startswith("filter")


class TestItems:
    def test_without_words_the_popular_ones(self, shared_client: TestClient) -> None:
        assert found(shared_client, limit=3) == ["mug-1", "desk-1", "lamp-1"]
        assert len(found(shared_client)) == 8

    def test_words_and_filter_together(self, shared_client: TestClient) -> None:
        assert set(found(shared_client, q="desk")) == {"desk-1", "desk-2", "lamp-1"}
        assert set(found(shared_client, q="desk", filter='{"brand": "Acme"}')) == {"desk-1", "desk-2"}
        assert found(shared_client, filter='{"brand": "Lumen"}') == ["lamp-1", "lamp-2"]
        assert found(shared_client, q="desk", filter='{"brand": "nobody"}') == []

    def test_by_id_in_the_order_given(self, shared_client: TestClient) -> None:
        assert found(shared_client, id=["pot/1", "gone", "ערב", "pot/1"]) == ["pot/1", "ערב"]
        assert shared_client.get("/items", params={"id": ["x"] * 101}).status_code == 422

    def test_a_hidden_item_is_found_by_words_not_among_the_popular(self, client: TestClient) -> None:
        add(client, "desk-1", {"title": "Oak desk"}, available=False)
        assert "desk-1" not in found(client)
        assert "desk-1" in found(client, q="oak")
        assert "desk-1" in found(client, q="oak", filter='{"title": "Oak desk"}')


class TestUsers:
    def test_a_sample(self, client: TestClient) -> None:
        events = [{"user_id": f"u{n}", "item_id": "desk-1", "timestamp": float(m)} for n in range(5) for m in range(4)]
        client.post("/events", json={"events": events})
        users = get(client, "/users", limit=3, events=2)["users"]
        assert len({user["user_id"] for user in users}) == 3
        assert [event["timestamp"] for event in users[0]["events"]] == [2.0, 3.0] or users[0]["user_id"] == "user"
        everybody = {user["user_id"] for user in get(client, "/users", limit=100)["users"]}
        assert {f"u{n}" for n in range(5)} <= everybody

    def test_by_the_beginning_of_the_id(self, client: TestClient) -> None:
        names = ["anna", "annabel", "bob", "é1"]
        events = [{"user_id": name, "item_id": "mug-1"} for name in names]
        client.post("/events", json={"events": events}).raise_for_status()
        assert [one["user_id"] for one in get(client, "/users", prefix="ann")["users"]] == ["anna", "annabel"]
        assert [one["user_id"] for one in get(client, "/users", prefix="e\u0301")["users"]] == ["é1"]  # as it is stored
        assert get(client, "/users", prefix="c")["users"] == []
        assert client.get("/users", params={"prefix": "a" * 300}).status_code == 422

    def test_an_unknown_or_impossible_user(self, shared_client: TestClient) -> None:
        response = shared_client.get("/users/nobody")
        assert response.status_code == 404
        assert response.json()["type"].endswith("user-not-found")
        assert shared_client.get("/users/" + quote("a" * 300)).status_code == 422
        assert shared_client.get("/users", params={"limit": 0}).status_code == 422


def test_snapshots_and_jobs(client: TestClient, home: Path) -> None:
    [only] = get(client, "/snapshots")["snapshots"]
    assert only["served"]
    assert only["published"]
    assert (only["items"], only["model"], only["problem"]) == (8, "bag_of_words", None)
    assert only["bytes"] > 1000
    assert get(client, "/reindex") == {"jobs": []}

    add(client, "new", {"title": "Kite"})  # a snapshot of the same content would replace the first one
    job = client.post("/reindex").json()
    end = time.monotonic() + 240
    while (jobs := get(client, "/reindex")["jobs"])[0]["state"] not in ("done", "failed"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [(one["id"], one["state"]) for one in jobs] == [(job["id"], "done")]
    newest, oldest = get(client, "/snapshots")["snapshots"]
    assert newest["id"] == jobs[0]["snapshot"]
    assert (newest["served"], oldest["served"], oldest["published"]) == (True, False, True)

    back = client.post(f"/snapshots/{oldest['id']}/publish")
    assert (back.status_code, back.json()["snapshot"]) == (200, oldest["id"])
    end = time.monotonic() + 60
    while get(client, "/readyz")["snapshot"] != oldest["id"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert [one["served"] for one in get(client, "/snapshots")["snapshots"]] == [False, True]
    assert client.post(f"/snapshots/{oldest['id']}/publish").json() == back.json()  # it is served already
    unknown = client.post("/snapshots/20990101T000000-000001-abcdef/publish")
    assert (unknown.status_code, unknown.json()["title"]) == (404, "No such snapshot")
    client.post(f"/snapshots/{newest['id']}/publish").raise_for_status()
    (home / "snapshots" / oldest["id"] / "manifest.json").write_text("{}")
    damaged = client.post(f"/snapshots/{oldest['id']}/publish")
    assert (damaged.status_code, damaged.json()["title"]) == (503, "The snapshot cannot be used")
    broken = get(client, "/snapshots")["snapshots"][1]
    assert "manifest" in broken["problem"]
    assert broken["items"] is None


def test_the_figures_of_an_evaluation(client: TestClient, home: Path) -> None:
    assert get(client, "/evaluation") == {"markdown": None}
    (home / "evaluation.md").write_text("| a |\n", encoding="utf-8")
    assert get(client, "/evaluation") == {"markdown": "| a |\n"}


def test_the_map_puts_items_that_read_alike_close_together(client: TestClient) -> None:
    add(client, "hidden", {"title": "Oak desk"}, available=False)
    answer = get(client, "/map", attribute="brand")
    assert sorted(answer["ids"]) == sorted(["desk-1", "desk-2", "lamp-1", "lamp-2", "mug-1", "mug-2", "pot/1", "ערב"])
    assert answer["items"] == len(answer["x"]) == len(answer["y"]) == len(answer["values"]) == 8
    places = dict(zip(answer["ids"], zip(answer["x"], answer["y"], strict=True), strict=True))
    assert max(abs(value) for place in places.values() for value in place) == 1

    def apart(a: str, b: str) -> float:
        return sum((one - other) ** 2 for one, other in zip(places[a], places[b], strict=True))

    assert apart("mug-1", "mug-2") < apart("mug-1", "desk-1")
    first, second = answer["explained"]
    assert 1 > first >= second > 0
    assert dict(zip(answer["ids"], answer["values"], strict=True))["desk-1"] == "Acme"
    some = get(client, "/map", limit=3)
    assert len(some["ids"]) == 3
    assert some["values"] == []
    for item_id in answer["ids"]:
        assert item_id in get(client, "/map", limit=2, item=item_id)["ids"]
    assert len(get(client, "/map", limit=2, item="hidden")["ids"]) == 2


def test_a_new_item_is_on_the_map_of_a_large_catalogue(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = get(client, "/map")
    monkeypatch.setattr(browse, "_PROJECTED_AT_ONCE", 3)
    assert get(client, "/map") == before
    add(client, "zither", {"title": "A zither"})
    assert "zither" in get(client, "/map", limit=4, item="zither")["ids"]


def test_what_the_catalogue_can_answer_needs_no_model(make_client: Any, tmp_path: Path, home: Path) -> None:
    for path in (home / "snapshots").iterdir():
        path.rename(home / path.name)  # nothing can be loaded
    client = make_client(wait=False)
    assert set(found(client, q="desk")) == {"desk-1", "desk-2", "lamp-1"}
    assert get(client, "/users")["users"]
    response = client.get("/attributes")
    assert response.status_code == 503
    assert response.json()["type"].endswith("not-ready")


def test_the_console_may_load_images_of_other_hosts_only_where_the_address_says_so(shared_client: TestClient) -> None:
    plain = shared_client.get("/").headers.get_list("content-security-policy")
    assert any("img-src 'self';" in policy and "default-src 'none'" in policy for policy in plain)
    allowed = shared_client.get("/", params={"images": "1"}).headers.get_list("content-security-policy")
    assert any("img-src 'self' https: http:;" in policy for policy in allowed)
    for policy in [*plain, *allowed]:
        assert "unsafe" not in policy


def all_pages(
    client: TestClient, between: Callable[[list[str]], object] = lambda shown: None, **params: Any
) -> list[str]:
    """Ids of the pages in turn; `between` is called after each with those so far."""
    ids: list[str] = []
    cursor = None
    for _ in range(20):
        answer = get(client, "/items", paginate=True, **({"cursor": cursor} if cursor else {}), **params)
        ids += [item["item_id"] for item in answer["items"]]
        cursor = answer.get("next")
        if cursor is None:
            return ids
        between(ids)
    raise AssertionError("the pages do not end")


class TestPages:
    def test_all_items_by_their_events_then_by_id(self, shared_client: TestClient) -> None:
        everything = ["mug-1", "desk-1", "lamp-1", "desk-2", "lamp-2", "mug-2", "pot/1", "ערב"]
        for limit in (1, 2, 3, 8, 100):
            assert all_pages(shared_client, limit=limit) == everything
        assert all_pages(shared_client, limit=1, q="desk") == ["desk-1", "lamp-1", "desk-2"]
        acme = json.dumps({"brand": "Acme"})
        assert all_pages(shared_client, limit=1, filter=acme) == all_pages(shared_client, filter=acme)
        assert all_pages(shared_client, limit=1, q="desk", filter=acme) == ["desk-1", "desk-2"]

    @pytest.mark.parametrize("words", ["", "kite"])
    def test_none_is_repeated_or_left_out_while_others_come_and_go(self, client: TestClient, words: str) -> None:
        """Items are put before and behind the place, deleted and hidden, and events make the last one the first."""
        kites = [f"kite-{n:02}" for n in range(12)]
        for item_id in kites:
            add(client, item_id, {"title": "Kite"})

        def change(shown: list[str]) -> None:
            if shown[-1] == "kite-03":
                add(client, "kite-00a", {"title": "Kite"})  # before the place: too late for this reader
                add(client, "kite-10a", {"title": "Kite"})
                client.delete("/items/kite-03").raise_for_status()  # the last of the page
                client.delete("/items/kite-08").raise_for_status()
                events = [{"user_id": "ann", "item_id": "kite-11"}] * 9
                client.post("/events", json={"events": events}).raise_for_status()
                add(client, "kite-01", {"title": "Kite", "brand": "Acme"})  # a change of what was shown
                client.post("/reindex")

        shown = [one for one in all_pages(client, change, limit=2, q=words) if one.startswith("kite")]
        assert shown == [*kites[:8], *kites[9:11], "kite-10a", "kite-11"]
        assert all_pages(client, limit=5, q="kite")[0] == "kite-11"

    @pytest.mark.parametrize("cursor", ["", "x", "WzEsMl0", "bnVsbA", "W05hTiwxLCJhIl0", "WzEsMSwiXHUwMDAwIl0", "é"])
    def test_a_cursor_that_is_none_is_refused(self, shared_client: TestClient, cursor: str) -> None:
        response = shared_client.get("/items", params={"cursor": cursor})
        assert (response.status_code, response.json()["field"]) == (422, "cursor")


class TestRecall:
    def test_of_an_exact_search_it_is_one_for_every_filter(self, client: TestClient) -> None:
        add(client, "mug-9", {"title": "Mug", "brand": "Potter"})  # in the delta
        add(client, "hidden", {"title": "Mug", "brand": "Potter"}, available=False)
        answer = get(client, "/recall")
        assert (answer["items"], answer["passing"], answer["queries"], answer["recall"]) == (9, 9, 9, 1.0)
        assert answer["index"] == "flat"
        answer = get(client, "/recall", filter=json.dumps({"brand": "Potter"}))
        assert (answer["items"], answer["passing"], answer["queries"], answer["recall"]) == (9, 4, 4, 1.0)
        answer = get(client, "/recall", filter=json.dumps({"brand": "nobody"}))
        assert (answer["passing"], answer["queries"], answer["recall"]) == (0, 0, None)

    def test_of_an_approximate_index_it_is_what_was_measured_when_it_was_built(
        self, make_client: Any, tmp_path: Path, home: Path, bag_of_words_checkpoint: Path
    ) -> None:
        rng = random.Random(0)
        words = ["oak", "desk", "lamp", "brass", "mug", "blue", "kettle", "kite", "pot", "plant", "steel", "red"]
        titles = [" ".join(rng.choices(words, k=6)) for _ in range(1500)]
        lines = [
            json.dumps({"item_id": f"i{n:04}", "attributes": {"title": title, "part": n % 10}})
            for n, title in enumerate(titles)
        ]
        (tmp_path / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
        files = ["--items", str(tmp_path / "many.jsonl"), "--checkpoint", str(bag_of_words_checkpoint)]
        index(["build", "--home", str(home), *files, "--index", "HNSW4", "--publish"])
        client = make_client()
        served = next(one for one in get(client, "/snapshots")["snapshots"] if one["served"])
        answer = get(client, "/recall")
        assert answer["index"] == served["index"] == "HNSW4"
        assert answer["recall"] == pytest.approx(served["recall"])
        filtered = get(client, "/recall", filter=json.dumps({"part": 3}))  # a mask is searched exactly
        assert (filtered["passing"], filtered["recall"]) == (150, 1.0)

    def test_what_the_search_misses_is_missing(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(browse, "search", lambda *given: [hits[:2] for hits in search(*given)])
        answer = get(client, "/recall", filter=json.dumps({"brand": "Potter"}))
        assert (answer["passing"], answer["recall"]) == (3, pytest.approx(2 / 3))

    def test_it_ends_at_the_deadline(self, shared_client: TestClient) -> None:
        app: Any = shared_client.app
        view = app.state.startup.components.follower.view()
        with pytest.raises(DeadlineExceeded):
            browse.served_recall(view, None, Deadline(0.0, time.perf_counter() - 1))


class TestRuns:
    def test_none(self, client: TestClient) -> None:
        assert get(client, "/runs") == {"runs": []}

    def test_their_curves_and_states_the_newest_first(self, client: TestClient, home: Path) -> None:
        done, damaged = home / "run", home / "retrain" / "20261130" / "run"
        failed = home / "runs" / "b"
        for at, (path, record) in enumerate(
            [
                (done, {"state": "done", "checkpoint_digest": "abc"}),
                (failed, {"state": "failed", "error": f"no file {home}/x"}),
                (damaged, {"state": "running"}),
            ]
        ):
            path.mkdir(parents=True)
            (path / "run.json").write_text(json.dumps({"data_digest": "", **record}))
            (path / "config.toml").write_text('[model]\nname = "sasrec"\n')
            lines = [
                {"kind": "step", "stage": "joint", "step": 5, "loss": 2.5, "seconds": 1.0},
                {"kind": "step", "stage": "joint", "step": 6, "loss": float("nan"), "seconds": 1.0},
                {"kind": "validation", "stage": "joint", "step": 10, "ndcg_expected": 0.25, "seconds": 3.0},
                {"kind": "end", "stage": "joint", "steps": 10, "seconds": 4.0},
                {"kind": "validation", "stage": "hybrid", "step": 0, "ndcg_expected": 0.5, "seconds": 2.0},
            ]
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            os.utime(path / "metrics.jsonl", (at, at))
        (damaged / "metrics.jsonl").write_text("[]\n")
        (home / "snapshots" / "run.json").write_text('{"data_digest": ""}')  # no place of runs
        broken, two, one = get(client, "/runs")["runs"]
        assert (one["path"], one["state"], one["model"], one["checkpoint"]) == ("run", "done", "sasrec", "abc")
        assert one["seconds"] == 6.0
        joint, hybrid = one["curves"]
        assert joint == {"stage": "joint", "begins": 0, "ends": 10, "loss": [[5, 2.5]], "ndcg": [[10, 0.25]]}
        assert hybrid == {"stage": "hybrid", "begins": 10, "ends": 10, "loss": [], "ndcg": [[10, 0.5]]}
        assert (two["path"], two["state"], two["problem"]) == ("runs/b", "failed", "no file x")
        assert (broken["path"], broken["state"]) == ("retrain/20261130/run", "stopped")
        assert broken["problem"].startswith("its files cannot be read")
