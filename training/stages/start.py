"""The start of a training: random weights, a text encoder or a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seqrec.checkpoint import Checkpoint, load_checkpoint
from seqrec.errors import InputError
from seqrec.models import model_class
from seqrec.models.base.model import BuildConfig, NamedModel, SequenceModel
from seqrec.text.item_text import Recipe
from training.config.schema import ModelConfig, RunConfig, TextConfig
from training.config.validation import build
from training.data.dataset import Dataset

log = logging.getLogger(__name__)


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
    checkpoint = load_checkpoint(source) if source and (Path(source) / "digest").is_file() else None
    if checkpoint is not None and not kind.builds_on_checkpoints:
        return _continued(config, checkpoint)
    if checkpoint is not None and config.text != TextConfig():
        log.info("%s has its own item text: [text] is ignored", source)
        config = replace(config, text=TextConfig())
    text, settings = config.text, dict(config.model.settings)
    build_config = BuildConfig(
        name=name,
        settings=build(kind.settings_class, settings, "model.settings."),
        given=frozenset(settings),
        recipe=Recipe(text.attributes or None, text.max_attr_num, text.max_attr_length),
        vocab_size=text.vocab_size,
        seed=config.seed,
        text_encoder=source if checkpoint is None else "",
        start=None if checkpoint is None else NamedModel(checkpoint.model_name, checkpoint.item_model),
    )
    recipe = kind.check(build_config)
    return Start(config, name, recipe, lambda datasets: kind.build(build_config, datasets))


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


def _continued(config: RunConfig, checkpoint: Checkpoint) -> Start:
    """The model of a checkpoint, to be trained further."""
    model_config = replace(config.model, name=ModelConfig().name, settings=ModelConfig().settings)
    if (config.text, config.model) != (TextConfig(), model_config):
        log.info(
            "%s has its own model and item text: [text], model.name and [model.settings] are ignored", checkpoint.path
        )
        config = replace(config, text=TextConfig(), model=model_config)
    model = checkpoint.history_model
    recipe = None if model.item_text is None else model.item_text.recipe
    return Start(config, checkpoint.model_name, recipe, lambda datasets: model)
