"""The hybrid, the default model: a dense model, words and co-occurrence in one score (`seqrec.hybrid`).

Items and histories have a vector of the dense model and a sparse one over the terms of their texts. Co-occurrence has
no weights: the service counts it from events as they arrive. The checkpoint contains the dense model, the vocabulary of
terms and the weights of the parts.

The terms of an item are appended to its token ids, as tokens of type TERM, one for each occurrence. So the sparse
vector is stored wherever tokens are, as in the catalogue's log and in snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.settings import HybridSettings
from seqrec.metric import Metric
from seqrec.models import model_class
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import TERM, ItemText, ItemTokens, TokenizedHistory, TokenizedItem


@dataclass(frozen=True)
class HybridConfig:
    dense_model: str
    dense_config: Mapping[str, Any]
    terms: int  # of the vocabulary
    attributes: tuple[str, ...] | None  # attributes whose words are read; None: all but numbers
    settings: HybridSettings


class Hybrid(SequenceModel):
    """`encode_items` and `encode_histories` return the dense part, `term_vectors` the sparse part.

    The dense vector of a history is multiplied by its weight in the score; that of an item is the dense model's.
    """

    metric = Metric.DOT
    cold_items = True  # an item that the dense model does not know is still found by its words

    def __init__(self, config: HybridConfig, dense: SequenceModel) -> None:
        super().__init__()
        self.config, self.model = config, dense
        self.dim, self.item_text = dense.dim, dense.item_text
        self.term_hashes: Tensor  # int64, the bits of the vocabulary's uint64
        self.term_weights: Tensor
        self.register_buffer("term_hashes", torch.zeros(config.terms, dtype=torch.int64))
        self.register_buffer("term_weights", torch.zeros(config.terms, dtype=torch.float32))
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def of(
        cls,
        dense_model: str,
        dense: SequenceModel,
        vocabulary: Vocabulary,
        attributes: Sequence[str] | None,
        settings: HybridSettings,
    ) -> Self:
        """Over a trained dense model, whose name in MODELS is `dense_model`."""
        names = None if attributes is None else tuple(attributes)
        model = cls(HybridConfig(dense_model, dense.config_json(), len(vocabulary), names, settings), dense)
        model.term_hashes.copy_(torch.from_numpy(vocabulary.hashes.view(np.int64).copy()))
        model.term_weights.copy_(torch.from_numpy(vocabulary.weights.copy()))
        return model

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        names = config["attributes"]
        parsed = HybridConfig(
            config["dense_model"],
            config["dense_config"],
            config["terms"],
            None if names is None else tuple(names),
            HybridSettings.from_json(config["settings"]),
        )
        return cls(parsed, model_class(parsed.dense_model).from_config(parsed.dense_config, item_text))

    def config_json(self) -> dict[str, Any]:
        config = self.config
        return {
            "dense_model": config.dense_model,
            "dense_config": dict(config.dense_config),
            "terms": config.terms,
            "attributes": None if config.attributes is None else list(config.attributes),
            "settings": config.settings.to_json(),
        }

    @property
    def hybrid(self) -> HybridSettings:
        """The weights of the parts of the score."""
        return self.config.settings

    @property
    def vocabulary(self) -> Vocabulary:
        """Made at the first use, since weights are loaded after the model is built."""
        if self._vocabulary is None:
            hashes = self.term_hashes.cpu().numpy().view(np.uint64)
            self._vocabulary = Vocabulary(hashes, self.term_weights.cpu().numpy())
        return self._vocabulary

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """The tokens of the dense model, then one of type TERM for each occurrence of a known term."""
        terms = self.vocabulary.term_ids([read_attributes(item, self.config.attributes) for item in items])
        tokenized = [
            TokenizedItem(
                np.concatenate([tokens.ids, ids.astype(np.int32)]),
                np.concatenate([tokens.types, np.full(len(ids), TERM, np.uint8)]),
            )
            for tokens, ids in zip(self.model.tokenize_items(items), terms, strict=True)
        ]
        return ItemTokens.concatenate(tokenized)

    def term_vectors(self, items: Sequence[TokenizedItem]) -> csr_array:
        """float32 [n, terms], rows of unit length; 0 for an item without known terms."""
        return self.vocabulary.vectors_of_ids([item.ids[item.types == TERM] for item in items])

    def prepare_items(self, items: Sequence[TokenizedItem]) -> Batch:
        return self.model.prepare_items([without_terms(item) for item in items])

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> Batch:
        return self.model.prepare_histories([self._read_by_dense(history) for history in histories])

    def encode_items(self, batch: Any) -> Tensor:
        """-> [n, dim]"""
        return self._comparable(self.model.encode_items(batch))

    def encode_histories(self, batch: Any) -> Tensor:
        """-> [b, dim]"""
        return self.hybrid.dense * self._comparable(self.model.encode_histories(batch))

    def history_tokens(self, history: TokenizedHistory) -> int:
        return self.model.history_tokens(self._read_by_dense(history))

    def _comparable(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors.float(), dim=1) if self.model.metric is Metric.COSINE else vectors

    def _read_by_dense(self, history: TokenizedHistory) -> TokenizedHistory:
        newest = history.items[-self.hybrid.dense_items :] if self.hybrid.dense_items else history.items
        return TokenizedHistory([without_terms(item) for item in newest], history.user_id)


def without_terms(item: TokenizedItem) -> TokenizedItem:
    """The tokens that the dense model reads."""
    own = item.types != TERM
    return item if own.all() else TokenizedItem(item.ids[own], item.types[own])


def read_attributes(
    item: Item | Mapping[str, AttributeValue], attributes: Sequence[str] | None
) -> Mapping[str, AttributeValue]:
    """The attributes whose words are read; without a list of names, all but numbers."""
    values = item.attributes if isinstance(item, Item) else item
    if attributes is None:
        return {name: value for name, value in values.items() if not isinstance(value, int | float)}
    return {name: values[name] for name in attributes if name in values}
