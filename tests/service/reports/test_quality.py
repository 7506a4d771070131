"""Metrics of the quality of answers, as a service counts them, and click-through by part of a hybrid's score."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import wait_until_ready
from tests.service.http.routes.test_placements import put
from tests.service.http.routes.test_recommend import ids, recommend
from tests.service.side.models import second_snapshot, split, until
from tests.service.test_learning import hybrid_home, post  # noqa: F401

pytestmark = pytest.mark.slow


def series(client: TestClient, name: str) -> dict[str, float]:
    """By the values of the labels, in the order of their names; those that are 0 are left out."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    values = {" ".join(filter(None, re.findall(r'="([^"]*)"', labels))): float(value) for labels, value in found}
    return {labels: value for labels, value in values.items() if value}


def value(client: TestClient, name: str) -> float:
    return series(client, name).get("", 0.0)


def test_answers_and_their_items_are_counted_by_source(client: TestClient) -> None:
    recommend(client, history=["desk-1"], k=3)
    recommend(client, history=["no-such-item"], k=2)
    client.post("/similar", json={"item_id": "desk-1", "k": 2})
    client.post("/popular", json={"k": 2})
    client.post("/popular", json={"k": 2, "window": "7d"})  # the events are of 1970
    put(client, "held", experiment={"name": "e", "holdout": 0.999999, "variants": [{"name": "a"}, {"name": "b"}]})
    recommend(client, history=["desk-1"], user_id="ann", placement="held", k=1)
    put(client, "ends", min_score=1e9, fallback=["similar", "popular"], pin=[{"position": 1, "item_ids": ["mug-2"]}])
    answer = recommend(client, history=["desk-1"], placement="ends", k=3)
    assert len(ids(answer)) == 3
    assert series(client, "seqrec_answers_total") == {
        "model": 2,
        "fallback:popular": 1,
        "similar": 1,
        "popular": 1,
        "trending": 1,
        "holdout": 1,
    }
    items = series(client, "seqrec_answer_items_total")
    assert items["model"] == 5, "of /recommend and /similar"
    assert items["popular"] >= 2 + 2 + 1
    assert items["pinned"] == 1
    assert sum(items.values()) == 3 + 2 + 2 + 2 + 1 + 3


def test_histories_are_counted_by_what_is_known_of_their_items(
    make_client: Callable[..., TestClient], home: Path
) -> None:
    other = second_snapshot(home)
    client = make_client()
    put(client, "both", **split(client.get("/readyz").json()["snapshot"], other))
    new = {"item_id": "new-1", "attributes": {"title": "Oak shelf"}}
    assert client.post("/items", json={"items": [new]}).status_code == 200
    recommend(client, history=["desk-1", "mug-1", "mug-2", "new-1", "gone-1", "gone-2", "gone-1"])
    recommend(client, history=[{"attributes": {"title": "Oak desk"}}])
    client.post("/popular", json={"user_id": "ann"})
    until(lambda: value(client, "seqrec_history_length_count") == 2)
    assert value(client, "seqrec_history_length_sum") == 6
    assert series(client, "seqrec_history_items_total") == {"counted": 2, "cold": 2, "unknown": 2}


def test_coverage_and_staleness(client: TestClient, home: Path) -> None:
    until(lambda: value(client, "seqrec_answerable_items"))
    count = len(client.get("/items", params={"limit": 100}).json()["items"])
    assert value(client, "seqrec_answerable_items") == count
    assert value(client, "seqrec_catalogue_coverage") == 0
    recommend(client, history=["desk-1"], k=2)
    recommend(client, history=["desk-1"], k=2)
    until(lambda: value(client, "seqrec_catalogue_coverage"))
    assert value(client, "seqrec_catalogue_coverage") == pytest.approx(2 / count, rel=0.01)
    now = time.time()
    for name in ("snapshot", "model"):
        assert now - 86_400 < value(client, f"seqrec_{name}_timestamp_seconds") <= now + 1, name
    assert value(client, "seqrec_newest_event_timestamp_seconds") == 5, "the last of the interactions"
    post(client, "ann", "desk-1", at=1000)
    assert value(client, "seqrec_newest_event_timestamp_seconds") == 1000
    post(client, "bob", "desk-1", at=int(now) + 3600)
    assert value(client, "seqrec_newest_event_timestamp_seconds") == 1000, "a clock that is fast hides nothing"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_click_through_by_part_of_the_score(hybrid_home: Path, share: float) -> None:  # noqa: F811
    with TestClient(create_app(Settings(home=hybrid_home, follow_seconds=0.02, parts_share=share))) as client:
        wait_until_ready(client)
        post(client, "ann", "desk-1", "mug-2")
        answer: dict[str, Any] = recommend(client, history=["desk-1"], k=8, explain=True)
        main = {item["item_id"]: max(item["parts"], key=item["parts"].get, default="") for item in answer["items"]}
        assert main["mug-2"] == "co-occurrence"
        assert "words" in main.values()
        events = [(item_id, "shown") for item_id in main] + [("mug-2", "clicked")]
        named = [
            {"user_id": "bob", "item_id": item_id, "type": type, "recommendation_id": answer["recommendation_id"]}
            for item_id, type in events
        ]
        assert client.post("/events", json={"events": named}).status_code == 200

        def rows(by: str) -> dict[str, tuple[int, int]]:
            made = client.get("/reports", params={"by": by}).json()["rows"]
            return {row["group"]: (row["impressions"], row["clicks"]) for row in made}

        assert rows("source") == {"model": (len(main), 1)}
        if not share:
            assert rows("part") == {"model": (len(main), 1)}
            return
        expected = {part or "model": (list(main.values()).count(part), 0) for part in main.values()}
        assert rows("part") == expected | {"co-occurrence": (expected["co-occurrence"][0], 1)}
        assert series(client, "seqrec_outcome_items_total")["co-occurrence model clicked"] == 1
        assert series(client, "seqrec_answer_items_total")["words model"] == expected["words"][0]
