"""A home with a published snapshot of any size, made without encoding: vectors are random directions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from index.catalogue.base import CatalogueItem
from index.catalogue.open import open_catalogue
from index.snapshot.checkpoints import keep_checkpoint
from index.snapshot.manifest import Manifest
from index.snapshot.publication import publish
from index.snapshot.snapshot import SnapshotStore
from index.snapshot.writer import write_snapshot
from seqrec.data.items import Item
from seqrec.encoder import Encoder, load_model

AT_ONCE = 10_000
TEXTS = 1000
"""The number of different texts; ids are all different."""


def item(number: int) -> Item:
    return Item(f"item-{number:08d}", {"title": f"article {number % TEXTS} of kind {number % 89}"})


def make_home(home: Path, checkpoint: Path, count: int) -> Path:
    """Publishes a snapshot of `count` items in `home`; the catalogue itself is empty. -> `home`."""
    encoder = load_model(checkpoint, device="cpu")
    store = SnapshotStore(home)
    with closing(open_catalogue(home, create=True)) as catalogue:
        seq = catalogue.head()
        manifest = Manifest.begun(
            encoder, store.new_id(seq), catalogue.catalogue_id, seq, index="flat", popularity=False
        )
        keep_checkpoint(home, encoder.checkpoint)
        path = store.path_of(manifest.snapshot_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_snapshot(path, manifest, _batches(encoder, count), lambda item_id: 0)
        publish(home, catalogue, manifest.snapshot_id)
    return home


def _batches(encoder: Encoder, count: int) -> Iterator[list[CatalogueItem]]:
    tokens = list(encoder.tokenize_items([item(number) for number in range(min(count, TEXTS))]))
    rng = np.random.default_rng(0)
    for begin in range(0, count, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, count))
        vectors = rng.standard_normal((len(numbers), encoder.dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield [
            CatalogueItem(item(number), tokens[number % TEXTS], vector, encoder.item_tower)
            for number, vector in zip(numbers, vectors, strict=True)
        ]
