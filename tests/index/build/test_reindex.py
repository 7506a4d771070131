from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from index.build.reindex import JobFile, Request, make_snapshot
from index.catalogue.histories import Event
from index.catalogue.locks import one_at_a_time
from index.catalogue.open import open_catalogue, open_histories
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from index.snapshot.checkpoints import keep_checkpoint
from index.snapshot.publication import check_servable, published, rollback
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item
from seqrec.encoder import load_model
from seqrec.errors import InputError, SnapshotError
from tests.index.conftest import Build

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
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
        pytest.raises(SnapshotError, match=r"process \d+ is already making a snapshot in .*; wait"),
    ):
        make_snapshot(home, Request())
    make_snapshot(home, Request())


def test_the_program_reindexes_in_a_process_of_its_own(build: Build, home: Path, tmp_path: Path) -> None:
    first = build().manifest
    job = tmp_path / "job.json"
    command = [sys.executable, "-m", "seqrec", "reindex", "--home", str(home), "--force", "--json", "--job", str(job)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True)
    answer = json.loads(ended.stdout)
    assert answer["count"] == 8
    assert answer["snapshot"] != first.snapshot_id
    assert answer["new"]
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


def test_without_a_change_no_snapshot_is_made(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    """A copy of the served snapshot would only displace one that can be rolled back to."""
    first = build().manifest
    for changes in ({}, {"items": ()}, {"checkpoint": None, "items": ()}, {"index": "flat"}):
        result = build(**changes)
        assert (result.manifest, result.created, result.published, result.removed) == (first, False, True, ())
    assert build(items=(), force=True).created
    assert catalogue.publications()[-1].snapshot_id == first.snapshot_id


@pytest.mark.parametrize("change", ["item", "deletion", "event", "model", "precision", "index"])
def test_any_change_makes_a_new_snapshot(
    change: str, build: Build, home: Path, catalogue: SqliteCatalogue, other_checkpoint: Path, tiny_items: list[Item]
) -> None:
    first = build().manifest
    request: dict[str, object] = {"items": ()}
    match change:
        case "item":
            request["items"] = [Item("new", {"title": "New item"})]
        case "deletion":
            catalogue.delete([tiny_items[0].item_id])
        case "event":
            with closing(open_histories(home)) as histories:
                histories.add([Event("u", tiny_items[0].item_id, 1.0)])
        case "model":
            request["checkpoint"] = other_checkpoint
        case "precision":
            request["precision"] = "int8"
        case "index":
            request["index"] = "HNSW8"
    result = build(**request)
    assert result.created
    assert published(catalogue) == result.manifest.snapshot_id != first.snapshot_id
    assert not build(**request).created


def test_a_built_snapshot_is_published_and_not_built_again(build: Build, catalogue: SqliteCatalogue) -> None:
    built = build(publish=False).manifest
    assert not build(publish=False).created
    assert published(catalogue) is None
    result = build()
    assert (result.manifest, result.created) == (built, False)
    assert published(catalogue) == built.snapshot_id


def test_two_catalogues_in_one_home_do_not_disturb_each_other(
    build: Build, home: Path, tmp_path: Path, bag_of_words_checkpoint: Path, other_checkpoint: Path
) -> None:
    """A home used with SQLite and with Redis; here the other catalogue is SQLite in another directory."""
    elsewhere = tmp_path / "elsewhere"
    theirs = [
        make_snapshot(
            home,
            Request(other_checkpoint, [Item("x", {"title": f"text {number}"})], publish=number < 2),
            location=elsewhere,
        ).manifest
        for number in range(3)
    ]
    for number in range(4):
        build(items=[Item("y", {"title": f"text {number}"})], keep=1)
    store = SnapshotStore(home)
    assert {manifest.snapshot_id for manifest in theirs} < set(store.list())
    with closing(open_catalogue(elsewhere)) as catalogue:
        for manifest in theirs:
            check_servable(home, catalogue, store.verify(manifest.snapshot_id).manifest)
        assert rollback(home, catalogue) == theirs[0].snapshot_id


def test_what_another_catalogue_is_writing_stays(build: Build, home: Path, other_checkpoint: Path) -> None:
    build(items=[Item("y", {"title": "one"})])
    store = SnapshotStore(home)
    with store.writing():
        unfinished = store.directory / ".tmp-20991231T000000-000001-abcdef-12345678"
        unfinished.mkdir()
        lock = keep_checkpoint(home, load_model(other_checkpoint).checkpoint)
        build(items=[Item("y", {"title": "two"})], keep=1)
        assert unfinished.is_dir()
        assert len(list((home / "checkpoints").iterdir())) == 2
        del lock
    build(items=[Item("y", {"title": "three"})], keep=1)
    assert not unfinished.exists()
    assert len(list((home / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize("content", ['{"item_id": "a", "attributes": {}}\n', "[1]", "text", "\udcff"])
def test_a_file_that_is_no_job_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "precious"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"precious exists and is not a job file"), JobFile(path):
        pass
    assert path.read_bytes() == before


def test_a_job_file_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"job: .*file/job\.json cannot be created, since .*file is a file"):
        JobFile(tmp_path / "file" / "job.json").__enter__()
    with pytest.raises(InputError, match="is a directory"):
        JobFile(tmp_path).__enter__()
