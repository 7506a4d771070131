"""Where a training begins: random weights, a text encoder, or a checkpoint of ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seqrec.checkpoint import load_checkpoint
from seqrec.errors import InputError
from seqrec.id_model import IdModel
from seqrec.item_text import ItemText, Recipe
from seqrec.items import Item
from seqrec.model import SequenceModel
from seqrec.models import model_class
from seqrec.text_encoder import recformer_from_text_encoder
from seqrec.tokenizer import CLS, MASK, train_bpe
from training import toml
from training.config import ModelConfig, RunConfig, TextConfig
from training.data import Dataset

log = logging.getLogger(__name__)

VOCABULARY = frozenset({"vocab_size", "cls_id", "mask_id"})
LIMITS = frozenset({"attention_window", "max_token_num", "max_item_embeddings", "dropout"})
"""What may be set of a model that starts from a text encoder."""


@dataclass(frozen=True)
class Start:
    """`recipe` says what is text (None: the model reads none); `build` makes the model, given the data.

    `config` is the run's, without what the starting point brings itself.
    """

    config: RunConfig
    model_name: str
    recipe: Recipe | None
    build: Callable[[Sequence[Dataset]], SequenceModel]


def starting_point(config: RunConfig) -> Start:
    """What `config.model` names. Raises InputError, CheckpointError."""
    name, source = config.model.name, config.model.start_from
    if source and (Path(source) / "digest").is_file():
        return _from_checkpoint(config, source)
    text = config.text
    recipe = Recipe(text.attributes or None, text.max_attr_num, text.max_attr_length)
    if source:
        return _from_text_encoder(config, source, recipe)
    build = model_class(name)
    settings = dict(config.model.settings)
    if issubclass(build, IdModel):
        return _knowing_items(config, name, build)
    for given in VOCABULARY & settings.keys():
        raise InputError("follows from the tokenizer; set text.vocab_size", f"model.settings.{given}")

    for key, value in settings.items():
        if isinstance(value, str | bool):
            raise InputError(f"a number is needed, not {value!r}", f"model.settings.{key}")

    def fresh(datasets: Sequence[Dataset]) -> SequenceModel:
        items = [item for dataset in datasets for item in dataset.items]
        item_text = ItemText(recipe, train_bpe(_texts(items, recipe), text.vocab_size))
        ids = {"cls_id": item_text.token_id(CLS), "mask_id": item_text.token_id(MASK)}
        try:
            return build.from_config({**settings, "vocab_size": item_text.vocab_size, **ids}, item_text)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            # A setting that the model does not know is the user's mistake; the message has its name.
            raise InputError(f"unknown setting of {name}: {error}", "model.settings") from None

    return Start(config, name, recipe, fresh)


def _knowing_items(config: RunConfig, name: str, kind: type[IdModel]) -> Start:
    settings = toml.build(kind.settings_class, dict(config.model.settings), "model.settings.")

    def fresh(datasets: Sequence[Dataset]) -> SequenceModel:
        dataset = datasets[0]
        seen = [dataset.items[int(row)] for row in np.flatnonzero(dataset.trained_rows)]
        users = [dataset.user_ids[int(user)] for user in np.flatnonzero(dataset.cuts.train_end > 1)]
        return kind.from_items(settings, seen, users)

    return Start(config, name, None, fresh)


def _from_checkpoint(config: RunConfig, source: str) -> Start:
    model_config = replace(config.model, name=ModelConfig().name, settings=ModelConfig().settings)
    if (config.text, config.model) != (TextConfig(), model_config):
        log.info("%s brings its own model and item text: [text], model.name and [model.settings] do not count", source)
        config = replace(config, text=TextConfig(), model=model_config)
    checkpoint = load_checkpoint(source)
    model = checkpoint.history_model
    recipe = None if model.item_text is None else model.item_text.recipe
    return Start(config, checkpoint.model_name, recipe, lambda datasets: model)


def _from_text_encoder(config: RunConfig, source: str, recipe: Recipe) -> Start:
    if config.model.name != "recformer":
        raise InputError(f"{config.model.name} cannot start from {source}; recformer can", "model.start_from")
    limits = dict(config.model.settings)
    for given in limits.keys() - LIMITS:
        raise InputError(f"comes from {source}; only {', '.join(sorted(LIMITS))} can be set", f"model.settings.{given}")
    return Start(
        config, "recformer", recipe, lambda datasets: recformer_from_text_encoder(source, recipe, limits, config.seed)
    )


def _texts(items: Sequence[Item], recipe: Recipe) -> Iterator[str]:
    for item in items:
        for name, value in recipe.texts(item.attributes):
            yield name
            yield value
