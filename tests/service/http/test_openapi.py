"""The OpenAPI document: complete for each operation, and its examples are true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from service.http.examples import EXAMPLES, Example
from service.keys.scopes import FREE, accepted_scopes, first_segment

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture
def document(shared_client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = shared_client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            yield method, path, operation


@pytest.mark.slow
def test_each_operation_has_an_id_a_description_a_tag_and_an_example(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids) >= 15
    assert set(ids) == set(EXAMPLES)
    tags = {tag["name"] for tag in document["tags"]}
    for _, path, operation in operations(document):
        assert re.fullmatch(r"[a-z_]+", operation["operationId"])
        assert len(operation["description"]) > 20, path
        assert set(operation["tags"]) <= tags
        [success] = [response for status, response in operation["responses"].items() if status.startswith("2")]
        assert all("example" in content for content in success["content"].values())
        if "requestBody" in operation:
            assert "example" in operation["requestBody"]["content"]["application/json"]
        assert all("example" in parameter for parameter in operation.get("parameters", ())), path


def test_each_operation_names_the_scopes_that_the_middleware_checks(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"].keys() == {"bearer", "apiKey"}
    for method, path, operation in operations(document):
        accepted = accepted_scopes(method.upper(), path)
        if first_segment(path) in FREE:
            assert operation["security"] == []
            assert accepted is None
        else:
            assert operation["security"] == [{"bearer": []}, {"apiKey": []}]
            assert operation["x-scopes"] == sorted(accepted or ())
            assert {"401", "403", "429"} <= operation["responses"].keys()


@pytest.fixture(scope="module")
def routes() -> dict[str, APIRoute]:
    from service.http.routes import browse, items, keys, operation, placements, recommend, reports, users

    modules = (recommend, items, placements, users, reports, browse, keys, operation)
    found = [route for module in modules for route in module.router.routes]
    return {route.name: route for route in found if isinstance(route, APIRoute) and route.include_in_schema}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_of_answers_have_the_form_of_answers(routes: dict[str, APIRoute], name: str) -> None:
    route, example = routes[name], EXAMPLES[name]
    if name == "metrics":
        return
    read = TypeAdapter(route.response_model).validate_python(example.answer)
    written = read.model_dump(exclude_unset=True)
    assert written == example.answer, "no field that an answer has not"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_are_accepted(client: TestClient, document: dict[str, Any], name: str) -> None:
    example = EXAMPLES[name]
    [(method, path)] = [(m, p) for m, p, operation in operations(document) if operation["operationId"] == name]
    response = client.request(method, _filled(path, example), params=_query(path, example), json=example.body)
    absent = ("reindex_progress", "publish_snapshot", "snapshot_changes", "get_placement", "delete_placement")
    expected = {**dict.fromkeys(absent, 404), "create_key": 422, "revoke_key": 422}  # there are no keys
    assert response.status_code in ((expected[name],) if name in expected else (200, 202)), response.text


def _filled(path: str, example: Example) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: str(example.parameters[match[1]]), path)


def _query(path: str, example: Example) -> dict[str, Any]:
    return {name: value for name, value in example.parameters.items() if f"{{{name}}}" not in path}


@pytest.mark.parametrize(
    ("name", "body", "valid"),
    [
        ("PinBody", {"position": 1, "item_ids": ["a"]}, True),
        ("PinBody", {"every": 5, "position": None, "filter": {"brand": "Acme"}}, True),
        ("PinBody", {"position": 1, "every": 5, "item_ids": ["a"]}, False),
        ("PinBody", {"item_ids": ["a"]}, False),
        ("PinBody", {"position": 1}, False),
        ("PostedEvent", {"user_id": "u", "item_id": "i", "type": "view"}, True),
        ("PostedEvent", {"user_id": "u", "item_id": "i", "type": "clicked", "recommendation_id": "A"}, True),
        ("PostedEvent", {"user_id": "u", "item_id": "i", "type": "view", "recommendation_id": "A"}, False),
        ("PostedEvent", {"user_id": "u", "item_id": "i", "recommendation_id": "A"}, False),
        ("NewKey", {"name": "shop", "scopes": ["recommend"]}, True),
        ("NewKey", {"name": "shop", "scopes": ["admin"]}, False),
    ],
)
def test_what_fields_need_together_is_in_the_document(
    document: dict[str, Any], name: str, body: dict[str, Any], valid: bool
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == valid
