"""Starting Recformer from a BERT- or RoBERTa-like text encoder that was trained on much text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from seqrec.errors import CheckpointError
from seqrec.models.recformer.convert import convert_weights, plain_names
from seqrec.models.recformer.model import TOKEN_TYPES, Recformer, RecformerConfig
from seqrec.text.item_text import ItemText, Recipe

FIRST_POSITION = 2
NOISE = 0.02
"""Standard deviation of what tells token types and item positions apart before training: as fresh embeddings have."""


def recformer_from_text_encoder(
    source: str | Path, recipe: Recipe, limits: Mapping[str, Any] | None = None, seed: int = 0
) -> Recformer:
    """A Recformer with the weights of a BERT, RoBERTa or Longformer encoder and its tokenizer.

    `source` is a directory, or a hub name (which downloads it). `limits` are fields of RecformerConfig:
    attention_window, max_token_num, max_item_embeddings, dropout, token_types, item_positions. Local and global
    projections both start as the encoder's query, key and value; positions beyond its table repeat it; token types
    start at its type 0, item positions at zero, both with a little noise from `seed`. Raises CheckpointError for any
    other model.
    """
    theirs, weights, tokenizer = _load(source)
    wanted = RecformerConfig(
        vocab_size=theirs["vocab_size"],
        hidden_size=theirs["hidden_size"],
        num_layers=theirs["num_hidden_layers"],
        num_heads=theirs["num_attention_heads"],
        intermediate_size=theirs["intermediate_size"],
        layer_norm_eps=theirs["layer_norm_eps"],
        first_position=FIRST_POSITION,
        cls_id=_special(tokenizer, ("<s>", "[CLS]")),
        mask_id=_special(tokenizer, ("<mask>", "[MASK]")),
    )
    config = replace(wanted, **(limits or {}))
    config = replace(config, max_position_embeddings=config.max_token_num + FIRST_POSITION)
    model = Recformer(config, ItemText(recipe, tokenizer))

    for name in list(weights):  # BERT has no projections for global attention: they start as the local ones
        for kind in ("query", "key", "value"):
            weights.setdefault(name.replace(f"self.{kind}.", f"self.{kind}_global."), weights[name])
    generator = torch.Generator().manual_seed(seed)

    def noisy(rows: Tensor) -> Tensor:
        return rows + NOISE * torch.randn(rows.shape, generator=generator)

    # RoBERTa's rows 0 and 1 are padding; BERT's table begins at once.
    table = weights["embeddings.position_embeddings.weight"][0 if theirs["model_type"] == "bert" else FIRST_POSITION :]
    rows = torch.arange(config.max_position_embeddings) - FIRST_POSITION
    weights["embeddings.position_embeddings.weight"] = table[rows % len(table)]
    types = weights["embeddings.token_type_embeddings.weight"][:1].expand(TOKEN_TYPES, -1)
    weights["embeddings.token_type_embeddings.weight"] = noisy(types)
    items = torch.zeros(config.max_item_embeddings, config.hidden_size)
    weights["embeddings.item_position_embeddings.weight"] = noisy(items)
    converted = convert_weights(weights, config.num_layers, lm_head=False)
    own = model.state_dict()  # without the embeddings that `limits` switch off
    model.load_state_dict({name: tensor for name, tensor in converted.items() if name in own})
    return model.eval()


def _load(source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer  # takes seconds: only who starts from one waits

    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in ("bert", "roberta", "longformer"):
            raise CheckpointError(
                f"{source} is a {config.model_type}; Recformer can start from bert, roberta, longformer"
            )
        if config.hidden_act != "gelu":
            raise CheckpointError(f"{source} has hidden_act {config.hidden_act!r}; Recformer has gelu")
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True).backend_tokenizer
        weights = plain_names(AutoModel.from_pretrained(source, dtype=torch.float32).state_dict())
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source} cannot be loaded as a text encoder: {error}") from error
    return config.to_dict(), {name: tensor.clone() for name, tensor in weights.items()}, tokenizer


def _special(tokenizer: Tokenizer, names: tuple[str, ...]) -> int:
    for name in names:
        token_id = tokenizer.token_to_id(name)
        if token_id is not None:
            return int(token_id)
    raise CheckpointError(f"the tokenizer has none of the special tokens {', '.join(names)}")
