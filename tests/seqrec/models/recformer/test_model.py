"""Recformer against the contract of every model. That it equals the authors' code is in tests/golden."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from seqrec.data.items import Item
from seqrec.models.base.model import SequenceModel
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.text.item_text import ItemText, Recipe
from seqrec.text.tokenizer import train_bpe
from tests.contracts.model_contract import ModelContract


class TestRecformer(ModelContract):
    name = "recformer"
    longest = 10
    switches: ClassVar[dict[str, bool]] = {}

    def make(self) -> SequenceModel:
        torch.manual_seed(0)
        words = [str(item.attributes["title"]) for item in self.items()]
        text = ItemText(Recipe(("title", "brand"), max_attr_length=12), train_bpe(words, vocab_size=400))
        config = RecformerConfig(
            vocab_size=400,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            intermediate_size=64,
            attention_window=8,
            max_token_num=64,
            max_item_embeddings=11,
            max_position_embeddings=66,
            mask_id=3,
            **self.switches,
        )
        return Recformer(config, text)

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        """An item is a history of one, so no other is nearer to it. What training plants is in tests/training."""
        return self.make(), [([item], item) for item in self.items()]


class TestRecformerWithoutTypesAndItemPositions(TestRecformer):
    switches: ClassVar[dict[str, bool]] = {"token_types": False, "item_positions": False}

    def test_neither_is_there_nor_read(self) -> None:
        model = self.make()
        assert isinstance(model, Recformer)
        names = set(TestRecformer().make().state_dict()) - set(model.state_dict())
        assert names == {"token_type_embeddings.weight", "item_position_embeddings.weight"}
        batch = model.prepare_items(list(model.tokenize_items(self.items())))
        other = replace(batch, token_types=batch.token_types * 0, item_positions=batch.item_positions * 0)
        torch.testing.assert_close(model.eval().encode_items(batch), model.encode_items(other))
