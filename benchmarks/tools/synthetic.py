"""A home with a published snapshot of any size, made without encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

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


def item(number: int, attributes: Mapping[str, int] = MappingProxyType({})) -> Item:
    return Item(f"item-{number:08d}", {"title": f"article {number % TEXTS} of kind {number % 89}", **attributes})


Draw = Callable[[range], npt.NDArray[np.float32]]
"""Numbers of items -> their vectors [n, dim], of length 1. Called with ranges that follow each other."""


def directions(dim: int) -> Draw:
    """Random ones: no item is near another."""
    rng = np.random.default_rng(0)

    def draw(numbers: range) -> npt.NDArray[np.float32]:
        return _unit(rng.standard_normal((len(numbers), dim), dtype=np.float32))

    return draw


def kinds(dim: int, count: int) -> Draw:
    """`count` kinds of items, some with a thousand times as many items as others, around which they scatter.

    The variances of the directions fall as 1, 1/2, 1/3, ..., as they do in vectors of real texts.
    """
    rng = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, dim + 1, dtype=np.float32))
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)

    def scattered(n: int) -> npt.NDArray[np.float32]:
        return np.asarray(_unit(rng.standard_normal((n, dim), dtype=np.float32) * scales) @ rotation)

    centres = scattered(count)

    def draw(numbers: range) -> npt.NDArray[np.float32]:
        kind = (count * rng.random(len(numbers)) ** 3).astype(np.int64)
        return _unit(centres[kind] + np.float32(0.7) * scattered(len(numbers)))

    return draw


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def make_home(
    home: Path,
    checkpoint: Path,
    count: int,
    index: str = "flat",
    draw: Draw | None = None,
    attributes: Callable[[int], dict[str, int]] = lambda number: {},
) -> Path:
    """Publishes a snapshot of `count` items in `home`; the catalogue itself is empty. -> `home`."""
    encoder = load_model(checkpoint, device="cpu")
    store = SnapshotStore(home)
    with closing(open_catalogue(home, create=True)) as catalogue:
        seq = catalogue.head()
        manifest = Manifest.begun(
            encoder, store.new_id(seq), catalogue.catalogue_id, seq, index=index, popularity=False
        )
        keep_checkpoint(home, encoder.checkpoint)
        path = store.path_of(manifest.snapshot_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        batches = _batches(encoder, count, draw or directions(encoder.dim), attributes)
        write_snapshot(path, manifest, batches, lambda item_id: 0)
        publish(home, catalogue, manifest.snapshot_id)
    return home


def _batches(
    encoder: Encoder, count: int, draw: Draw, attributes: Callable[[int], dict[str, int]]
) -> Iterator[list[CatalogueItem]]:
    tokens = list(encoder.tokenize_items([item(number) for number in range(min(count, TEXTS))]))
    for begin in range(0, count, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, count))
        yield [
            CatalogueItem(item(number, attributes(number)), tokens[number % TEXTS], vector, encoder.item_tower)
            for number, vector in zip(numbers, draw(numbers), strict=True)
        ]
