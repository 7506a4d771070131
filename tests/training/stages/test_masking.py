"""Whole words and what happens to them, for the three kinds of tokenizer that a model may come with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from seqrec.errors import InputError
from seqrec.text.item_text import NAME, VALUE, ItemText, Recipe
from seqrec.text.tokenizer import MASK, read_tokenizer, train_bpe
from training.stages.masking import AS_MASK, AS_RANDOM, CHOSEN, Ids, Vocabulary, mask, mask_sequences

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "recformer"
SHARED = Path(os.environ.get("SEQREC_SHARED_DATA", ROOT.parent / "shared" / "data")).parent / "vocab"
RECIPE = Recipe(None)


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def vocabulary_of(tokenizer: Tokenizer, mask_token: str) -> Vocabulary:
    text = ItemText(RECIPE, tokenizer)
    mask_id = text.token_id(mask_token)
    assert mask_id is not None
    return Vocabulary.of(text, mask_id)


@pytest.fixture(scope="module")
def authors() -> Vocabulary:
    return vocabulary_of(read_tokenizer(GOLDEN), "<mask>")


def groups(words: Ids) -> list[list[int]]:
    """Token places of each word, as the golden files list them."""
    return [np.flatnonzero(words == word).tolist() for word in range(words.max() + 1)]


def test_words_are_the_authors_groups(authors: Vocabulary) -> None:
    for case in golden("pretrain.json")["whole_word_groups"]:
        assert groups(authors.words(np.array(case["input_ids"]))) == case["groups"]


def test_words_are_the_authors_groups_with_robertas_vocabulary() -> None:
    if not (SHARED / "roberta-base").is_dir():
        pytest.skip("RoBERTa's vocabulary (1.4 MB, not part of this repository) is not at hand")
    tokenizer = read_tokenizer(SHARED / "roberta-base")
    vocabulary = vocabulary_of(tokenizer, "<mask>")
    for case in golden("tokenizer_roberta.json")["whole_word_groups"]:
        ids = np.array([tokenizer.token_to_id(token) for token in case["tokens"]])
        assert groups(vocabulary.words(ids)) == case["groups"]


def test_what_the_authors_hid_is_whole_words(authors: Vocabulary) -> None:
    tensors = load_file(GOLDEN / "pretrain.safetensors")
    hidden_words = 0
    for side in "ab":
        real = tensors[f"attention_mask_{side}"].bool()
        for ids, labels, kept in zip(tensors[f"input_ids_{side}"], tensors[f"mlm_labels_{side}"], real, strict=True):
            words, chosen = authors.words(ids[kept].numpy()), (labels[kept] != -100).numpy()
            assert not chosen[words < 0].any()
            for word in range(words.max() + 1):
                assert len(set(chosen[words == word])) == 1
                hidden_words += bool(chosen[words == word].all())
    assert hidden_words > 5


def test_words_end_at_the_borders_of_attributes_and_items() -> None:
    text = ItemText(RECIPE, train_bpe(["title brand oak desk Acme pine lamp brass"] * 5, 400))
    mask_id = text.token_id(MASK)
    assert mask_id is not None
    vocabulary = Vocabulary.of(text, mask_id)
    items = text.tokenize([{"title": "oak desk", "brand": "Acme"}, {"title": "pine lamp"}])
    positions = np.repeat([1, 2], items.lengths)
    words = vocabulary.words(items.ids, items.types, positions)
    said = ["".join(_tokens(text, items.ids[places])) for places in groups(words)]
    assert said == ["title", "oak", "Ġdesk", "brand", "Acme", "title", "pine", "Ġlamp"]
    said = ["".join(_tokens(text, items.ids[places])) for places in groups(vocabulary.words(items.ids))]
    assert said == ["titleoak", "ĠdeskbrandAcmetitlepine", "Ġlamp"]


def _tokens(text: ItemText, ids: Ids) -> list[str]:
    tokenizer = Tokenizer.from_str(text.tokenizer_json)
    return [str(tokenizer.id_to_token(int(number))) for number in ids]


def word_piece() -> Tokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "title", "desk", "lamp", "##s", "##hade", ",", "oak"]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def test_words_of_word_pieces() -> None:
    vocabulary = vocabulary_of(word_piece(), "[MASK]")
    tokens = ["[CLS]", "title", "oak", "desk", "##s", ",", "lamp", "##s", "##hade", "[UNK]", "lamp"]
    tokenizer = word_piece()
    ids = np.array([tokenizer.token_to_id(token) for token in tokens])
    assert groups(vocabulary.words(ids)) == [[1], [2], [3, 4], [5], [6, 7, 8], [10]]
    assert vocabulary.special[:5].all()
    assert not vocabulary.special[5:].any()
    assert not set(vocabulary.ordinary) & set(range(5))


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"pretrain\.mlm_weight: .*not WordLevel; 0 turns it off"):
        vocabulary_of(Tokenizer(models.WordLevel({"a": 0, "<mask>": 1}, unk_token="a")), "<mask>")


def test_how_much_is_hidden_and_how(authors: Vocabulary) -> None:
    rng = np.random.default_rng(5)
    ids = rng.choice(authors.ordinary, 200_000)
    words = authors.words(ids)
    hidden, chosen = mask(ids, words, authors, rng)
    assert np.bincount(words[chosen], minlength=words.max() + 1).astype(bool).mean() == pytest.approx(CHOSEN, abs=0.005)
    assert (np.bincount(words[chosen]) == np.bincount(words)[: words[chosen].max() + 1])[np.unique(words[chosen])].all()
    assert (hidden[~chosen] == ids[~chosen]).all()
    masked = hidden[chosen] == authors.mask_id
    # A random token is the right one once in a vocabulary.
    other = (hidden[chosen] != ids[chosen]) & ~masked
    assert masked.mean() == pytest.approx(AS_MASK, abs=0.01)
    assert other.mean() == pytest.approx(AS_RANDOM, abs=0.01)
    assert not authors.special[hidden[chosen][~masked]].any()
    assert len(np.unique(hidden[chosen][other])) > 0.9 * len(authors.ordinary)


def test_special_tokens_are_never_hidden(authors: Vocabulary) -> None:
    ids = np.tile([0, 50, 60, 1, 70, 2, 3, 80], 2_000)
    special = authors.special[ids]
    assert special.sum() == 8_000
    words = authors.words(ids)
    assert (words[special] == -1).all()
    assert not mask(ids, words, authors, np.random.default_rng(0))[1][special].any()
    nothing, chosen = mask(np.array([0]), authors.words(np.array([0])), authors, np.random.default_rng(0))
    assert nothing.tolist() == [0]
    assert not chosen.any()


@pytest.mark.parametrize("across_borders", [False, True])
def test_what_is_hidden_of_a_sequence_is_its_own(authors: Vocabulary, across_borders: bool) -> None:
    rng = np.random.default_rng(1)
    ids = rng.choice(authors.ordinary, 300)
    types, positions = np.repeat([NAME, VALUE, NAME], 100), np.repeat([1, 2, 3], 100)
    starts, seeds = np.array([0, 90, 220]), [7, 8, 9]
    hidden, chosen = mask_sequences(ids, types, positions, starts, seeds, authors, across_borders)
    part = slice(90, 220)
    alone = mask_sequences(ids[part], types[part], positions[part], np.array([0]), [8], authors, across_borders)
    assert (hidden[part] == alone[0]).all()
    assert (chosen[part] == alone[1]).all()
    others = mask_sequences(ids, types, positions, starts, [1, 2, 3], authors, across_borders)
    assert (others[1] != chosen).any()
