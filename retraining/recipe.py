"""How to retrain the served model: its configuration, and the weights to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seqrec.checkpoint import TRAINING, Checkpoint, save_checkpoint
from seqrec.data.items import read_items
from seqrec.errors import InputError
from seqrec.models import model_class
from seqrec.models.base.model import SequenceModel
from seqrec.models.hybrid import Hybrid
from seqrec.models.residual import Residual
from training.config.load import load_config, load_stored_config, preset_path
from training.config.schema import ModelConfig, RunConfig
from training.hybrid.recipe import recipe_for

_NEED_OTHER_DATA = {"pretrain", "adversarial"}


@dataclass(frozen=True)
class TrainingRecipe:
    """A configuration, where it comes from, and what the training starts from, in words."""

    config: RunConfig
    source: str
    start: str


def recipe_of(
    served: Checkpoint,
    items_file: Path,
    events: int,
    directory: Path,
    config_file: Path | None,
    overrides: Sequence[str],
) -> TrainingRecipe:
    """The recipe of the served model; of `config_file` if that is given; else, for a checkpoint that has none (of an
    earlier version, or converted), the default recipe for these data.

    The weights to start from are written to `directory`. Raises InputError for a recipe that needs other data sets.
    """
    stored = served.path / TRAINING
    if config_file is not None:
        config, source = load_config(config_file, overrides), str(config_file)
    elif stored.is_file():
        config = load_config(stored, overrides) if overrides else load_stored_config(stored)
        source = "the served model's"
    else:
        chosen = recipe_for(read_items(items_file), events, overrides)
        config = load_config(preset_path(chosen.preset), [*chosen.overrides, *overrides])
        source = f"the default for these data (preset {chosen.preset}): the served model has none"
    if other := _NEED_OTHER_DATA.intersection(config.stages):
        raise InputError(
            f"the model was trained in the stage {sorted(other)[0]!r}, which needs other data sets; name a recipe by "
            "--config FILE",
            "stages",
        )
    return _started(config, served, source, directory)


def _started(config: RunConfig, served: Checkpoint, source: str, directory: Path) -> TrainingRecipe:
    """From the settings of the served hybrid, and the weights of the served dense model, if that reads texts: a table
    of item ids cannot know new items."""
    if isinstance(served.history_model, Hybrid):
        config = replace(config, hybrid=replace(config.hybrid, settings_from=str(served.path)))
    name, model = dense_model(served)
    kind = model_class(name)
    names = (name, ModelConfig().name)  # a run that continues a checkpoint has the default name in its configuration
    if not model.cold_items or kind.builds_on_checkpoints or config.model.name not in names:
        return TrainingRecipe(config, source, f"anew: a {config.model.name} is not trained further")
    save_checkpoint(directory / "start", name, model, replace=True)
    model_config = replace(config.model, start_from=str(directory / "start"))
    validation = replace(config.validation, at_start=True)  # the result must be better than the start
    return TrainingRecipe(
        replace(config, model=model_config, validation=validation), source, f"the weights of the served {name}"
    )


def dense_model(checkpoint: Checkpoint) -> tuple[str, SequenceModel]:
    """The model that is trained by gradients: within a hybrid its dense model, within a residual its text model."""
    name, model = checkpoint.model_name, checkpoint.history_model
    if isinstance(model, Hybrid):
        name, model = model.config.dense_model, model.model
    if isinstance(model, Residual):
        name, model = model.config.text_model, model.text
    return name, model
