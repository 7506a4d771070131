"""A second model and a snapshot of it, for services that answer from two."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from index.build.reindex import Request, make_snapshot
from seqrec.checkpoint import save_checkpoint
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig

SECONDS = 120


def second_snapshot(home: Path, dim: int = 8, publish: bool = False, location: str | None = None) -> str:
    """Of the catalogue as it is, by a model with vectors of this length -> its id. `location`: of the catalogue."""
    path = home.parent / f"checkpoint-{dim}"
    if not path.exists():
        save_checkpoint(path, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=dim)))
    request = Request(checkpoint=path, publish=publish, force=True)
    return make_snapshot(home, request, location=location or home).manifest.snapshot_id


def split(published: str, other: str, **more: Any) -> dict[str, Any]:
    """Rules of a placement with a variant of each snapshot."""
    variants = [{"name": "a", "snapshot": published}, {"name": "b", "snapshot": other}]
    return {"experiment": {"name": "models", "variants": variants}, **more}


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def place(client: TestClient, name: str, rules: dict[str, Any]) -> None:
    response = client.put(f"/placements/{name}", json=rules)
    assert response.status_code == 200, response.text


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/recommend", json={"k": 20, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def answers_from(client: TestClient, snapshot: str) -> bool:
    response = client.post("/recommend", json={"history": ["desk-1"], "snapshot": snapshot})
    assert response.status_code in (200, 422), response.text
    return response.status_code == 200


def facts(answer: dict[str, Any]) -> tuple[Any, ...]:
    """What a state determines of an answer."""
    items = [(item["item_id"], item["score"]) for item in answer["items"]]
    return answer["snapshot"], answer["model"], items
