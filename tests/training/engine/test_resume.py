"""A training that is killed and started again ends with the weights of one that never stopped, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seqrec.checkpoint import load_checkpoint
from seqrec.errors import CheckpointError, InputError
from seqrec.training_run import is_running
from tests.training.engine.killing import train_and_die, train_together
from training.config.load import load_config
from training.engine import run
from training.engine.run_directory import RunDirectory
from training.engine.state import load_state, save_state

CONFIG = """
stages = ["joint", "stage1", "stage2"]
seed = 3
device = "cpu"
threads = 1
save_minutes = 0.0
[text]
attributes = ["title"]
vocab_size = 320
[model.settings]
hidden_size = 16
num_layers = 2
num_heads = 2
intermediate_size = 32
attention_window = 8
max_token_num = 40
max_position_embeddings = 42
max_item_embeddings = 6
dropout = 0.1
[joint]
batch_size = 16
negatives = 8
[stage1]
batch_size = 16
[stage2]
batch_size = 16
[optimizer]
max_steps = 6
[validation]
checks = 2
patience = 0
"""
"""Four batches an epoch, so every stage is in its second epoch when it ends."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from tests.training.conftest import write_world

    return write_world(tmp_path_factory.mktemp("world"))


def config_of(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CONFIG
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "run.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def unbroken(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    run.train(load_config(config_of(out.parent)), *files, out)
    return out


def entries_of(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock says."""
    clock = ("seconds", "tokens_per_s")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name not in clock} for entry in lines]


def digest_of(out: Path) -> str:
    about = json.loads((out / "run.json").read_text())
    assert about["state"] == "done"
    return str(about["checkpoint_digest"])


@pytest.mark.slow
def test_both_towers_are_in_the_checkpoint(unbroken: Path) -> None:
    checkpoint = load_checkpoint(unbroken / "checkpoint")
    assert checkpoint.item_tower != checkpoint.history_tower
    entries = entries_of(unbroken)
    assert [entry["stage"] for entry in entries if entry["kind"] == "end"] == ["joint", "stage1", "stage2"]


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    files: tuple[Path, Path], unbroken: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "run", config_of(tmp_path)
    deaths = [
        ("training.stages.joint:JointStage.loss", 1),  # before anything is saved
        ("torch.optim:AdamW.step", 3),  # after step 2, in the middle of a step
        ("training.engine.run:save_checkpoint", 1),  # at step 3, while the best weights are written
        ("seqrec.data.files:fsync_directory", 4),  # after step 3, while the state is written
        ("training.engine.run:validation_metrics", 1),  # after step 6, in the last check of the stage
        ("training.stages.two_stage:StageOne.begin_epoch", 1),  # between two stages
        ("training.stages.two_stage:StageOne.loss", 6),  # in the second epoch
        ("training.stages.two_stage:StageTwo.loss", 4),
        ("training.engine.run_directory:RunDirectory.cleanup", 1),  # when all is done
    ]
    for at, call in deaths:
        assert train_and_die(at, call, config, *files, out) == -9, at
        assert not is_running(out)
    with pytest.raises(InputError, match="exists already \\(a finished run\\)"):  # it died tidying up
        run.train(load_config(config), *files, out)
    assert digest_of(out) == digest_of(unbroken)
    assert entries_of(out) == entries_of(unbroken)
    assert not list(out.rglob(".tmp-*.pt*"))


@pytest.mark.slow
def test_two_processes_that_were_killed_end_like_two_that_were_not(files: tuple[Path, Path], tmp_path: Path) -> None:
    """With sharded weights: the harder case."""
    config = config_of(
        tmp_path,
        ('["joint", "stage1", "stage2"]', '["joint"]\nsharding = "full"'),
        ("max_steps = 6", "max_steps = 5"),
        ("[stage1]\nbatch_size = 16\n[stage2]\nbatch_size = 16\n", ""),
    )
    loss = "training.stages.joint:JointStage.loss"
    assert train_together(2, loss, 0, config, *files, tmp_path / "unbroken") == [0, 0]
    out = tmp_path / "run"
    codes = train_together(2, loss, 4, config, *files, out)
    assert -9 in codes  # the other one may notice before it is killed
    assert 0 not in codes
    with pytest.raises(InputError, match="was started with 2 processes; resume it with as many"):
        run.train(load_config(config), *files, out)
    assert train_together(2, loss, 0, config, *files, out) == [0, 0]
    assert digest_of(out) == digest_of(tmp_path / "unbroken")
    assert entries_of(out) == entries_of(tmp_path / "unbroken")


@pytest.mark.slow
def test_another_configuration_or_other_data_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    out, config = tmp_path / "run", config_of(tmp_path, ("max_steps = 6", "max_steps = 2"))
    assert train_and_die("training.stages.joint:JointStage.loss", 2, config, *files, out) == -9
    with pytest.raises(InputError, match=r"unfinished run with other settings: seed is 4 and was 3; use the same"):
        run.train(load_config(config, ["seed=4"]), *files, out)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("".join(files[1].read_text().splitlines(keepends=True)[:-12]))
    with pytest.raises(InputError, match="is an unfinished run on other data; choose another directory"):
        run.train(load_config(config), files[0], fewer, out)
    (out / "last" / "state.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read .*--overwrite starts from the beginning"):
        run.train(load_config(config), *files, out)
    run.train(load_config(config, ["seed=4", "stages=['joint']"]), *files, out, overwrite=True)
    assert json.loads((out / "run.json").read_text())["seed"] == 4


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_directory(files: tuple[Path, Path], tmp_path: Path) -> None:
    out, config = tmp_path / "run", config_of(tmp_path)
    assert train_and_die("training.stages.joint:JointStage.loss", 2, config, *files, out) == -9
    other = RunDirectory(out)
    other.resume({**json.loads((out / "run.json").read_text())})
    try:
        assert is_running(out)
        for overwrite in (False, True):
            with pytest.raises(InputError, match="another process is training in"):
                run.train(load_config(config), *files, out, overwrite=overwrite)
    finally:
        other.close()


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", {"format": 99})
    with pytest.raises(CheckpointError, match="written by another version of seqrec"):
        load_state(tmp_path / "state.pt")
