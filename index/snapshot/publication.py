"""Publishing snapshots, naming them in placements, rolling back, and removing what is no longer needed."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from index.catalogue.base import Catalogue
from index.engines.milvus import open_engine
from index.snapshot.checkpoints import checkpoint_path, has_checkpoint
from index.snapshot.engine_rows import fill
from index.snapshot.manifest import Manifest
from index.snapshot.named import named_by, named_in
from index.snapshot.snapshot import SnapshotStore, read_manifest
from index.snapshot.usage import exclusive
from index.vectors.factory import INDEX_FILE
from seqrec.errors import EngineUnavailable, InputError, LogTruncated, SeqrecError, SnapshotError

log = logging.getLogger(__name__)

KEEP = 3
"""Published snapshots that are kept: the served one and those to roll back to."""


def published(catalogue: Catalogue) -> str | None:
    """The id of the served snapshot; None if none was published."""
    publications = catalogue.publications()
    return publications[0].snapshot_id if publications else None


def publish(home: Path, catalogue: Catalogue, snapshot_id: str) -> int:
    """Serve a snapshot from now on; returns the sequence number of the publication. Without effect if it is served.

    Raises SnapshotError for a snapshot that is damaged, that belongs to another catalogue, whose checkpoint is missing,
    or that is older than what the log still covers. Where there is an external vector engine it gets the snapshot
    first; raises EngineUnavailable.
    """
    engine = open_engine()
    snapshot = SnapshotStore(home).open(snapshot_id)
    if engine is not None:
        check_servable(home, catalogue, snapshot.manifest)
        fill(engine, snapshot)
    with catalogue.lease("publish", wait=True) as lease:
        check_servable(home, catalogue, snapshot.manifest)
        if published(catalogue) == snapshot_id:
            seq = catalogue.publications()[0].seq
        else:
            seq = catalogue.publish(snapshot_id, lease)
        if engine is not None:
            engine.serve(snapshot_id)
        return seq


def put_into_engine(home: Path, snapshot_id: str) -> None:
    """Where there is an external vector engine, let it have a snapshot that is not published.

    Raises EngineUnavailable.
    """
    engine = open_engine()
    if engine is not None:
        fill(engine, SnapshotStore(home).open(snapshot_id))


def check_servable(home: Path, catalogue: Catalogue, manifest: Manifest) -> None:
    """Raises SnapshotError if the service could not follow the log from this snapshot."""
    name = f"snapshot {manifest.snapshot_id}"
    if manifest.catalogue_id != catalogue.catalogue_id:
        raise SnapshotError(
            f"{name} was made of catalogue {manifest.catalogue_id}, and the current one is {catalogue.catalogue_id}; "
            "`seqrec reindex` makes a snapshot of the current one"
        )
    if manifest.seq > catalogue.head():
        raise SnapshotError(
            f"{name} contains changes up to {manifest.seq}, but the catalogue ends at {catalogue.head()}: an older "
            "state of it was restored; `seqrec reindex` makes a new snapshot"
        )
    try:
        catalogue.changes(manifest.seq, 1)
    except LogTruncated as error:
        raise SnapshotError(f"{name} is too old to be served: {error}") from error
    if not has_checkpoint(home, manifest):
        raise SnapshotError(
            f"{name} needs the checkpoint {checkpoint_path(home, manifest)}, which is missing or altered; copy it there"
        )


def place(home: Path, catalogue: Catalogue, name: str, rules: str | None) -> int:
    """Store the rules of a placement, or with None delete it; the number of the change.

    Raises InputError where the rules name a snapshot that cannot be served, EngineUnavailable, and as
    `Catalogue.set_placement`.
    """
    named = {} if rules is None else named_in(rules)
    if not named:
        return catalogue.set_placement(name, rules)
    store, engine = SnapshotStore(home), open_engine()
    with catalogue.lease("publish", wait=True):  # nothing is removed between the check and the change
        for field, snapshot_id in named.items():
            try:
                check_servable(home, catalogue, read_manifest(store.path_of(snapshot_id)))
            except SnapshotError as error:
                if snapshot_id in store.list():
                    raise InputError(str(error), field) from None
                raise InputError(
                    f"there is no snapshot {snapshot_id} in this home; `seqrec index list` and GET /snapshots list "
                    "those there are, `seqrec reindex --no-publish --checkpoint CKPT` makes one",
                    field,
                ) from None
            if engine is not None and not engine.has(snapshot_id):
                raise InputError(
                    f"snapshot {snapshot_id} is not in Milvus: `seqrec reindex --no-publish` puts a new one there if "
                    f"SEQREC_MILVUS_URL is set, `seqrec index publish {snapshot_id}` this one",
                    field,
                )
        return catalogue.set_placement(name, rules)


def rollback(home: Path, catalogue: Catalogue) -> str:
    """Publish the snapshot that was published before the served one; returns its id. Repeated calls go further back."""
    existing = set(SnapshotStore(home).list())
    before: list[str] = []
    for publication in reversed(catalogue.publications()):
        assert publication.snapshot_id is not None
        if publication.snapshot_id in before:  # a rollback to it: what was published after it is undone
            del before[before.index(publication.snapshot_id) :]
        before.append(publication.snapshot_id)
    earlier = [snapshot_id for snapshot_id in before[:-1] if snapshot_id in existing]
    if not earlier:
        raise SnapshotError(f"no earlier published snapshot is left in {home}; `seqrec index list` shows all snapshots")
    publish(home, catalogue, earlier[-1])
    return earlier[-1]


def prune(home: Path, catalogue: Catalogue, keep: int = KEEP) -> list[str]:
    """Remove older published snapshots that no process uses; returns their ids.

    The last `keep` different ones stay: copies of the same content count once, and the newest copy is kept. What a
    placement names stays as well. Snapshots of another catalogue in the same home, and those never published, are not
    touched. Checkpoints that no snapshot needs are removed as well, and the log is compacted up to this catalogue's
    oldest snapshot.
    """
    with catalogue.lease("publish", wait=True):
        store = SnapshotStore(home)
        existing = store.list()
        recent = [change.snapshot_id for change in catalogue.publications() if change.snapshot_id in existing]
        current = published(catalogue)
        if current not in existing:
            return []
        replaced = _replaced(store, list(dict.fromkeys(filter(None, recent))), max(1, keep))
        replaced -= named_by(catalogue.placements()).keys()
        old = [snapshot_id for snapshot_id in existing if snapshot_id in replaced and snapshot_id < current]
        removed = [snapshot_id for snapshot_id in old if store.remove(snapshot_id)]
        if len(removed) < len(old):
            log.info("old snapshots that are still in use stay: %s", ", ".join(sorted(set(old) - set(removed))))
        _remove_unneeded(home, store, catalogue)
        return removed


def remove(home: Path, catalogue: Catalogue, snapshot_id: str) -> None:
    """Remove one snapshot. Raises SnapshotError if it does not exist, is served, in use, or named by a placement."""
    with catalogue.lease("publish", wait=True):
        store = SnapshotStore(home)
        if snapshot_id not in store.list():
            raise SnapshotError(f"there is no snapshot {snapshot_id}; `seqrec index list` shows all snapshots")
        if snapshot_id == published(catalogue):
            raise SnapshotError(f"snapshot {snapshot_id} is served; publish another one first")
        placements = named_by(catalogue.placements()).get(snapshot_id)
        if placements:
            raise SnapshotError(
                f"snapshot {snapshot_id} is named by the placement {placements[0]}; `seqrec placements set` or delete "
                "changes that"
            )
        if not store.remove(snapshot_id):
            raise SnapshotError(f"snapshot {snapshot_id} is in use; try again when no process reads it")
        _remove_unneeded(home, store, catalogue)


def _replaced(store: SnapshotStore, recent: Sequence[str], keep: int) -> set[str]:
    """Those of the ids, newest first, that are copies of newer ones or come after the last `keep` different ones."""
    different: set[object] = set()
    replaced = set()
    for snapshot_id in recent:
        try:
            found = content(read_manifest(store.path_of(snapshot_id)))
        except SnapshotError:
            found = snapshot_id
        if found in different or len(different) >= keep:
            replaced.add(snapshot_id)
        different.add(found)
    return replaced


def content(manifest: Manifest) -> object:
    """Equal for snapshots that answer alike. Without FAISS's file: building it twice may give different bytes."""
    digests = sorted((name, record.sha256) for name, record in manifest.files.items() if name != INDEX_FILE)
    return manifest.checkpoint, manifest.precision, manifest.index_requested, tuple(digests)


def _remove_unneeded(home: Path, store: SnapshotStore, catalogue: Catalogue) -> None:
    """Collections, checkpoints that no snapshot needs, and log records from before this catalogue's oldest snapshot."""
    engine = open_engine()
    if engine is not None:
        try:
            engine.keep_only(store.list())
        except EngineUnavailable as error:  # the next time
            log.warning("collections of removed snapshots are kept: %s", error)
    try:
        kept = [read_manifest(store.path_of(snapshot_id)) for snapshot_id in store.list()]
    except SeqrecError as error:
        log.warning("old checkpoints and log records are kept: %s", error)
        return
    needed = {checkpoint_path(home, manifest) for manifest in kept}
    for path in (home / "checkpoints").glob("*"):
        if re.fullmatch("[0-9a-f]{12}", path.name) and path not in needed:
            with exclusive(path) as unused:
                if unused:
                    shutil.rmtree(path)
    own = [manifest.seq for manifest in kept if manifest.catalogue_id == catalogue.catalogue_id]
    if own:
        catalogue.compact(min(own))
