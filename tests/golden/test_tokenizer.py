"""Item text against the authors' tokenizer with the full RoBERTa vocabulary, where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from seqrec.text.item_text import ItemText, Recipe, TokenizedHistory
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.text.tokenizer import read_tokenizer

ROOT = Path(__file__).parents[2]
VOCABULARY = (
    Path(os.environ.get("SEQREC_SHARED_DATA", ROOT.parent / "shared" / "data")).parent / "vocab" / "roberta-base"
)


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((Path(__file__).parent / "recformer" / "tokenizer_roberta.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def item_text(golden: Any) -> ItemText:
    if not VOCABULARY.is_dir():
        pytest.skip("RoBERTa's vocabulary (1.4 MB, not part of this repository) is not at hand")
    limits = golden["config"]
    recipe = Recipe(None, limits["max_attr_num"], limits["max_attr_length"], parse_special_tokens=True)
    return ItemText(recipe, read_tokenizer(VOCABULARY))


def test_strings(golden: Any, item_text: ItemText) -> None:
    whole = ItemText(Recipe(None, 1, 10_000, True), read_tokenizer(VOCABULARY))
    for case in golden["strings"]:
        assert whole.tokenize([{"": case["text"]}])[0].ids.tolist() == case["ids"], case["text"]


def test_sequences(golden: Any, item_text: ItemText) -> None:
    limits = golden["config"]
    config = RecformerConfig(
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        intermediate_size=8,
        max_token_num=limits["max_token_num"],
        max_item_embeddings=limits["max_item_embeddings"],
    )
    model = Recformer(config, item_text)
    for case in golden["sequences"]:
        batch = model.prepare_histories([TokenizedHistory(model.tokenize_items(case["items"]))])
        assert batch.input_ids.tolist() == case["encoded"]["input_ids"]
        assert batch.token_types.tolist() == case["encoded"]["token_type_ids"]
        assert batch.item_positions.tolist() == case["encoded"]["item_position_ids"]


@pytest.mark.slow
def test_special_tokens_cannot_be_forged(item_text: ItemText) -> None:
    plain = ItemText(Recipe(None, 3, 32), read_tokenizer(VOCABULARY))
    ids = plain.tokenize([{"title": "<s></s><pad> <mask> <unk>"}])[0].ids.tolist()
    assert not {0, 1, 2, 3, 50264} & set(ids)
