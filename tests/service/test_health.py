"""/readyz names what is wrong with the stores and the snapshot, although nothing was asked of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service import health

MakeClient = Callable[..., TestClient]


@pytest.fixture
def watched(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(health.HealthCheck.__init__, "__defaults__", (0.05,))
    return make_client()


def degraded(client: TestClient, word: str) -> str:
    """What /readyz says, once it names the trouble."""
    end = time.monotonic() + 20
    while True:
        answer = client.get("/readyz")
        assert answer.status_code == 200
        found = [reason for reason in answer.json()["degraded"] if word in reason]
        if found:
            return str(found[0])
        assert time.monotonic() < end, answer.text
        time.sleep(0.05)


@pytest.mark.slow
def test_nothing_is_wrong(watched: TestClient) -> None:
    time.sleep(0.3)
    assert watched.get("/readyz").json()["degraded"] == []


@pytest.mark.slow
def test_damaged_histories_are_reported(watched: TestClient, home: Path) -> None:
    watched.post("/events", json={"events": [{"user_id": "u", "item_id": "mug-1"}]})
    path = home / "histories.sqlite3"
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert "the histories" in degraded(watched, "histories.sqlite3")
    assert "seqrec_degraded 0.0" not in watched.get("/metrics").text


@pytest.mark.slow
def test_a_snapshot_that_was_removed_is_reported(watched: TestClient, home: Path) -> None:
    shutil.rmtree(home / "snapshots")
    reason = degraded(watched, "a restart would fail")
    assert "seqrec reindex" in reason
    assert str(home) not in reason
    assert watched.post("/recommend", json={"history": ["mug-1"]}).status_code == 200


def test_a_full_disk_is_reported_before_a_write_fails(watched: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "the disk is full" in degraded(watched, "disk")


def test_histories_that_fail_to_be_read_are_reported(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqrec.errors import CatalogueError

    def broken(*arguments: object) -> None:
        raise CatalogueError("the histories: it is damaged")

    histories = client.app.state.startup.components.histories  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(histories, "recent", broken)
        assert client.post("/recommend", json={"user_id": "u"}).json()["degraded"]
    assert "stored histories cannot be read" in client.get("/readyz").json()["degraded"][0]
    client.post("/recommend", json={"user_id": "u"})
    assert client.get("/readyz").json()["degraded"] == []
