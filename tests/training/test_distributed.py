"""Several processes compute what one does with the whole batch; so do chunks, and recomputed layers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.conftest import write_world
from tests.training.engine.ranks import SETTINGS, Step, one_step, steps_of
from training.config.load import load_config
from training.distributed import all_gather_floats, all_reduce_sum, broadcast_from_rank0, gather, processes, rank, share
from training.engine.run import train


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def assert_equal(step: Step, expected: Step, tolerance: float = 1e-6) -> None:
    """Within the tolerance, of the largest gradient where that is above 1: float32 has 7 digits."""
    assert step["loss"] == pytest.approx(expected["loss"], abs=tolerance)
    assert step["gradients"].keys() == expected["gradients"].keys()
    scale = max(1.0, *(gradient.abs().max().item() for gradient in expected["gradients"].values()))
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(step["gradients"][name], gradient, rtol=0, atol=tolerance * scale)


CASES: list[dict[str, Any]] = [
    {"stage": "joint"},
    {"stage": "joint", "chunk": 4},
    {"stage": "joint", "batch_size": 1},  # fewer than processes
    {"stage": "joint", "sharded": True},
    {"stage": "joint", "sharded": True, "chunk": 4, "gradient_checkpointing": True},
    {"stage": "pretrain"},
    {"stage": "pretrain", "chunk": 4},
    {"stage": "pretrain", "sharded": True},
    {"stage": "stage1"},
]


@pytest.fixture(scope="module")
def steps_of_two(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[list[Step]]:
    return steps_of(2, CASES, files, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_have_the_loss_and_gradients_of_one(
    number: int, steps_of_two: list[list[Step]], files: tuple[Path, Path]
) -> None:
    case = CASES[number]
    alone = one_step(case["stage"], case.get("batch_size", 15), files=files)
    first, second = steps_of_two[number]
    for step in (first, second):
        assert_equal(step, alone, 2e-6 if case.get("chunk") else 1e-6)
    for name, weights in first["weights"].items():
        torch.testing.assert_close(second["weights"][name], weights, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["joint", "pretrain", "stage1"])
def test_a_batch_in_chunks_has_the_gradients_of_the_whole(stage: str, files: tuple[Path, Path]) -> None:
    whole = one_step(stage, files=files)
    for chunk in (1, 4, 100):
        assert_equal(one_step(stage, chunk=chunk, files=files), whole, 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["joint", "pretrain"])
def test_a_chunk_is_encoded_again_with_the_same_dropout(
    stage: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = one_step(stage, chunk=4, dropout=0.3, files=files)

    def once(function: Callable[..., Tensor], *args: Any, **more: Any) -> Tensor:
        return function(*args)

    for module in ("encoding", "pretraining"):
        monkeypatch.setattr(f"training.stages.{module}.checkpoint", once)
    assert_equal(again, one_step(stage, chunk=4, dropout=0.3, files=files))


@pytest.mark.slow
def test_layers_computed_again_have_the_same_gradients(files: tuple[Path, Path]) -> None:
    for dropout in (0.0, 0.3):
        expected = one_step(dropout=dropout, files=files)
        assert_equal(one_step(dropout=dropout, gradient_checkpointing=True, files=files), expected)


def test_one_process_is_all_of_them() -> None:
    rows = torch.randn(3, 2)
    assert (processes(), rank(), share(5)) == (1, 0, slice(0, 5))
    assert gather(rows, 3) is rows
    assert all_reduce_sum(rows) is rows
    assert all_gather_floats([1.0], torch.device("cpu")) == [[1.0]]
    assert broadcast_from_rank0(lambda: "it") == "it"


@pytest.mark.slow
def test_torchrun_trains(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The program itself; only one process writes."""
    config = tmp_path / "run.toml"
    config.write_text(
        'device = "cpu"\nsave_minutes = 0\n[text]\nattributes = ["title"]\nvocab_size = 320\n[model.settings]\n'
        + "".join(f"{name} = {value}\n" for name, value in SETTINGS.items())
        + "[joint]\nbatch_size = 15\n[optimizer]\nmax_steps = 6\n[validation]\nchecks = 2\n"
    )
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(load_config(config, ["model.settings.dropout=0.0"]), *files, alone)
    asked = [
        *("--items", str(files[0]), "--interactions", str(files[1]), "--config", str(config)),
        *("--out", str(together), "--set", "model.settings.dropout=0.0"),
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, "-m", "seqrec", "train", *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all steps done after 6 steps") == 1
    losses = {}
    for out in (alone, together):
        entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses[out] = [entry["loss"] for entry in entries if entry["kind"] == "step"]
    assert losses[together] == pytest.approx(losses[alone], abs=1e-4)
    assert json.loads((together / "run.json").read_text())["processes"] == 2
