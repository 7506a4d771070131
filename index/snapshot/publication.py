"""What is served: publishing, going back, and dropping what is no longer needed for either."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from index.catalogue.base import Catalogue
from index.snapshot.checkpoints import checkpoint_path, has_checkpoint
from index.snapshot.manifest import Manifest
from index.snapshot.snapshot import SnapshotStore, read_manifest
from seqrec.errors import LogTruncated, SeqrecError, SnapshotError

log = logging.getLogger(__name__)

KEEP = 3
"""Published snapshots that are kept to go back to, with what is served now."""


def published(catalogue: Catalogue) -> str | None:
    """The snapshot that is served."""
    publications = catalogue.publications()
    return publications[0].snapshot_id if publications else None


def publish(home: Path, catalogue: Catalogue, snapshot_id: str) -> int:
    """Serve a snapshot from here on; returns the sequence number of that. Serving it already changes nothing.

    Raises SnapshotError for a snapshot that is not whole, that belongs to another catalogue, whose checkpoint is
    missing, or that the log no longer leads on from.
    """
    with catalogue.lease("publish", wait=True) as lease:
        check_servable(home, catalogue, SnapshotStore(home).open(snapshot_id).manifest)
        if published(catalogue) == snapshot_id:
            return catalogue.publications()[0].seq
        return catalogue.publish(snapshot_id, lease)


def check_servable(home: Path, catalogue: Catalogue, manifest: Manifest) -> None:
    """Whether the service could follow the log from this snapshot. Raises SnapshotError."""
    name = f"snapshot {manifest.snapshot_id}"
    if manifest.catalogue_id != catalogue.catalogue_id:
        raise SnapshotError(
            f"{name} was made of catalogue {manifest.catalogue_id}, and the one in {home} is {catalogue.catalogue_id}; "
            "`seqrec reindex` makes a snapshot of it"
        )
    if manifest.seq > catalogue.head():
        raise SnapshotError(
            f"{name} is at {manifest.seq}, the catalogue only at {catalogue.head()}: an older state of it was "
            "restored; `seqrec reindex` makes a snapshot of it"
        )
    try:
        catalogue.changes(manifest.seq, 1)
    except LogTruncated as error:
        raise SnapshotError(f"{name} is too old to be served: {error}") from error
    if not has_checkpoint(home, manifest):
        raise SnapshotError(
            f"{name} needs the checkpoint {checkpoint_path(home, manifest)}, which is missing or altered; copy it there"
        )


def rollback(home: Path, catalogue: Catalogue) -> str:
    """Publish what was published before the snapshot that is served; returns its id. Again goes back further."""
    there = set(SnapshotStore(home).list())
    before: list[str] = []
    for publication in reversed(catalogue.publications()):
        assert publication.snapshot_id is not None
        if publication.snapshot_id in before:  # went back to it: what came after it is undone
            del before[before.index(publication.snapshot_id) :]
        before.append(publication.snapshot_id)
    earlier = [snapshot_id for snapshot_id in before[:-1] if snapshot_id in there]
    if not earlier:
        raise SnapshotError(f"there is no snapshot in {home} that was published before; `seqrec index list` shows all")
    publish(home, catalogue, earlier[-1])
    return earlier[-1]


def prune(home: Path, catalogue: Catalogue, keep: int = KEEP) -> list[str]:
    """Remove what this catalogue published before its last `keep` snapshots and nobody uses; returns the ids removed.

    Snapshots of another catalogue in the same home, and those that were built and not published yet, are left alone.
    Checkpoints that no snapshot needs go as well, and the log is compacted up to this catalogue's oldest snapshot.
    """
    with catalogue.lease("publish", wait=True):
        recent = list(dict.fromkeys(publication.snapshot_id for publication in catalogue.publications()))
        store = SnapshotStore(home)
        current = recent[0] if recent else None
        if current is None or current not in store.list():
            return []
        replaced = set(recent[max(1, keep) :])
        old = [snapshot_id for snapshot_id in store.list() if snapshot_id in replaced and snapshot_id < current]
        removed = [snapshot_id for snapshot_id in old if store.remove(snapshot_id)]
        if len(removed) < len(old):
            log.info("old snapshots that are still in use stay: %s", ", ".join(sorted(set(old) - set(removed))))
        try:
            kept = [read_manifest(store.path_of(snapshot_id)) for snapshot_id in store.list()]
        except SeqrecError as error:
            log.warning("left old checkpoints and the log as they are: %s", error)
            return removed
        needed = {checkpoint_path(home, manifest) for manifest in kept}
        for path in (home / "checkpoints").glob("*"):
            if re.fullmatch("[0-9a-f]{12}", path.name) and path not in needed:
                shutil.rmtree(path)
        own = [manifest.seq for manifest in kept if manifest.catalogue_id == catalogue.catalogue_id]
        if own:
            catalogue.compact(min(own))
        return removed
