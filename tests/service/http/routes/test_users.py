"""Histories of users: events come in, a request need only name the user, and a user can be forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.catalogue.histories import Event
from index.catalogue.sqlite.histories import SqliteHistories
from index.events.cli import events
from seqrec.errors import CatalogueError

MakeClient = Callable[..., TestClient]


def post(client: TestClient, *events: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/events", json={"events": list(events)})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def event(item_id: str, timestamp: float, user_id: str = "ann", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": item_id, "timestamp": timestamp, **more}


def answered(client: TestClient, **body: Any) -> dict[str, Any]:
    """An answer without its id, in which two equal answers differ."""
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    return {name: value for name, value in response.json().items() if name != "recommendation_id"}


def test_a_stored_history_answers_as_the_same_history_given(client: TestClient) -> None:
    """Late events are sorted in by time; what is given comes after what is stored."""
    assert post(client, event("lamp-1", 30), event("desk-1", 10)) == {"stored": 2, "known": 0, "unknown": []}
    post(client, event("mug-1", 20))
    given = answered(client, history=["desk-1", "mug-1", "lamp-1", "desk-2"])
    assert answered(client, user_id="ann", history=["desk-2"]) == given
    assert answered(client, user_id="ann") == answered(client, history=["desk-1", "mug-1", "lamp-1"])
    assert answered(client, user_id="ann", history=[], exclude_seen=False)["items"] != given["items"]


def test_an_event_id_is_stored_once(client: TestClient) -> None:
    first = event("desk-1", 10, event_id="order-7")
    assert post(client, first)["stored"] == 1
    assert post(client, first, event("desk-1", 11)) == {"stored": 1, "known": 1, "unknown": []}
    assert client.delete("/users/ann").json() == {"deleted": 2}


def test_all_that_a_user_ever_had_is_left_out_not_only_what_is_read(make_client: MakeClient) -> None:
    client = make_client(max_history=2)
    post(client, event("desk-1", 1), event("mug-1", 2), event("lamp-1", 3), event("desk-1", 4))
    answer = answered(client, user_id="ann", k=50)
    assert not {item["item_id"] for item in answer["items"]} & {"desk-1", "mug-1", "lamp-1"}
    # Read are the newest two alone, the given ones before the stored ones.
    same = answered(client, history=["lamp-1", "desk-1"], exclude=["mug-1"], k=50)
    assert answer["items"] == same["items"]
    newest = answered(client, user_id="ann", history=["desk-2"], k=50)
    assert newest["items"] == answered(client, history=["desk-1", "desk-2"], exclude=["mug-1", "lamp-1"], k=50)["items"]
    everything = answered(client, user_id="ann", k=50, exclude_seen=False)
    assert {"desk-1", "mug-1", "lamp-1"} <= {item["item_id"] for item in everything["items"]}


def test_unknown_items_are_stored_and_listed_and_count_once_they_are_there(client: TestClient) -> None:
    assert post(client, event("kite", 1), event("kite", 2))["unknown"] == ["kite"]
    answer = answered(client, user_id="ann")
    assert (answer["source"], answer["unknown"]) == ("fallback:popular", ["kite"])
    client.post("/items", json={"items": [{"item_id": "kite", "attributes": {"title": "Paper kite"}}]})
    answer = answered(client, user_id="ann", k=50)
    assert (answer["source"], answer["unknown"]) == ("model", [])
    assert "kite" not in {item["item_id"] for item in answer["items"]}


def test_a_user_is_forgotten_for_good(client: TestClient, home: Path) -> None:
    post(client, event("desk-1", 1, "a/b"), event("mug-1", 2, "a/b"), event("mug-1", 2, "ben"))
    assert client.delete("/users/a%2Fb").json() == {"deleted": 2}
    assert client.delete("/users/a%2Fb").json() == {"deleted": 0}
    assert answered(client, user_id="a/b")["source"] == "fallback:popular"
    assert answered(client, user_id="ben")["source"] == "model"

    def on_disk() -> bool:
        return any(b"a/b" in path.read_bytes() for path in home.glob("histories.sqlite3*"))

    end = time.monotonic() + 60  # while a reader has the database open, its bytes stay
    while on_disk() and time.monotonic() < end:
        time.sleep(0.05)
    assert not on_disk(), "its bytes are gone as well"


def test_time_is_now_where_none_is_given(client: TestClient) -> None:
    before = time.time()
    post(client, event("desk-1", before - 1), {"user_id": "ann", "item_id": "mug-1"}, event("lamp-1", before - 0.5))
    assert answered(client, user_id="ann") == answered(client, history=["desk-1", "lamp-1", "mug-1"])


@pytest.mark.parametrize(
    ("changed", "field", "message"),
    [
        ({"user_id": ""}, "events[1].user_id", "1 to 256 bytes"),
        ({"item_id": "a\nb"}, "events[1].item_id", "U+000A"),
        ({"item_id": None}, "events[1].item_id", "expected a string, not null"),
        ({"timestamp": "now"}, "events[1].timestamp", "expected a number"),
        ({"timestamp": -5}, "events[1].timestamp", "Unix seconds from 0 to now"),
        ({"timestamp": 1_750_000_000_000}, "events[1].timestamp", "are they milliseconds?"),
        ({"event_id": "a" * 257}, "events[1].event_id", "this one has 257"),
        ({"quantity": 2}, "events[1].quantity", "unknown field"),
        ({"type": "a" * 65}, "events[1].type", "at most 64 bytes"),
        ({"type": ""}, "events[1].type", "such as view"),
        ({"value": "much"}, "events[1].value", "expected a number"),
    ],
)
def test_what_is_wrong_with_an_event_is_named_and_nothing_stored(
    client: TestClient, changed: dict[str, Any], field: str, message: str
) -> None:
    events = [event("desk-1", 1), event("mug-1", 2) | changed]
    response = client.post("/events", json={"events": events})
    assert response.status_code == 422
    assert response.json()["field"] == field
    assert message in response.json()["detail"]
    assert answered(client, user_id="ann")["source"] == "fallback:popular"


def test_too_many_events_at_once(make_client: MakeClient) -> None:
    response = make_client(max_items=3).post("/events", json={"events": [event("desk-1", 1)] * 4})
    assert response.status_code == 422
    assert response.json()["detail"] == "events: at most 3 in one call, not 4"


def test_a_store_that_cannot_be_read_is_reported_and_the_given_history_answers(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: SqliteHistories, *arguments: Any) -> list[Event]:
        raise CatalogueError("the disk reports an error")

    monkeypatch.setattr(SqliteHistories, "recent", broken)
    monkeypatch.setattr(SqliteHistories, "add", broken)
    answer = answered(client, user_id="ann", history=["desk-1"])
    assert answer.pop("degraded") == ["the user's stored history cannot be read: the disk reports an error"]
    expected = answered(client, history=["desk-1"])
    assert expected.pop("degraded") == []
    assert answer == expected
    refused = client.post("/events", json={"events": [event("desk-1", 1)]})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"


def test_a_user_has_one_name_however_it_is_written(client: TestClient) -> None:
    """macOS sends letters and their accents apart; a request to be forgotten must find what is stored."""
    post(client, event("desk-1", 1, user_id="jos\u00e9"))
    assert answered(client, user_id="jose\u0301") == answered(client, user_id="jos\u00e9")
    assert answered(client, user_id="jose\u0301")["source"] == "model"
    assert client.delete("/users/jose%CC%81").json() == {"deleted": 1}
    bodies: list[tuple[str, dict[str, Any], str]] = [
        ("/events", {"events": [event("desk-1", 1, user_id="bob ")]}, "events[0].user_id"),
        ("/recommend", {"user_id": " bob"}, "user_id"),
        ("/recommend/batch", {"requests": [{"user_id": "bob\u2003"}]}, "requests[0].user_id"),
    ]
    for path, body, field in bodies:
        refused = client.post(path, json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
    assert client.delete("/users/bob%20").status_code == 422


def test_what_is_stored_of_a_user_is_read_page_by_page(client: TestClient) -> None:
    assert client.get("/users/nobody").status_code == 404
    post(client, *(event(f"i{n}", n // 2, "a/b", event_id=f"e{n}") for n in range(5)))
    post(client, event("desk-1", 9.5, "a/b", type="shown", value=3))
    first = client.get("/users/a%2Fb", params={"limit": 2}).json()
    assert first["events"] == [
        {"item_id": "desk-1", "timestamp": 9.5, "type": "shown", "value": 3.0},
        {"item_id": "i4", "timestamp": 2.0, "event_id": "e4"},
    ]
    second = client.get("/users/a/b", params={"limit": 4, "cursor": first["next"]}).json()
    assert [one["item_id"] for one in second["events"]] == ["i3", "i2", "i1", "i0"]
    last = client.get("/users/a%2Fb", params={"limit": 4, "cursor": second["next"]}).json()
    assert last == {"user_id": "a/b", "events": []}
    for params in ({"cursor": "x"}, {"cursor": "1@nan"}, {"limit": 0}, {"cursor": f"{2**70}@1"}):
        assert client.get("/users/ann", params=params).status_code == 422
    assert client.get("/users/bob%20").json()["field"] == "user_id"


def test_one_event_is_taken_back(client: TestClient) -> None:
    post(client, event("desk-1", 1, event_id="e/1"), event("mug-1", 2, event_id="e2"))
    popular = answered(client, history=[])["items"]
    assert client.delete("/users/ann/events/e%2F1").json() == {"removed": True}
    assert client.delete("/users/ann/events/e%2F1").json() == {"removed": False}
    assert [one["item_id"] for one in client.get("/users/ann").json()["events"]] == ["mug-1"]
    assert answered(client, history=[])["items"] != popular
    # The user "a/events/b" is not the event b of a.
    post(client, event("desk-1", 1, "a", event_id="b"), event("desk-1", 1, "a/events/b", event_id="c"))
    refused = client.delete("/users/a%2Fevents%2Fb")
    assert (refused.status_code, refused.json()["field"]) == (422, "event_id")
    assert client.delete("/users/a%2Fevents%2Fb/events/c").json() == {"removed": True}
    assert client.delete("/users/a/events/b").json() == {"removed": True}


def test_types_decide_what_counts_and_what_never_comes_back(client: TestClient, home: Path) -> None:
    post(client, event("desk-1", 1, type="shown"), event("mug-1", 2, type="view"))
    assert answered(client, user_id="ann") == answered(client, history=["mug-1"])
    events(["types", "dislike=negative", "view=0.5", "--home", str(home)])
    post(client, event("lamp-1", 3, type="dislike"))
    for more in ({}, {"exclude_seen": False}, {"candidates": ["lamp-1", "desk-1"]}):
        found = {item["item_id"] for item in answered(client, user_id="ann", k=50, **more)["items"]}
        assert "lamp-1" not in found
        assert "desk-1" in found
    assert "lamp-1" in {item["item_id"] for item in answered(client, user_id="ben", k=50)["items"]}
    popular = {item["item_id"]: item["score"] for item in answered(client, history=[], k=50)["items"]}
    until = time.monotonic() + 20
    while popular["mug-1"] != 3.5 and time.monotonic() < until:  # all is counted again
        popular = {item["item_id"]: item["score"] for item in answered(client, history=[], k=50)["items"]}
    assert (popular["mug-1"], popular["desk-1"]) == (3.5, 2.0)


def test_events_by_day_and_type(client: TestClient) -> None:
    before = client.get("/events").json()
    assert (before["users"], before["events"], before["today"]) == (1, 6, 0)  # of the home
    assert before["days"] == [{"day": "1970-01-01", "type": None, "events": 6}]
    now = time.time()
    post(client, event("desk-1", now, type="view"), event("desk-1", now, "bob"), event("pot/1", 86_400.0, "bob"))
    answer = client.get("/events").json()
    assert (answer["users"], answer["events"], answer["today"]) == (3, 9, 2)
    assert [(one["type"], one["events"]) for one in answer["days"]] == [(None, 6), (None, 1), (None, 1), ("view", 1)]
    assert client.get("/events", params={"item_id": "pot/1"}).json() == {
        "users": 1,
        "events": 1,
        "today": 0,
        "days": [{"day": "1970-01-02", "type": None, "events": 1}],
    }
    nothing = {"users": 0, "events": 0, "today": 0, "days": []}
    assert client.get("/events", params={"item_id": "unknown"}).json() == nothing
    assert client.get("/events", params={"item_id": "a\nb"}).status_code == 422
