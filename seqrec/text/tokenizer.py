"""Tokenizers, read from a directory or trained on the text of a catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from seqrec.errors import CheckpointError, InputError

CLS, PAD, UNK, MASK = "<s >", "<pad >", "<unk >", "<mask >"
"""Special tokens of vocabularies that are trained here, ids 0 to 3. No text can produce them, because of the blank:
byte-level BPE writes a blank as Ġ, so no merge results in these names."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE like RoBERTa's, without a prefix space. It contains all 256 bytes, so it can encode any text.

    Raises InputError if `vocab_size` is too small for the bytes and the special tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [CLS, PAD, UNK, MASK]
    if vocab_size < len(alphabet) + len(specials):
        raise InputError(
            f"{vocab_size} is too small: bytes and special tokens need {len(alphabet) + len(specials)}", "vocab_size"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(directory: str | Path) -> Tokenizer:
    """From `tokenizer.json`, or RoBERTa's `vocab.json` and `merges.txt`. Raises CheckpointError without either."""
    directory = Path(directory)
    try:
        if (directory / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(directory / "tokenizer.json"))
        if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
            bpe = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"), unk_token="<unk>")
            tokenizer = Tokenizer(bpe)
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            return tokenizer
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"the tokenizer in {directory} cannot be read: {error}") from error
    raise CheckpointError(f"{directory} has neither tokenizer.json nor vocab.json with merges.txt")
