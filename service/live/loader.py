"""Opens a published snapshot for service: the snapshot, its model, and a first round of work, which costs more."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from typing import cast

import numpy as np

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.engines.milvus import Milvus
from index.events.counting import follow, start_counts
from index.snapshot.checkpoints import checkpoint_path
from index.snapshot.manifest import Manifest
from index.snapshot.snapshot import Snapshot, SnapshotStore, read_manifest
from index.snapshot.usage import MARK_SECONDS, mark_used
from seqrec.encoder import Precision, fast_precision, load_model
from seqrec.errors import CatalogueReplaced, SnapshotError
from seqrec.text.item_text import TokenizedHistory
from service.live.engines.milvus import MilvusEngine
from service.live.search import SearchSpec, search
from service.live.state import LiveState, Towers
from service.settings import Settings

log = logging.getLogger(__name__)

_WARM_ITEMS = 8


class Loader:
    """Snapshot id -> its live state, ready to serve but for the changes since. For one thread."""

    def __init__(self, settings: Settings, catalogue: Catalogue, histories: HistoryStore | None = None) -> None:
        """Without `histories` the events are those that the snapshot has counted."""
        self._settings = settings
        self._catalogue = catalogue
        self._histories = histories
        self._store = SnapshotStore(settings.home, settings.device)
        self.milvus = None if settings.milvus_url is None else Milvus(settings.milvus_url)
        self._marked = -math.inf  # when, by the monotonic clock

    def __call__(self, snapshot_id: str, before: LiveState | None) -> LiveState:
        """The model of `before` is kept where the snapshot has the same.

        Raises SnapshotError, CheckpointError, EngineUnavailable, and CatalogueReplaced if a snapshot has later changes
        than the catalogue, of which an older state was restored then.
        """
        self._check_not_older()
        snapshot = self._store.open(snapshot_id)
        manifest = snapshot.manifest
        catalogue_id = self._catalogue.catalogue_id
        if manifest.catalogue_id != catalogue_id:
            raise SnapshotError(f"it was made of catalogue {manifest.catalogue_id}, and this is {catalogue_id}")
        if before is not None and (
            (before.snapshot.manifest.checkpoint, before.snapshot.manifest.precision)
            == (manifest.checkpoint, manifest.precision)
        ):
            state = self._state(snapshot, before.towers)
        else:
            state = self._state(snapshot, self._towers(snapshot))
            _warm_model(state)
        if before is not None and state.engine is None:
            state.filters.warm_from(before.filters)
        _warm_search(state)
        return state

    def keep_alive(self, state: LiveState) -> None:
        """Mark regularly, for other hosts, what is in use here."""
        if time.monotonic() - self._marked >= MARK_SECONDS:
            self._marked = time.monotonic()
            with suppress(OSError):  # a full disk is no reason to stop
                mark_used(state.snapshot.path)

    def _state(self, snapshot: Snapshot, towers: Towers) -> LiveState:
        """With counts that have caught up with the log of events."""
        placements = self._catalogue.placements()
        engine = None if self.milvus is None else MilvusEngine(self.milvus, snapshot)
        if self._histories is None:
            return LiveState(snapshot, towers, placements=placements, engine=engine)
        settings = None if towers.encoder.hybrid is None else towers.encoder.hybrid.cooccurrence
        base = snapshot.counts if snapshot.manifest.events_seq is not None else None
        counts = start_counts(self._histories, settings, base)
        follow(self._histories, counts)
        return LiveState(snapshot, towers, counts, placements, engine)

    def _check_not_older(self) -> None:
        made: list[Manifest] = []
        for snapshot_id in reversed(self._store.list()):
            with suppress(SnapshotError):
                made.append(read_manifest(self._store.path_of(snapshot_id)))
        head = self._catalogue.head()  # read last: a snapshot that is made meanwhile has later changes too
        for manifest in made:
            if manifest.catalogue_id == self._catalogue.catalogue_id and manifest.seq > head:
                raise CatalogueReplaced(
                    f"the catalogue is at {head}, and snapshot {manifest.snapshot_id} was made of it at "
                    f"{manifest.seq}: an older state of it was restored, so acknowledged changes are lost. Restore a "
                    "newer backup; or, to go on without them, remove "
                    f"{self._store.path_of(manifest.snapshot_id)} and run `seqrec reindex`"
                )

    def _towers(self, snapshot: Snapshot) -> Towers:
        manifest, settings = snapshot.manifest, self._settings
        # As the vectors of the snapshot were made, unless set, and unless this processor is slower with it.
        precision = settings.precision or fast_precision(cast(Precision, manifest.precision))
        if settings.precision is None and precision != manifest.precision:
            log.info("computing in %s: %s is not faster on this processor", precision, manifest.precision)
        encoder = load_model(checkpoint_path(settings.home, manifest), settings.device, precision)
        if encoder.checkpoint.digest != manifest.checkpoint:
            raise SnapshotError(
                f"it was made by checkpoint {manifest.checkpoint}, and {encoder.checkpoint.path} is "
                f"{encoder.checkpoint.digest}"
            )
        if settings.batch_tokens is not None:
            encoder.token_budget = settings.batch_tokens
        return Towers(encoder.compile_cuda_graphs())


def _warm_model(state: LiveState) -> None:
    """Encode as requests do: the first time libraries load and buffers are made."""
    items = [state.snapshot.tokens[row] for row in range(min(_WARM_ITEMS, len(state.snapshot.item_ids)))]
    state.towers.encode_items(items)
    state.towers.encode_histories([TokenizedHistory(items[:n]) for n in range(len(items) + 1)])


def _warm_search(state: LiveState) -> None:
    """Search as requests do: memory is mapped, and what is made once for a view is made."""
    vectors = state.snapshot.vectors[:_WARM_ITEMS]
    search(state.view, np.asarray(vectors, np.float32), [SearchSpec(10)] * len(vectors))
    _ = state.view.popularity
