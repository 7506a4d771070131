"""Homes of any size with a dense model and with a hybrid on it: the same items, vectors and events.

Texts and events are drawn so that what costs time is as in a shop: words and items are frequent by a power law, users
have eight items on average, and what is bought together lies near in rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.tools.synthetic import AT_ONCE
from index.catalogue.base import CatalogueItem
from index.catalogue.batches import batches
from index.catalogue.histories import Event
from index.catalogue.open import open_catalogue, open_histories
from index.events.import_events import EVENTS_AT_ONCE
from index.snapshot.checkpoints import keep_checkpoint
from index.snapshot.manifest import Manifest
from index.snapshot.publication import publish
from index.snapshot.snapshot import SnapshotStore
from index.snapshot.writer import write_snapshot
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item
from seqrec.encoder import Encoder, load_model
from seqrec.hybrid.event_counts import EventChanges, count_sequences
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.settings import HybridSettings
from seqrec.models.hybrid import Hybrid
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.text.item_text import ItemText, Recipe
from seqrec.text.tokenizer import CLS, MASK, train_bpe

WORDS = 20_000
TEXTS = 50_000
"""Different ones; a larger catalogue begins again, so the share of items that have a term is that of a real one."""
EVENTS_AN_ITEM = 3
CLUSTERS = 1000
"""Of vectors: what an approximate index is made for."""
LENGTH = 8  # of a user's sequence, on average
SETTINGS = HybridSettings(last_text=0.3, recent_text=0.3, dense=0.5, cold_boost=0.5)


@dataclass(frozen=True)
class World:
    texts: list[dict[str, str]]
    rows: npt.NDArray[np.int64]  # of all events, user by user
    offsets: npt.NDArray[np.int64]
    count: int

    def history(self, user: int) -> list[str]:
        return [item_id(row) for row in self.rows[self.offsets[user] : self.offsets[user + 1]].tolist()]


def item_id(row: int) -> str:
    return f"item-{row:08d}"


def make_world(count: int, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    words = rng.choice(WORDS, (min(count, TEXTS), 6), p=_power_law(WORDS, 10, 1.0))
    brands = rng.choice(2000, len(words), p=_power_law(2000, 10, 1.0)).tolist()
    texts = [
        {"title": " ".join(f"word{word}" for word in row), "brand": f"brand{brand}"}
        for row, brand in zip(words.tolist(), brands, strict=True)
    ]
    users = max(1, EVENTS_AN_ITEM * count // LENGTH)
    lengths = 2 + rng.poisson(LENGTH - 2, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    chosen = rng.choice(count, offsets[-1], p=_power_law(count, 50, 0.7))
    first = np.repeat(chosen[offsets[:-1]], lengths)
    near = (first + rng.integers(1, 50, len(first))) % count
    ranks = np.where(rng.random(len(first)) < 0.5, near, chosen)
    return World(texts, rng.permutation(count)[ranks], offsets, count)


def save_models(folder: Path, world: World) -> tuple[Path, Path]:
    """A compact Recformer of random weights, and a hybrid on it."""
    recipe = Recipe(("title", "brand"))
    parts = (part for text in world.texts[:5000] for pair in recipe.texts(text) for part in pair)
    item_text = ItemText(recipe, train_bpe(parts, 4000))
    torch.manual_seed(0)
    config = RecformerConfig(
        vocab_size=item_text.vocab_size,
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        intermediate_size=512,
        cls_id=item_text.token_id(CLS) or 0,
        mask_id=item_text.token_id(MASK) or 3,
    )
    dense = Recformer(config, item_text)
    vocabulary = Vocabulary.of([Item(item_id(row), text) for row, text in enumerate(world.texts)])
    save_checkpoint(folder / "dense", "recformer", dense)
    save_checkpoint(
        folder / "hybrid", "hybrid", Hybrid.of("recformer", dense, vocabulary, ["title", "brand"], SETTINGS)
    )
    return folder / "dense", folder / "hybrid"


def make_home(home: Path, checkpoint: Path, world: World, index: str = "flat", log: bool = True) -> Path:
    """With a published snapshot; the catalogue's log has no items. `log` False: events are in the snapshot alone."""
    encoder = load_model(checkpoint, device="cpu")
    store = SnapshotStore(home)
    with closing(open_catalogue(home, create=True)) as catalogue, closing(open_histories(home)) as histories:
        for batch in batches(_events(world), EVENTS_AT_ONCE) if log else ():
            histories.add(batch)
        settings = None if encoder.hybrid is None else encoder.hybrid.cooccurrence
        counts = count_sequences(settings, histories.log_id, _sequences(world, histories.events_head()))
        seq = catalogue.head()
        manifest = Manifest.begun(encoder, store.new_id(seq), catalogue.catalogue_id, seq, index, popularity=True)
        manifest = replace(manifest, pairs=None if settings is None else asdict(settings))
        keep_checkpoint(home, encoder.checkpoint)
        path = store.path_of(manifest.snapshot_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        terms = None if encoder.hybrid is None else encoder.term_vectors
        write_snapshot(path, manifest, _batches(encoder, world), lambda item_id: 0, counts, terms)
        publish(home, catalogue, manifest.snapshot_id)
    return home


def _sequences(world: World, seq: int) -> EventChanges:
    lengths = np.diff(world.offsets)
    places = np.arange(len(world.rows)) - np.repeat(world.offsets[:-1], lengths)
    times = (np.repeat(np.arange(len(lengths)), lengths) + places).astype(np.float64)
    now = np.ones(len(times), np.bool_)
    return EventChanges(
        0, seq, list(map(item_id, world.rows.tolist())), world.offsets, times, ~now, now, np.ones(len(times))
    )


def _events(world: World) -> Iterator[Event]:
    for user, (begin, end) in enumerate(zip(world.offsets[:-1].tolist(), world.offsets[1:].tolist(), strict=True)):
        for place, row in enumerate(world.rows[begin:end].tolist()):
            yield Event(f"user-{user}", item_id(row), float(user + place))


def _batches(encoder: Encoder, world: World) -> Iterator[list[CatalogueItem]]:
    tokens = list(encoder.tokenize_items(world.texts))
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, encoder.dim), dtype=np.float32)
    for begin in range(0, world.count, AT_ONCE):
        rows = range(begin, min(begin + AT_ONCE, world.count))
        vectors = centres[rng.integers(CLUSTERS, size=len(rows))]
        vectors += 0.5 * rng.standard_normal(vectors.shape, dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        entries = []
        for row, vector in zip(rows, vectors, strict=True):
            text = row % len(tokens)
            item = Item(item_id(row), world.texts[text])
            entries.append(CatalogueItem(item, tokens[text], vector, encoder.item_tower))
        yield entries


def _power_law(count: int, shift: float, power: float) -> npt.NDArray[np.float64]:
    """[count] Probabilities that fall with the rank."""
    weights = (np.arange(count) + shift) ** -power
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares
