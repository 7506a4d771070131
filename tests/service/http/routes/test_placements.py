"""Rules and placements over HTTP and from the command line."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.catalogue.open import open_catalogue, open_histories
from seqrec.errors import InputError, PlacementNotFound
from service.http.cursor import MAX_SHOWN, make_cursor, read_cursor
from service.reports.receipts import read_receipt
from service.rules.cli import placements
from tests.service.http.routes.test_recommend import ids, recommend


def put(client: TestClient, name: str, **rules: Any) -> dict[str, Any]:
    response = client.put(f"/placements/{name}", json=rules)
    assert response.status_code == 200, response.text
    stored: dict[str, Any] = response.json()
    return stored


def shelf(client: TestClient, brands: str) -> None:
    items = [
        {"item_id": f"{brand}-{n}", "attributes": {"title": "walnut shelf", "brand": brand, "rank": n}}
        for n, brand in enumerate(brands)
    ]
    assert client.post("/items", json={"items": items}).status_code == 200


def ranking(client: TestClient, **body: Any) -> list[str]:
    return ids(recommend(client, history=WALNUT, k=100, filter=SHELVES, **body))


WALNUT = [{"attributes": {"title": "walnut shelf"}}]
SHELVES = {"rank": {"gte": 0}}


def test_a_boost_counts_in_scores_and_a_fallback_fills_up(client: TestClient) -> None:
    shelf(client, "ABAB")
    plain = recommend(client, history=WALNUT, k=4, filter=SHELVES)
    boosted = recommend(client, history=WALNUT, k=4, filter=SHELVES, boost=[{"filter": {"brand": "B"}, "add": 2.0}])
    of_brand = {brand: [item_id for item_id in ids(plain) if item_id[0] == brand] for brand in "AB"}
    assert ids(boosted) == of_brand["B"] + of_brand["A"]
    score = {item["item_id"]: item["score"] for item in plain["items"]}
    assert boosted["items"][0]["score"] == pytest.approx(score[ids(boosted)[0]] + 2.0, abs=1e-6)
    assert {item["source"] for item in boosted["items"]} == {"model"}
    few = recommend(client, history=WALNUT, k=8, min_score=0.5, fallback=["popular"])
    sources = [item["source"] for item in few["items"]]
    assert sources == ["model"] * 4 + ["popular"] * 4
    assert ids(few)[4:6] == ["mug-1", "desk-1"]  # most events first


def test_at_most_and_pins_and_diversity(client: TestClient) -> None:
    shelf(client, "AAAABB")
    plain = ranking(client)
    first_a, second_a, first_b = [i for i in plain if i[0] == "A"][:2] + [i for i in plain if i[0] == "B"][:1]
    assert ranking(client, at_most={"brand": 1}) == sorted([first_a, first_b], key=plain.index)
    last = plain[-1]
    pinned = recommend(client, history=WALNUT, k=3, filter=SHELVES, pin=[{"position": 2, "item_ids": [last]}])
    assert ids(pinned) == [plain[0], last, plain[1]]
    assert [item.get("pinned") for item in pinned["items"]] == [None, True, None]
    every = ranking(client, pin=[{"every": 2, "filter": {"brand": "A"}}])
    assert [i[0] for i in every[1::2]] == ["A"] * 3
    assert set(every) == set(plain)
    boosted_a = [{"filter": {"brand": "A"}, "multiply": 100}]
    assert ranking(client, boost=boosted_a)[:2] == [first_a, second_a]
    gone = recommend(client, history=WALNUT, k=3, filter=SHELVES, pin=[{"position": 1, "item_ids": ["nobody"]}])
    assert ids(gone) == plain[:3]
    new = recommend(client, history=WALNUT, k=4, filter=SHELVES, explore={"share": 0.25, "below_events": 1})
    assert [item.get("explored") for item in new["items"]] == [None, None, None, True]
    spread = recommend(client, history=WALNUT, k=3, diversity=0.9)
    assert len({item_id[0] for item_id in ids(spread)}) > 1


def test_random_places_say_how_likely_their_items_were(client: TestClient, home: Path) -> None:
    shelf(client, "AAAABB")
    with closing(open_histories(home)) as histories:
        secret = histories.secret
    plain, first = ranking(client), set()
    rules = {"explore": {"share": 0.5, "random": 3}, "pin": [{"position": 2, "item_ids": [plain[-1]]}]}
    random.seed(4)
    for _ in range(40):
        answer = recommend(client, history=WALNUT, k=3, filter=SHELVES, **rules)
        top, pinned, last = answer["items"]
        first.add(top["item_id"])
        best = top["item_id"] == plain[0]
        assert top["propensity"] == pytest.approx(0.5 / 3 + 0.5 * best)
        assert top.get("explored") == (None if best else True)
        assert (pinned["item_id"], pinned["pinned"], "propensity" in pinned) == (plain[-1], True, False)
        receipt = read_receipt(secret, answer["recommendation_id"], 60, "recommendation_id")
        assert receipt.propensity(last["item_id"]) == pytest.approx(last["propensity"])
        assert receipt.propensity(plain[-1]) is None
    assert first == set(plain[:3])


def test_a_filter_of_the_newest_item(client: TestClient) -> None:
    shelf(client, "AABB")
    answer = recommend(client, history=["B-2"], k=5, filter={"brand": {"same_as": "last"}})
    assert ids(answer) == ["B-3"]
    context = recommend(client, history=["desk-1"], context={"item_id": "A-0"}, filter={"brand": {"same_as": "last"}})
    assert ids(context) == ["A-1"]
    plain = recommend(
        client, history=[{"attributes": {"title": "walnut", "brand": "A"}}], filter={"brand": {"same_as": "last"}}
    )
    assert sorted(ids(plain)) == ["A-0", "A-1"]
    without = recommend(client, history=["desk-1"], k=2, filter={"rank": {"same_as": "last"}})
    assert len(without["items"]) == 2
    assert without["degraded"] == [
        "filter: the newest item of the history has no 'rank', so its condition was left out"
    ]


def test_the_cart_comes_before_the_item_that_is_looked_at(client: TestClient) -> None:
    both = recommend(client, history=["lamp-1"], context={"cart": ["desk-1"], "item_id": "mug-1"}, k=3)
    assert ids(both) == ids(recommend(client, history=["lamp-1", "desk-1", "mug-1"], k=3))
    alone = recommend(client, context={"item_id": "desk-1"}, k=3)
    assert ids(alone) == ids(recommend(client, history=["desk-1"], k=3))


@pytest.mark.slow
def test_a_placement_is_followed_at_once_and_a_request_overrides_it(
    client: TestClient, make_client: Callable[..., TestClient]
) -> None:
    shelf(client, "AABB")
    stored = put(client, "home", k=2, filter={"brand": "B"}, boost=[{"filter": {"rank": 3}, "add": 1.0}])
    assert stored["rules"] == {
        "k": 2,
        "filter": {"brand": "B"},
        "boost": [{"filter": {"rank": 3}, "add": 1.0}],
    }
    assert client.get("/placements/home").json() == stored
    assert ids(recommend(client, history=WALNUT, placement="home")) == ["B-3", "B-2"]
    assert ids(recommend(client, history=WALNUT, placement="home", filter={"rank": 0})) == ["A-0"]
    assert ids(recommend(client, history=WALNUT, placement="home", k=1)) == ["B-3"]
    similar = client.post("/similar", json={"attributes": {"title": "walnut"}, "placement": "home"}).json()
    assert ids(similar) == ["B-3", "B-2"]
    again = put(client, "home", k=1, filter={"rank": 2})
    assert again["version"] == stored["version"] + 1
    assert ids(recommend(client, history=WALNUT, placement="home")) == ["B-2"]
    other = make_client()  # another worker on the same home
    assert ids(recommend(other, history=WALNUT, placement="home")) == ["B-2"]
    assert [one["name"] for one in other.get("/placements").json()["placements"]] == ["home"]
    assert client.delete("/placements/home").status_code == 200
    response = other.post("/recommend", json={"history": [], "placement": "home"})
    assert (response.status_code, response.json()["type"]) == (404, "urn:problem-type:seqrec:placement-not-found")
    assert client.delete("/placements/home").status_code == 404


def test_popular_answers_follow_rules_too(client: TestClient) -> None:
    answer = recommend(client, history=[], k=3, boost=[{"filter": {"title": "x"}, "add": 1}], exclude=["mug-1"])
    assert answer["source"] == "fallback:popular"
    assert ids(answer)[:2] == ["desk-1", "lamp-1"]
    pinned = recommend(client, history=[], k=2, pin=[{"position": 1, "item_ids": ["lamp-1"]}])
    assert ids(pinned) == ["lamp-1", "mug-1"]


def test_pages(client: TestClient) -> None:
    everything = ids(recommend(client, history=["desk-1"], k=100))
    page = recommend(client, history=["desk-1"], k=3, paginate=True)
    seen = ids(page)
    while "next" in page:
        page = recommend(client, history=["desk-1"], k=3, cursor=page["next"])
        seen += ids(page)
    assert seen == everything


@pytest.mark.parametrize("cursor", ["x", "eJw", "AAAA", make_cursor(["a"])[:-3], "é"])
def test_what_is_no_cursor_is_refused(client: TestClient, cursor: str) -> None:
    response = client.post("/recommend", json={"history": [], "cursor": cursor})
    assert response.status_code == 422
    assert response.json()["field"] == "cursor"


def test_a_cursor_is_bounded() -> None:
    assert read_cursor(make_cursor(["ä", "b"]), "cursor") == ["ä", "b"]
    with pytest.raises(InputError, match="at most 10000 items on all pages, not 10001"):
        read_cursor(make_cursor([str(n) for n in range(MAX_SHOWN + 1)]), "cursor")
    with pytest.raises(InputError, match="not a cursor"):
        read_cursor(make_cursor(["x" * 200] * 40_000), "cursor")


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"boost": [{"filter": {"a": {"over": 1}}}]}, "boost[0].filter.a.over"),
        ({"pin": [{"position": 1}]}, "pin[0]"),
        ({"pin": [{"position": 1, "every": 2, "item_ids": ["a"]}]}, "pin[0]"),
        ({"pin": [{"position": 0, "item_ids": ["a"]}]}, "pin[0].position"),
        ({"pin": [{"position": 1, "item_ids": [""]}]}, "pin[0].item_ids[0]"),
        ({"at_most": {"brand": 0}}, "at_most.brand"),
        ({"diversity": 1}, "diversity"),
        ({"fallback": ["best"]}, "fallback[0]"),
        ({"explore": {"share": 2}}, "explore.share"),
        ({"explore": {"share": 0.5, "random": 1}}, "explore.random"),
        ({"explore": {"share": 0.5, "random": 5, "below_events": 5}}, "explore"),
        ({"sort": "price"}, "sort"),
        ({"k": 1001}, "k"),
        ({"candidates": ["x"] * 10_001}, "candidates"),
        (
            {
                "experiment": {
                    "name": "e",
                    "variants": [{"name": "a"}, {"name": "b", "rules": {"exclude": ["x"] * 10_001}}],
                }
            },
            "experiment.variants[1].rules.exclude",
        ),
    ],
)
def test_wrong_rules_are_named(client: TestClient, rules: dict[str, Any], field: str) -> None:
    response = client.put("/placements/home", json=rules)
    assert response.status_code == 422
    assert response.json()["field"] == field
    assert client.get("/placements").json() == {"placements": []}
    assert client.put("/placements/Home Page", json={}).status_code == 422


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"boost": [{"filter": {"brand": "\ud800"}, "multiply": 1.2}]}, "boost[0].filter.brand"),
        ({"filter": {"not": [{"brand": ["ok", "\udc00"]}]}}, "filter.not[0].brand[1]"),
        ({"at_most": {"\ud800": 2}}, "at_most"),
    ],
)
def test_text_that_no_store_keeps_is_refused(client: TestClient, rules: dict[str, Any], field: str) -> None:
    reply = client.put("/placements/home", content=json.dumps(rules), headers=JSON)
    assert (reply.status_code, reply.json()["field"]) == (422, field)
    assert "lone surrogate" in reply.json()["detail"]
    assert client.get("/placements").status_code == 200


@pytest.mark.parametrize(
    "rules", [{"filter": {"\ud800": "x"}}, {"filter": {"title": "\ud800"}}, {"fields": ["\ud800"]}]
)
def test_what_no_item_can_have_is_answered(client: TestClient, rules: dict[str, Any]) -> None:
    reply = client.post("/recommend", content=json.dumps({"history": ["desk-1"], **rules}), headers=JSON)
    assert reply.status_code == 200, reply.text
    reply.json()


def test_the_command(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    file = tmp_path / "rules.json"
    file.write_text('{"k": 3, "filter": {"brand": "Käfer"}}', encoding="utf-8")
    placements(["list"])
    placements(["set", "home", str(file)])
    placements(["show", "home"])
    out = capsys.readouterr().out
    assert out.startswith("no placements\nstored as version 10\n")
    assert json.loads(out.partition("version 10\n")[2]) == {"k": 3, "filter": {"brand": "Käfer"}}
    with closing(open_catalogue(home)) as catalogue:
        assert catalogue.placements()["home"].seq == 10
    placements(["delete", "home"])
    with pytest.raises(PlacementNotFound):
        placements(["show", "home"])
    for wrong, message in (
        ('{"k": "3"}', 'rules.json: k: expected a whole number, not "3"'),
        (
            '{"pin": [{"positon": 1, "item_ids": ["a"]}]}',
            "rules.json: pin[0].positon: unknown field, did you mean 'position'?",
        ),
        ('{"k": 1001}', "k: from 1 to 1000, not 1001"),
        ("{", "rules.json: not JSON: "),
    ):
        file.write_text(wrong)
        with pytest.raises(InputError, match=re.escape(message)):
            placements(["set", "home", str(file)])
    with pytest.raises(InputError, match="NAME: small letters"):
        placements(["set", "Home", str(file)])
