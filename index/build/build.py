"""Builds a snapshot of the catalogue: known vectors are reused, everything else is encoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import tee

import numpy as np
import numpy.typing as npt

from index.build.import_items import Progress, reject_textless
from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.batches import batches
from index.cluster.workers import Count, ThisProcess, Workers
from index.snapshot.manifest import Manifest
from index.snapshot.snapshot import Snapshot, SnapshotStore
from index.snapshot.writer import write_snapshot
from seqrec.data.items import Item, OnError
from seqrec.encoder import Encoder
from seqrec.hybrid.event_counts import BaseCounts
from seqrec.text.item_text import TokenizedItem, has_model_input, same_tokens

log = logging.getLogger(__name__)


def build_snapshot(
    store: SnapshotStore,
    catalogue: Catalogue,
    encoder: Encoder,
    counts: Mapping[str, float] | None = None,
    previous: Snapshot | None = None,
    on_error: OnError = "raise",
    progress: Progress = lambda done, total: None,
    index: str | None = None,
    event_counts: BaseCounts | None = None,
    workers: Workers | None = None,
) -> Manifest:
    """Write a snapshot of the catalogue at its head; returns its manifest.

    An item's vector comes from its log record if the same item tower made it, else from the `previous` snapshot under
    the same condition; otherwise the item is encoded. `counts`: events of each item that the log of events does not
    have; None: those that `previous` carries. Items that the model cannot read stay in the catalogue and are left out
    of the snapshot; for a model that reads text they raise InputError unless `on_error` is "skip". Items may be added
    meanwhile: they come after the snapshot in the log. `index`: flat, auto or a FAISS factory string; None: the one
    requested for `previous`. `workers`: encode; None: this process.
    """
    index = index or ("flat" if previous is None else previous.manifest.index_requested)
    seq = catalogue.head()
    if previous is not None and previous.manifest.catalogue_id != catalogue.catalogue_id:
        previous = None
    source = _Source(encoder, previous, workers or ThisProcess(encoder))
    total, unreadable = source.survey(catalogue.scan(through=seq))
    if encoder.cold_items:
        reject_textless(encoder, unreadable, on_error)
    elif unreadable:
        log.warning(
            "%d items are not in the snapshot: the model knows only the items of its training data", len(unreadable)
        )
    settings = None if encoder.hybrid is None else encoder.hybrid.cooccurrence
    counted = (
        counts is not None
        or (event_counts is not None and len(event_counts.item_ids) > 0)
        or (previous is not None and previous.manifest.popularity)
    )
    manifest = Manifest.begun(encoder, store.new_id(seq), catalogue.catalogue_id, seq, index, counted)
    manifest = replace(manifest, pairs=None if settings is None else asdict(settings))

    def popularity(item_id: str) -> float:
        if counts is not None:
            return counts.get(item_id, 0)
        row = None if previous is None else previous.row_of(item_id)
        return 0 if previous is None or row is None else float(previous.popularity[row])

    items = source.encoded(catalogue.scan(through=seq), total, progress)
    term_vectors = None if encoder.hybrid is None else encoder.term_vectors
    path = store.path_of(manifest.snapshot_id)
    return write_snapshot(path, manifest, items, popularity, event_counts, term_vectors)


class _Source:
    """Provides token ids and vectors of items: from the log, from the previous snapshot, or from the encoder."""

    def __init__(self, encoder: Encoder, previous: Snapshot | None, workers: Workers) -> None:
        self._encoder, self._workers = encoder, workers
        self._tower = encoder.item_tower
        self._previous = None
        if previous is not None:
            made_by = (previous.manifest.item_tower, previous.manifest.precision)
            self._previous = previous if made_by == (encoder.checkpoint.item_tower, encoder.precision) else None

    def survey(self, rows: Iterator[tuple[int, CatalogueItem]]) -> tuple[int, list[str]]:
        """The number of items, and the ids of those that the model cannot read: known before hours of encoding."""
        total, unreadable = 0, []
        for batch in batches(rows):
            unknown = [entry.item for seq, entry in batch if self._known(seq, entry) is None]
            tokens = self._encoder.tokenize_items(unknown)
            unreadable += [item.item_id for item, its in zip(unknown, tokens, strict=True) if not has_model_input(its)]
            total += len(batch)
        return total, unreadable

    def encoded(
        self, rows: Iterator[tuple[int, CatalogueItem]], total: int, progress: Progress
    ) -> Iterator[list[CatalogueItem]]:
        """Batches of all items that the model can read, with token ids and vectors."""
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        # Workers may read batches ahead of the one whose vectors come next.
        ahead, prepared = tee(self._prepared(rows, count))
        wanted = ([tokens for _, tokens in missing] for _, missing in ahead)
        for (made, missing), vectors in zip(prepared, self._workers.encode(wanted, count), strict=True):
            for (item, tokens), vector in zip(missing, vectors, strict=True):
                made[item.item_id] = CatalogueItem(item, tokens, vector, self._tower)
            yield [entry for entry in made.values() if entry is not None]

    def _prepared(
        self, rows: Iterator[tuple[int, CatalogueItem]], count: Count
    ) -> Iterator[tuple[dict[str, CatalogueItem | None], list[tuple[Item, TokenizedItem]]]]:
        """Batches of the items by id, None where the vector is unknown, and those that are to be encoded."""
        for batch in batches(rows):
            made = {entry.item.item_id: self._known(seq, entry) for seq, entry in batch}
            unknown = [entry.item for _, entry in batch if made[entry.item.item_id] is None]
            pairs = zip(unknown, self._encoder.tokenize_items(unknown), strict=True)
            missing: list[tuple[Item, TokenizedItem]] = []
            for item, tokens in pairs:
                vector = self._same_text_vector(item.item_id, tokens)
                if vector is not None:
                    made[item.item_id] = CatalogueItem(item, tokens, vector, self._tower)
                elif has_model_input(tokens):
                    missing.append((item, tokens))
            count(len(batch) - len(missing))
            yield made, missing

    def _known(self, seq: int, entry: CatalogueItem) -> CatalogueItem | None:
        if entry.vector is not None and entry.tokens is not None and entry.item_tower == self._tower:
            return entry
        previous = self._previous
        if previous is None or seq > previous.manifest.seq:
            return None
        row = previous.row_of(entry.item.item_id)
        if row is None:
            return None
        return CatalogueItem(entry.item, previous.tokens[row], previous.vectors[row], self._tower)

    def _same_text_vector(self, item_id: str, tokens: TokenizedItem) -> npt.NDArray[np.float32] | None:
        """The vector of the previous snapshot if the item has changed since, but not its text."""
        row = None if self._previous is None else self._previous.row_of(item_id)
        if self._previous is None or row is None:
            return None
        return self._previous.vectors[row] if same_tokens(self._previous.tokens[row], tokens) else None
