"""A service in this process, and waiting for it."""

from __future__ import annotations

import time

import httpx
from starlette.testclient import TestClient

Client = TestClient
SECONDS = 60


def until_served(client: TestClient | httpx.Client, snapshot_id: str | None) -> None:
    """Wait until the service is ready, and serves this snapshot if one is named."""
    end = time.monotonic() + SECONDS
    while True:
        ready = client.get("/readyz")
        if ready.status_code == 200 and snapshot_id in (None, ready.json()["snapshot"]):
            return
        assert time.monotonic() < end, ready.text
        time.sleep(0.005)
