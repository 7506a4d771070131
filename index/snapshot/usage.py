"""Who uses a snapshot, so that none is removed under those who read it.

On one host each user holds a shared lock on the snapshot's directory: exact, and gone with its process. Where several
hosts share a volume, locks may not reach from one to the other; so each host also keeps a mark fresh beside the
snapshots, and a mark of another host counts for `GRACE_SECONDS` after it was last touched.
"""

from __future__ import annotations

import fcntl
import os
import platform
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seqrec.errors import SnapshotError

GRACE_SECONDS = 600.0
MARK_SECONDS = 30.0
"""How often a mark is to be touched."""
_MARKS = ".used"


class SnapshotLock:
    """Keeps the snapshot in a directory from being removed, as long as this object lives."""

    def __init__(self, path: Path) -> None:
        """Raises SnapshotError if there is none."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            raise SnapshotError(f"there is no snapshot {path}; `seqrec index list` shows those there are") from None
        weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a volume without locks: the mark tells
            fcntl.flock(descriptor, fcntl.LOCK_SH)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody uses the snapshot in directory `path`; as long as the block runs, nobody begins to."""
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
    """Tell other hosts that this one uses the snapshot in directory `path`."""
    mark = _marks(path) / f"{path.name}.{_host()}"
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def forget_marks(path: Path) -> None:
    for mark in _marks(path).glob(f"{path.name}.*"):
        mark.unlink(missing_ok=True)


def _used_elsewhere(path: Path) -> bool:
    others = [mark for mark in _marks(path).glob(f"{path.name}.*") if mark.name != f"{path.name}.{_host()}"]
    if not others:
        return False
    now = _marks(path) / f".now-{_host()}-{os.getpid()}"  # by the clock of the volume, not by ours
    now.touch()
    newest = max((mark.stat().st_mtime for mark in others if mark.exists()), default=0.0)
    fresh = now.stat().st_mtime - newest < GRACE_SECONDS
    now.unlink()
    return fresh


def _marks(path: Path) -> Path:
    return path.parent / _MARKS


def _host() -> str:
    return platform.node() or "host"
