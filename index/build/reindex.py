"""The batch job: import, encode, write a new snapshot, publish it. Killed at any moment, it changes nothing served."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

from index.build.build import build_snapshot
from index.build.import_items import (
    MAX_DELETE,
    Imported,
    check_deletion,
    delete_items,
    deleted_before,
    import_items,
    missing_items,
)
from index.catalogue.base import Catalogue
from index.catalogue.event_types import EventTypes
from index.catalogue.histories import HistoryStore
from index.catalogue.open import Location, open_catalogue, open_histories
from index.cluster.on_ray import Cluster, ray_workers
from index.cluster.workers import ThisProcess, Workers
from index.events.counting import current_counts
from index.events.import_events import import_interactions
from index.snapshot.carried import forget_popularity, kept_popularity
from index.snapshot.checkpoints import checkpoint_path, keep_checkpoint
from index.snapshot.manifest import Manifest
from index.snapshot.publication import KEEP, check_servable, prune, publish, published, put_into_engine
from index.snapshot.snapshot import Snapshot, SnapshotStore, read_manifest
from index.vectors.factory import check_index, choose_factory
from seqrec.data.files import check_output, private_directory, write_text
from seqrec.data.items import Item, OnError, read_interactions
from seqrec.encoder import Encoder, Precision, load_model
from seqrec.errors import InputError, LogTruncated, SeqrecError, SnapshotError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts

log = logging.getLogger(__name__)

_CHANGES_PER_READ = 1000

StageProgress = Callable[[str, int, int], object]
"""Called with the stage ("import", "delete", "events" or "index"), the number of items done, and the total."""


@dataclass(frozen=True)
class Request:
    """What to make. `checkpoint` and `precision` None: those of the served snapshot."""

    checkpoint: Path | None = None
    items: Sequence[Item] = ()  # upserted first
    interactions: Path | None = None  # stored as events first
    on_error: OnError = "raise"
    device: str | None = None
    precision: Precision | None = None
    index: str | None = None  # flat, auto or a factory string; None: as for the served snapshot, or flat
    publish: bool = True
    keep: int = KEEP
    replace: bool = False  # delete the stored items that `items` lacks
    max_delete: float = MAX_DELETE  # share of the stored items that `replace` may delete
    force: bool = False  # a new snapshot even if nothing has changed
    wait: bool = False  # while another snapshot is made
    cluster: Cluster | None = None  # Ray encodes and counts; None: this process
    instead_of: str | None = None  # digest of the checkpoint that must be served; otherwise nothing is made


@dataclass(frozen=True)
class Result:
    manifest: Manifest
    imported: Imported = field(default_factory=Imported)
    published: bool = False
    removed: Sequence[str] = ()  # snapshots
    created: bool = True  # False: nothing has changed since this snapshot was made


def make_snapshot(
    home: Path,
    request: Request,
    progress: StageProgress = lambda stage, done, total: None,
    location: Location | None = None,
) -> Result:
    """Import, encode, write and, if requested, publish. Raises SnapshotError while another one runs.

    If nothing has changed since a snapshot with the same model and settings was made, that one is the result: a copy
    would only displace an older snapshot that one can roll back to. `location` of the catalogue; None: `home`, where
    the snapshots are.
    """
    location = home if location is None else location
    store = SnapshotStore(home)
    with (
        ExitStack() as stack,
        closing(open_catalogue(location, create=bool(request.items))) as catalogue,
        catalogue.lease("reindex", request.wait),
        store.writing(),
        closing(open_histories(location)) as histories,
    ):
        previous = _open_served(store, published(catalogue))
        served = None if previous is None else previous.manifest.checkpoint
        if request.instead_of not in (None, served):
            raise SnapshotError(f"another model is served by now, {served}; nothing was published")
        checkpoint, precision = request.checkpoint, request.precision
        if checkpoint is None:
            if previous is None:
                raise SnapshotError("no snapshot is published whose model could be used; name a model by --checkpoint")
            checkpoint = checkpoint_path(home, previous.manifest)
            precision = precision or cast(Precision, previous.manifest.precision)
        # Read what may be refused before anything is encoded.
        interactions = None
        if request.interactions is not None:
            known = {item.item_id for item in request.items} | catalogue.ids()
            typed = histories.types().by_name != EventTypes().by_name  # else a type changes nothing
            interactions = read_interactions(request.interactions, known, request.on_error, typed)
        encoder = load_model(checkpoint, request.device, precision or "float32")
        if request.index is not None:
            check_index(request.index, encoder.dim, encoder.metric)
        workers: Workers = ThisProcess(encoder)
        if request.cluster is not None:
            workers = stack.enter_context(ray_workers(request.cluster, encoder, home / "shards"))
        imported = _import(store, catalogue, encoder, workers, request, progress)
        if interactions is not None:
            import_interactions(histories, interactions, lambda done, of: progress("events", done, of))
        settings = None if encoder.hybrid is None else encoder.hybrid.cooccurrence
        current = None if request.force else _current(home, store, catalogue, histories, encoder, previous, request)
        if current is not None:
            if request.publish:
                publish(home, catalogue, current.snapshot_id)
            else:
                put_into_engine(home, current.snapshot_id)
            return Result(current, imported, request.publish, created=False)
        lock = keep_checkpoint(home, encoder.checkpoint)
        counted = None if previous is None else _reusable_counts(previous, settings)
        event_counts = current_counts(histories, settings, counted, workers.count_blocks)
        manifest = build_snapshot(
            store,
            catalogue,
            encoder,
            kept_popularity(home, catalogue.catalogue_id) if previous is None else None,
            previous,
            request.on_error,
            lambda done, of: progress("index", done, of),
            request.index,
            event_counts,
            workers,
        )
        workers.finish()
        previous = None  # its files may be removed from here on
        del lock  # the snapshot names the checkpoint now
        removed: Sequence[str] = ()
        if request.publish:
            publish(home, catalogue, manifest.snapshot_id)
            forget_popularity(home)  # the snapshot has it
            removed = prune(home, catalogue, request.keep)
            _compact_events(store, histories)
        else:
            put_into_engine(home, manifest.snapshot_id)  # for placements that name it
        return Result(manifest, imported, request.publish, removed)


def _import(
    store: SnapshotStore,
    catalogue: Catalogue,
    encoder: Encoder,
    workers: Workers,
    request: Request,
    progress: StageProgress,
) -> Imported:
    """Upsert the items of the request; with `replace`, delete the stored items that it lacks."""
    if not request.items:
        if request.replace:
            raise InputError("--replace deletes what the file lacks, so it needs --items", "replace")
        return Imported()
    stored = catalogue.count()
    missing = missing_items(catalogue, request.items)
    if request.replace:
        check_deletion(missing, stored, request.max_delete)
        log.info("%d of %d stored items are not in the file and will be deleted", len(missing), stored)
    new = {item.item_id for item in request.items} - catalogue.ids()
    recreated = deleted_before(catalogue, new, _oldest_seq(store, catalogue)) if new and catalogue.head() else []
    imported = import_items(
        catalogue, encoder, request.items, request.on_error, lambda done, of: progress("import", done, of), workers
    )
    deleted = 0
    if request.replace:
        deleted = delete_items(catalogue, missing, lambda done, of: progress("delete", done, of))
    return replace(imported, not_in_file=len(missing), deleted=deleted, recreated=tuple(recreated))


def _oldest_seq(store: SnapshotStore, catalogue: Catalogue) -> int:
    """The number up to which the log may have been compacted."""
    own = [manifest.seq for manifest in _manifests(store) if manifest.catalogue_id == catalogue.catalogue_id]
    return min(own, default=0)


def _manifests(store: SnapshotStore) -> list[Manifest]:
    """The manifests of all snapshots that can be read, newest first."""
    found = []
    for snapshot_id in reversed(store.list()):
        with suppress(SnapshotError):
            found.append(read_manifest(store.path_of(snapshot_id)))
    return found


def _current(
    home: Path,
    store: SnapshotStore,
    catalogue: Catalogue,
    histories: HistoryStore,
    encoder: Encoder,
    served: Snapshot | None,
    request: Request,
) -> Manifest | None:
    """A snapshot that a new one would equal: the served one, else the newest."""
    index = request.index or ("flat" if served is None else served.manifest.index_requested)
    wanted = {
        "catalogue_id": catalogue.catalogue_id,
        "checkpoint": encoder.checkpoint.digest,
        "precision": encoder.precision,
        "index_requested": index,
        "events_log": histories.log_id,
        "events_seq": histories.events_head(),
        "event_times": True,
    }
    manifests = _manifests(store)
    if served is not None:
        manifests.sort(key=lambda manifest: manifest.snapshot_id != served.id)
    for manifest in manifests:
        if any(getattr(manifest, name) != value for name, value in wanted.items()):
            continue
        factory = choose_factory(index, manifest.count, manifest.dim).factory  # auto: on a GPU another one
        if manifest.index != factory or not _items_unchanged(catalogue, manifest.seq):
            continue
        try:
            check_servable(home, catalogue, store.open(manifest.snapshot_id).manifest)
        except SnapshotError as error:
            log.warning("snapshot %s cannot be served: %s", manifest.snapshot_id, error)
            continue
        return manifest
    return None


def _items_unchanged(catalogue: Catalogue, since: int) -> bool:
    """Whether the log has nothing but publications after change `since`."""
    head = catalogue.head()
    while since < head:
        try:
            changes = list(catalogue.changes(since, _CHANGES_PER_READ))
        except LogTruncated:
            return False
        if not changes:
            return True
        if any(change.op != "publish" for change in changes):
            return False
        since = changes[-1].seq
    return True


def _reusable_counts(previous: Snapshot, settings: CooccurrenceSettings | None) -> BaseCounts | None:
    """The counts of a snapshot, if pairs were counted with the same settings."""
    manifest = previous.manifest
    if manifest.events_seq is None or manifest.pairs != (None if settings is None else asdict(settings)):
        return None
    return previous.counts


def _compact_events(store: SnapshotStore, histories: HistoryStore) -> None:
    """Drop the records of removed events, up to the number that every snapshot has counted."""
    try:
        kept = [read_manifest(store.path_of(snapshot_id)) for snapshot_id in store.list()]
    except SeqrecError as error:
        log.warning("the log of events is not compacted: %s", error)
        return
    counted = [manifest.events_seq for manifest in kept if manifest.events_log == histories.log_id]
    numbers = [number for number in counted if number is not None]
    if numbers:
        histories.compact_events(min(numbers))


def _open_served(store: SnapshotStore, snapshot_id: str | None) -> Snapshot | None:
    """The served snapshot, to reuse vectors from. If it is damaged, a new one is made without it."""
    if snapshot_id is None:
        return None
    try:
        return store.open(snapshot_id)
    except SnapshotError as error:
        log.warning("nothing is reused from the served snapshot: %s", error)
        return None


class JobFile:
    """The progress of a job as a JSON file: state (queued, running, done, failed), done, total, snapshot, error.

    Each write is atomic and keeps other fields. A job that is killed leaves state "running" and its process id.
    """

    def __init__(self, path: Path | None, seconds: float = 0.5) -> None:
        """Without a path nothing is written. Progress is written at most every `seconds`."""
        self._path = path
        self._seconds = seconds
        self._written = 0.0
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._path is not None:
            check_output(self._path, "job")
            self._record = _read_job(self._path)
            private_directory(self._path.parent)
        self._write(state="running", process=os.getpid(), done=0, total=None, snapshot=None, error=None)
        return self

    def progress(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self._written >= self._seconds:
            self._write(stage=stage, done=done, total=total)

    def finish(self, manifest: Manifest) -> None:
        self.end(done=manifest.count, total=manifest.count, snapshot=manifest.snapshot_id)

    def end(self, **fields: Any) -> None:
        self._write(state="done", **fields)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if isinstance(error, KeyboardInterrupt):
            reason = "it was interrupted"
        else:
            reason = str(error) if isinstance(error, SeqrecError | OSError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # perhaps it failed because the disk is full
            self._write(state="failed", error=reason)

    def _write(self, **fields: Any) -> None:
        self._record |= fields
        self._written = time.monotonic()
        if self._path is not None:
            write_text(self._path, json.dumps(self._record, ensure_ascii=False) + "\n", private=True)


def _read_job(path: Path) -> dict[str, Any]:
    """The job that a service has queued in this file. Raises InputError for any other file: it would be overwritten."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except IsADirectoryError:
        raise InputError(f"{path} is a directory; name a file", "job") from None
    except UnicodeDecodeError:
        text = "not text"
    try:
        record = json.loads(text or "{}")
    except ValueError:
        record = None
    if not isinstance(record, dict) or (record and "state" not in record):
        raise InputError(f"{path} exists and is not a job file, and would be overwritten; choose another path", "job")
    return record
