"""Whole-word masking for the language-model loss of pretraining (Recformer, section 2.3.1; Devlin et al. 2019).

Of the words of a flattened text a share is chosen; of their tokens 80 % become the mask, 10 % a random token, 10 %
stay, and the model has to tell what all of them were.
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
"""Share of the words."""
AS_MASK, AS_RANDOM = 0.8, 0.1
"""Shares of the chosen words' tokens; the rest stays."""
SPECIAL = frozenset(
    f"{left}{name}{right}"
    for left, right in (("<", ">"), ("<", " >"), ("[", "]"))
    for name in ("s", "/s", "pad", "unk", "mask", "CLS", "SEP", "PAD", "UNK", "MASK")
)
"""What RoBERTa's, BERT's and our own vocabularies call their special tokens."""
PUNCTUATION = frozenset(string.punctuation)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """begins [v]: the token starts a word; special [v]: it is never masked; ordinary [m]: what a random one may be."""

    begins: Flags
    special: Flags
    ordinary: Ids
    mask_id: int

    @classmethod
    def of(cls, item_text: ItemText, mask_id: int) -> Self:
        """The borders that the tokenizer itself writes: BERT's `##` goes on a word; in a byte-level BPE `Ġ` begins one,
        and so does a punctuation mark.

        Raises InputError for a tokenizer of another kind.
        """
        form = json.loads(item_text.tokenizer_json)
        of_id = {number: token for token, number in Tokenizer.from_str(item_text.tokenizer_json).get_vocab().items()}
        tokens = [of_id.get(number, "") for number in range(max(max(of_id), mask_id) + 1)]
        if form["model"]["type"] == "WordPiece":
            joined = form["model"]["continuing_subword_prefix"]
            begins = [not token.startswith(joined) for token in tokens]
        elif form["model"]["type"] == "BPE" and "ByteLevel" in json.dumps(form["pre_tokenizer"]):
            # ASCII only: a part of a longer character may look like another punctuation mark there.
            begins = [token[:1] == "Ġ" or token[:1] in PUNCTUATION for token in tokens]
        else:
            raise InputError(
                f"where words begin is known of WordPiece and byte-level BPE, not of {form['model']['type']}; 0 leaves "
                "masking out",
                "pretrain.mlm_weight",
            )
        # An id without a token is one that no text contains: as special as the tokens that no text may spell.
        special = np.array([not token or token in SPECIAL for token in tokens])
        special[mask_id] = True
        return cls(np.array(begins), special, np.flatnonzero(~special), mask_id)

    def words(self, ids: Ids, types: Ids | None = None, item_positions: Ids | None = None) -> Ids:
        """Which word each token [t] of a text belongs to, counted from 0; -1 for special tokens.

        A word also begins after a special token and, where `types` and `item_positions` [t] are given, where a name, a
        value or an item begins. Without them words run on across these borders, as in the authors' code: byte-level
        BPE writes no blank before the first word of a value.
        """
        special = self.special[ids]
        begins = self.begins[ids] | np.concatenate([[True], special[:-1]])
        for border in (types, item_positions):
            if border is not None:
                begins[1:] |= border[1:] != border[:-1]
        return np.where(special, -1, np.cumsum(begins & ~special) - 1)


def mask(ids: Ids, words: Ids, vocabulary: Vocabulary, rng: np.random.Generator) -> tuple[Ids, Flags]:
    """-> the ids [t] with words hidden, and which tokens [t] are to be told.

    `words` as from `Vocabulary.words`. Each word is chosen with probability CHOSEN, so a short text may have none.
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
    across_borders: bool,
) -> tuple[Ids, Flags]:
    """`mask` for sequences end to end, [t] each, that begin at `starts` [b].

    Each draws from its own seed [b], so what is hidden of one does not depend on the others of its batch.
    """
    hidden, chosen = ids.copy(), np.zeros(len(ids), np.bool_)
    for begin, end, seed in zip(starts, [*starts[1:], len(ids)], seeds, strict=True):
        part = slice(int(begin), int(end))
        borders = () if across_borders else (types[part], item_positions[part])
        words = vocabulary.words(ids[part], *borders)
        hidden[part], chosen[part] = mask(ids[part], words, vocabulary, np.random.default_rng(int(seed)))
    return hidden, chosen
