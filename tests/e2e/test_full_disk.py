"""A small disk of its own: full, then read-only. Writes are refused in clear words, reads go on, nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from index.build.reindex import Request, make_snapshot
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item
from service.app import create_app
from service.settings import Settings
from tests.e2e.ready import Client, until_served


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """8 MiB in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "seqrec-test", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def client(disk: Path, tiny_items: list[Item], bag_of_words_checkpoint: Path) -> Iterator[TestClient]:
    make_snapshot(disk / "home", Request(checkpoint=bag_of_words_checkpoint, items=tiny_items))
    with Client(create_app(Settings(home=disk / "home", follow_seconds=0.05, deadline=60))) as client:
        until_served(client, None)
        assert put(client, "before") == 200
        yield client


def put(client: TestClient, item_id: str, words: int = 3) -> int:
    attributes = {"title": f"kettle {item_id}", **{f"note{n}": "x" * 8000 for n in range(words)}}
    reply = client.post("/items", json={"items": [{"item_id": item_id, "attributes": attributes}]})
    if reply.status_code == 503:
        assert reply.headers["retry-after"]
        assert any(word in reply.json()["detail"] for word in ("disk", "written")), reply.text
    return reply.status_code


def found(client: TestClient) -> set[str]:
    body = {"history": [{"attributes": {"title": "kettle"}}], "k": 100, "exclude_seen": False}
    reply = client.post("/recommend", json=body)
    assert reply.status_code == 200, reply.text
    return {item["item_id"] for item in reply.json()["items"]}


def test_full(client: TestClient, disk: Path) -> None:
    before = found(client)
    acknowledged = set()
    with (disk / "filler").open("wb") as filler:
        while True:
            try:
                filler.write(b"\0" * 65536)
                filler.flush()
            except OSError:
                break
    for number in range(200):
        if put(client, f"new-{number}") == 503:
            break
        acknowledged.add(f"new-{number}")
    else:
        pytest.fail("the disk took more than it has room for")
    assert found(client) == before | acknowledged
    assert client.get("/readyz").status_code == 200
    job = client.post("/reindex")
    assert job.status_code == 503, job.text
    assert "No space left" in job.json()["detail"]
    (disk / "filler").unlink()
    assert put(client, "after") == 200
    assert found(client) == before | acknowledged | {"after"}
    made = make_snapshot(disk / "home", Request()).manifest
    assert made.count == len(before | acknowledged) + 1
    until_served(client, made.snapshot_id)
    assert found(client) == before | acknowledged | {"after"}


def test_full_while_a_snapshot_is_written(client: TestClient, disk: Path) -> None:
    served = client.get("/readyz").json()["snapshot"]
    before = found(client)
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 12 * 1024))
    with pytest.raises(OSError, match="No space left"):
        make_snapshot(disk / "home", Request())
    assert SnapshotStore(disk / "home").list() == [served]
    assert found(client) == before
    (disk / "filler").unlink()
    until_served(client, make_snapshot(disk / "home", Request()).manifest.snapshot_id)
    assert found(client) == before


def test_a_disk_that_is_read_only_at_the_start(client: TestClient, disk: Path) -> None:
    before = found(client)
    client.__exit__(None, None, None)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        with Client(create_app(Settings(home=disk / "home", follow_seconds=0.05, deadline=60))) as again:
            ready = again.get("/readyz")
            assert ready.status_code == 503
            assert "is writable" in ready.json()["detail"]
            assert again.post("/recommend", json={"history": []}).status_code == 503
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            until_served(again, None)  # by itself
            assert found(again) == before
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        client.__enter__()
