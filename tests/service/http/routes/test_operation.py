"""Running it: liveness, readiness, metrics, the log, overload, deadlines, publishing and reindexing under load."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from index.build.cli import index
from index.catalogue.base import CatalogueItem
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import make_item
from seqrec.encoder import Encoder
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from service.engine import execution as queries
from service.http import openapi

pytestmark = pytest.mark.slow

MakeClient = Callable[..., TestClient]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition that comes true by itself."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(name + " ")]
    return float(value)


def test_the_openapi_document_is_the_one_checked_in(root: Path) -> None:
    assert (root / "docs" / "openapi.json").read_text(encoding="utf-8") == openapi.document(), (
        "the API has changed: run `python -m service.http.openapi > docs/openapi.json`"
    )


def test_every_reference_of_the_openapi_document_leads_somewhere() -> None:
    document = openapi.document()
    defined = json.loads(document)["components"]["schemas"]
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', document))
    assert "Problem" in referred
    assert referred <= defined.keys()


def test_docs_and_page_are_served(client: TestClient) -> None:
    docs = client.get("/docs")
    assert docs.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
    assert assets
    for asset in assets:  # all from here: the page works without a network
        assert asset.startswith("/"), asset
        assert client.get(asset).status_code == 200, asset
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/static/app.js").status_code == 200
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/recommend", "/items/{item_id}"}


def test_alive_at_once_and_ready_later(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()
    monkeypatch.setattr("service.live.loader.load_model", _held(may_load))
    client = make_client(wait=False)
    assert client.get("/healthz").json() == {"status": "alive", "detail": None}
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["detail"] == "the snapshot is being loaded"
    for response in (
        client.post("/recommend", json={"history": []}),
        client.post("/items", json={"items": [{"item_id": "a", "attributes": {"title": "b"}}]}),
        client.delete("/items/desk-1"),
    ):
        assert response.status_code == 503
        assert response.json()["detail"] == "nothing can be answered yet: the snapshot is being loaded"
        assert "/readyz" in response.json()["advice"]
    assert client.get("/items/desk-1").json()["searchable"] is False
    assert metric(client, "seqrec_ready") == 0
    may_load.set()
    until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200
    assert metric(client, "seqrec_ready") == 1


def _held(may_load: threading.Event) -> Callable[..., Encoder]:
    from seqrec.encoder import load_model

    def held(*arguments: Any, **options: Any) -> Encoder:
        assert may_load.wait(20)
        return load_model(*arguments, **options)

    return held


def test_a_snapshot_that_cannot_be_loaded_is_reported(make_client: MakeClient, home: Path) -> None:
    catalogue = SqliteCatalogue(home / "catalogue.sqlite3")
    catalogue.publish("no-such-snapshot")
    client = make_client(wait=False)
    until(lambda: "cannot be loaded" in client.get("/readyz").json()["detail"])
    assert client.get("/readyz").status_code == 503
    assert "no-such-snapshot" in client.get("/readyz").json()["detail"]
    catalogue.publish(catalogue.publications()[-1].snapshot_id or "")  # what `seqrec index rollback` does
    until(lambda: client.get("/readyz").status_code == 200)
    catalogue.publish("nor-this-one")
    until(lambda: "nor-this-one" in (client.get("/readyz").json()["detail"] or ""))
    assert client.get("/readyz").status_code == 200, "what was loaded before goes on answering"
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200
    catalogue.close()


def test_metrics_say_what_happens(client: TestClient) -> None:
    client.post("/recommend", json={"history": ["desk-1"]})
    client.post("/recommend", json={"history": ["desk-1"], "k": 0})
    client.post("/items", json={"items": [{"item_id": "a", "attributes": {"title": "b"}}]})
    client.get("/items/pot%2F1")
    text = client.get("/metrics").text
    assert 'seqrec_requests_total{method="POST",route="/recommend",status="200"} 1.0' in text
    assert 'seqrec_requests_total{method="POST",route="/recommend",status="422"} 1.0' in text
    assert 'route="/items/{item_id:path}",status="200"' in text
    assert "pot" not in text, "an item id is no label"
    for name in ("request_seconds", "stage_seconds", "batch_units"):
        assert f"seqrec_{name}_bucket" in text
    assert metric(client, "seqrec_delta_rows") == 1
    assert metric(client, "seqrec_seq_applied") == metric(client, "seqrec_seq_head")
    assert metric(client, "seqrec_queue_tokens") == 0
    assert f'seqrec_snapshot{{id="{client.get("/readyz").json()["snapshot"]}"}} 1.0' in text


def test_a_line_in_the_log_for_each_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.access")
    response = client.post("/recommend", json={"history": ["desk-1"]}, headers={"x-request-id": "my-request.1"})
    assert response.headers["x-request-id"] == "my-request.1"
    [line] = [record.getMessage() for record in caplog.records if record.name == "service.access"]
    answer = response.json()
    assert line.startswith("my-request.1 POST /recommend 200 ")
    assert f"snapshot={answer['snapshot']} seq={answer['seq']} batch=1" in line
    for stage in ("prepare", "queue", "encode", "search", "answer"):
        assert f" {stage}=" in line
    other = client.get("/healthz", headers={"x-request-id": "no spaces\tplease"})
    assert len(other.headers["x-request-id"]) == 16


def test_an_unexpected_error_gives_nothing_away(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(queries, "search", broken)
    response = client.post("/recommend", json={"history": ["desk-1"]})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    assert "secret" not in response.text
    monkeypatch.undo()
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200


def test_too_late_is_504_and_too_much_is_429(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client(deadline=1, queue_tokens=2)
    opened, entered = threading.Event(), threading.Event()
    search = queries.search

    def held(*arguments: Any) -> Any:
        entered.set()
        assert opened.wait(20)
        return search(*arguments)

    monkeypatch.setattr(queries, "search", held)
    responses: dict[str, Any] = {}

    def ask(name: str) -> None:
        responses[name] = client.post("/recommend", json={"history": ["desk-1"]})

    computing = threading.Thread(target=ask, args=("computing",))
    computing.start()
    assert entered.wait(10)
    waiting = threading.Thread(target=ask, args=("waiting",))
    waiting.start()
    until(lambda: metric(client, "seqrec_queue_tokens") > 0)
    refused = client.post("/recommend", json={"history": ["desk-1"]})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "at most 2 may" in refused.json()["detail"]
    for thread in (computing, waiting):
        thread.join()
    for response in responses.values():
        assert response.status_code == 504
        assert response.json()["detail"] == "no answer within 1 s"
    assert metric(client, "seqrec_queue_tokens") == 0, "what is too late leaves the queue"
    opened.set()
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200


def test_a_dead_compute_thread_is_reported_by_healthz(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(*arguments: Any) -> Any:
        raise SystemExit("gone")

    monkeypatch.setattr(queries, "search", deadly)
    assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 503
    until(lambda: client.get("/healthz").status_code == 503)
    assert "a compute thread died" in client.get("/healthz").json()["detail"]
    assert client.get("/readyz").status_code == 503


def test_reindex_under_load(client: TestClient, home: Path) -> None:
    """Everything that was put before, during and after is found; no request fails because of the swap."""
    before = client.get("/readyz").json()["snapshot"]
    client.post("/items", json={"items": [{"item_id": "early", "attributes": {"title": "Early bird"}}]})
    response = client.post("/reindex")
    assert response.status_code == 202, response.text
    job_id = response.json()["id"]
    assert client.post("/reindex").json()["id"] == job_id, "one at a time"
    number = 0
    while client.get("/readyz").json()["snapshot"] == before:
        job = client.get(f"/reindex/{job_id}").json()
        assert job["state"] != "failed", job
        number += 1
        item = {"item_id": f"during-{number}", "attributes": {"title": f"During {number}"}}
        assert client.post("/items", json={"items": [item]}).status_code == 200
        body = {"history": [{"attributes": {"title": f"during {number}"}}], "k": 1}
        assert client.post("/recommend", json=body).json()["items"][0]["item_id"] == f"during-{number}"
        time.sleep(0.02)
    until(lambda: bool(client.get(f"/reindex/{job_id}").json()["state"] == "done"))
    job = client.get(f"/reindex/{job_id}").json()
    assert job["snapshot"] == client.get("/readyz").json()["snapshot"]
    assert job["error"] is None
    for item_id in ("early", *(f"during-{n}" for n in range(1, number + 1))):
        title = item_id.replace("-", " ").replace("early", "early bird")
        body = {"history": [{"attributes": {"title": title}}], "k": 1}
        assert client.post("/recommend", json=body).json()["items"][0]["item_id"] == item_id
    assert metric(client, "seqrec_delta_rows") <= number


def test_another_model_takes_over_and_a_request_keeps_the_view_it_began_with(
    make_client: MakeClient, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was posted since is encoded by the new model; what was asked before the swap is answered by the old one."""
    client = make_client(deadline=60)
    item = {"item_id": "kite", "attributes": {"title": "Paper kite"}}
    client.post("/items", json={"items": [item]})
    before = client.post("/recommend", json={"history": ["desk-1"]}).json()
    opened, entered = threading.Event(), threading.Event()
    search = queries.search

    def held(*arguments: Any) -> Any:
        if threading.current_thread().name == "compute" and not entered.is_set():
            entered.set()
            assert opened.wait(20)
        return search(*arguments)

    monkeypatch.setattr(queries, "search", held)
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(
        target=lambda: answers.append(client.post("/recommend", json={"history": ["desk-1"]}).json())
    )
    asking.start()
    assert entered.wait(10)
    other = tmp_path / "other"
    digest = save_checkpoint(other, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=48)))
    monkeypatch.setenv("SEQREC_HOME", str(home))
    index(["build", "--checkpoint", str(other), "--publish"])
    # Written by the old model after the new snapshot was made.
    late = CatalogueItem(make_item("late", {"title": "Late train"}), None, np.ones(32, np.float32), "old tower")
    catalogue = SqliteCatalogue(home / "catalogue.sqlite3")
    catalogue.put([late])
    catalogue.close()
    until(lambda: client.get("/readyz").json()["snapshot"] != before["snapshot"])
    opened.set()
    asking.join()
    assert (answers[0]["snapshot"], answers[0]["model"]) == (before["snapshot"], before["model"])
    assert answers[0]["items"] == before["items"]
    for title, item_id in (("Paper kite", "kite"), ("Late train", "late")):
        body = {"history": [{"attributes": {"title": title}}], "k": 1}
        answer = client.post("/recommend", json=body).json()
        assert answer["model"] == digest
        assert answer["items"][0]["item_id"] == item_id


def test_a_job_whose_process_ended_is_failed(client: TestClient, home: Path) -> None:
    jobs = home / "jobs"
    jobs.mkdir(exist_ok=True)
    (jobs / "0123456789ab.json").write_text(json.dumps({"state": "running", "done": 3, "total": 8}))
    job = client.get("/reindex/0123456789ab").json()
    assert (job["state"], job["done"], job["total"]) == ("failed", 3, 8)
    assert "ended before it was done" in job["error"]
    for unknown in ("0123456789ac", "..%2F..%2Fx", "x"):
        assert client.get(f"/reindex/{unknown}").status_code == 404
