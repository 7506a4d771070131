"""`seqrec pretrain`: several folders in, one run directory out, from which `seqrec train` goes on."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seqrec import cli
from seqrec.checkpoint import load_checkpoint
from seqrec.errors import InputError
from seqrec.models.recformer.model import Recformer
from tests.training.conftest import write_world

CONFIG = """
[text]
attributes = ["title"]
vocab_size = 320
[model.settings]
hidden_size = 16
num_layers = 1
num_heads = 2
intermediate_size = 32
max_token_num = 64
max_position_embeddings = 66
dropout = 0.0
[pretrain]
batch_size = 16
[stage1]
temperature = 0.1
[stage2]
temperature = 0.1
[optimizer]
learning_rate = 5e-3
max_steps = 8
[validation]
checks = 2
at_start = true
patience = 0
"""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three data sets; the last is for zero-shot."""
    made = []
    for name, users in (("mugs", 40), ("lamps", 30), ("rugs", 20)):
        (tmp_path / name).mkdir()
        write_world(tmp_path / name, users)
        made.append(tmp_path / name)
    return made


def config_file(folder: Path) -> Path:
    path = folder / "run.toml"
    path.write_text(CONFIG)
    return path


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def pretrain(folders: list[Path], out: Path, *more: str) -> None:
    data = [word for folder in folders[:2] for word in ("--data", str(folder))]
    cli.run("pretrain", [*data, "--config", str(config_file(out.parent)), "--out", str(out), *more])


@pytest.mark.slow
def test_pretraining_makes_a_curve_and_a_checkpoint_that_training_goes_on_from(
    tmp_path: Path, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "pretrained", tmp_path / "trained"
    pretrain(folders, first, "--zero-shot", str(folders[2]))
    assert "mean of 2 data sets" in capsys.readouterr().out
    checks = [line for line in lines(first) if line["kind"] == "validation"]
    assert [check["step"] for check in checks] == [0, 4, 8]
    for check in checks:
        assert check["domains"].keys() == {"mugs", "lamps"}
        assert check["ndcg"] == pytest.approx(sum(check["domains"].values()) / 2)
        assert 0 <= check["zero_shot"]["rugs"] <= 1
    steps = [line for line in lines(first) if line["kind"] == "step"]
    assert {"contrastive", "mlm_histories", "mlm_items"} <= steps[0].keys()
    config = tomllib.loads((first / "config.toml").read_text())
    assert config["stages"] == ["pretrain"]
    assert config["pretrain"]["data"] == [str(folder) for folder in folders[:2]]
    assert config["pretrain"]["zero_shot"] == [str(folders[2])]
    pretrained = load_checkpoint(first / "checkpoint").history_model
    assert isinstance(pretrained, Recformer)
    assert pretrained.lm_head is not None

    data = ["--items", str(folders[2] / "items.jsonl"), "--interactions", str(folders[2] / "interactions.csv")]
    options = ["--config", str(tmp_path / "run.toml"), "--set", f"model.start_from={first / 'checkpoint'}"]
    # Without a check before its first step stage 2 cannot end with the weights of stage 1.
    options += ["--set", 'stages=["stage1", "stage2"]', "--set", "stage2.validation.at_start=false"]
    cli.run("train", [*data, *options, "--out", str(second)])
    checkpoint = load_checkpoint(second / "checkpoint")
    assert isinstance(checkpoint.history_model, Recformer)
    assert checkpoint.history_model.lm_head is None
    assert checkpoint.history_tower != checkpoint.item_tower
    assert checkpoint.history_model.item_text is not None
    assert pretrained.item_text is not None
    assert checkpoint.history_model.item_text.digest == pretrained.item_text.digest
    stage_two = [line for line in lines(second) if "one_tower_ndcg" in line]
    assert stage_two
    assert all(0 <= line["one_tower_ndcg"] <= 1 for line in stage_two)


@pytest.mark.slow
def test_the_papers_recipe_runs_through_in_one_go(tmp_path: Path, folders: list[Path]) -> None:
    data = ["--items", str(folders[0] / "items.jsonl"), "--interactions", str(folders[0] / "interactions.csv")]
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
    settings = [f"model.settings.{name}={value}" for name, value in small.items()]
    settings += ["text.vocab_size=320", "optimizer.max_steps=2", "validation.checks=1", "device=cpu"]
    settings += [f"{stage}.validation.checks=1" for stage in ("stage1", "stage2")]
    out = tmp_path / "paper"
    cli.run("train", [*data, "--preset", "paper", "--out", str(out), *(w for s in settings for w in ("--set", s))])
    assert [line["stage"] for line in lines(out) if line["kind"] == "end"] == ["pretrain", "stage1", "stage2"]
    (first, *_) = (line for line in lines(out) if line["kind"] == "validation")
    assert first["domains"].keys() == {"data"}
    assert tomllib.loads((out / "config.toml").read_text())["model"]["settings"]["max_token_num"] == 256


@pytest.mark.slow
def test_two_folders_of_one_name_are_distinguished(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "other").mkdir()
    shutil.copytree(folders[0], tmp_path / "other" / "mugs")
    out = tmp_path / "out"
    pretrain([folders[0], tmp_path / "other" / "mugs"], out, "--set", "optimizer.max_steps=1")
    assert len(lines(out)[0]["domains"]) == 2


def test_a_folder_without_data_is_named(tmp_path: Path, folders: list[Path]) -> None:
    (folders[1] / "items.jsonl").unlink()
    with pytest.raises(InputError, match=r"lamps is not a folder with items\.jsonl or items\.jsonl\.gz"):
        pretrain(folders, tmp_path / "out")
    shutil.rmtree(folders[1])
    with pytest.raises(InputError, match="lamps is not a folder"):
        pretrain(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
