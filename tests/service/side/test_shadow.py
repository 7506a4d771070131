"""A candidate that answers unseen, and how its answers are compared."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.catalogue.open import open_catalogue
from index.snapshot.publication import published
from service.reports import shadow
from tests.service.side.models import answers_from, ask, place, second_snapshot, until

pytestmark = pytest.mark.slow

MakeClient = Callable[..., TestClient]


def totals(client: TestClient) -> dict[str, Any]:
    """Of the only shadow; empty before the first request of it."""
    found: list[dict[str, Any]] = client.get("/reports").json()["shadows"]
    assert len(found) < 2
    return found[0] if found else {"compared": 0, "left_out": 0}


@pytest.fixture
def candidate(home: Path) -> str:
    return second_snapshot(home)


@pytest.fixture
def client(make_client: MakeClient, candidate: str) -> TestClient:
    """With the placement `home`, all of whose requests the candidate answers as well."""
    client = make_client()
    place(client, "home", {"k": 5, "shadow": {"snapshot": candidate, "share": 1.0}})
    until(lambda: answers_from(client, candidate))
    return client


def test_a_shadow_is_compared_with_what_users_got_and_they_get_the_published_model(
    client: TestClient, home: Path, candidate: str
) -> None:
    with closing(open_catalogue(home)) as catalogue:
        served = published(catalogue)
    overlaps, same = [], []
    for history in (["desk-1"], ["mug-1", "lamp-1"], ["pot/1"]):
        seen = ask(client, history=history, placement="home", k=5)
        unseen = ask(client, history=history, snapshot=candidate, k=5)
        assert (seen["snapshot"], unseen["snapshot"]) == (served, candidate)
        ids = [[item["item_id"] for item in one["items"]] for one in (seen, unseen)]
        overlaps.append(len(set(ids[0]) & set(ids[1])) / 5)
        same.append(ids[0][0] == ids[1][0])
    until(lambda: totals(client)["compared"] == 3)
    found = totals(client)
    assert (found["placement"], found["snapshot"], found["left_out"]) == ("home", candidate, 0)
    assert found["overlap"] == pytest.approx(sum(overlaps) / 3)
    assert found["same_first"] == pytest.approx(sum(same) / 3)
    assert found["seconds_ratio"] > 0
    labels = f'placement="home",snapshot="{candidate}"'
    metrics = client.get("/metrics").text
    assert f'seqrec_shadow_requests_total{{placement="home",result="compared",snapshot="{candidate}"}} 3.0' in metrics
    assert f"seqrec_shadow_overlap_count{{{labels}}} 3.0" in metrics
    assert client.get("/reports", params={"placement": "other"}).json()["shadows"] == []


def test_similar_items_are_compared_and_what_names_no_placement_is_not(client: TestClient) -> None:
    client.post("/similar", json={"item_id": "desk-1", "placement": "home"}).raise_for_status()
    client.post("/popular", json={"placement": "home"}).raise_for_status()
    ask(client, history=["desk-1"])
    client.post("/similar", json={"item_id": "mug-1", "placement": "home"}).raise_for_status()
    until(lambda: totals(client)["compared"] == 2)


def test_a_shadow_of_the_same_content_agrees_with_every_answer(home: Path, make_client: MakeClient) -> None:
    with closing(open_catalogue(home)) as catalogue:
        first = published(catalogue)
        assert first is not None
        catalogue.publish(second_snapshot(home))
        catalogue.publish(second_snapshot(home, 32))  # the model of the first snapshot
    client = make_client()
    place(client, "home", {"shadow": {"snapshot": first, "share": 1.0}})
    until(lambda: answers_from(client, first))
    ask(client, history=["desk-1", "mug-1"], placement="home")
    until(lambda: totals(client)["compared"] == 1)
    assert (totals(client)["overlap"], totals(client)["same_first"]) == (1.0, 1.0)


def test_under_load_shadows_are_left_out_and_no_answer_waits(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate does not come to an end; users are answered all the same."""
    go_on = threading.Event()
    execute = shadow.execute

    def stuck(plans: Any) -> Any:
        assert go_on.wait(120)
        return execute(plans)

    monkeypatch.setattr(shadow, "execute", stuck)
    count = shadow.MOST_WAITING + 10
    for _ in range(count):
        assert ask(client, history=["desk-1"], placement="home")["items"]
    assert totals(client)["left_out"] >= count - shadow.MOST_WAITING - 1
    go_on.set()
    until(lambda: totals(client)["left_out"] + totals(client)["compared"] == count)
    assert totals(client)["compared"] >= 1


def test_the_thread_of_shadows_has_the_priority_of_the_others(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine one of low priority would lose its core while it holds the interpreter."""
    execute, priorities = shadow.execute, []

    def noted(plans: Any) -> Any:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return execute(plans)

    monkeypatch.setattr(shadow, "execute", noted)
    ask(client, history=["desk-1"], placement="home")
    until(lambda: totals(client)["compared"] == 1)
    assert priorities == [os.getpriority(os.PRIO_PROCESS, os.getpid())]


def test_a_shadow_that_fails_is_counted_and_users_are_answered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(plans: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(shadow, "execute", broken)
    assert ask(client, history=["desk-1"], placement="home")["items"]
    until(lambda: totals(client)["left_out"] == 1)
    monkeypatch.undo()
    ask(client, history=["desk-1"], placement="home")
    until(lambda: totals(client)["compared"] == 1)
