"""The batch job: a new snapshot of the catalogue, published when it is whole. Killed at any moment, nothing changes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from index.build.build import build_snapshot
from index.build.import_items import Imported, import_items
from index.catalogue.histories import HistoryStore
from index.catalogue.open import Location, open_catalogue, open_histories
from index.events.counting import current_counts
from index.events.import_events import import_interactions
from index.snapshot.checkpoints import checkpoint_path, keep_checkpoint
from index.snapshot.manifest import Manifest
from index.snapshot.publication import KEEP, prune, publish, published
from index.snapshot.snapshot import Snapshot, SnapshotStore, read_manifest
from index.vectors.factory import check_kind
from seqrec.data.files import write_text
from seqrec.data.items import Item, OnError, read_interactions
from seqrec.encoder import Precision, load_model
from seqrec.errors import SeqrecError, SnapshotError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts

log = logging.getLogger(__name__)

StageProgress = Callable[[str, int, int], object]
"""Called with the stage ("import" or "index"), the number of items done, and of all."""


@dataclass(frozen=True)
class Request:
    """What to make. `checkpoint` and `precision` None: those of the snapshot that is served."""

    checkpoint: Path | None = None
    items: Sequence[Item] = ()  # upserted before
    interactions: Path | None = None  # None: counts are taken over from what is served
    on_error: OnError = "raise"
    device: str | None = None
    precision: Precision | None = None
    index: str | None = None  # flat, auto or a factory string; None: as for the snapshot that is served, or flat
    publish: bool = True
    keep: int = KEEP


@dataclass(frozen=True)
class Result:
    manifest: Manifest
    imported: Imported = field(default_factory=Imported)
    published: bool = False
    removed: Sequence[str] = ()  # snapshots


def make_snapshot(
    home: Path,
    request: Request,
    progress: StageProgress = lambda stage, done, total: None,
    location: Location | None = None,
) -> Result:
    """Import, encode, write and, if asked for, publish. One at a time: raises SnapshotError while another one runs.

    `location` of the catalogue; None: `home`, where the snapshots are.
    """
    location = home if location is None else location
    with (
        closing(open_catalogue(location, create=bool(request.items))) as catalogue,
        catalogue.lease("reindex"),
        closing(open_histories(location)) as histories,
    ):
        store = SnapshotStore(home)
        _remove_unfinished(store, home)
        previous = _served(store, published(catalogue))
        checkpoint, precision = request.checkpoint, request.precision
        if checkpoint is None:
            if previous is None:
                raise SnapshotError("no snapshot is published whose model could be used; name one by --checkpoint")
            checkpoint = checkpoint_path(home, previous.manifest)
            precision = precision or cast(Precision, previous.manifest.precision)
        # Read what may be refused before anything is encoded.
        interactions = None
        if request.interactions is not None:
            known = {item.item_id for item in request.items} | catalogue.ids()
            interactions = read_interactions(request.interactions, known, request.on_error)
        encoder = load_model(checkpoint, request.device, precision or "float32")
        if request.index is not None:
            check_kind(request.index, encoder.dim, encoder.metric)
        imported = import_items(
            catalogue, encoder, request.items, request.on_error, lambda done, of: progress("import", done, of)
        )
        if interactions is not None:
            import_interactions(histories, interactions, lambda done, of: progress("events", done, of))
        keep_checkpoint(home, encoder.checkpoint)
        settings = None if encoder.hybrid is None else encoder.hybrid.cooccurrence
        counted = None if previous is None else _counted_alike(previous, settings)
        event_counts = current_counts(histories, settings, counted)
        manifest = build_snapshot(
            store,
            catalogue,
            encoder,
            None,
            previous,
            request.on_error,
            lambda done, of: progress("index", done, of),
            request.index,
            event_counts,
        )
        previous = None  # used no more
        removed: Sequence[str] = ()
        if request.publish:
            publish(home, catalogue, manifest.snapshot_id)
            removed = prune(home, catalogue, request.keep)
            _compact_events(store, histories)
        return Result(manifest, imported, request.publish, removed)


def _counted_alike(previous: Snapshot, settings: CooccurrenceSettings | None) -> BaseCounts | None:
    """The counts of a snapshot, where pairs were counted with the same settings."""
    manifest = previous.manifest
    if manifest.events_seq is None or manifest.pairs != (None if settings is None else asdict(settings)):
        return None
    return previous.counts


def _compact_events(store: SnapshotStore, histories: HistoryStore) -> None:
    """Forget what was removed, as far as every snapshot has counted the log."""
    try:
        kept = [read_manifest(store.path_of(snapshot_id)) for snapshot_id in store.list()]
    except SeqrecError as error:
        log.warning("the log of events is not compacted: %s", error)
        return
    counted = [manifest.events_seq for manifest in kept if manifest.events_log == histories.log_id]
    numbers = [number for number in counted if number is not None]
    if numbers:
        histories.compact_events(min(numbers))


def _served(store: SnapshotStore, snapshot_id: str | None) -> Snapshot | None:
    """The snapshot that is served, to take over from; a new one is also the way out where it is damaged."""
    if snapshot_id is None:
        return None
    try:
        return store.open(snapshot_id)
    except SnapshotError as error:
        log.warning("nothing is taken over from the snapshot that is served: %s", error)
        return None


def _remove_unfinished(store: SnapshotStore, home: Path) -> None:
    store.remove_unfinished()
    for pattern in (".tmp-*", ".old-*"):
        for path in (home / "checkpoints").glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


class JobFile:
    """A file that tells how far a job is: state (queued, running, done, failed), done, total, snapshot, error.

    Written whole or not at all. What else is in the file stays. A job that is killed leaves "running" and its
    process id behind.
    """

    def __init__(self, path: Path | None, seconds: float = 0.5) -> None:
        """Without a path it writes nothing. Progress is written every `seconds` at most."""
        self._path = path
        self._seconds = seconds
        self._written = 0.0
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._path is not None:
            with suppress(FileNotFoundError, ValueError):
                self._record = dict(json.loads(self._path.read_text(encoding="utf-8")))
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write(state="running", process=os.getpid(), done=0, total=None, snapshot=None, error=None)
        return self

    def progress(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self._written >= self._seconds:
            self._write(stage=stage, done=done, total=total)

    def finish(self, manifest: Manifest) -> None:
        self._write(state="done", done=manifest.count, total=manifest.count, snapshot=manifest.snapshot_id)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if isinstance(error, KeyboardInterrupt):
            reason = "it was ended before it was done"
        else:
            reason = str(error) if isinstance(error, SeqrecError | OSError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk is why it failed, perhaps
            self._write(state="failed", error=reason)

    def _write(self, **fields: Any) -> None:
        self._record |= fields
        self._written = time.monotonic()
        if self._path is not None:
            write_text(self._path, json.dumps(self._record, ensure_ascii=False) + "\n")
