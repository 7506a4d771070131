"""The stage before: its last weights go on, whatever validation says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqrec.errors import InputError
from training.config.schema import (
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SelfSupervisedConfig,
    SequenceConfig,
    ValidationConfig,
)
from training.engine.run import train

STEPS = OptimizerConfig(max_steps=6, learning_rate=0.05)


def config_of(name: str, **settings: int | str) -> RunConfig:
    return RunConfig(
        stages=("self_supervised", "sequence"),
        device="cpu",
        threads=1,
        model=ModelConfig(name, settings=settings),
        self_supervised=SelfSupervisedConfig(batch_size=20),
        sequence=SequenceConfig(batch_size=20),
        optimizer=STEPS,
        validation=ValidationConfig(checks=3, patience=1),
    )


@pytest.mark.slow
def test_the_weights_of_the_last_check_go_on(world_files: tuple[Path, Path], tmp_path: Path) -> None:
    config = config_of("s3rec", dim=8, inner=8, layers=1, max_length=8, features="title")
    train(config, *world_files, tmp_path / "run")
    before, after = json.loads((tmp_path / "run" / "run.json").read_text())["by_stage"]
    assert (before["stage"], before["steps"], before["best_step"]) == ("self_supervised", 6, 6)
    assert before["ended"] == "all steps done"
    assert after["stage"] == "sequence"


@pytest.mark.slow
def test_a_model_that_has_none_is_refused(world_files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gru4rec has no self-supervised pretraining"):
        train(config_of("gru4rec", dim=8, hidden=8), *world_files, tmp_path / "run")
