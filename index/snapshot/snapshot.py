"""A snapshot: an immutable directory that the service answers from. Rows are in the order of item ids.

manifest.json        its origin and settings, and the size and sha256 of every file below
vectors.npy          float32 [n, dim]; for a flat index they are the index
item_ids.txt         one id a line
token_ids.npy        int32 [t], token_types.npy uint8 [t], token_offsets.npy int64 [n + 1]
attributes.jsonl     one JSON object a line, attribute_offsets.npy int64 [n + 1] where each line begins
available.npy        bool [n]
popularity.npy       float64 [n], interactions counted for each item
index.faiss          written by FAISS, unless the index is flat
columns.json, ...    columns of attributes (`index.snapshot.attribute_columns`)

Vectors, token ids and attributes are memory-mapped: processes share the pages that are read.
"""

from __future__ import annotations

import fcntl
import json
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.catalogue.item_json import attributes_from_json
from index.catalogue.locks import one_at_a_time
from index.snapshot.attribute_columns import COLUMN_FILES, StoredColumns
from index.snapshot.columns import IdLines, map_bytes, map_npy
from index.snapshot.manifest import Manifest
from index.snapshot.sparse import COUNT_FILES, TERM_FILES, TIME_FILES, Read, Terms, read_counts, read_terms
from index.snapshot.usage import SnapshotLock, exclusive, forget_marks
from index.vectors.base import VectorIndex
from index.vectors.factory import FLAT, INDEX_FILE, open_index
from seqrec.data.files import private_directory, private_opener, sha256_file, write_text
from seqrec.data.items import Item
from seqrec.errors import SnapshotError
from seqrec.hybrid.event_counts import BaseCounts
from seqrec.metric import Metric
from seqrec.text.item_text import ItemTokens

