"""Initial weights of a Recformer from a pretrained text encoder such as BERT or RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from seqrec.errors import CheckpointError
from seqrec.models.recformer.config import TOKEN_TYPES, RecformerConfig
from seqrec.models.recformer.weights import convert_weights, plain_names

FIRST_POSITION = 2
NOISE = 0.02
"""Standard deviation of the noise by which token types and item positions differ before training."""


def load_text_encoder(
    source: str | Path, settings: Mapping[str, Any], seed: int
) -> tuple[RecformerConfig, dict[str, Tensor], Tokenizer]:
    """-> configuration, weights and tokenizer from a BERT, RoBERTa or Longformer encoder.

    `source` is a directory, or a name on the Hugging Face hub, which downloads it. `settings` are fields of the
    configuration that the encoder does not determine: attention_window, max_token_num, max_item_embeddings, dropout,
    token_types, item_positions. Local and global projections both start as the query, key and value of the encoder.
    Positions beyond its table repeat it. Token types start as its type 0 and item positions as zero, both with noise
    from `seed`. Raises CheckpointError for any other model.
    """
    theirs, weights, tokenizer = _load(source)
    determined = {
        "vocab_size": theirs["vocab_size"],
        "hidden_size": theirs["hidden_size"],
        "num_layers": theirs["num_hidden_layers"],
        "num_heads": theirs["num_attention_heads"],
        "intermediate_size": theirs["intermediate_size"],
        "layer_norm_eps": theirs["layer_norm_eps"],
        "first_position": FIRST_POSITION,
        "cls_id": _special(tokenizer, ("<s>", "[CLS]")),
        "mask_id": _special(tokenizer, ("<mask>", "[MASK]")),
    }
    config = RecformerConfig(**{**determined, **settings})

    for name in list(weights):  # BERT has no projections for global attention: they start as the local ones
        for kind in ("query", "key", "value"):
            weights.setdefault(name.replace(f"self.{kind}.", f"self.{kind}_global."), weights[name])
    generator = torch.Generator().manual_seed(seed)

    def noisy(rows: Tensor) -> Tensor:
        return rows + NOISE * torch.randn(rows.shape, generator=generator)

    # Rows 0 and 1 of RoBERTa's table are padding; BERT's table starts with position 0.
    table = weights["embeddings.position_embeddings.weight"][0 if theirs["model_type"] == "bert" else FIRST_POSITION :]
    rows = torch.arange(config.max_position_embeddings) - FIRST_POSITION
    weights["embeddings.position_embeddings.weight"] = table[rows % len(table)]
    types = weights["embeddings.token_type_embeddings.weight"][:1].expand(TOKEN_TYPES, -1)
    weights["embeddings.token_type_embeddings.weight"] = noisy(types)
    items = torch.zeros(config.max_item_embeddings, config.hidden_size)
    weights["embeddings.item_position_embeddings.weight"] = noisy(items)
    return config, convert_weights(weights, config.num_layers, lm_head=False), tokenizer


def _load(source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], Tokenizer]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer  # takes seconds to import

    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in ("bert", "roberta", "longformer"):
            raise CheckpointError(
                f"{source} is a {config.model_type}; Recformer can start from bert, roberta, longformer"
            )
        if config.hidden_act != "gelu":
            raise CheckpointError(f"{source} has hidden_act {config.hidden_act!r}; Recformer uses gelu")
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
