"""Weights of other encoders under Recformer's names: BERT, RoBERTa and Longformer share their naming."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from seqrec.errors import CheckpointError

_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "word_embeddings.weight",
    "embeddings.position_embeddings.weight": "position_embeddings.weight",
    "embeddings.token_type_embeddings.weight": "token_type_embeddings.weight",
    "embeddings.item_position_embeddings.weight": "item_position_embeddings.weight",
    "embeddings.LayerNorm.weight": "embedding_norm.weight",
    "embeddings.LayerNorm.bias": "embedding_norm.bias",
}
_LAYER = {
    "attention.self.query_global": "query_global",
    "attention.self.key_global": "key_global",
    "attention.self.value_global": "value_global",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "output_norm",
}
_LM_HEAD = {
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.norm.weight",
    "lm_head.layer_norm.bias": "lm_head.norm.bias",
    "lm_head.decoder.weight": "lm_head.decoder.weight",
    "lm_head.bias": "lm_head.decoder.bias",  # tied to lm_head.decoder.bias
}


def convert_weights(theirs: Mapping[str, Tensor], num_layers: int, lm_head: bool) -> dict[str, Tensor]:
    """Weights by the names of Hugging Face's encoders (without a prefix) -> by Recformer's names.

    query, key and value become one matrix. The bias of key_global is dropped: it shifts all scores equally.
    Raises CheckpointError that names a missing parameter.
    """

    def take(name: str) -> Tensor:
        if name not in theirs:
            raise CheckpointError(f"the weights have no {name!r}: is this a Recformer or Longformer checkpoint?")
        return theirs[name].detach().float()

    ours = {new: take(old) for old, new in _EMBEDDINGS.items()}
    for layer in range(num_layers):
        old, new = f"encoder.layer.{layer}", f"layers.{layer}"
        for kind in ("weight", "bias"):
            parts = [take(f"{old}.attention.self.{part}.{kind}") for part in ("query", "key", "value")]
            ours[f"{new}.qkv.{kind}"] = torch.cat(parts)
            for theirs_name, our_name in _LAYER.items():
                if (our_name, kind) != ("key_global", "bias"):
                    ours[f"{new}.{our_name}.{kind}"] = take(f"{old}.{theirs_name}.{kind}")
    if lm_head:
        ours |= {new: take(old) for old, new in _LM_HEAD.items()}
    return ours


def plain_names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes that the authors' classes and training wrappers add.

    RecformerForPretraining and RecformerForSeqRec put `longformer.` before the encoder's names, RecformerModel nothing.
    `item_embedding.weight` of a fine-tuned checkpoint is left out: item vectors are computed from text.
    """
    named = {}
    for name, tensor in theirs.items():
        bare = re.search(r"(?:^|\.)((?:embeddings|encoder\.layer|lm_head)\..+)", name)
        if bare:
            named[bare[1]] = tensor
    return named


def read_weights(path: Path) -> dict[str, Tensor]:
    """A `.safetensors` file, or a `.bin` or `.pt` of tensors (nothing else is unpickled). Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as weights, it may be cut short: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} is not a mapping of names to tensors")
    return loaded
