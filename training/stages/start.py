"""The start of a training: random weights, a text encoder or a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seqrec.checkpoint import load_checkpoint
from seqrec.data.items import Item
from seqrec.errors import InputError
from seqrec.models import model_class
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.ids import IdModel
from seqrec.models.base.model import SequenceModel
from seqrec.models.recformer.from_text_encoder import recformer_from_text_encoder
from seqrec.text.item_text import ItemText, Recipe
from seqrec.text.tokenizer import CLS, MASK, train_bpe
from training.config.schema import ModelConfig, RunConfig, TextConfig
from training.config.validation import build
from training.data.dataset import Dataset
from training.stages.pretraining import take_language_model_head

log = logging.getLogger(__name__)

VOCABULARY = frozenset({"vocab_size", "cls_id", "mask_id"})
SWITCHES = frozenset({"token_types", "item_positions"})
LIMITS = SWITCHES | {"attention_window", "max_token_num", "max_item_embeddings", "dropout"}
"""The settings of a model that starts from a text encoder."""


@dataclass(frozen=True)
class Start:
    """`recipe`: how items become text (None: the model reads no text); `build` creates the model from the data.

    `config`: that of the run, without the settings that the start replaces.
    """

    config: RunConfig
    model_name: str
    recipe: Recipe | None
    build: Callable[[Sequence[Dataset]], SequenceModel]


def starting_point(config: RunConfig) -> Start:
    """The start that `config.model` describes. Raises InputError, CheckpointError."""
    name, source = config.model.name, config.model.start_from
    kind = model_class(name)
    if source:
        _check_source(source)
    elif config.model.start_required:
        raise InputError(
            "this configuration starts from a trained model: --set model.start_from=DIR, a checkpoint of `seqrec "
            "train` or the directory of a BERT- or RoBERTa-like text encoder, such as all-MiniLM-L6-v2",
            "model.start_from",
        )
    if issubclass(kind, FrozenTextModel):
        return _on_frozen_text(config, name, kind)
    if source and (Path(source) / "digest").is_file():
        return _from_checkpoint(config, source)
    text = config.text
    recipe = Recipe(text.attributes or None, text.max_attr_num, text.max_attr_length)
    if source:
        return _from_text_encoder(config, source, recipe)
    settings = dict(config.model.settings)
    if issubclass(kind, IdModel):
        return _knowing_items(config, name, kind)
    for given in VOCABULARY & settings.keys():
        raise InputError("follows from the tokenizer; set text.vocab_size", f"model.settings.{given}")

    for key, value in settings.items():
        if isinstance(value, str) or isinstance(value, bool) != (key in SWITCHES):
            needed = "true or false" if key in SWITCHES else "a number"
            raise InputError(f"{needed} is needed, not {value!r}", f"model.settings.{key}")

    def fresh(datasets: Sequence[Dataset]) -> SequenceModel:
        items = [item for dataset in datasets for item in dataset.items]
        item_text = ItemText(recipe, train_bpe(_texts(items, recipe), text.vocab_size))
        ids = {"cls_id": item_text.token_id(CLS), "mask_id": item_text.token_id(MASK)}
        try:
            return kind.from_config({**settings, "vocab_size": item_text.vocab_size, **ids}, item_text)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            # An unknown setting is the user's mistake; the message names it.
            raise InputError(f"unknown setting of {name}: {error}", "model.settings") from None

    return Start(config, name, recipe, fresh)


def _check_source(source: str) -> None:
    """Raises InputError if `source` is neither a directory with a model nor a model of the Hugging Face hub."""
    path = Path(source)
    if path.is_dir():
        if not (path / "digest").is_file() and not (path / "config.json").is_file():
            runs = f"; did you mean {path / 'checkpoint'}?" if (path / "checkpoint" / "digest").is_file() else ""
            raise InputError(f"{source} has neither a checkpoint nor a text encoder{runs}", "model.start_from")
        return
    if path.exists():
        raise InputError(f"{source} is a file; name the directory of a checkpoint or text encoder", "model.start_from")
    from transformers import AutoConfig  # takes seconds to import

    try:
        AutoConfig.from_pretrained(source)
    except (OSError, ValueError):
        raise InputError(
            f"there is no directory {source}, and no model of that name could be loaded from the Hugging Face hub",
            "model.start_from",
        ) from None


def _knowing_items(config: RunConfig, name: str, kind: type[IdModel]) -> Start:
    settings = build(kind.settings_class, dict(config.model.settings), "model.settings.")

    def fresh(datasets: Sequence[Dataset]) -> SequenceModel:
        dataset = datasets[0]
        seen = _seen(dataset)
        users = [dataset.user_ids[int(user)] for user in np.flatnonzero(dataset.cuts.train_end > 1)]
        if kind.knows_domains:
            others = tuple(len(_seen(other)) for other in datasets[1:])
            return kind.from_ids(settings, [item.item_id for item in seen], users, others=others)
        return kind.from_items(settings, seen, users)

    return Start(config, name, None, fresh)


def _on_frozen_text(config: RunConfig, name: str, kind: type[FrozenTextModel]) -> Start:
    """On top of a frozen text encoder or text model, or from a checkpoint of the same model."""
    source, text = config.model.start_from, config.text
    settings = build(kind.settings_class, dict(config.model.settings), "model.settings.")
    if not source:
        raise InputError(
            f"{name} needs a frozen text model: --set model.start_from=DIR, a text encoder or a text model",
            "model.start_from",
        )

    def item_ids(datasets: Sequence[Dataset]) -> list[str]:
        return [item.item_id for item in _seen(datasets[0])]

    if not (Path(source) / "digest").is_file():
        recipe = Recipe(text.attributes or None, text.max_attr_num, text.max_attr_length)
        limits = {"max_token_num": recipe.max_attr_num * recipe.max_attr_length + 1, "max_item_embeddings": 2}

        def on_encoder(datasets: Sequence[Dataset]) -> SequenceModel:
            encoder = recformer_from_text_encoder(source, recipe, limits, config.seed)
            return kind.on(settings, "recformer", encoder, item_ids(datasets))

        return Start(config, name, recipe, on_encoder)
    if config.text != TextConfig():
        log.info("%s has its own item text: [text] is ignored", source)
        config = replace(config, text=TextConfig())
    checkpoint = load_checkpoint(source)
    model = checkpoint.item_model
    own_recipe = None if model.item_text is None else model.item_text.recipe
    if isinstance(model, kind):
        log.info("%s has its own settings: of [model.settings] only %s are used", source, ", ".join(kind.fine_tuning))
        return Start(config, name, own_recipe, lambda datasets: model.going_on(settings, item_ids(datasets)))
    take_language_model_head(model)
    return Start(
        config,
        name,
        own_recipe,
        lambda datasets: kind.on(settings, checkpoint.model_name, model, item_ids(datasets)),
    )


def _seen(dataset: Dataset) -> list[Item]:
    """The items in training."""
    return [dataset.items[int(row)] for row in np.flatnonzero(dataset.trained_rows)]


def _from_checkpoint(config: RunConfig, source: str) -> Start:
    model_config = replace(config.model, name=ModelConfig().name, settings=ModelConfig().settings)
    if (config.text, config.model) != (TextConfig(), model_config):
        log.info("%s has its own model and item text: [text], model.name and [model.settings] are ignored", source)
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
