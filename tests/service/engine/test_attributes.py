"""`fields` chooses the attributes of an answer, and an answer has a budget of bytes for them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from seqrec.data.items import make_item
from service.deadline import Deadline
from service.engine.attributes import AttributeBudget, unknown_fields

MUG = {"item_id": "cup", "attributes": {"title": "Enamel cup", "brand": "Acme", "price": 9}}


@pytest.fixture
def cup_client(client: TestClient) -> TestClient:
    assert client.post("/items", json={"items": [MUG]}).status_code == 200
    return client


def answers(client: TestClient, fields: list[str] | None) -> list[tuple[dict[str, object], list[str]]]:
    """The attributes of the item "cup" from each endpoint, and `degraded` of that answer."""
    chosen = {} if fields is None else {"fields": fields}
    one = {"history": ["mug-1"], "candidates": ["cup"], **chosen}
    found = [
        client.post("/recommend", json=one),
        client.post("/recommend/batch", json={"requests": [one]}),
        client.post("/similar", json={"attributes": {"title": "Enamel cup"}, "filter": {"price": 9}, **chosen}),
        client.get("/items", params={"q": "enamel cup", **chosen}),
    ]
    bodies = [answer.json() for answer in found]
    bodies[1] = bodies[1]["answers"][0]
    assert [answer.status_code for answer in found] == [200] * 4, bodies
    return [
        (next(item["attributes"] for item in body["items"] if item["item_id"] == "cup"), body["degraded"])
        for body in bodies
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "attributes"),
    [
        (None, MUG["attributes"]),
        (["price", "title"], {"price": 9, "title": "Enamel cup"}),
        (["brand"], {"brand": "Acme"}),
    ],
)
def test_an_answer_has_the_chosen_attributes(
    cup_client: TestClient, fields: list[str] | None, attributes: dict[str, object]
) -> None:
    assert answers(cup_client, fields) == [(attributes, [])] * 4


@pytest.mark.slow
def test_no_attributes_are_chosen_with_an_empty_list(cup_client: TestClient) -> None:
    answer = cup_client.post("/recommend", json={"history": ["mug-1"], "fields": []}).json()
    assert {tuple(item["attributes"]) for item in answer["items"]} == {()}


@pytest.mark.slow
def test_a_name_that_no_item_has_is_listed(cup_client: TestClient) -> None:
    expected = ({"title": "Enamel cup"}, ["fields: no item has the attribute 'pirce'"])
    assert answers(cup_client, ["title", "pirce"]) == [expected] * 4


@pytest.mark.slow
def test_a_name_that_only_other_items_have_is_not_listed(cup_client: TestClient) -> None:
    other = {"item_id": "other", "attributes": {"title": "Oak desk", "warranty": "5 years"}}
    cup_client.post("/items", json={"items": [other]})
    assert answers(cup_client, ["title", "warranty"]) == [({"title": "Enamel cup"}, [])] * 4


def test_too_many_names_are_refused_in_plain_words(shared_client: TestClient) -> None:
    names = [f"a{n}" for n in range(65)]
    for answer in (
        shared_client.post("/recommend", json={"history": [], "fields": names}),
        shared_client.get("/items", params={"q": "mug", "fields": names}),
    ):
        assert answer.status_code == 422
        assert "at most 64 entries" in answer.json()["detail"]


def test_beyond_the_budget_items_come_without_attributes(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_answer_bytes=65536)
    text = {f"part {n}": "y" * 8000 for n in range(7)}
    items = [{"item_id": f"big-{n}", "attributes": {"title": "Giant bag", **text}} for n in range(3)]
    client.post("/items", json={"items": items})
    one = {"history": [{"attributes": {"title": "Giant bag"}}], "candidates": ["big-0", "big-1", "big-2"]}
    batch = client.post("/recommend/batch", json={"requests": [one, one]}).json()["answers"]
    found = client.get("/items", params={"q": "giant"}).json()
    assert [[bool(item["attributes"]) for item in body["items"]] for body in [*batch, found]] == [
        [True, False, False],
        [False, False, False],
        [True, False, False],
    ]
    assert [body["degraded"][0].partition(" are left out")[0] for body in [*batch, found]] == [
        "the attributes of 2 items",
        "the attributes of 3 items",
        "the attributes of 2 items",
    ]
    assert "has at most 65536 bytes of them" in found["degraded"][0]
    few = client.get("/items", params={"q": "giant", "fields": ["title"]}).json()
    assert [item["attributes"] for item in few["items"]] == [{"title": "Giant bag"}] * 3
    assert few["degraded"] == []


def test_the_budget_counts_bytes_not_characters() -> None:
    budget = AttributeBudget(20)
    items = [make_item("a", {"t": "ä" * 9}), make_item("b", {"t": "x"})]
    read, left_out = budget.read(2, items.__getitem__, None)
    assert ([dict(item.attributes) for item in read], left_out) == ([{"t": "ä" * 9}, {}], 1)


def test_names_are_not_reported_before_all_items_were_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many posted items the first look takes longer than a request has."""
    from service.live import columns

    monkeypatch.setattr(columns, "_CHECK_ROWS", 1)
    posted = client.post("/items", json={"items": [{"item_id": "new", "attributes": {"title": "oak"}}]})
    assert posted.status_code == 200
    view = client.app.state.startup.components.follower.view()  # type: ignore[attr-defined]
    late = Deadline(10.0, time.perf_counter() - 8.0)
    assert unknown_fields(view, ["pirce"], late) == []
    assert unknown_fields(view, ["pirce"], Deadline(10.0)) == ["fields: no item has the attribute 'pirce'"]
