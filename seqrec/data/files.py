"""Writing so that a reader sees the old state or the new one, never half of either, also after a crash."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqrec.errors import InputError


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable (a rename is not, until its directory is synced)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_output(path: Path, field: str) -> None:
    """Checks before any work that a file or directory can be created at `path`.

    Raises InputError, which names `field`, if a parent is a file or the nearest existing one is not writable.
    """
    parent = path.absolute().parent
    while not parent.exists() and not parent.is_symlink():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path} cannot be created, since {parent} is a file; choose another path", field)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be created, since {parent} is not writable; choose another path", field)


@contextmanager
def new_directory(path: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary directory beside `path` to fill; it becomes `path` when the block ends well, and vanishes otherwise.

    Everything in it is synced before the rename, and the parent after it. With `replace` an existing `path` gives way:
    it is moved aside first, so for an instant there is none. Raises FileExistsError where `path` exists without it.
    """
    path = path.absolute()
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{path.name}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        yield temporary
        for directory, _, names in os.walk(temporary, topdown=False):
            for name in names:
                with (Path(directory) / name).open("rb") as file:
                    os.fsync(file.fileno())
            fsync_directory(Path(directory))
        if path.exists():
            old = path.parent / f".old-{path.name}-{uuid.uuid4().hex[:8]}"
            path.rename(old)
            temporary.rename(path)
            fsync_directory(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
            fsync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all, durably."""
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
