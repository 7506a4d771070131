"""Locks and marks that keep a snapshot from being removed while a process reads it.

On one host each reader holds a shared lock on the snapshot's directory, which ends with its process. On a volume that
several hosts share, locks may not work between hosts: so each host also touches a marker file regularly, and a marker
of another host counts for `GRACE_SECONDS`.
"""

from __future__ import annotations

import fcntl
import os
import platform
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seqrec.data.files import PRIVATE_FILE, private_directory
from seqrec.errors import SnapshotError

GRACE_SECONDS = 600.0
MARK_SECONDS = 30.0
"""How often a marker must be touched."""
_MARKS = ".used"


class SnapshotLock:
    """Keeps the snapshot in a directory from being removed while this object exists."""

    def __init__(self, path: Path) -> None:
        """Raises SnapshotError if there is no such directory."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            raise SnapshotError(f"there is no snapshot {path}; `seqrec index list` lists the existing ones") from None
        self._path, self._descriptor = path, descriptor
        weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a volume without locks: the marker replaces it
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def is_current(self) -> bool:
        """Whether the directory is still at its path: it was neither removed nor replaced. Costs two stats."""
        try:
            found, locked = self._path.stat(), os.fstat(self._descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (locked.st_dev, locked.st_ino)


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Whether no process uses the snapshot in directory `path`; none can start to while the block runs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:  # a volume without locks
            free = True
        yield free and not _used_elsewhere(path)
    finally:
        os.close(descriptor)


def mark_used(path: Path) -> None:
    """Show other hosts that this one uses the snapshot in directory `path`."""
    mark = _marks(path) / f"{path.name}.{_host()}"
    private_directory(mark.parent)
    mark.touch(PRIVATE_FILE)


def forget_marks(path: Path) -> None:
    for mark in _marks(path).glob(f"{path.name}.*"):
        mark.unlink(missing_ok=True)


def _used_elsewhere(path: Path) -> bool:
    others = [mark for mark in _marks(path).glob(f"{path.name}.*") if mark.name != f"{path.name}.{_host()}"]
    if not others:
        return False
    now = _marks(path) / f".now-{_host()}-{os.getpid()}"  # the volume's clock, not this host's
    now.touch(PRIVATE_FILE)
    newest = max((mark.stat().st_mtime for mark in others if mark.exists()), default=0.0)
    fresh = now.stat().st_mtime - newest < GRACE_SECONDS
    now.unlink()
    return fresh


def _marks(path: Path) -> Path:
    return path.parent / _MARKS


def _host() -> str:
    return platform.node() or "host"
