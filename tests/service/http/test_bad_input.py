"""Bad input over HTTP: for each kind the status, the field and the message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from seqrec.text.item_text import Recipe
from service.engine.plan import no_text
from service.http import schemas
from service.http.event_schemas import EventsBody
from service.http.problems import of_validation

OK = {"title": "Oak chair"}


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    """What is refused changes nothing, so one service will do."""
    return shared_client


def refused(client: TestClient, path: str, body: Any, status: int = 422) -> dict[str, Any]:
    """The problem that a body gets."""
    # Not `json=`: it would refuse NaN itself, and escape what is to arrive as it is.
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:problem-type:seqrec:")
    assert problem["title"]
    assert problem["advice"]
    return problem


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "history", "history: give a history, or a user_id whose history is stored, or both"),
        ({"history": None}, "history", "history: give a history, or a user_id whose history is stored, or both"),
        ({"user_id": ""}, "user_id", "user_id: a user id has 1 to 256 bytes"),
        ({"user_id": 7}, "user_id", "user_id: expected a string, not 7"),
        ({"history": "desk-1"}, "history", 'history: expected a list, not "desk-1"'),
        ({"history": [None]}, "history[0]", 'history[0]: an entry is an item id or {"attributes": {...}}'),
        ({"history": ["desk-1", 7]}, "history[1]", 'history[1]: an entry is an item id or {"attributes": {...}}'),
        ({"history": [{"title": "Oak"}]}, "history[0].attributes", "history[0].attributes: this field is required"),
        ({"history": [{"attributes": None}]}, "history[0].attributes", "expected an object, not null"),
        ({"history": [{"attributes": {"x": [1]}}]}, "history[0].attributes.x", "a list has only strings"),
        ({"history": [{"attributes": {"x": True}}]}, "history[0].attributes.x", "not true or false"),
        ({"history": [""]}, "history[0]", "1 to 256 bytes of UTF-8, this one has 0"),
        ({"history": ["a" * 257]}, "history[0]", "this one has 257"),
        ({"history": ["a\u0000b"]}, "history[0]", "no control characters, this one has U+0000"),
        ({"history": ["a\ud800"]}, "history[0]", "lone surrogate"),
        ({"history": [], "placement": "a\ud800"}, "placement", "placement: not valid Unicode (a lone surrogate)"),
        ({"history": ["desk-1"] * 1001}, "history", "at most 1000 entries, not 1001; send the newest"),
        ({"history": [], "k": 0}, "k", "k: expected at least 1, not 0"),
        ({"history": [], "k": 1001}, "k", "k: from 1 to 1000, not 1001"),
        ({"history": [], "k": "10"}, "k", 'k: expected a whole number, not "10"'),
        ({"history": [], "k": 1.5}, "k", "k: expected a whole number"),
        ({"history": [], "k": True}, "k", "k: expected a whole number"),
        ({"history": [], "k": float("nan")}, "k", "k: expected a whole number"),
        ({"history": [], "exclude_seen": "yes"}, "exclude_seen", "expected true or false"),
        ({"history": [], "exclude": [3]}, "exclude[0]", "expected a string, not 3"),
        ({"history": [], "exclude": ["x"] * 10_001}, "exclude", "at most 10000 ids, not 10001"),
        ({"history": [], "candidates": ["\u0007"]}, "candidates[0]", "this one has U+0007"),
        ({"history": [], "min_seq": -1}, "min_seq", "at least 0"),
        ({"history": [], "count": 5}, "count", "count: unknown field; GET /docs lists the fields"),
        ({"histroy": ["desk-1"]}, "histroy", "histroy: unknown field, did you mean 'history'?"),
        ({"history": [], "context": {"card": []}}, "context.card", "unknown field, did you mean 'cart'?"),
        ({"history": [{"attributes": OK, "item_id": "x"}]}, "history[0].item_id", "unknown field"),
        ([], None, "an object"),
    ],
)
def test_recommend_refuses(client: TestClient, body: Any, field: str | None, message: str) -> None:
    problem = refused(client, "/recommend", body)
    assert problem.get("field") == field
    assert message in problem["detail"]


@pytest.mark.parametrize(
    ("items", "field", "message"),
    [
        ([], "items", "at least 1 entry"),
        ([{"item_id": "a", "attributes": OK}] * 1001, "items", "at most 1000 items in one call, not 1001"),
        ([{"attributes": OK}], "items[0].item_id", "this field is required"),
        ([{"item_id": 7, "attributes": OK}], "items[0].item_id", "a string, not 7"),
        ([{"item_id": "a\nb", "attributes": OK}], "items[0].item_id", "this one has U+000A"),
        ([{"item_id": "a", "attributes": [1]}], "items[0].attributes", "an object"),
        ([{"item_id": "a", "attributes": OK, "title": "b"}], "items[0].title", "unknown field"),
        ([{"item_id": "a", "attributes": OK, "avail": 1}], "items[0].avail", "did you mean 'available'?"),
        ([{"item_id": "a", "attributes": OK, "available": None}], "items[0].available", "true or false, not null"),
        ([{"item_id": "a", "attributes": {"price": float("nan")}}], "items[0].attributes.price", "nan is not a number"),
        ([{"item_id": "a", "attributes": {"n": float("inf")}}], "items[0].attributes.n", "inf is not a number"),
        ([{"item_id": "a", "attributes": {"x": {"y": 1}}}], "items[0].attributes.x", "not an object"),
        ([{"item_id": "a", "attributes": {"x": "y" * 8192}}], "items[0].attributes.x", "at most 8192 bytes"),
        ([{"item_id": "a", "attributes": {str(n): "x" for n in range(65)}}], "items[0].attributes", "at most 64"),
        ([{"item_id": "a", "attributes": {"": "x"}}], "items[0].attributes", "a string that is not empty"),
        ([{"item_id": "a", "attributes": {"t": "\udfff"}}], "items[0].attributes", "lone surrogate"),
        ([{"item_id": "a", "attributes": {}}], "items[0].attributes", "the model finds no text in it"),
        ([{"item_id": "a", "attributes": {"title": None}}], "items[0].attributes", "the model finds no text in it"),
        (
            [{"item_id": "a", "attributes": {"title": " \u200b!"}}],
            "items[0].attributes",
            "the model finds no text in it",
        ),
        (
            [
                {"item_id": "a", "attributes": OK},
                {"item_id": "b", "attributes": OK},
                {"item_id": "a", "attributes": OK},
            ],
            "items[2].item_id",
            "'a' occurs twice in this request; send it once",
        ),
    ],
)
def test_items_refuses_the_whole_call(client: TestClient, items: Any, field: str, message: str) -> None:
    before = client.get("/readyz").json()["seq"]
    problem = refused(client, "/items", {"items": items})
    assert problem["field"] == field
    assert message in problem["detail"]
    assert client.get("/readyz").json()["seq"] == before


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, None, "give either item_id or attributes, not both"),
        ({"item_id": "desk-1", "attributes": OK}, None, "give either item_id or attributes"),
        ({"item_id": "\t"}, "item_id", "this one has U+0009"),
        ({"attributes": {"title": ""}}, "attributes", "the model finds no text in it"),
        ({"attributes": {"a": float("-inf")}}, "attributes.a", "-inf is not a number"),
        ({"item_id": "desk-1", "k": 0}, "k", "at least 1"),
    ],
)
def test_similar_refuses(client: TestClient, body: Any, field: str | None, message: str) -> None:
    problem = refused(client, "/similar", body)
    assert problem.get("field") == field
    assert message in problem["detail"]


def test_similar_to_an_unknown_item_is_not_found(client: TestClient) -> None:
    assert refused(client, "/similar", {"item_id": "nix"}, 404)["detail"] == "no item 'nix' in the catalogue"


def test_a_batch_names_the_request(client: TestClient) -> None:
    good = {"history": ["desk-1"]}
    problem = refused(client, "/recommend/batch", {"requests": [good, {"history": [{"attributes": {"a": [1]}}]}]})
    assert problem["field"] == "requests[1].history[0].attributes.a"
    problem = refused(client, "/recommend/batch", {"requests": [good, {"history": [], "k": 5000}]})
    assert problem["field"] == "requests[1].k"
    assert refused(client, "/recommend/batch", {"requests": [good] * 65})["detail"].endswith(
        "at most 64 in one call, not 65"
    )
    assert refused(client, "/recommend/batch", {"requests": []})["field"] == "requests"


def test_several_errors_are_all_reported(client: TestClient) -> None:
    problem = refused(client, "/recommend", {"history": 3, "k": 0, "kk": 1})
    assert sorted(error["field"] for error in problem["errors"]) == ["history", "k", "kk"]


@pytest.mark.parametrize("body", [b"", b"{", b"{'history': []}", b'{"history": []} x', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json(client: TestClient, body: bytes) -> None:
    status = 422 if not body else 400
    problem = refused(client, "/recommend", body, status)
    assert "JSON" in problem["detail"]


def test_a_number_of_many_digits_is_refused(client: TestClient) -> None:
    refused(client, "/recommend", b'{"history": [], "k": ' + b"9" * 5000 + b"}", 400)
    refused(client, "/recommend", b'{"history": [], "k": ' + b"9" * 50 + b"}", 422)


def test_a_body_that_is_not_sent_as_json(client: TestClient) -> None:
    response = client.post("/recommend", content=b'{"history": []}', headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert response.json()["advice"] == "Send the header Content-Type: application/json."


def test_a_body_over_the_limit(client: TestClient) -> None:
    body = json.dumps({"history": [], "exclude": ["x" * 250] * 17_000}).encode()
    assert len(body) > 4 * 1024 * 1024
    problem = refused(client, "/recommend", body, 413)
    assert "at most 4194304 bytes" in problem["detail"]

    def in_parts() -> Any:  # without a Content-Length: counted as it comes
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    response = client.post("/recommend", content=in_parts(), headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_paths_and_methods_that_are_not_there(client: TestClient) -> None:
    missing = client.get("/nothing")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["detail"] == "There is no GET /nothing."
    wrong = client.get("/recommend")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["title"] == "Method not allowed"


def test_an_item_that_is_not_there(client: TestClient) -> None:
    for response in (client.get("/items/nix"), client.delete("/items/nix")):
        assert response.status_code == 404
        assert response.json()["detail"] == "no item 'nix' in the catalogue"
    assert client.get("/items/a%00b").json()["field"] == "item_id"
    assert client.get(f"/items/{'x' * 257}").status_code == 422


@pytest.mark.parametrize("query", ["q=a&limit=0", "q=a&limit=101", "q=a&limit=x"])
def test_find_refuses(client: TestClient, query: str) -> None:
    response = client.get(f"/items?{query}")
    assert response.status_code == 422
    assert response.json()["field"] == "limit"


def test_text_of_every_kind_is_taken_as_it_is(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    attributes = {"title": "🫖 קומקום \u202eכחול\u0007 e\u0301", "tags": ["ערב", "👩‍👩‍👧"], "price": 3.5, "none": None}
    item_id = "קומקום/🫖 50%?#"
    answer = client.post("/items", json={"items": [{"item_id": item_id, "attributes": attributes}]})
    assert answer.status_code == 200, answer.text
    found = client.post("/recommend", json={"history": [{"attributes": {"title": "קומקום כחול"}}], "k": 1}).json()
    assert found["items"][0]["item_id"] == item_id
    del attributes["none"]  # null is as good as absent
    assert found["items"][0]["attributes"] == attributes


def test_an_item_without_text_gets_what_the_model_reads() -> None:
    item_text = SimpleNamespace(recipe=Recipe(("title", "brand")))
    checkpoint = SimpleNamespace(item_model=SimpleNamespace(item_text=item_text))
    towers: Any = SimpleNamespace(checkpoint=checkpoint, encoder=SimpleNamespace(cold_items=True))
    assert "it reads title, brand: give at least one of them" in no_text(towers)


@pytest.mark.parametrize("model", [schemas.RecommendBody, schemas.SimilarBody, schemas.ItemsBody, EventsBody])
def test_no_message_is_in_the_words_of_pydantic(model: type[schemas.Body]) -> None:
    odd = [None, True, "x", "x" * 2000, -1, 1.5, 10**30, [], ["a"] * 65, [1], [[]], {}, {"a": 1}, [None], float("nan")]
    for name, value in [(name, value) for name in model.model_fields for value in odd]:
        with suppress(ValidationError):
            model.model_validate({name: value})
            continue
        with pytest.raises(ValidationError) as caught:
            model.model_validate({name: value})
        errors = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
        text = bytes(of_validation(errors).body).decode()
        assert not re.search("should|Input|validation|valid string|parse", text), text


@pytest.mark.parametrize("limit", ["x", "1.5", "0", "101", "9" * 5000])
def test_no_message_about_a_query_is_in_the_words_of_pydantic(shared_client: TestClient, limit: str) -> None:
    answer = shared_client.get(f"/items?q=x&limit={limit}")
    assert answer.status_code == 422
    assert not re.search("should|Input|validation|valid string|parse", answer.json()["detail"]), answer.text


def test_an_unknown_field_of_a_stored_rule_gets_what_was_meant(client: TestClient) -> None:
    variant = {"name": "a", "rules": {"diversty": 0.5, "boost": [{"filter": {}, "multiplier": 2}]}}
    answer = client.put("/placements/home", json={"experiment": {"name": "e", "variants": [variant]}})
    assert [error["detail"] for error in answer.json()["errors"]] == [
        "unknown field, did you mean 'multiply'?",
        "unknown field, did you mean 'diversity'?",
    ]
