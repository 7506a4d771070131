"""Reindexing by itself: when it starts, that one starts, and what is left of the old state afterwards."""

from __future__ import annotations

import gc
import json
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from index.build.reindex import Request, make_snapshot
from index.catalogue.base import Change
from index.snapshot.snapshot import read_manifest
from seqrec.data.items import make_item
from seqrec.errors import LogTruncated
from service import jobs
from service.jobs import AutoReindexer, Job, JobRunner
from service.live import state as live
from service.live.state import LiveState, Towers
from service.settings import Settings
from tests.service.live.test_state import InMemorySnapshot, put, towers  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

MakeClient = Callable[..., TestClient]


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_a_delta_that_has_grown_is_reindexed_once_among_all_who_see_it(make_client: MakeClient, home: Path) -> None:
    clients = [make_client(reindex_at=0.5, reindex_min=4) for _ in range(2)]
    before = clients[0].get("/readyz").json()["snapshot"]
    items = [{"item_id": f"new-{n}", "attributes": {"title": f"novelty {n}"}} for n in range(4)]
    for item in items[:3]:
        clients[0].post("/items", json={"items": [item]})
    time.sleep(0.2)
    assert not list((home / "jobs").glob("*.json")), "too few changes"
    clients[1].post("/items", json={"items": items[3:]})
    for client in clients:
        until(lambda client=client: client.get("/readyz").json()["snapshot"] != before)
        assert "seqrec_delta_rows 0.0" in client.get("/metrics").text
    time.sleep(0.2)
    (job,) = (home / "jobs").glob("*.json")
    assert json.loads(job.read_text(encoding="utf-8"))["state"] == "done"
    started = [line for client in clients for line in client.get("/metrics").text.splitlines() if "by=" in line]
    assert 'seqrec_reindexes_total{by="automatic"} 1.0' in started


@pytest.mark.timeout(900)  # jobs have a low priority, so a busy machine takes long
def test_a_few_items_that_change_often_are_reindexed_and_the_log_is_compacted(
    make_client: MakeClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "COMPACT_ABOVE", 4)
    monkeypatch.setattr(jobs, "_AGAIN_SECONDS", 0.0)
    client = make_client(reindex_at=0.5, reindex_min=40)
    catalogue = client.app.state.startup.components.catalogue  # type: ignore[attr-defined]
    snapshots: list[str] = []
    stock, end = 0, time.monotonic() + 800
    while len(snapshots) < 5:  # more than are kept to roll back to
        assert time.monotonic() < end, snapshots
        stock += 1
        client.post("/items", json={"items": [{"item_id": "new", "attributes": {"title": "mug", "stock": stock}}]})
        served = client.get("/readyz").json()["snapshot"]
        if served not in snapshots:
            snapshots.append(served)
        time.sleep(0.01)
    until(lambda: catalogue.superseded() < stock)
    with pytest.raises(LogTruncated):
        catalogue.changes(read_manifest(home / "snapshots" / snapshots[-1]).seq - stock, 1)


class Counting:
    def __init__(self) -> None:
        self.started = 0

    def start(self, by: str) -> Job:
        self.started += 1
        return Job("0" * 12, "queued")


@pytest.mark.parametrize(
    ("items", "changes", "mebibytes", "pairs", "share", "starts"),
    [
        (1000, 250, 0, 0, 0.2, 1),
        (1000, 199, 0, 0, 0.2, 0),
        (1000, 50, 300, 0, 0.2, 1),  # few that are large
        (1000, 50, 200, 0, 0.2, 0),
        (1000, 0, 0, 17_000_000, 0.2, 1),  # of events alone
        (1000, 0, 0, 16_000_000, 0.2, 0),
        (1000, 50, 200, 4_000_000, 0.2, 1),
        (100, 90, 0, 0, 0.2, 0),  # fewer than the minimum
        (1000, 999, 999, 99_000_000, 0, 0),
    ],
)
def test_when_it_starts(items: int, changes: int, mebibytes: int, pairs: int, share: float, starts: int) -> None:
    reindexer = Counting()
    manifest = SimpleNamespace(files={"vectors.npy": SimpleNamespace(size=1000)})
    state = SimpleNamespace(
        changes=changes,
        changed_bytes=mebibytes * 2**20,
        counts=SimpleNamespace(changed_pairs=pairs),
        snapshot=SimpleNamespace(id="s", item_ids=range(items), manifest=manifest),
    )
    by_itself = AutoReindexer(reindexer, share, 100)  # type: ignore[arg-type]
    for _ in range(3):  # one that failed is not tried again at once
        by_itself.maybe_start(state)  # type: ignore[arg-type]
    assert reindexer.started == starts


def test_a_job_that_another_worker_has_just_started_is_the_one_that_runs(home: Path) -> None:
    folder = home / "jobs"
    folder.mkdir()
    (folder / "0123456789ab.json").write_text(json.dumps({"state": "queued"}))
    assert JobRunner(Settings(home=home)).start() == Job("0123456789ab", "queued")
    os.utime(folder / "0123456789ab.json", (1, 1))
    assert JobRunner(Settings(home=home)).job("0123456789ab").state == "failed", "it never began"


def test_a_disk_that_takes_no_job_is_reported(home: Path) -> None:
    (home / "jobs").write_text("in the way")
    from seqrec.errors import SnapshotError

    with pytest.raises(SnapshotError, match="no job can be started in"):
        JobRunner(Settings(home=home)).start()


def test_the_old_state_is_gone_after_the_last_request_that_held_it(make_client: MakeClient, home: Path) -> None:
    client = make_client()
    client.post("/items", json={"items": [{"item_id": "kite", "attributes": {"title": "Paper kite"}}]})
    client.post("/recommend", json={"history": ["kite"]})
    follower = client.app.state.startup.components.follower  # type: ignore[attr-defined]
    old = weakref.ref(follower.state)
    snapshot = weakref.ref(follower.state.snapshot)
    view = follower.view()
    result = make_snapshot(home, Request())
    until(lambda: follower.view().snapshot.id == result.manifest.snapshot_id)
    client.post("/recommend", json={"history": ["kite"]})  # the compute thread lets go of the batch before
    assert view.position_of("kite") is not None
    assert snapshot() is not None
    del view
    gc.collect()
    until(lambda: old() is None and snapshot() is None, 10)


def test_adds_and_deletes_leave_nothing_behind(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The small sister of benchmarks/behaviour/delta_memory.py."""
    monkeypatch.setattr(live, "COMPACT_ABOVE", 200)
    state = LiveState(InMemorySnapshot([make_item("a", {"title": "oak"})], towers, 1, [0.0]), towers)  # type: ignore[arg-type]
    vector = towers.encoder.encode_items([{"title": "oak"}])[0]
    template = put(towers, 0, make_item("b", {"title": "oak"})).entry
    assert template is not None
    seq = 1
    for _ in range(3):
        ids = [f"n-{seq}-{n}" for n in range(2000)]
        for op in ("put", "delete"):
            for item_id in ids:
                seq += 1
                entry: Any = None
                if op == "put":
                    item = make_item(item_id, {"title": "oak"})
                    entry = type(template)(item, template.tokens, vector, template.item_tower)
                state.apply([Change(seq, op, item_id, entry)], seq)  # type: ignore[arg-type]
    delta = state.view.delta
    assert state.view.length <= 2 * 200 + 2
    assert len(delta.last_row) <= len(delta.item_ids) == state.view.length
    assert delta.vectors.nbytes <= 4 * 200 * 4 * towers.encoder.dim * np.float32().nbytes
    assert len(delta.texts) + len(delta.token_ids) <= 100 * state.view.length
