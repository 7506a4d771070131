from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from index.catalogue.sqlite.catalogue import SqliteCatalogue
from index.snapshot.checkpoints import checkpoint_path
from index.snapshot.publication import publish, published, remove, rollback
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item
from seqrec.errors import LogTruncated, SnapshotError
from tests.index.conftest import Build

pytestmark = pytest.mark.slow


def numbered(number: int) -> list[Item]:
    return [Item("item", {"title": f"number {number}"})]


def build_some(build: Build, count: int, **changes: object) -> list[str]:
    return [build(items=numbered(number), **changes).manifest.snapshot_id for number in range(count)]


def test_publishing_is_an_entry_of_the_log(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    one, two = build_some(build, 2, publish=False)
    assert published(catalogue) is None
    assert publish(home, catalogue, one) == catalogue.head() == 3
    assert published(catalogue) == one
    publish(home, catalogue, two)
    assert published(catalogue) == two
    assert [change.snapshot_id for change in catalogue.changes(2, 10)] == [one, two]
    assert publish(home, catalogue, two) == catalogue.head() == 4  # it is already


def test_rolling_back_goes_back_step_by_step(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    one, two, three = build_some(build, 3)
    assert rollback(home, catalogue) == two
    assert published(catalogue) == two
    assert rollback(home, catalogue) == one
    with pytest.raises(SnapshotError, match=r"no earlier published snapshot"):
        rollback(home, catalogue)
    publish(home, catalogue, three)
    assert rollback(home, catalogue) == one


def test_rolling_back_passes_over_what_is_gone(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    one, two, _ = build_some(build, 3)
    catalogue.publish("no-such-snapshot")
    SnapshotStore(home).remove(two)
    assert rollback(home, catalogue) != two
    assert rollback(home, catalogue) == one


def test_a_damaged_snapshot_is_not_published(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    one, two = build_some(build, 2, publish=False)
    publish(home, catalogue, one)
    file = SnapshotStore(home).path_of(two) / "vectors.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"vectors\.npy was altered"):
        publish(home, catalogue, two)
    assert published(catalogue) == one


def test_a_snapshot_without_its_checkpoint_is_not_published(
    build: Build, home: Path, catalogue: SqliteCatalogue
) -> None:
    result = build(publish=False)
    shutil.rmtree(checkpoint_path(home, result.manifest))
    with pytest.raises(SnapshotError, match=r"needs the checkpoint .* missing or altered"):
        publish(home, catalogue, result.manifest.snapshot_id)


def test_a_snapshot_of_another_catalogue_is_not_published(build: Build, home: Path, tmp_path: Path) -> None:
    result = build(publish=False)
    shutil.move(home / "catalogue.sqlite3", tmp_path / "old")
    for name in ("catalogue.sqlite3-wal", "catalogue.sqlite3-shm"):
        (home / name).unlink(missing_ok=True)
    new = SqliteCatalogue(home / "catalogue.sqlite3")
    with pytest.raises(SnapshotError, match="was made of catalogue"):
        publish(home, new, result.manifest.snapshot_id)
    new.close()


def test_a_snapshot_ahead_of_a_restored_catalogue_is_not_published(build: Build, home: Path) -> None:
    build(items=numbered(0), publish=False)
    backup = (home / "catalogue.sqlite3").read_bytes()
    result = build(items=numbered(1), publish=False)
    (home / "catalogue.sqlite3").write_bytes(backup)
    restored = SqliteCatalogue(home / "catalogue.sqlite3")
    with pytest.raises(SnapshotError, match="up to 2, but the catalogue ends at 1: an older state"):
        publish(home, restored, result.manifest.snapshot_id)
    restored.close()


def test_a_snapshot_that_the_log_has_left_behind_is_not_published(
    build: Build, home: Path, catalogue: SqliteCatalogue
) -> None:
    result = build(items=numbered(0), publish=False)
    build(items=numbered(1), publish=False)
    build(items=numbered(2), publish=False)
    catalogue.compact(catalogue.head())
    with pytest.raises(SnapshotError, match=r"too old to be served: .*compacted through 2"):
        publish(home, catalogue, result.manifest.snapshot_id)


def test_the_last_published_snapshots_stay(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    ids = build_some(build, 5)
    assert SnapshotStore(home).list() == sorted(ids[2:])
    # The log is gone up to the oldest snapshot that stays, and no further.
    seqs = [change.seq for change in catalogue.publications()]
    oldest = SnapshotStore(home).open(ids[2]).manifest.seq
    assert list(catalogue.changes(oldest, 100))
    with pytest.raises(LogTruncated):
        catalogue.changes(0, 100)
    assert len(seqs) == 5
    assert rollback(home, catalogue) == ids[3]


def test_an_unpublished_snapshot_stays(build: Build, home: Path) -> None:
    """The command that built it said how to publish it."""
    (first,) = build_some(build, 1)
    unpublished = build(items=numbered(7), publish=False).manifest.snapshot_id
    served = build(items=numbered(8), keep=1)
    assert list(served.removed) == [first]
    assert set(SnapshotStore(home).list()) == {unpublished, served.manifest.snapshot_id}


def test_snapshots_of_another_catalogue_stay(build: Build, home: Path) -> None:
    """A home used with SQLite, then with another store, and the other way round."""
    theirs = build_some(build, 2)
    (home / "catalogue.sqlite3").unlink()
    for left in home.glob("catalogue.sqlite3-*"):
        left.unlink()
    build(items=numbered(0), keep=1)
    build(items=numbered(1), keep=1)
    assert set(theirs) <= set(SnapshotStore(home).list())


def test_copies_of_a_snapshot_do_not_displace_different_ones(build: Build, home: Path) -> None:
    one, two = build_some(build, 2)
    copies = [build(items=(), force=True).manifest.snapshot_id for _ in range(4)]
    assert SnapshotStore(home).list() == sorted([one, copies[-1]])
    assert two not in SnapshotStore(home).list()  # the newest copy of it stays


def test_a_snapshot_is_removed_by_name(build: Build, home: Path, catalogue: SqliteCatalogue) -> None:
    one, two = build_some(build, 2)
    unpublished = build(items=numbered(7), publish=False).manifest.snapshot_id
    with pytest.raises(SnapshotError, match=f"{two} is served; publish another"):
        remove(home, catalogue, two)
    with pytest.raises(SnapshotError, match="there is no snapshot 20260101"):
        remove(home, catalogue, "20260101T000000-000001-abcdef")
    opened = SnapshotStore(home).open(one)
    with pytest.raises(SnapshotError, match="in use"):
        remove(home, catalogue, one)
    del opened
    remove(home, catalogue, one)
    remove(home, catalogue, unpublished)
    assert SnapshotStore(home).list() == [two]


def test_checkpoints_that_no_snapshot_needs_go(build: Build, home: Path, other_checkpoint: Path) -> None:
    build(items=numbered(0))
    (home / "checkpoints" / "mine").mkdir()
    second = build(items=numbered(1), checkpoint=other_checkpoint, keep=1)
    kept = {path.name for path in (home / "checkpoints").iterdir()}
    assert kept == {"mine", second.manifest.checkpoint[:12]}
