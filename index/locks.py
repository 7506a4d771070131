"""One at a time, among all processes of a host. A lock goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqrec.errors import SnapshotError


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
