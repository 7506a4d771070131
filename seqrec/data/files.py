"""Atomic writes, after which a reader sees the old state or the new one, also after a crash; and private files."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

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


PRIVATE_FILE, PRIVATE_DIRECTORY = 0o600, 0o700


def private_directory(path: Path) -> None:
    """Create a directory and missing parents, which only the owner may read. An existing one is not changed."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


def private_opener(path: str, flags: int) -> int:
    """For `open`: a file that is created can be read by its owner only."""
    return os.open(path, flags, PRIVATE_FILE)


def make_private(path: Path) -> None:
    """Create a file that only its owner may read; an existing one loses the permissions of others."""
    try:
        os.close(private_opener(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL))
    except FileExistsError:  # not opened: closing any descriptor of a file releases the locks that SQLite has on it
        withdraw_permissions(path)


def withdraw_permissions(path: Path) -> None:
    """From other users, and from the group unless it may write. Without effect if there is no file."""
    if not path.is_file():
        return
    mode = path.stat().st_mode & 0o777
    allowed = mode & 0o770 if mode & 0o020 else mode & 0o700
    if allowed != mode:
        with suppress(PermissionError):  # the file of another user
            path.chmod(allowed)


@contextmanager
def new_directory(path: Path, replace: bool = False, private: bool = False) -> Iterator[Path]:
    """A temporary directory next to `path`, which is renamed to `path` if the block ends without an error.

    Everything in it is synced before the rename, and the parent after it. With `replace` an existing `path` is moved
    away first, so for an instant there is none; without it, raises FileExistsError. `private`: only the owner may read
    it and its files.
    """
    path = path.absolute()
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{path.name}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(mode=PRIVATE_DIRECTORY if private else 0o777)
    try:
        yield temporary
        for directory, _, names in os.walk(temporary, topdown=False):
            for name in names:
                with (Path(directory) / name).open("rb") as file:
                    if private:
                        os.fchmod(file.fileno(), PRIVATE_FILE)
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


@contextmanager
def new_file(path: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """A temporary file to write, which is synced and renamed to `path` if the block ends without an error.

    It replaces an existing file. `private`: only the owner may read it.
    """
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb", opener=private_opener if private else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write a small file atomically and durably."""
    with new_file(path, private) as file:
        file.write(text.encode())


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
