"""The checkpoints that snapshots need, copied to `<home>/checkpoints/<first 12 hex digits of the digest>`."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from index.snapshot.manifest import Manifest
from index.snapshot.usage import SnapshotLock
from seqrec.checkpoint import Checkpoint, load_checkpoint
from seqrec.data.files import new_directory, private_directory
from seqrec.errors import CheckpointError, SnapshotError


def checkpoint_path(home: Path | str, manifest: Manifest) -> Path:
    """Where the checkpoint of a snapshot is stored under `home`."""
    return _path_of(Path(home), manifest.checkpoint)


def has_checkpoint(home: Path, manifest: Manifest) -> bool:
    """Whether the checkpoint of a snapshot exists and can be loaded."""
    return _is_complete(checkpoint_path(home, manifest), manifest.checkpoint)


def keep_checkpoint(home: Path, checkpoint: Checkpoint) -> SnapshotLock:
    """Copy a checkpoint to where `checkpoint_path` finds it, unless a complete copy is there.

    A copy, not a link: a served model must not change when a training run writes to the original. While the lock that
    is returned exists, the copy is not removed, although no snapshot names it yet. Raises CheckpointError if the files
    have changed since the checkpoint was loaded.
    """
    path = _path_of(home, checkpoint.digest)
    while True:
        if not _is_complete(path, checkpoint.digest):
            _copy(checkpoint, path)
        with suppress(SnapshotError):  # removed since, together with the last snapshot that needed it
            lock = SnapshotLock(path)
            if lock.is_current():
                return lock


def _copy(checkpoint: Checkpoint, path: Path) -> None:
    private_directory(path.parent)
    with new_directory(path, replace=True, private=True) as directory:
        lines = (checkpoint.path / "digest").read_text(encoding="utf-8").splitlines()
        for name in ("digest", *(line.partition("  ")[2] for line in lines)):
            shutil.copyfile(checkpoint.path / name, directory / name)
        if not _is_complete(directory, checkpoint.digest):
            raise CheckpointError(f"{checkpoint.path} was changed after it had been loaded; start again")


def _path_of(home: Path, digest: str) -> Path:
    return home / "checkpoints" / digest[:12]


def _is_complete(path: Path, digest: str) -> bool:
    try:
        return load_checkpoint(path).digest == digest
    except CheckpointError:
        return False
