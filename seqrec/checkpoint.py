"""A checkpoint: a directory with everything that turns items and histories into vectors.

config.json         format, model name, model configuration, digests of both towers
model.safetensors   the weights of the history tower, and if they differ those of the item tower under "item_tower."
tokenizer.json      } if the model reads text
item_text.json      }
training.toml       the configuration of the run that trained it, if there was one: how to train it again
digest              sha256 of each file above, in the format of sha256sum (check with `sha256sum -c digest`)

The towers differ after two-stage fine-tuning, which trains history weights against item vectors of earlier weights
(Recformer, Algorithm 1). Those earlier weights are the item tower, which encodes items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

from seqrec.data.files import new_directory, sha256_file
from seqrec.errors import CheckpointError, SeqrecError
from seqrec.models import model_class
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import ItemText, Recipe

FORMAT = 1
WEIGHTS = "model.safetensors"
TRAINING = "training.toml"
_ITEM_TOWER = "item_tower."


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read from disk. `item_model` is `history_model` if the towers are equal.

    `digest` identifies the checkpoint; `item_tower` and `history_tower` everything that determines the vector of an
    item or history (weights, configuration, tokenizer, recipe): equal digests mean equal vectors.
    """

    path: Path
    model_name: str
    digest: str
    item_tower: str
    history_tower: str
    tokenizer: str
    item_text: str
    history_model: SequenceModel
    item_model: SequenceModel


def save_checkpoint(
    path: Path,
    model_name: str,
    history_model: SequenceModel,
    item_model: SequenceModel | None = None,
    replace: bool = False,
    training: str = "",
) -> str:
    """Writes a checkpoint atomically. -> its digest. Raises FileExistsError if `path` exists, unless `replace`.

    `training`: the configuration of the run, in TOML.
    """
    history_weights = _weights(history_model)
    item_weights = history_weights if item_model is None else _weights(item_model)
    config = history_model.config_json()
    item_text = history_model.item_text
    text_digest = "" if item_text is None else item_text.digest
    history_tower = _tower_digest(model_name, config, text_digest, history_weights)
    item_tower = _tower_digest(model_name, config, text_digest, item_weights)
    tensors = dict(history_weights)
    if item_tower != history_tower:
        tensors |= {_ITEM_TOWER + name: tensor for name, tensor in item_weights.items()}
    with new_directory(path, replace) as directory:
        # Not save_file, which reports a full disk as its own kind of error instead of an OSError.
        (directory / WEIGHTS).write_bytes(save(tensors))
        if item_text is not None:
            (directory / "tokenizer.json").write_text(item_text.tokenizer_json, encoding="utf-8")
            (directory / "item_text.json").write_text(item_text.recipe.to_json(), encoding="utf-8")
        if training:
            (directory / TRAINING).write_text(training, encoding="utf-8")
        record = {
            "format": FORMAT,
            "model": model_name,
            "config": config,
            "item_tower": item_tower,
            "history_tower": history_tower,
        }
        (directory / "config.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        lines = [f"{sha256_file(file)}  {file.name}\n" for file in sorted(directory.iterdir())]
        (directory / "digest").write_text("".join(lines), encoding="utf-8")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and checks a checkpoint. Raises CheckpointError that names a missing, truncated or altered file."""
    path = Path(path)
    digest_file = path / "digest"
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a directory; a checkpoint is a directory written by `seqrec train` or `seqrec import`"
        )
    if not digest_file.is_file():
        raise CheckpointError(f"{path} is not a checkpoint: it has no file `digest`")
    text = digest_file.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        expected, _, name = line.partition("  ")
        if len(expected) != 64 or Path(name).name != name or not name:
            raise CheckpointError(f"{digest_file} is not a list of sha256 and file names: the checkpoint was altered")
        if not (path / name).is_file():
            raise CheckpointError(f"{path / name} is missing: the checkpoint is incomplete")
        if sha256_file(path / name) != expected:
            raise CheckpointError(f"{path / name} was truncated or altered: its sha256 is not the stored one")
    listed = {line.partition("  ")[2] for line in text.splitlines()}
    if not {"config.json", WEIGHTS} <= listed:
        raise CheckpointError(
            f"{digest_file} does not list config.json and model.safetensors: the checkpoint was altered"
        )
    record = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {record.get('format')}; this version reads format {FORMAT}")
    item_text = None
    tokenizer = ""
    try:
        if "tokenizer.json" in listed:
            tokenizer = sha256_file(path / "tokenizer.json")
            recipe = Recipe.from_json((path / "item_text.json").read_text(encoding="utf-8"))
            item_text = ItemText(recipe, Tokenizer.from_file(str(path / "tokenizer.json")))
        build = model_class(record["model"])
        tensors = load_file(path / WEIGHTS)
        history_model = build.from_config(record["config"], item_text)
        _load_weights(history_model, {n: t for n, t in tensors.items() if not n.startswith(_ITEM_TOWER)})
        item_model = history_model
        if record["item_tower"] != record["history_tower"]:
            item_model = build.from_config(record["config"], item_text)
            _load_weights(
                item_model, {n.removeprefix(_ITEM_TOWER): t for n, t in tensors.items() if n.startswith(_ITEM_TOWER)}
            )
    except (SeqrecError, KeyError, RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
    return Checkpoint(
        path=path,
        model_name=record["model"],
        digest=hashlib.sha256(text.encode()).hexdigest(),
        item_tower=record["item_tower"],
        history_tower=record["history_tower"],
        tokenizer=tokenizer,
        item_text="" if item_text is None else item_text.digest,
        history_model=history_model,
        item_model=item_model,
    )


def _weights(model: SequenceModel) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in model.state_dict().items()}


def _load_weights(model: SequenceModel, tensors: Mapping[str, Tensor]) -> None:
    model.load_state_dict(dict(tensors))
    model.eval()


def _tower_digest(model_name: str, config: Mapping[str, Any], item_text: str, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([model_name, config, item_text], sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
