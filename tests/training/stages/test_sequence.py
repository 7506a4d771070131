"""The stage of models with a loss of their own: what it hands them, what it refuses, and a run through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec.checkpoint import load_checkpoint
from seqrec.errors import InputError
from seqrec.models.attrec import AttRec
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.gru4rec import GRU4Rec, GRU4RecSettings
from training.config.schema import ModelConfig, OptimizerConfig, RunConfig, SequenceConfig, ValidationConfig
from training.data.dataset import Dataset
from training.engine.run import train
from training.evaluation.evaluate import validation_metrics
from training.stages.base import StageContext, Towers, TrainingData
from training.stages.encoding import Encoding
from training.stages.sequence import SequenceStage
from training.stages.start import starting_point

STEPS = OptimizerConfig(max_steps=4, learning_rate=0.5)


def model_of(dataset: Dataset, items: int | None = None) -> GRU4Rec:
    torch.manual_seed(0)
    ids = [item.item_id for item in dataset.items][:items]
    return GRU4Rec.from_ids(GRU4RecSettings(dim=8, hidden=8), ids, [])


def context_of(dataset: Dataset, model: Any, **settings: Any) -> StageContext:
    tokens = model.tokenize_items(dataset.items)
    return StageContext(
        config=RunConfig(stages=("sequence",), optimizer=STEPS, **settings),
        data=(TrainingData(dataset, tokens),),
        towers=Towers("a model", model),
        device=torch.device("cpu"),
        encoding=Encoding(),
        validate=lambda encoder: validation_metrics(encoder, dataset, dataset.cases("valid"), tokens),
    )


def test_an_epoch_is_the_training_part_of_every_user_once(world: Dataset) -> None:
    context = context_of(world, model_of(world), sequence=SequenceConfig(batch_size=16))
    stage = SequenceStage.from_context(context)
    epoch = [sequence for batch in stage.epoch(0) for sequence in batch.histories]
    assert sorted(str(sequence.user_id) for sequence in epoch) == sorted(world.user_ids)
    for sequence in epoch:
        part = world.training_part(list(world.user_ids).index(str(sequence.user_id)))
        assert [int(item.ids[0]) for item in sequence.items] == part.tolist()
    other = [sequence.user_id for batch in stage.epoch(1) for sequence in batch.histories]
    assert other != [sequence.user_id for sequence in epoch]
    assert stage.steps_per_epoch == len(list(stage.epoch(0)))


def test_what_the_model_does_not_know_is_left_out(world: Dataset) -> None:
    """Such as where a checkpoint goes on with other data."""
    model = model_of(world, items=7)  # the red things, and the first blue one
    stage = SequenceStage.from_context(context_of(world, model))
    red = {str(world.user_ids[user]) for user in range(world.users) if world.training_part(user)[0] < 6}
    assert {sequence.user_id for sequence in stage.sequences} >= red
    assert all(len(item.ids) for sequence in stage.sequences for item in sequence.items)
    with pytest.raises(InputError, match="no user has two events that this model can train on"):
        SequenceStage.from_context(context_of(world, GRU4Rec.from_ids(GRU4RecSettings(), ["other", "items"], [])))


def test_a_model_without_a_loss_is_refused(world: Dataset) -> None:
    with pytest.raises(InputError, match="a model has no loss of its own; use the stages joint, stage1 and stage2"):
        SequenceStage.from_context(context_of(world, BagOfWords(BagOfWordsConfig())))


def test_sharded_weights_are_refused(world: Dataset) -> None:
    with pytest.raises(InputError, match="sharding"):
        SequenceStage.from_context(context_of(world, model_of(world), sharding="full"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": 3}, r"model\.settings\.dims: unknown setting, did you mean 'dim'\?; there are dim, dropout, .*loss"),
        ({"dim": "large"}, r"model\.settings\.dim: a whole number is needed, not 'large'"),
        ({"loss": "hinge"}, r"model\.settings\.loss: 'hinge' is not one of bce, ce, gbce"),
    ],
)
def test_a_wrong_setting_of_the_model_is_refused_before_data_is_read(settings: dict[str, Any], message: str) -> None:
    config = RunConfig(stages=("sequence",), model=ModelConfig("sasrec", settings=settings), optimizer=STEPS)
    with pytest.raises(InputError, match=message):
        starting_point(config)


def test_words_are_no_settings_of_a_model_that_takes_numbers() -> None:
    config = RunConfig(model=ModelConfig("recformer", settings={"hidden_size": "large"}), optimizer=STEPS)
    with pytest.raises(InputError, match=r"model\.settings\.hidden_size: a whole number is needed, not 'large'"):
        starting_point(config)


@pytest.mark.slow
def test_a_run_keeps_weights_within_bounds_and_what_it_saw(world_files: tuple[Path, Path], tmp_path: Path) -> None:
    config = RunConfig(
        stages=("sequence",),
        device="cpu",
        threads=1,
        model=ModelConfig("attrec", settings={"dim": 8, "w": 0.5}),
        sequence=SequenceConfig(batch_size=16),
        optimizer=STEPS,
        validation=ValidationConfig(checks=1),
    )
    train(config, *world_files, tmp_path / "run")
    model = load_checkpoint(tmp_path / "run" / "checkpoint").history_model
    assert isinstance(model, AttRec)
    assert (model.known.items, model.known.users) == (30, 60)
    assert model.user_ids.row("u59") == 59
    norms = torch.cat([table.weight.detach().norm(dim=1) for table in (model.users, model.liked, model.items)])
    assert norms.max().item() == pytest.approx(1, abs=1e-5)  # the rate is so large that every step would leave it
