"""`seqrec import recformer`: converts a checkpoint of the Recformer authors' code. The vectors stay the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqrec.checkpoint import save_checkpoint
from seqrec.errors import CheckpointError, InputError
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.models.recformer.weights import convert_weights, plain_names, read_weights
from seqrec.runtime.arguments import Parser
from seqrec.text.item_text import ItemText, Recipe
from seqrec.text.tokenizer import read_tokenizer

PAPER_LIMITS = {"max_attr_num": 3, "max_attr_length": 32, "max_item_embeddings": 51, "max_token_num": 1024}
"""Settings that a plain Longformer configuration lacks, with the paper's values (not the defaults of the code)."""


def convert_config(theirs: Mapping[str, Any], limits: Mapping[str, int]) -> tuple[RecformerConfig, Recipe]:
    """From the authors' configuration and the limits it lacks. Raises CheckpointError for other models."""

    def take(name: str) -> Any:
        if name not in theirs:
            raise CheckpointError(f"the configuration has no {name!r}: is it a Longformer's config.json?")
        return theirs[name]

    windows = take("attention_window")
    windows = {windows} if isinstance(windows, int) else set(windows)
    if len(windows) != 1:
        raise CheckpointError(
            f"attention_window differs between layers {sorted(windows)}; only one for all layers is supported"
        )
    if theirs.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"hidden_act {theirs['hidden_act']!r} is not supported; Recformer uses gelu")
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
    """Writes a checkpoint. -> the limits that were assumed because the configuration lacks them."""
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
        assumed["max_item_embeddings"] = len(table)  # the size of the table is a fact, the paper's limit a guess
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
    parser = Parser(prog="seqrec import", description="Convert checkpoints of other programs.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    command = kinds.add_parser(
        "recformer",
        help="a checkpoint of the Recformer authors' code",
        description="Limits that the configuration lacks default to those of the paper and are printed.",
    )
    command.add_argument("--weights", type=Path, required=True, help="the .bin or .safetensors file")
    command.add_argument("--config", type=Path, required=True, help="its config.json, or that of a plain Longformer")
    command.add_argument(
        "--tokenizer", type=Path, required=True, help="directory with tokenizer.json, or vocab.json and merges.txt"
    )
    command.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--lm-head", action="store_true", help="keep the language-model head, to continue pretraining")
    for name, value in PAPER_LIMITS.items():
        command.add_argument(
            f"--{name.replace('_', '-')}", type=int, help=f"overrides the configuration; {value} if it has none"
        )
    args = parser.parse_args(argv)
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out} already exists; add --overwrite to replace it")
    overrides = {name: getattr(args, name) for name in PAPER_LIMITS if getattr(args, name) is not None}
    assumed = import_recformer(
        args.weights, args.config, args.tokenizer, args.out, overrides, args.lm_head, args.overwrite
    )
    for name, value in assumed.items():
        print(f"{name} = {value} (not in the configuration; override with --{name.replace('_', '-')})", file=sys.stderr)
    print(json.dumps({"checkpoint": str(args.out), "assumed": assumed}) if args.json else args.out)
