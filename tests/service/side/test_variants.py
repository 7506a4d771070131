"""Variants that another snapshot answers: two models side by side on one catalogue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.build.cli import index
from index.build.reindex import Request, make_snapshot
from index.catalogue.base import Catalogue
from index.catalogue.open import open_catalogue
from index.snapshot.publication import published, remove
from index.snapshot.snapshot import SnapshotStore
from seqrec.errors import InputError, SnapshotError
from service.reports.receipts import read_receipt
from service.rules.cli import placements
from tests.service.side.models import answers_from, ask, facts, place, second_snapshot, split, until

pytestmark = pytest.mark.slow

MakeClient = Callable[..., TestClient]
HISTORY = ["desk-1", {"attributes": {"title": "Tea mug"}}]


@pytest.fixture
def other(home: Path) -> str:
    return second_snapshot(home)


@pytest.fixture
def first(home: Path) -> str:
    with closing(open_catalogue(home)) as catalogue:
        found = published(catalogue)
        assert found is not None
        return found


@pytest.fixture
def client(make_client: MakeClient, first: str, other: str) -> TestClient:
    """With the placement `home`, whose variants are the two models; both answer."""
    client = make_client()
    place(client, "home", split(first, other))
    until(lambda: answers_from(client, other))
    return client


def users(client: TestClient, variant: str, count: int = 2) -> list[str]:
    """Users who get this variant."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        answer = ask(client, history=HISTORY, session_id=f"u{number}", placement="home")
        if variant_of(client, answer) == variant:
            found.append(f"u{number}")
        number += 1
    return found


def variant_of(client: TestClient, answer: dict[str, Any]) -> str:
    secret = client.app.state.startup.components.histories.secret  # type: ignore[attr-defined]
    return read_receipt(secret, answer["recommendation_id"], 3600.0, "id").slot.variant


def test_each_variant_is_answered_by_its_model_as_if_that_were_alone(
    client: TestClient, make_client: MakeClient, home: Path, first: str, other: str
) -> None:
    alone = {}
    for snapshot in (first, other):
        with closing(open_catalogue(home)) as catalogue:
            catalogue.publish(snapshot)
        until(lambda snapshot=snapshot: client.get("/readyz").json()["snapshot"] == snapshot)
        alone[snapshot] = facts(ask(client, history=HISTORY))
    assert alone[first] != alone[other]
    with closing(open_catalogue(home)) as catalogue:
        catalogue.publish(first)
    until(lambda: client.get("/readyz").json()["snapshot"] == first)
    until(lambda: answers_from(client, other))
    of_variant = {}
    for number in range(20):
        unit = {"session_id": f"u{number}", "placement": "home"}
        answer = ask(client, history=HISTORY, **unit)
        assert ask(client, history=HISTORY, **unit)["snapshot"] == answer["snapshot"], "sticky"
        of_variant[variant_of(client, answer)] = facts(answer)
    assert of_variant == {"a": alone[first], "b": alone[other]}


def test_posted_hidden_and_deleted_items_and_events_count_in_both_at_once(
    client: TestClient, first: str, other: str
) -> None:
    new = {"item_id": "desk-3", "attributes": {"title": "Oak desk walnut"}}
    for change, there in (
        (lambda: client.post("/items", json={"items": [new]}), True),
        (lambda: client.patch("/items/desk-3", json={"available": False}), False),
        (lambda: client.patch("/items/desk-3", json={"available": True}), True),
        (lambda: client.delete("/items/desk-3"), False),
    ):
        seq = change().json()["seq"]
        for snapshot in (first, other):
            answer = ask(client, history=["desk-1"], snapshot=snapshot, min_seq=seq)
            assert answer["snapshot"] == snapshot
            assert answer["seq"] >= seq
            assert ("desk-3" in {item["item_id"] for item in answer["items"]}) == there
    events = [{"user_id": "ann", "item_id": "pot/1", "event_id": f"e{n}"} for n in range(9)]
    assert client.post("/events", json={"events": events}).json()["stored"] == 9
    for snapshot in (first, other):
        popular = client.post("/popular", json={"snapshot": snapshot, "k": 1}).json()
        assert (popular["snapshot"], popular["items"][0]["item_id"]) == (snapshot, "pot/1")
        assert popular["items"][0]["score"] == 9
        seen = ask(client, user_id="ann", snapshot=snapshot)
        assert "pot/1" not in {item["item_id"] for item in seen["items"]}


