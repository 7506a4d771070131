"""Augmentation of histories: cropping, and leaving out items or words (UniSRec, section 2.3)."""

from __future__ import annotations

import zlib

import numpy as np

from seqrec.text.item_text import VALUE, TokenizedHistory, TokenizedItem
from training.data.dataset import Rows


def history_before(items: Rows, place: int, crop: bool, rng: np.random.Generator) -> Rows:
    """The items before `items[place]`; with `crop` only the newest of them, as many as drawn from 1 to all.

    Short histories teach a model early what follows one item, and which item of several is the newest. Without them a
    small encoder ranks worse by a whole history than by its last item, even after many epochs
    (docs/decisions/training.md).
    """
    begin = place - int(rng.integers(1, place, endpoint=True)) if crop and place else 0
    return items[begin:place]


def augment(history: TokenizedHistory, share: float, of_words: float, rng: np.random.Generator) -> TokenizedHistory:
    """The history without a share of its items, keeping at least one; or, with probability `of_words`, without that
    share of each item's words.

    An item always loses the same words, so that a model that caches texts has two versions of each at most.
    """
    if rng.random() < of_words:
        return TokenizedHistory([without_words(item, share) for item in history.items], history.user_id)
    drawn = rng.random(len(history.items))
    kept = drawn >= min(share, drawn.max(initial=0.0))
    return TokenizedHistory([item for item, keep in zip(history.items, kept, strict=True) if keep], history.user_id)


def without_words(item: TokenizedItem, share: float) -> TokenizedItem:
    """The item without a share of the tokens of its values; which ones depends on the item only."""
    rng = np.random.default_rng(zlib.crc32(item.ids.tobytes()))
    kept = (rng.random(len(item.ids)) >= share) | (item.types != VALUE)
    return TokenizedItem(item.ids[kept], item.types[kept])
