"""Valid requests that skip FastAPI, and what it answers to all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastapi.routing
import pytest
from starlette.testclient import TestClient

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/recommend", {"history": ["desk-1", {"attributes": {"title": "Brass lamp"}}], "k": 3, "explain": True}),
    ("/recommend/batch", {"requests": [{"history": ["desk-1"]}, {"history": []}]}),
    ("/similar", {"item_id": "desk-1", "fields": ["title"]}),
    ("/popular", {"exclude": ["desk-1"]}),
]


def post(client: TestClient, path: str, body: Any, media_type: str = "application/json") -> tuple[int, Any]:
    response = client.post(path, json=body, headers={"content-type": media_type})
    return response.status_code, _without_ids(response.json())


def _without_ids(value: Any) -> Any:
    """Ids of recommendations have random bytes."""
    if isinstance(value, list):
        return [_without_ids(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_ids(one) for name, one in value.items() if name != "recommendation_id"}
    return value


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_valid_request_skips_fastapi_and_gets_the_same_answer(
    make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    client = make_client()
    # Only this media type of the two goes to the direct route.
    by_fastapi = post(client, path, body, "application/vnd.shop+json")
    assert by_fastapi[0] == 200

    async def unused(**arguments: Any) -> None:
        raise AssertionError("FastAPI answers")

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", unused)
    assert post(client, path, body) == by_fastapi
    monkeypatch.undo()
    counted = [line for line in client.get("/metrics").text.splitlines() if f'route="{path}",status="200"' in line]
    assert [line.split()[-1] for line in counted if line.startswith("seqrec_requests_total")] == ["2.0"]


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path, _ in REQUESTS])
@pytest.mark.parametrize("body", [{"k": "3"}, {"history": [1]}, {"unheard_of": 1}, [], None])
def test_a_request_that_is_not_valid_gets_the_answer_of_fastapi(
    shared_client: TestClient, path: str, body: object
) -> None:
    status, answer = post(shared_client, path, body)
    assert (status, answer) == post(shared_client, path, body, "application/vnd.shop+json")
    assert status == 422


@pytest.mark.slow
def test_errors_of_the_endpoint_and_other_methods_are_answered_as_everywhere(shared_client: TestClient) -> None:
    status, answer = post(shared_client, "/similar", {"item_id": "nothing"})
    assert (status, answer["title"]) == (404, "No such item")
    response = shared_client.get("/recommend")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
