"""Looking at runs: `seqrec runs`, the curves, TensorBoard's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seqrec.errors import InputError
from seqrec.training_run import read_curves
from tests.training.engine.killing import train_and_die
from training.cli import list_runs
from training.config.load import load_config
from training.engine import run_list as runs
from training.engine.logger import MetricsWriter
from training.engine.run import train

pytestmark = pytest.mark.slow

CONFIG = """
device = "cpu"
threads = 1
precision = "bfloat16"
save_minutes = 0.0
[text]
attributes = ["title"]
vocab_size = 320
[model.settings]
hidden_size = 16
num_layers = 1
num_heads = 2
intermediate_size = 32
attention_window = 8
max_token_num = 40
max_position_embeddings = 42
max_item_embeddings = 6
[joint]
batch_size = 32
negatives = 8
[optimizer]
max_steps = 3
[validation]
checks = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one done, one of another seed that was killed, one that another version left."""
    from tests.training.conftest import write_world

    folder = tmp_path_factory.mktemp("runs")
    files = write_world(tmp_path_factory.mktemp("world"))
    config = folder / "run.toml"
    config.write_text(CONFIG)
    train(load_config(config), *files, folder / "done")
    config.write_text("seed = 7\n" + CONFIG)
    assert train_and_die("training.stages.joint:JointStage.loss", 3, config, *files, folder / "more" / "killed") == -9
    old = folder / "old"
    shutil.copytree(folder / "done", old)
    about = json.loads((old / "run.json").read_text())
    del about["state"], about["stages"]
    (old / "run.json").write_text(json.dumps(about | {"data_digest": "0" * 64}))
    (old / "config.toml").write_text("no_such_setting = 1\n")
    with (old / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    return folder


def test_runs_are_found_read_and_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {Path(run.path).name: run for run in runs.find_runs([folder, folder / "done"])}
    assert {name: (run.state, run.steps) for name, run in found.items()} == {
        "done": ("done", 3),
        "killed": ("stopped", 2),
        "old": ("done", 3),
    }
    assert found["done"].ndcg == json.loads((folder / "done" / "run.json").read_text())["best"]["ndcg_expected"]
    assert found["killed"].ndcg is None
    assert runs.differing([found["done"], found["killed"]]) == ["seed"]
    list_runs([str(folder)])
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split()[:7] == ["run", "state", "stages", "steps", "time", "NDCG@10", "data"]
    assert any("stopped in joint" in line and line.endswith("7") for line in lines)
    assert "The runs used different data" in printed
    list_runs([str(folder), "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_the_best_run_comes_first(folder: Path) -> None:
    assert [run.ndcg is None for run in runs.find_runs([folder])] == [False, False, True]


def test_where_there_are_no_runs_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no runs in"):
        runs.find_runs([tmp_path])
    with pytest.raises(InputError, match="is not a directory"):
        runs.find_runs([tmp_path / "absent"])


def test_a_run_trained_in_bfloat16_and_drew_its_curves(folder: Path) -> None:
    assert load_config(folder / "done" / "config.toml").precision == "bfloat16"
    assert (folder / "done" / "curves.png").read_bytes().startswith(b"\x89PNG")
    [curve] = read_curves(folder / "done" / "metrics.jsonl")
    assert (curve.stage, curve.begins, curve.ends) == ("joint", 0, 3)
    assert [step for step, _ in curve.loss] == [1, 2, 3]
    assert [step for step, _ in curve.ndcg] == [3]


def test_steps_of_later_stages_follow_those_of_earlier_ones(tmp_path: Path) -> None:
    entries = [
        {"kind": kind, "stage": stage, "step": step, "loss": 1.0, "ndcg": 0.1, "steps": 4}
        for stage in ("joint", "stage1")
        for kind, step in (("step", 2), ("step", 4), ("validation", 4), ("end", 4))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    joint, stage1 = read_curves(tmp_path / "metrics.jsonl")
    assert (joint.begins, joint.ends, stage1.begins, stage1.ends) == (0, 4, 4, 8)
    assert [step for step, _ in stage1.loss] == [6, 8]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = MetricsWriter(tmp_path, 0, 10)
    files.record({"kind": "step", "stage": "stage1", "step": 1, "loss": 2.5, "contrastive": 2.0, "seconds": 1.0})
    files.record({"kind": "validation", "stage": "stage1", "step": 1, "ndcg": 0.25, "domains": {"a": 0.1}})
    files.sync()
    files.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    [loss] = board.Scalars("step/loss")
    assert (loss.step, loss.value) == (11, 2.5)
    assert set(board.Tags()["scalars"]) == {"step/loss", "step/contrastive", "validation/ndcg"}
