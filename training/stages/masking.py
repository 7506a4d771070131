"""Whole-word masking for the language-model loss of pretraining (Recformer, section 2.3.1; Devlin et al. 2019).

A share of the words of a text is chosen. Of their tokens 80 % are replaced by the mask and 10 % by a random token, 10 %
stay; the model predicts all of them.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from seqrec.errors import InputError
from seqrec.text.item_text import ItemText

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

CHOSEN = 0.15
"""Share of words that are chosen."""
AS_MASK, AS_RANDOM = 0.8, 0.1
"""Shares of the tokens of chosen words; the rest stays."""
SPECIAL = frozenset(
    f"{left}{name}{right}"
    for left, right in (("<", ">"), ("<", " >"), ("[", "]"))
    for name in ("s", "/s", "pad", "unk", "mask", "CLS", "SEP", "PAD", "UNK", "MASK")
)
"""Special tokens of RoBERTa, BERT and our own vocabularies."""
PUNCTUATION = frozenset(string.punctuation)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """begins [v]: the token starts a word; special [v]: it is never masked; ordinary [m]: random replacements."""

    begins: Flags
    special: Flags
    ordinary: Ids
    mask_id: int

    @classmethod
    def of(cls, item_text: ItemText, mask_id: int) -> Self:
        """Word boundaries as the tokenizer marks them: in WordPiece `##` continues a word; in byte-level BPE `Ġ` or a
        punctuation mark starts one.

        Raises InputError for other tokenizers.
        """
        form = json.loads(item_text.tokenizer_json)
        of_id = {number: token for token, number in Tokenizer.from_str(item_text.tokenizer_json).get_vocab().items()}
        tokens = [of_id.get(number, "") for number in range(max(max(of_id), mask_id) + 1)]
        if form["model"]["type"] == "WordPiece":
            joined = form["model"]["continuing_subword_prefix"]
            begins = [not token.startswith(joined) for token in tokens]
        elif form["model"]["type"] == "BPE" and "ByteLevel" in json.dumps(form["pre_tokenizer"]):
            # ASCII only: a byte of a longer character may look like a punctuation mark in byte-level BPE.
            begins = [token[:1] == "Ġ" or token[:1] in PUNCTUATION for token in tokens]
        else:
            raise InputError(
                f"masking needs a WordPiece or byte-level BPE tokenizer, not {form['model']['type']}; 0 turns it off",
                "pretrain.mlm_weight",
            )
        # Ids without a token occur in no text; treat them as special.
        special = np.array([not token or token in SPECIAL for token in tokens])
        special[mask_id] = True
        return cls(np.array(begins), special, np.flatnonzero(~special), mask_id)

    def words(self, ids: Ids, types: Ids | None = None, item_positions: Ids | None = None) -> Ids:
        """The word number of each token [t] of a text, from 0; -1 for special tokens.

        A word also starts after a special token and, if `types` and `item_positions` [t] are given, at the start of
        each attribute name, value and item. Without them words may span attributes and items, as in the authors' code,
        since byte-level BPE writes no space before the first word of a value.
        """
        special = self.special[ids]
        begins = self.begins[ids] | np.concatenate([[True], special[:-1]])
        for border in (types, item_positions):
            if border is not None:
                begins[1:] |= border[1:] != border[:-1]
        return np.where(special, -1, np.cumsum(begins & ~special) - 1)


def mask(ids: Ids, words: Ids, vocabulary: Vocabulary, rng: np.random.Generator) -> tuple[Ids, Flags]:
    """-> the ids [t] with masked words, and which tokens [t] are to be predicted.

    `words` as from `Vocabulary.words`. Each word is chosen with probability CHOSEN, so short texts may have none.
    """
    chosen = (rng.random(int(words.max(initial=-1)) + 2) < CHOSEN)[words] & (words >= 0)  # [t]
    lot = rng.random(len(ids))
    hidden = np.where(chosen & (lot < AS_MASK), vocabulary.mask_id, ids)
    drawn = vocabulary.ordinary[rng.integers(len(vocabulary.ordinary), size=len(ids))]
    return np.where(chosen & (lot >= AS_MASK) & (lot < AS_MASK + AS_RANDOM), drawn, hidden), chosen


def mask_sequences(
    ids: Ids,
    types: Ids,
    item_positions: Ids,
    starts: Ids,
    seeds: Sequence[int] | Ids,
    vocabulary: Vocabulary,
    across_attributes: bool,
) -> tuple[Ids, Flags]:
    """`mask` for concatenated sequences [t] that begin at `starts` [b].

    Each sequence has its own seed [b], so its mask does not depend on the rest of the batch.
    """
    hidden, chosen = ids.copy(), np.zeros(len(ids), np.bool_)
    for begin, end, seed in zip(starts, [*starts[1:], len(ids)], seeds, strict=True):
        part = slice(int(begin), int(end))
        borders = () if across_attributes else (types[part], item_positions[part])
        words = vocabulary.words(ids[part], *borders)
        hidden[part], chosen[part] = mask(ids[part], words, vocabulary, np.random.default_rng(int(seed)))
    return hidden, chosen
