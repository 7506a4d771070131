"""Making a snapshot of the catalogue: reuse what is encoded, encode the rest, keep the model beside it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.build.import_items import Progress, has_model_input, reject_textless
from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.batches import batches
from index.snapshot.manifest import Manifest
from index.snapshot.snapshot import Snapshot, SnapshotStore
from index.snapshot.writer import write_snapshot
from seqrec.data.items import Item, OnError, read_interactions
from seqrec.encoder import Encoder
from seqrec.hybrid.event_counts import BaseCounts
from seqrec.text.item_text import TokenizedItem

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
) -> Manifest:
    """Write a snapshot of the catalogue at its head; returns its manifest.

    An item's vector comes from its record in the log where the same item tower made it, else from the `previous`
    snapshot under the same condition, else it is encoded. `counts`: interactions of each item; None takes them over
    from `previous`. Items that the model cannot read are left out (with `on_error="raise"`, a model that reads text
    refuses: InputError); they stay in the catalogue. Items may be added all the while: those are in the log after S.
    `index` flat, auto or a factory string; None: what was asked for when `previous` was made.
    """
    index = index or ("flat" if previous is None else previous.manifest.index_asked)
    seq = catalogue.head()
    if previous is not None and previous.manifest.catalogue_id != catalogue.catalogue_id:
        previous = None
    source = _Source(encoder, previous)
    total, silent = source.survey(catalogue.scan(through=seq))
    if encoder.cold_items:
        reject_textless(encoder, silent, on_error)
    elif silent:
        log.warning("%d items are not in the snapshot: the model knows only items it was trained with", len(silent))
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
    """Where token ids and vectors of items come from."""

    def __init__(self, encoder: Encoder, previous: Snapshot | None) -> None:
        self._encoder = encoder
        self._tower = encoder.item_tower
        self._previous = None
        if previous is not None:
            made_by = (previous.manifest.item_tower, previous.manifest.precision)
            self._previous = previous if made_by == (encoder.checkpoint.item_tower, encoder.precision) else None

    def survey(self, rows: Iterator[tuple[int, CatalogueItem]]) -> tuple[int, list[str]]:
        """How many items there are, and the ids of those that the model cannot read: known before hours of encoding."""
        total, silent = 0, []
        for batch in batches(rows):
            unknown = [entry.item for seq, entry in batch if self._known(seq, entry) is None]
            tokens = self._encoder.tokenize_items(unknown)
            silent += [item.item_id for item, its in zip(unknown, tokens, strict=True) if not has_model_input(its)]
            total += len(batch)
        return total, silent

    def encoded(
        self, rows: Iterator[tuple[int, CatalogueItem]], total: int, progress: Progress
    ) -> Iterator[list[CatalogueItem]]:
        """All items that the model can read, with token ids and vectors."""
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        for batch in batches(rows):
            made = {entry.item.item_id: self._known(seq, entry) for seq, entry in batch}
            unknown = [entry.item for _, entry in batch if made[entry.item.item_id] is None]
            pairs = zip(unknown, self._encoder.tokenize_items(unknown), strict=True)
            bare: list[tuple[Item, TokenizedItem]] = []
            for item, tokens in pairs:
                vector = self._of_same_text(item.item_id, tokens)
                if vector is not None:
                    made[item.item_id] = CatalogueItem(item, tokens, vector, self._tower)
                elif has_model_input(tokens):
                    bare.append((item, tokens))
            count(len(batch) - len(bare))
            vectors = self._encoder.encode_item_tokens([tokens for _, tokens in bare], count)
            for (item, tokens), vector in zip(bare, vectors, strict=True):
                made[item.item_id] = CatalogueItem(item, tokens, vector, self._tower)
            yield [entry for entry in made.values() if entry is not None]

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

    def _of_same_text(self, item_id: str, tokens: TokenizedItem) -> npt.NDArray[np.float32] | None:
        """The vector that the snapshot before has of the same text: the item changed since, but no word of it."""
        row = None if self._previous is None else self._previous.row_of(item_id)
        if self._previous is None or row is None:
            return None
        before = self._previous.tokens[row]
        same = np.array_equal(before.ids, tokens.ids) and np.array_equal(before.types, tokens.types)
        return self._previous.vectors[row] if same else None


def count_interactions(path: Path, known_items: Collection[str], on_error: OnError = "raise") -> dict[str, int]:
    """Interactions of each item. Raises FileFormatError for a broken line or an unknown item, or skips it."""
    return Counter(read_interactions(path, known_items, on_error).item_ids)
