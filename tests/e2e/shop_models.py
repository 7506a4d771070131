"""The checkpoints that random histories of a service are served with: bags of words, and hybrids on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item
from seqrec.encoder import load_model
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.settings import HybridSettings
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.hybrid import Hybrid
from tests.e2e.brute_force import Model

HYBRIDS = (
    HybridSettings(
        CooccurrenceSettings(window=3, last=3, source_power=0.5),
        last_text=0.5,
        recent_text=0.3,
        dense=0.4,
        cold_boost=1.0,
    ),
    HybridSettings(
        CooccurrenceSettings(window=2, distance_power=0.5, target_power=0.25, half_life=2.0, origin=3.0, mass=9.0),
        pairs=0.7,
        recent_text=0.6,
        dense=0.2,
        exclude_seen=False,
        seen=-0.2,
        last_item=0.3,
    ),
)
"""The second one counts otherwise, and forgets."""


def make_models(folder: Path, words: Sequence[str], hybrid: bool) -> list[tuple[Path, Model]]:
    """Two checkpoints of other dimensions; the second reads the title only."""
    texts = [{"title": f"{one} {other}", "brand": "acme"} for one in words for other in words]
    vocabulary = Vocabulary.of([Item(f"{row}", text) for row, text in enumerate(texts)])
    made = []
    for number, names in enumerate([("title", "brand"), ("title",)]):
        path, dense = folder / f"checkpoint-{number}", BagOfWords(BagOfWordsConfig(32 - 8 * number, attributes=names))
        if hybrid:
            save_checkpoint(path, "hybrid", Hybrid.of("bag_of_words", dense, vocabulary, names, HYBRIDS[number]))
        else:
            save_checkpoint(path, "bag_of_words", dense)
        made.append((path, Model(load_model(path, "cpu"), names)))
    return made
