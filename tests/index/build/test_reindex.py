from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index.build.reindex import Request, make_snapshot
from index.catalogue.locks import one_at_a_time
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from index.snapshot.publication import check_servable, published
from index.snapshot.snapshot import SnapshotStore
from seqrec.encoder import load_model
from seqrec.errors import SnapshotError
from tests.index.conftest import Build

ROOT = Path(__file__).parents[3]


def test_sigkill_at_any_moment_leaves_what_is_served_whole(
    build: Build, home: Path, bag_of_words_checkpoint: Path
) -> None:
    build()
    chance = random.Random(11)
    published_before: set[str] = set()
    for round_ in range(5):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "reindexing.py"), str(home), str(bag_of_words_checkpoint)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if round_ % 2:
            published_before.add(process.stdout.readline().strip())
        time.sleep(chance.random() * 0.4)
        process.kill()
        published_before |= set(process.stdout.read().splitlines())
        process.wait()
        process.stdout.close()
        catalogue = SqliteCatalogue(home / "catalogue.sqlite3")
        store = SnapshotStore(home)
        served = published(catalogue)
        assert served is not None
        snapshot = store.verify(served)
        check_servable(home, catalogue, snapshot.manifest)
        for snapshot_id in store.list():  # published or not: what is listed is whole
            store.verify(snapshot_id)
        # Snapshot and log together are the catalogue.
        live = dict.fromkeys(snapshot.item_ids)
        for change in catalogue.changes(snapshot.manifest.seq, 10**6):
            if change.op == "put":
                live[change.item_id or ""] = None
        assert set(live) == {entry.item.item_id for _, entry in catalogue.scan()}
        catalogue.close()
    assert published_before
    manifest = build().manifest
    assert not [path for path in (home / "snapshots").iterdir() if path.name.startswith((".tmp-", ".old-"))]
    assert not list((home / "checkpoints").glob(".tmp-*"))
    assert SnapshotStore(home).verify(manifest.snapshot_id).manifest.count >= 8


def test_one_at_a_time(build: Build, home: Path) -> None:
    build()
    with (
        one_at_a_time(home / "reindex.lock", wait=False),
        pytest.raises(SnapshotError, match=r"being made in .* already, by process \d+; wait"),
    ):
        make_snapshot(home, Request())
    make_snapshot(home, Request())


def test_the_program_reindexes_in_a_process_of_its_own(build: Build, home: Path, tmp_path: Path) -> None:
    first = build().manifest
    job = tmp_path / "job.json"
    command = [sys.executable, "-m", "seqrec", "reindex", "--home", str(home), "--json", "--job", str(job)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True)
    answer = json.loads(ended.stdout)
    assert answer["count"] == 8
    assert answer["snapshot"] != first.snapshot_id
    assert json.loads(job.read_text(encoding="utf-8"))["snapshot"] == answer["snapshot"]
    # The model, precision and popularity are those of what was served.
    manifest = SnapshotStore(home).open(answer["snapshot"]).manifest
    assert (manifest.checkpoint, manifest.precision) == (first.checkpoint, first.precision)
    assert (manifest.seq, first.seq) == (9, 8)


def test_a_new_model_is_published_with_all_of_its_own(build: Build, home: Path, other_checkpoint: Path) -> None:
    first = build().manifest
    result = make_snapshot(home, Request(checkpoint=other_checkpoint))
    snapshot = SnapshotStore(home).open(result.manifest.snapshot_id)
    assert (snapshot.manifest.dim, first.dim) == (16, 32)
    assert snapshot.manifest.item_tower != first.item_tower
    encoder = load_model(other_checkpoint)
    expected = encoder.encode_items([snapshot.item(row) for row in range(8)])
    assert abs(snapshot.vectors - expected).max() < 1e-6
    # And back again: reindexing takes the model that is served.
    assert make_snapshot(home, Request()).manifest.checkpoint == snapshot.manifest.checkpoint


def test_a_damaged_snapshot_does_not_stop_the_next(build: Build, home: Path) -> None:
    manifest = build().manifest
    (home / "snapshots" / manifest.snapshot_id / "vectors.npy").unlink()
    assert build().manifest.count == 8
