"""Recformer (Li et al., KDD 2023, "Text Is All You Need"): a history is one sentence, read by a Longformer.

A batch is one stream of real tokens: every linear layer, norm and activation runs over that stream, so their cost grows
with the real tokens. Only attention works on sequences, in groups of similar length that are padded within the group.

Two identities save work without changing a result (up to rounding):
- The global attention of [CLS] reads all tokens through key_global and value_global. Scores are q.(W_k x + b_k), where
  b_k shifts a whole softmax equally, so (W_k' q).x suffices. The weighted sum of W_v x + b_v is W_v of the weighted sum
  of x, plus b_v. So neither projection is applied to every token, and key_global has no bias here.
- Only [CLS] of the last layer is used, so the last layer computes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.base.layers import drop
from seqrec.models.base.model import BuildConfig, CudaGraphs, SequenceModel, TrainingSet
from seqrec.models.recformer.batch import PackedBatch, Tokens, pack
from seqrec.models.recformer.config import CLS_TYPE, TOKEN_TYPES, RecformerConfig
from seqrec.models.recformer.from_text_encoder import load_text_encoder
from seqrec.models.recformer.layers import LanguageModelHead, Layer
from seqrec.text.item_text import ItemText, ItemTokens, Recipe, TokenizedHistory, TokenizedItem
from seqrec.text.tokenizer import CLS, MASK, train_bpe

FROM_TOKENIZER = frozenset({"vocab_size", "cls_id", "mask_id"})
"""Settings that follow from the tokenizer."""
WITH_TEXT_ENCODER = frozenset(
    {"attention_window", "max_token_num", "max_item_embeddings", "dropout", "token_types", "item_positions"}
)
"""Settings that may be set for a model that starts from a text encoder, which has the others."""


class Recformer(SequenceModel):
    metric = Metric.COSINE
    cold_items = True
    settings_class = RecformerConfig

    def __init__(self, config: RecformerConfig, item_text: ItemText | None) -> None:
        """Fresh weights. Without `item_text` it encodes token ids but not items."""
        super().__init__()
        d = config.hidden_size
        self.config, self.item_text, self.dim = config, item_text, d
        self.word_embeddings = nn.Embedding(config.vocab_size, d)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, d)
        self.token_type_embeddings = nn.Embedding(TOKEN_TYPES, d) if config.token_types else None
        self.item_position_embeddings = nn.Embedding(config.max_item_embeddings, d) if config.item_positions else None
        self.embedding_norm = nn.LayerNorm(d, config.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.lm_head = LanguageModelHead(config) if config.lm_head else None
        self.gradient_checkpointing = False
        # With the usual 0.02 everywhere, [CLS] of a small model hardly depends on its tokens: vectors start out alike
        # and stay so (NDCG@10 after 300 steps on the demo's data: 0.015, with these values 0.103).
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05 if module is self.word_embeddings else 0.02)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        return cls(RecformerConfig(**config), item_text)

    def config_json(self) -> dict[str, Any]:
        return asdict(self.config)

    @classmethod
    def from_text_encoder(
        cls, source: str | Path, recipe: Recipe, settings: Mapping[str, Any] | None = None, seed: int = 0
    ) -> Self:
        """With the weights and tokenizer of a BERT, RoBERTa or Longformer encoder; see `load_text_encoder`.

        Raises CheckpointError for any other model.
        """
        config, weights, tokenizer = load_text_encoder(source, settings or {}, seed)
        model = cls(config, ItemText(recipe, tokenizer))
        own = model.state_dict()  # without the embeddings that `settings` leave out
        model.load_state_dict({name: tensor for name, tensor in weights.items() if name in own})
        return model.eval()

    @classmethod
    def check(cls, config: BuildConfig) -> Recipe:
        """Raises InputError for settings that follow from the tokenizer or the text encoder."""
        if config.text_encoder:
            for name in sorted(config.given - WITH_TEXT_ENCODER):
                raise InputError(
                    f"comes from {config.text_encoder}; only {', '.join(sorted(WITH_TEXT_ENCODER))} can be set",
                    f"model.settings.{name}",
                )
        for name in sorted(config.given & FROM_TOKENIZER):
            raise InputError("follows from the tokenizer; set text.vocab_size", f"model.settings.{name}")
        return config.recipe

    @classmethod
    def build(cls, config: BuildConfig, datasets: Sequence[TrainingSet]) -> Self:
        """From a text encoder, or with fresh weights and a tokenizer trained on the items of all data sets."""
        if config.text_encoder:
            given = {name: getattr(config.settings, name) for name in config.given}
            return cls.from_text_encoder(config.text_encoder, config.recipe, given, config.seed)
        pairs = (pair for data in datasets for item in data.items for pair in config.recipe.texts(item.attributes))
        tokenizer = train_bpe((text for pair in pairs for text in pair), config.vocab_size)
        item_text = ItemText(config.recipe, tokenizer)
        ids = {"cls_id": item_text.token_id(CLS), "mask_id": item_text.token_id(MASK)}
        return cls(replace(config.settings, vocab_size=item_text.vocab_size, **ids), item_text)

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        if self.item_text is None:
            raise InputError("this model has no tokenizer; it encodes token ids only")
        return self.item_text.tokenize(items)

    def prepare_items(self, items: Sequence[TokenizedItem]) -> PackedBatch:
        """An item is encoded as a history of one."""
        return self.prepare_histories([TokenizedHistory([item]) for item in items])

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> PackedBatch:
        """Newest item first. Cut at `max_item_embeddings - 1` items and `max_token_num` tokens, also within an item."""
        ids, types, item_positions, lengths = [], [], [], []
        for history in histories:
            room = self.config.max_token_num - 1
            ids.append(np.array([self.config.cls_id]))
            types.append(np.array([CLS_TYPE]))
            item_positions.append(np.array([0]))
            for position, item in enumerate(self._read(history), 1):
                size = min(len(item.ids), room)
                ids.append(item.ids[:size])
                types.append(item.types[:size])
                item_positions.append(np.full(size, position))
                room -= size
                if not room:
                    break
            lengths.append(self.config.max_token_num - room)
        return pack(
            np.concatenate(ids),
            np.concatenate(types),
            np.concatenate(item_positions),
            np.array(lengths, dtype=np.int64),
            self.config.first_position,
        )

    def history_tokens(self, history: TokenizedHistory) -> int:
        return min(1 + sum(len(item.ids) for item in self._read(history)), self.config.max_token_num)

    def encode_items(self, batch: PackedBatch) -> Tensor:
        """-> [n, d]"""
        return self.encode_histories(batch)

    def encode_histories(self, batch: PackedBatch) -> Tensor:
        """[CLS] of the last layer, without a pooling layer. -> [b, d]"""
        x = self.embed(batch)
        for layer in self.layers[:-1]:
            x = self._through(layer, x, batch, cls_only=False)
        return self._through(self.layers[-1], x, batch, cls_only=True)

    def embed(self, batch: Tokens) -> Tensor:
        """E_w = LayerNorm(token + position + type + item position), the last two if configured. -> [t, d]"""
        # The gradient of index_select is several times faster on a CPU than that of nn.Embedding.
        x = self.word_embeddings.weight.index_select(0, batch.input_ids)
        x = x + self.position_embeddings.weight.index_select(0, batch.positions)
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings.weight.index_select(0, batch.token_types)
        if self.item_position_embeddings is not None:
            x = x + self.item_position_embeddings.weight.index_select(0, batch.item_positions)
        return drop(self.embedding_norm(x), self.config.dropout, self.training)

    def hidden_states(self, batch: PackedBatch) -> list[Tensor]:
        """Every token after the embedding and each layer: num_layers + 1 tensors [t, d]. The last is for `lm_head`."""
        states = [self.embed(batch)]
        for layer in self.layers:
            states.append(self._through(layer, states[-1], batch, cls_only=False))
        return states

    def compile_cuda_graphs(self, bfloat16: bool) -> CudaGraphs | None:
        """None where compilation fails, which is logged."""
        from seqrec.models.recformer.cuda_graphs import compile_graphs

        return compile_graphs(self, bfloat16)

    def set_gradient_checkpointing(self, enabled: bool) -> bool:
        self.gradient_checkpointing = enabled
        return True

    def freeze_word_embeddings(self, frozen: bool) -> bool:
        self.word_embeddings.requires_grad_(not frozen)
        return True

    def add_language_model_head(self) -> int:
        """A head that predicts masked words, if there is none; its decoder starts as a copy of the word embeddings.

        -> the id of the mask token.
        """
        if self.lm_head is None:
            self.config = replace(self.config, lm_head=True)
            head = LanguageModelHead(self.config)
            nn.init.normal_(head.dense.weight, std=self.config.hidden_size**-0.5)
            nn.init.zeros_(head.dense.bias)
            nn.init.zeros_(head.decoder.bias)
            with torch.no_grad():
                head.decoder.weight.copy_(self.word_embeddings.weight)
            self.lm_head = head.to(self.word_embeddings.weight.device)
        return self.config.mask_id

    def drop_language_model_head(self) -> None:
        """It is a third of the weights of a small model."""
        if self.lm_head is not None:
            self.config = replace(self.config, lm_head=False)
            self.lm_head = None

    def masked_words_loss(self, batch: PackedBatch, labels: Tensor) -> Tensor:
        """The sum of the cross entropies of masked tokens; 0, with a graph, if there are none.

        labels int64 [t]: the token to predict, below 0 where there is none. -> []
        """
        assert self.lm_head is not None
        predicted = (labels >= 0).nonzero()[:, 0]
        states = self.hidden_states(batch)[-1].index_select(0, predicted)
        return F.cross_entropy(self.lm_head(states).float(), labels[predicted], reduction="sum")

    def _through(self, layer: nn.Module, x: Tensor, batch: PackedBatch, cls_only: bool) -> Tensor:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(layer, x, batch, cls_only, use_reentrant=False)
        else:
            out = layer(x, batch, cls_only)
        return out

    def _read(self, history: TokenizedHistory) -> Sequence[TokenizedItem]:
        """The items that fit, newest first."""
        items = history.items
        oldest = max(0, len(items) - (self.config.max_item_embeddings - 1))
        return [items[row] for row in range(len(items) - 1, oldest - 1, -1)]
