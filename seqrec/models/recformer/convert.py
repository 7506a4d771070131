"""`seqrec import recformer`: a checkpoint of the Recformer authors' code becomes ours, with the same vectors.

Also the names of BERT-, RoBERTa- and Longformer-like encoders, which share them, for starting from one.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from seqrec.checkpoint import save_checkpoint
from seqrec.errors import CheckpointError, InputError
from seqrec.models.recformer.model import Recformer, RecformerConfig
from seqrec.text.item_text import ItemText, Recipe
from seqrec.text.tokenizer import read_tokenizer

PAPER_LIMITS = {"max_attr_num": 3, "max_attr_length": 32, "max_item_embeddings": 51, "max_token_num": 1024}
"""Settings that a plain Longformer configuration lacks; the paper's, not the class defaults of the authors' code."""

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
    "lm_head.bias": "lm_head.decoder.bias",  # one parameter under two names there
}


def convert_weights(theirs: Mapping[str, Tensor], num_layers: int, lm_head: bool) -> dict[str, Tensor]:
    """Weights under the names of Hugging Face's encoders (without a prefix) -> under ours.

    query, key and value become one matrix; the bias of key_global is dropped, since it moves no score against another.
    Raises CheckpointError, naming the parameter, if one is missing.
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
    """The authors' three namings as one.

    RecformerForPretraining and RecformerForSeqRec write `longformer.` before the encoder's names, RecformerModel
    nothing; a training wrapper may stand before either. A fine-tuned checkpoint's `item_embedding.weight` is left out:
    item vectors are made from the text, and the index holds them.
    """
    named = {}
    for name, tensor in theirs.items():
        bare = re.search(r"(?:^|\.)((?:embeddings|encoder\.layer|lm_head)\..+)", name)
        if bare:
            named[bare[1]] = tensor
    return named


def read_weights(path: Path) -> dict[str, Tensor]:
    """A `.safetensors` file, or a `.bin`/`.pt` of tensors alone (nothing else is unpickled). Raises CheckpointError."""
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


def convert_config(theirs: Mapping[str, Any], limits: Mapping[str, int]) -> tuple[RecformerConfig, Recipe]:
    """The authors' configuration and the limits it lacks -> ours. Raises CheckpointError for what is not Recformer."""

    def take(name: str) -> Any:
        if name not in theirs:
            raise CheckpointError(f"the configuration has no {name!r}: is it a Longformer's config.json?")
        return theirs[name]

    windows = take("attention_window")
    windows = {windows} if isinstance(windows, int) else set(windows)
    if len(windows) != 1:
        raise CheckpointError(
            f"attention_window differs between layers {sorted(windows)}; one for all layers is supported"
        )
    if theirs.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"hidden_act {theirs['hidden_act']!r} is not supported; Recformer has gelu")
    config = RecformerConfig(
        vocab_size=take("vocab_size"),
        hidden_size=take("hidden_size"),
        num_layers=take("num_hidden_layers"),
        num_heads=take("num_attention_heads"),
        intermediate_size=take("intermediate_size"),
        attention_window=windows.pop(),
        max_token_num=limits["max_token_num"],
        max_item_embeddings=limits["max_item_embeddings"],
        max_position_embeddings=take("max_position_embeddings"),
        first_position=theirs.get("pad_token_id", 1) + 1,
        layer_norm_eps=take("layer_norm_eps"),
        dropout=theirs.get("hidden_dropout_prob", 0.1),
        cls_id=theirs.get("bos_token_id", 0),
        mask_id=theirs.get("mask_token_id", take("vocab_size") - 1),
    )
    recipe = Recipe(None, limits["max_attr_num"], limits["max_attr_length"], parse_special_tokens=True)
    return config, recipe


def import_recformer(
    weights: Path,
    config: Path,
    tokenizer: Path,
    out: Path,
    overrides: Mapping[str, int],
    lm_head: bool,
    replace_out: bool,
) -> dict[str, int]:
    """Write our checkpoint; returns the limits that were assumed because the configuration lacks them."""
    try:
        theirs = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{config}: no such file") from None
    except ValueError as error:
        raise CheckpointError(f"{config} is not JSON: {error}") from error
    named = plain_names(read_weights(weights))
    own = {name: theirs[name] for name in PAPER_LIMITS if name in theirs}
    assumed = {name: value for name, value in PAPER_LIMITS.items() if name not in own and name not in overrides}
    table = named.get("embeddings.item_position_embeddings.weight")
    if table is not None and "max_item_embeddings" in assumed:
        assumed["max_item_embeddings"] = len(table)  # the weights know better than the paper
    ours, recipe = convert_config(theirs, assumed | own | dict(overrides))
    ours = replace(ours, lm_head=lm_head)
    text = ItemText(recipe, read_tokenizer(tokenizer))
    model = Recformer(ours, text)
    converted = convert_weights(named, ours.num_layers, lm_head)
    for name, tensor in model.state_dict().items():
        if converted[name].shape != tensor.shape:
            shapes = f"{tuple(converted[name].shape)} in the weights, {tuple(tensor.shape)} by the configuration"
            raise CheckpointError(f"{name} has shape {shapes}")
    model.load_state_dict(converted)
    save_checkpoint(out, "recformer", model.eval(), replace=replace_out)
    return assumed


def main(argv: Sequence[str]) -> None:
    """`seqrec import`."""
    parser = argparse.ArgumentParser(prog="seqrec import", description="Turn others' checkpoints into ours.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    command = kinds.add_parser(
        "recformer",
        help="a checkpoint of the Recformer authors' code",
        description="Limits that the configuration lacks default to the paper's, and are printed.",
    )
    command.add_argument("--weights", type=Path, required=True, help="their .bin or .safetensors")
    command.add_argument("--config", type=Path, required=True, help="their config.json (or a plain Longformer's)")
    command.add_argument(
        "--tokenizer", type=Path, required=True, help="directory with tokenizer.json, or vocab.json and merges.txt"
    )
    command.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    command.add_argument("--lm-head", action="store_true", help="keep the language-model head, to go on pretraining")
    for name, value in PAPER_LIMITS.items():
        command.add_argument(
            f"--{name.replace('_', '-')}", type=int, help=f"instead of the configuration's, or {value}"
        )
    args = parser.parse_args(argv)
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out} exists already; say --overwrite to replace it")
    overrides = {name: getattr(args, name) for name in PAPER_LIMITS if getattr(args, name) is not None}
    assumed = import_recformer(
        args.weights, args.config, args.tokenizer, args.out, overrides, args.lm_head, args.overwrite
    )
    for name, value in assumed.items():
        print(f"{name} = {value} (not in the configuration; override with --{name.replace('_', '-')})", file=sys.stderr)
    print(args.out)
