"""Alternatives to our packed encoder, with models of the same size, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import BertConfig, BertModel, LongformerConfig, LongformerModel, PreTrainedTokenizerFast

from seqrec.models.recformer.config import TOKEN_TYPES, RecformerConfig
from seqrec.text.item_text import ItemText, TokenizedHistory

PAD_ID, PAD_TYPE = 1, TOKEN_TYPES - 1


class AuthorsRecformer(nn.Module):
    """The authors' formulation: padded batches through Hugging Face's Longformer."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.config = config
        self.longformer = LongformerModel(
            LongformerConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                attention_window=[config.attention_window] * config.num_layers,
                max_position_embeddings=config.max_position_embeddings,
                type_vocab_size=TOKEN_TYPES,
                layer_norm_eps=config.layer_norm_eps,
                pad_token_id=PAD_ID,
                initializer_range=0.06,  # enough that vectors differ and attention is not uniform: see `compare`
            ),
            add_pooling_layer=False,
        )
        self.item_positions = nn.Embedding(config.max_item_embeddings, config.hidden_size)

    def named_weights(self) -> dict[str, Tensor]:
        """All weights under the names of the authors' RecformerModel."""
        own = {"embeddings.item_position_embeddings.weight": self.item_positions.weight}
        return dict(self.longformer.state_dict()) | own

    def prepare(self, histories: Sequence[TokenizedHistory]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids, types, item positions and a mask of real tokens, int64 [b, n] each; n is a multiple of the window."""
        limit = self.config.max_token_num
        rows = []
        for history in histories:
            items = history.items[: -self.config.max_item_embeddings : -1]  # newest first
            ids = np.concatenate([[self.config.cls_id], *(item.ids for item in items)])[:limit]
            types = np.concatenate([[0], *(item.types for item in items)])[:limit]
            places = np.repeat(np.arange(len(items) + 1), [1, *(len(item.ids) for item in items)])[:limit]
            rows.append((ids, types, places))
        window = self.config.attention_window
        n = -(-max(len(ids) for ids, _, _ in rows) // window) * window
        ids_, types_, places_, real = (np.zeros((len(rows), n), np.int64) for _ in range(4))
        ids_ += PAD_ID
        types_ += PAD_TYPE
        places_ += self.config.max_item_embeddings - 1
        for row, (ids, types, places) in enumerate(rows):
            ids_[row, : len(ids)], types_[row, : len(ids)], places_[row, : len(ids)] = ids, types, places
            real[row, : len(ids)] = 1
        return torch.from_numpy(ids_), torch.from_numpy(types_), torch.from_numpy(places_), torch.from_numpy(real)

    def forward(self, histories: Sequence[TokenizedHistory]) -> Tensor:
        """-> the [CLS] of the last layer [b, d]"""
        device = self.item_positions.weight.device
        ids, types, places, real = (part.to(device) for part in self.prepare(histories))
        first = self.config.first_position
        positions = torch.where(real > 0, real.cumsum(1) + first - 1, first - 1)
        attends_globally = torch.zeros_like(ids)
        attends_globally[:, 0] = 1
        states: Tensor = self.longformer(
            inputs_embeds=self.longformer.embeddings.word_embeddings(ids) + self.item_positions(places),
            attention_mask=real,
            global_attention_mask=attends_globally,
            token_type_ids=types,
            position_ids=positions,
        ).last_hidden_state
        return states[:, 0]


class DenseBert(nn.Module):
    """A BERT of the same size: dense attention, a batch padded to its longest sequence."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(bert_config(config), add_pooling_layer=False)

    def forward(self, histories: Sequence[TokenizedHistory]) -> Tensor:
        """-> the [CLS] of the last layer [b, d]"""
        limit = self.config.max_token_num
        rows = []
        for history in histories:
            items = history.items[: -self.config.max_item_embeddings : -1]  # newest first
            rows.append(np.concatenate([[self.config.cls_id], *(item.ids for item in items)])[:limit])
        ids = np.full((len(rows), max(map(len, rows))), PAD_ID, np.int64)
        for row, own in enumerate(rows):
            ids[row, : len(own)] = own
        real = np.arange(ids.shape[1]) < np.array([len(own) for own in rows])[:, None]
        states: Tensor = self.bert(torch.from_numpy(ids), torch.from_numpy(real.astype(np.int64))).last_hidden_state
        return states[:, 0]


def bert_config(config: RecformerConfig) -> BertConfig:
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_token_num,
        pad_token_id=PAD_ID,
    )


def sentence_transformer(config: RecformerConfig, item_text: ItemText, folder: Path, most_tokens: int) -> Any:
    """A sentence-transformers model of such a BERT and the same tokenizer, with [CLS] pooling; it sorts texts by
    length.

    Raises ImportError if sentence-transformers is not installed.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    BertModel(bert_config(config), add_pooling_layer=False).save_pretrained(folder)
    tokenizer = Tokenizer.from_str(item_text.tokenizer_json)
    cls, pad = (tokenizer.id_to_token(token_id) for token_id in (config.cls_id, PAD_ID))
    tokenizer.post_processor = TemplateProcessing(single=[cls, "$A"], special_tokens=[(cls, config.cls_id)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token=cls, pad_token=pad).save_pretrained(folder)
    reads = Transformer(str(folder), max_seq_length=most_tokens)
    return SentenceTransformer(modules=[reads, Pooling(config.hidden_size, "cls")], device="cpu")
