"""docs/http-api.md and docs/quick-start.md: every call is answered as the pages say, and no endpoint is missing."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from seqrec import cli
from service.app import create_app
from service.settings import Settings
from tests.e2e.ready import until_served


def calls(page: str) -> list[tuple[str, str, Any]]:
    """Method, path with query, and JSON body of each curl command in the page's shell blocks."""
    words = [word for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for word in shlex.split(block, True)]
    starts = [number for number, word in enumerate(words) if word == "curl"]
    return [_call(words[begin:end]) for begin, end in pairwise([*starts, len(words)])]


def _call(words: list[str]) -> tuple[str, str, Any]:
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
    [address] = [word for word in words if word.startswith("localhost:8000/")]
    return method, address.removeprefix("localhost:8000"), body


@pytest.fixture(scope="module")
def client(
    online_retail: Path, tmp_path_factory: pytest.TempPathFactory, bag_of_words_checkpoint: Path
) -> Iterator[TestClient]:
    """A service with the demo's items."""
    home = tmp_path_factory.mktemp("http_api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_HOME", str(home))
        items = str(online_retail / "items.jsonl.gz")
        cli.run("index", ["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", items, "--publish"])
    with TestClient(create_app(Settings(home=home, follow_seconds=0.05, deadline=60))) as client:
        until_served(client, None)
        yield client


@pytest.mark.parametrize("name", ["README.md", "docs/quick-start.md", "docs/http-api.md"])
def test_every_call_is_answered(client: TestClient, root: Path, name: str) -> None:
    found = calls((root / name).read_text(encoding="utf-8"))
    assert found
    for method, path, body in found:
        reply = client.request(method, path, json=body)
        assert reply.status_code in (200, 202), f"{name}: {method} {path}: {reply.text}"
        if path == "/recommend":
            answer = reply.json()
            assert (len(answer["items"]), answer["source"], answer["unknown"]) == (body["k"], "model", [])


def test_every_endpoint_and_field_is_in_the_page(client: TestClient, root: Path) -> None:
    page = (root / "docs" / "http-api.md").read_text(encoding="utf-8")
    schema = client.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}" in page, f"{method.upper()} {path}"
    for name in schema["components"]["schemas"]["RecommendBody"]["properties"]:
        assert f"| `{name}` |" in page, name
