"""One at a time. A lock file goes with its process, however that ends; other hosts need a lease (`redis_lease`)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from seqrec.errors import SnapshotError


class Lease(Protocol):
    """The right to do something alone."""

    name: str

    def check(self) -> None:
        """Raises SnapshotError where the lease was lost: somebody else may be at work by now."""
        ...


class FileLease:
    """A lock file's: it cannot be lost while its process lives."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        pass


@contextmanager
def one_at_a_time(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`. Without `wait`, raises SnapshotError where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise SnapshotError(
                f"a snapshot is being made in {path.parent} already, by process {file.read().strip() or 'unknown'}; "
                "wait for it to end"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