MANIFEST = "manifest.json"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9]{6,}-[0-9a-f]{6}")
FILES = (
    "vectors.npy",
    "item_ids.txt",
    "token_ids.npy",
    "token_types.npy",
    "token_offsets.npy",
    "attributes.jsonl",
    "attribute_offsets.npy",
    "available.npy",
    "popularity.npy",
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An open snapshot. Safe to read from several threads."""

    path: Path
    manifest: Manifest
    item_ids: IdLines  # n, rising
    vectors: npt.NDArray[np.float32]  # [n, dim]
    tokens: ItemTokens
    available: npt.NDArray[np.bool_]  # [n]
    popularity: npt.NDArray[np.float64]  # [n]
    counts: BaseCounts  # of events, and of pairs where the model is a hybrid
    terms: Terms | None  # where the model is a hybrid
    columns: StoredColumns | None  # None: an earlier version wrote it
    _attributes: mmap | bytes
    _attribute_offsets: npt.NDArray[np.int64]  # [n + 1]
    _lock: SnapshotLock | None = None  # while it exists, the snapshot is not removed
    _device: str | None = None  # where to search; None: on a GPU where there is one

    @property
    def id(self) -> str:
        return self.manifest.snapshot_id

    def check_present(self) -> None:
        """Cheap, for a running service. Raises SnapshotError if files were removed or cut short since it was opened.

        What is memory-mapped can still be read, but no other process can open the snapshot, and none after a restart.
        """
        if self._lock is not None and not self._lock.is_current():
            raise SnapshotError(
                f"the directory of snapshot {self.id} was removed or replaced; `seqrec reindex` makes one"
            )
        for name, record in self.manifest.files.items():
            try:
                size = (self.path / name).stat().st_size
            except OSError:
                size = -1
            if size != record.size:
                what = "is missing" if size < 0 else f"has {size} bytes instead of {record.size}"
                raise SnapshotError(f"{name} of snapshot {self.id} {what}; `seqrec reindex` makes a new snapshot")

    def row_of(self, item_id: str) -> int | None:
        return self.item_ids.row_of(item_id)

    def item(self, row: int) -> Item:
        begin, end = self._attribute_offsets[row], self._attribute_offsets[row + 1]
        return Item(self.item_ids[row], attributes_from_json(self._attributes[begin:end]), bool(self.available[row]))

    @cached_property
    def index(self) -> VectorIndex:
        """Opened at the first access. Raises SnapshotError for an index file that cannot be read."""
        manifest = self.manifest
        path, metric = self.path / INDEX_FILE, Metric(manifest.metric)
        return open_index(manifest.index, path, self.vectors, metric, manifest.search_params, self._device)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the snapshot in directory `path`. Raises SnapshotError."""
    if not path.is_dir():
        raise SnapshotError(f"there is no snapshot {path}; `seqrec index list` lists the existing ones")
    try:
        return Manifest.from_json((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SnapshotError(f"{path} is no snapshot: it has no {MANIFEST}") from None
    except UnicodeDecodeError:
        raise SnapshotError(f"{path / MANIFEST}: it was altered: it is not UTF-8") from None
    except SnapshotError as error:
        raise SnapshotError(f"{path / MANIFEST}: {error}") from error.__cause__


def open_snapshot(path: Path, verify: bool = False) -> Snapshot:
    """Open the snapshot in directory `path`; with `verify` every byte of it is hashed first.

    Raises SnapshotError, which names the file, for files that are missing, cut short, altered or inconsistent. Sizes
    and shapes are always checked.
    """
    manifest = read_manifest(path)
    for name in files_of(manifest):
        if name not in manifest.files:
            raise SnapshotError(f"{path / MANIFEST} does not name {name}: this program did not write it")
    for name, record in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise SnapshotError(f"{file} is missing: the snapshot is not whole")
        size = file.stat().st_size
        if size != record.size:
            raise SnapshotError(f"{file} has {size} bytes, not the {record.size} it was written with: it was altered")
        if verify and sha256_file(file) != record.sha256:
            raise SnapshotError(f"{file} was altered: its sha256 is not that of the manifest")
    n = manifest.count

    def read(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        return _column(path, name, dtype, shape)

    try:
        item_ids = IdLines(path / "item_ids.txt")
    except UnicodeDecodeError:
        raise SnapshotError(f"{path / 'item_ids.txt'} was altered: it is not UTF-8") from None
    token_offsets = _column(path, "token_offsets.npy", np.int64, (n + 1,))
    t = int(token_offsets[-1])
    if len(item_ids) != n:
        raise SnapshotError(f"{path / 'item_ids.txt'} has {len(item_ids)} ids, not the {n} of the manifest")
    popularity = _column(path, "popularity.npy", np.float64, (n,))
    return Snapshot(
        path=path,
        manifest=manifest,
        item_ids=item_ids,
        vectors=_column(path, "vectors.npy", np.float32, (n, manifest.dim)),
        tokens=ItemTokens(
            ids=_column(path, "token_ids.npy", np.int32, (t,)),
            types=_column(path, "token_types.npy", np.uint8, (t,)),
            offsets=token_offsets,
        ),
        available=_column(path, "available.npy", np.bool_, (n,)),
        popularity=popularity,
        counts=_counts(path, manifest, read, item_ids, popularity),
        terms=read_terms(read, n) if manifest.hybrid else None,
        columns=StoredColumns(path, n) if manifest.columns else None,
        _attributes=map_bytes(path / "attributes.jsonl"),
        _attribute_offsets=_column(path, "attribute_offsets.npy", np.int64, (n + 1,)),
    )


def files_of(manifest: Manifest) -> Sequence[str]:
    """Names of the files of a snapshot, without its manifest."""
    names = list(FILES)
    if manifest.index != FLAT:
        names.append(INDEX_FILE)
    if manifest.events_seq is not None:
        names += COUNT_FILES
    if manifest.event_times:
        names += TIME_FILES
    if manifest.hybrid:
        names += TERM_FILES
    if manifest.columns:
        names += COLUMN_FILES
    return names


def _counts(
    path: Path, manifest: Manifest, read: Read, item_ids: Sequence[str], popularity: npt.NDArray[np.float64]
) -> BaseCounts:
    """The counts of events; for a snapshot written before counts existed, its popularity and no events of the log."""
    if manifest.events_seq is not None:
        return read_counts(path, read, manifest.events_seq, manifest.events_log, manifest.event_times)
    none = BaseCounts.empty()
    return replace(none, item_ids=item_ids, events=popularity, offsets=np.zeros(len(item_ids) + 1, np.int64))


class SnapshotStore:
    """The snapshots of one SEQREC_HOME, in `<home>/snapshots/<snapshot id>`."""

    def __init__(self, home: Path | str, device: str | None = None) -> None:
        """`device` to search on; None: a GPU if there is one."""
        self.directory = Path(home) / "snapshots"
        self._device = device

    def new_id(self, seq: int) -> str:
        """UTC time in seconds, sequence number and random digits: ids sort by age."""
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{seq:06d}-{uuid.uuid4().hex[:6]}"

    def path_of(self, snapshot_id: str) -> Path:
        """The directory of a snapshot, which need not exist. Raises SnapshotError for an invalid id."""
        if not _ID.fullmatch(snapshot_id):
            raise SnapshotError(f"{snapshot_id!r} is no snapshot id; `seqrec index list` lists the existing ones")
        return self.directory / snapshot_id

    def list(self) -> list[str]:
        """Ids of all snapshots, oldest first."""
        if not self.directory.is_dir():
            return []
        found = (path.name for path in self.directory.iterdir() if _ID.fullmatch(path.name))
        return sorted(name for name in found if (self.directory / name / MANIFEST).is_file())

    def open(self, snapshot_id: str) -> Snapshot:
        """Open a snapshot, hashing it if this host has not done so since its files were last touched.

        Raises SnapshotError as `open_snapshot` does, and where the directory has the name of another snapshot.
        """
        path = self.path_of(snapshot_id)
        lock = SnapshotLock(path)
        self._check_name(path)
        mark = self._mark(snapshot_id)
        if _has_content(mark, _fingerprint(path)):
            return replace(open_snapshot(path), _lock=lock, _device=self._device)
        try:
            private_directory(mark.parent)
            hashing = one_at_a_time(mark.with_suffix(".lock"), wait=True)  # workers that start together hash once
        except OSError:
            return replace(self.verify(snapshot_id), _lock=lock, _device=self._device)
        with hashing:
            known = _has_content(mark, _fingerprint(path))
            opened = open_snapshot(path) if known else self.verify(snapshot_id)
            return replace(opened, _lock=lock, _device=self._device)

    def verify(self, snapshot_id: str) -> Snapshot:
        """Hash every byte, even if that was done before, and open. Raises SnapshotError."""
        path = self.path_of(snapshot_id)
        self._check_name(path)
        fingerprint = _fingerprint(path)
        snapshot = open_snapshot(path, verify=True)
        mark = self._mark(snapshot_id)
        with suppress(OSError):  # a read-only disk: the next start hashes again
            private_directory(mark.parent)
            write_text(mark, fingerprint, private=True)
        return snapshot

    def remove(self, snapshot_id: str) -> bool:
        """Remove a snapshot unless it is in use; returns whether it was removed."""
        path = self.path_of(snapshot_id)
        with exclusive(path) as free:
            if not free:
                return False
            removed = path.with_name(f".old-{snapshot_id}-{uuid.uuid4().hex[:8]}")
            path.rename(removed)
        shutil.rmtree(removed)
        for mark in self._mark(snapshot_id).parent.glob(f"{snapshot_id}.*"):
            mark.unlink(missing_ok=True)
        forget_marks(path)
        return True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Must be held while a snapshot or checkpoint is written. Removes first what killed processes left unfinished.

        Several writers may hold it, of different catalogues in one home; then nothing is removed.
        """
        private_directory(self.directory.parent)
        private_directory(self.directory)
        with open(self.directory / ".writers.lock", "a", opener=private_opener) as file:
            with suppress(OSError):  # another writer, or a volume without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove_unfinished()
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def _remove_unfinished(self) -> None:
        for directory in (self.directory, self.directory.with_name("checkpoints")):
            for pattern in (".tmp-*", ".old-*"):
                for path in directory.glob(pattern):
                    shutil.rmtree(path, ignore_errors=True)

    def _mark(self, snapshot_id: str) -> Path:
        return self.directory / ".verified" / f"{snapshot_id}.{platform.node() or 'host'}"

    def _check_name(self, path: Path) -> None:
        manifest = read_manifest(path)
        if manifest.snapshot_id != path.name:
            raise SnapshotError(f"{path} contains snapshot {manifest.snapshot_id}: it was copied there by hand")


def _column(path: Path, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        column = map_npy(path / name)
    except ValueError as error:
        raise SnapshotError(f"{path / name} was altered: it is not a .npy file") from error
    fits = column.ndim == len(shape) and all(size in (-1, own) for size, own in zip(shape, column.shape, strict=True))
    if column.dtype != dtype or not fits:
        raise SnapshotError(
            f"{path / name} contains {column.dtype} {list(column.shape)}, not {np.dtype(dtype)} {list(shape)}: "
            "it belongs to another snapshot"
        )
    return column


def _has_content(mark: Path, text: str) -> bool:
    try:
        return mark.read_text(encoding="utf-8") == text
    except OSError:
        return False


def _fingerprint(path: Path) -> str:
    """Changes when any file does, by inode, size and modification time."""
    stats = {file.name: file.stat() for file in sorted(path.iterdir())}
    return json.dumps({name: [s.st_ino, s.st_size, s.st_mtime_ns] for name, s in stats.items()})