def test_similar_and_batches_are_answered_by_the_variant_s_model(client: TestClient, first: str, other: str) -> None:
    [one], [another] = users(client, "a", 1), users(client, "b", 1)
    similar = {"item_id": "desk-1", "placement": "home"}
    assert client.post("/similar", json={**similar, "session_id": one}).json()["snapshot"] == first
    assert client.post("/similar", json={**similar, "session_id": another}).json()["snapshot"] == other
    requests = [
        {"history": HISTORY, "placement": "home", "session_id": another},
        {"history": HISTORY},
        {"history": HISTORY, "placement": "home", "session_id": one},
        {"history": HISTORY, "snapshot": other},
    ]
    answers = client.post("/recommend/batch", json={"requests": requests}).json()["answers"]
    assert [answer["snapshot"] for answer in answers] == [other, first, first, other]
    alone = client.post("/recommend", json=requests[0]).json()
    assert facts(answers[0]) == facts(alone) == facts(answers[3])


def test_the_holdout_gets_what_is_popular_and_a_request_s_own_snapshot_replaces_the_variant_s(
    client: TestClient, first: str, other: str
) -> None:
    rules = split(first, other)
    rules["experiment"]["holdout"] = 0.5
    place(client, "home", rules)
    found: dict[str, set[Any]] = {}
    for number in range(60):
        answer = ask(client, history=HISTORY, session_id=f"u{number}", placement="home")
        found.setdefault(variant_of(client, answer), set()).add((answer["source"], answer["snapshot"]))
    assert found == {
        "a": {("model", first)},
        "b": {("model", other)},
        "holdout": {("fallback:popular", first)},
    }
    [user] = users(client, "b", 1)
    own = ask(client, history=HISTORY, session_id=user, placement="home", snapshot=first)
    assert (own["snapshot"], variant_of(client, own)) == (first, "b")


def test_reports_tell_the_two_models_apart(client: TestClient, first: str, other: str) -> None:
    models = {}
    for variant in "ab":
        for user in users(client, variant):
            answer = ask(client, history=HISTORY, session_id=user, placement="home")
            models[variant] = answer["model"][:16]
            event = {"user_id": user, "item_id": answer["items"][0]["item_id"], "type": "clicked"}
            event["recommendation_id"] = answer["recommendation_id"]
            client.post("/events", json={"events": [event]}).raise_for_status()
    rows = client.get("/reports", params={"by": "model"}).json()["rows"]
    assert {row["group"]: row["clicks"] for row in rows} == {models["a"]: 2, models["b"]: 2}
    rows = client.get("/reports", params={"by": "snapshot"}).json()["rows"]
    assert {row["group"] for row in rows} == {first, other}


def test_what_a_placement_names_is_loaded_reported_and_let_go(
    make_client: MakeClient, home: Path, first: str, other: str
) -> None:
    client = make_client(deadline=4.0)
    refused = client.post("/recommend", json={"history": HISTORY, "snapshot": other})
    assert (refused.status_code, refused.json()["field"]) == (422, "snapshot")
    assert "no placement names it: name it as the snapshot of a variant" in refused.json()["detail"]
    assert first in refused.json()["detail"]
    place(client, "home", split(first, other))
    until(lambda: answers_from(client, other))
    metrics = client.get("/metrics").text
    assert f'seqrec_side_snapshot{{id="{other}"}} 1.0' in metrics
    assert f'seqrec_side_snapshot_bytes{{id="{other}",memory="shared"}}' in metrics
    assert f'id="{first}"' not in metrics.replace(f'seqrec_snapshot{{id="{first}"}}', "")
    views = {one["id"]: one for one in client.get("/snapshots").json()["snapshots"]}
    assert (views[other]["placements"], views[first]["placements"]) == (["home"], ["home"])
    assert (views[other]["answers"], views[first]["answers"]) == (True, True)
    assert views[other]["memory"] > 0
    assert client.get("/readyz").json()["degraded"] == []
    assert client.delete("/placements/home").status_code == 200
    until(lambda: not answers_from(client, other))
    until(lambda: "seqrec_side_snapshot{" not in client.get("/metrics").text)
    with closing(open_catalogue(home)) as catalogue:
        until(lambda: removed(home, catalogue, other))  # no process holds it any more


