"""A bag of hashed words: no weights, no training, microseconds per item.

The vector of an item is the sum of its words' vectors, which are random with the word as the seed. The vector of a
history is the weighted sum of its items' unit vectors, where each item weighs `decay` times the next newer one. Used in
tests instead of a trained model, and as a baseline that only compares words.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item, attribute_text
from seqrec.metric import Metric
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import VALUE, ItemText, ItemTokens, TokenizedHistory, TokenizedItem


@dataclass(frozen=True)
class BagOfWordsConfig:
    dim: int = 64
    decay: float = 0.8
    attributes: tuple[str, ...] | None = None  # None: all
    max_items: int = 50


@dataclass(frozen=True)
class WordBatch:
    words: Tensor  # int64 [t]
    item_of: Tensor  # int64 [t], the item of each word, as a row of `weight`
    weight: Tensor  # float32 [m], of each item in its history
    row_of: Tensor  # int64 [m], the output row of each item
    rows: int

    @property
    def tokens(self) -> int:
        return len(self.words)

    def to(self, device: torch.device | str) -> WordBatch:
        moved = {name: getattr(self, name).to(device) for name in ("words", "item_of", "weight", "row_of")}
        return replace(self, **moved)


class BagOfWords(SequenceModel):
    metric = Metric.COSINE
    cold_items = True
    settings_class = BagOfWordsConfig

    def __init__(self, config: BagOfWordsConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        attributes = config.get("attributes")
        return cls(BagOfWordsConfig(**dict(config) | {"attributes": None if attributes is None else tuple(attributes)}))

    def config_json(self) -> dict[str, Any]:
        return asdict(self.config)

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        tokenized = []
        for item in items:
            attributes = item.attributes if isinstance(item, Item) else item
            names = attributes.keys() if self.config.attributes is None else self.config.attributes
            text = " ".join(attribute_text(attributes[name]) for name in names if name in attributes)
            words = re.findall(r"\w+", text.lower())
            ids = np.array([zlib.crc32(word.encode()) & 0x7FFFFFFF for word in words], dtype=np.int32)
            tokenized.append(TokenizedItem(ids, np.full(len(ids), VALUE, np.uint8)))
        return ItemTokens.concatenate(tokenized)

    def prepare_items(self, items: Sequence[TokenizedItem]) -> WordBatch:
        return self.prepare_histories([TokenizedHistory([item]) for item in items])

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> WordBatch:
        read = [history.items[-self.config.max_items :] for history in histories]
        flat = [item for items in read for item in items]
        words = torch.from_numpy(ItemTokens.concatenate(flat).ids.astype(np.int64))
        weights = [self.config.decay**age for items in read for age in reversed(range(len(items)))]
        return WordBatch(
            words=words,
            item_of=_repeated([len(item.ids) for item in flat]),
            weight=torch.tensor(weights, dtype=torch.float32),
            row_of=_repeated([len(items) for items in read]),
            rows=len(read),
        )

    def encode_items(self, batch: WordBatch) -> Tensor:
        return self.encode_histories(batch)

    def encode_histories(self, batch: WordBatch) -> Tensor:
        distinct, inverse = torch.unique(batch.words, return_inverse=True)
        table = torch.stack([self._word(int(word)) for word in distinct]) if len(distinct) else torch.zeros(0, self.dim)
        items = torch.zeros(len(batch.weight), self.dim).index_add(0, batch.item_of, table[inverse])  # [m, dim]
        weighted = F.normalize(items, dim=1) * batch.weight[:, None]
        return torch.zeros(batch.rows, self.dim).index_add(0, batch.row_of, weighted)

    def history_tokens(self, history: TokenizedHistory) -> int:
        return sum(len(item.ids) for item in history.items[-self.config.max_items :])

    def _word(self, word: int) -> Tensor:
        return torch.randn(self.dim, generator=torch.Generator().manual_seed(word))


def _repeated(counts: Sequence[int]) -> Tensor:
    """0 counts[0] times, 1 counts[1] times, ..."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
