"""Leases, and lock files for one host. A lock file is released when its process ends, however that happens."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from seqrec.data.files import private_directory, private_opener
from seqrec.errors import SnapshotError

_DOING = {"reindex": "making a snapshot", "retrain": "retraining", "sync": "importing a feed"}
"""What the holder of a lock does, for messages."""


class Lease(Protocol):
    """The exclusive right to do something."""

    name: str

    def check(self) -> None:
        """Raises SnapshotError if the lease was lost: another process may hold it by now."""
        ...


class FileLease:
    """The lease of a lock file. It cannot be lost while its process lives."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        pass


@contextmanager
def one_at_a_time(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`. Without `wait`, raises SnapshotError if another process holds it."""
    private_directory(path.parent)
    with open(path, "a+", encoding="utf-8", opener=private_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "(unknown)"
            raise SnapshotError(
                f"process {holder} is already {_DOING.get(path.stem, 'at work')} in {path.parent}; wait until it ends"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