def removed(home: Path, catalogue: Catalogue, snapshot: str) -> bool:
    with suppress(SnapshotError):
        remove(home, catalogue, snapshot)
    return snapshot not in SnapshotStore(home).list()


def test_a_placement_that_names_a_snapshot_that_cannot_be_served_is_refused(
    make_client: MakeClient, home: Path, first: str
) -> None:
    client = make_client()
    unknown = "20260101T000000-000001-abcdef"
    refused = client.put("/placements/home", json=split(first, unknown))
    assert (refused.status_code, refused.json()["field"]) == (422, "experiment.variants[1].snapshot")
    assert f"there is no snapshot {unknown} in this home; `seqrec index list`" in refused.json()["detail"]
    assert client.put("/placements/home", json=split(first, "no id")).status_code == 422
    assert client.get("/placements").json()["placements"] == []
    (home / "rules.json").write_text(json.dumps({"shadow": {"snapshot": unknown}}))
    with pytest.raises(InputError, match=f"shadow.snapshot: there is no snapshot {unknown}"):
        placements(["set", "home", str(home / "rules.json"), "--home", str(home)])


def test_a_variant_whose_snapshot_cannot_be_loaded_is_answered_by_the_published_one(
    make_client: MakeClient, home: Path, first: str, other: str
) -> None:
    (SnapshotStore(home).path_of(other) / "vectors.npy").write_bytes(b"")
    client = make_client()
    place(client, "home", split(first, other))
    until(lambda: any("vectors.npy" in one for one in client.get("/readyz").json()["degraded"]))
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert f"snapshot {other}, which the placement home names, does not answer" in ready["detail"]
    said = {
        tuple(ask(client, history=HISTORY, session_id=f"u{number}", placement="home")["degraded"])
        for number in range(20)
    }
    assert len(said) == 2
    [reasons] = said - {()}
    assert "of the variant does not answer" in reasons[0]
    assert f"{first} answered" in reasons[0]
    assert f'seqrec_side_snapshot{{id="{other}"}} 0.0' in client.get("/metrics").text


def test_a_named_snapshot_is_neither_pruned_nor_removed(
    home: Path, first: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_catalogue(home)) as catalogue:
        catalogue.publish(other)
        catalogue.set_placement("home", json.dumps(split(first, other)))
        for dim in (9, 10, 11):
            second_snapshot(home, dim, publish=True)
        make_snapshot(home, Request(keep=1, force=True))
        left = SnapshotStore(home).list()
        assert first in left
        assert other in left
        assert catalogue.changes(SnapshotStore(home).open(other).manifest.seq, 1) is not None
        index(["list", "--home", str(home)])
        assert re.search(f"{other} .* kept, in the placement home\n", capsys.readouterr().out)
        with pytest.raises(SnapshotError, match="is named by the placement home"):
            remove(home, catalogue, other)
        catalogue.set_placement("home", None)
        remove(home, catalogue, other)
        assert other not in SnapshotStore(home).list()


def test_a_restarted_service_loads_what_placements_name(
    client: TestClient, make_client: MakeClient, first: str, other: str
) -> None:
    late = client.post("/items", json={"items": [{"item_id": "late", "attributes": {"title": "Oak desk"}}]}).json()[
        "seq"
    ]
    again = make_client()
    until(lambda: answers_from(again, other))
    answer = ask(again, history=["desk-1"], snapshot=other, min_seq=late)
    assert "late" in {item["item_id"] for item in answer["items"]}
