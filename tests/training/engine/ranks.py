"""The loss and gradients of one step, as one process computes them or as several together."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SERVER = multiprocessing.get_context("forkserver")

Step = dict[str, Any]
"""loss; tokens, of all processes; gradients and weights after one step of AdamW, by name."""


def steps_of(
    processes: int, cases: Sequence[Mapping[str, Any]], files: tuple[Path, Path], folder: Path
) -> list[list[Step]]:
    """What each of several processes has after one step, for each of some settings of `one_step`.

    They run on the CPU and talk by gloo. -> for each of `cases`, the steps by rank
    """
    _SERVER.set_forkserver_preload(
        ["accelerate", "training.engine.run", "training.stages.joint", "tests.training.engine.ranks"]
    )
    workers = [
        _SERVER.Process(target=_work, args=(rank, processes, list(cases), files, folder)) for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0] * processes
    by_rank = [torch.load(folder / f"{rank}.pt") for rank in range(processes)]
    return [list(steps) for steps in zip(*by_rank, strict=True)]


def one_step(
    stage: str = "joint",
    batch_size: int = 15,
    chunk: int = 0,
    sharded: bool = False,
    gradient_checkpointing: bool = False,
    dropout: float = 0.0,
    files: tuple[Path, Path] | None = None,
) -> Step:
    """The first batch of a stage, on a small Recformer with random weights."""
    from training.config.schema import OptimizerConfig, RunConfig, TextConfig
    from training.config.validation import build
    from training.data.dataset import read_dataset
    from training.distributed import ParallelModel, all_gather_floats
    from training.engine.loop import adamw
    from training.evaluation.evaluate import validation_metrics
    from training.stages.base import StageContext, Towers, TrainingData, stage_class
    from training.stages.encoding import Encoding
    from training.stages.start import starting_point

    table = {
        "stages": [stage],
        "model": {"settings": SETTINGS | {"dropout": dropout}},
        "optimizer": {"max_steps": 1},
        stage: {"batch_size": batch_size} | ({"negatives": 7} if stage == "joint" else {}),
    }
    config = build(RunConfig, table | {"text": {"attributes": ["title"], "vocab_size": 320}})
    assert isinstance(config.text, TextConfig)
    assert files is not None
    dataset = read_dataset(*files)
    torch.manual_seed(0)
    model = starting_point(config).build([dataset])
    model.gradient_checkpointing = gradient_checkpointing  # type: ignore[attr-defined]
    towers = Towers("recformer", model)
    data = TrainingData(dataset, model.tokenize_items(dataset.items))
    device, encoding = torch.device("cpu"), Encoding(chunk)
    validate = lambda encoder: validation_metrics(encoder, dataset, dataset.cases("valid"))  # noqa: E731
    context = StageContext(config, (data,), towers, device, encoding, validate)
    trained = stage_class(stage).from_context(context)
    parallel = ParallelModel(towers.history_model, sharded)
    trained.begin_epoch(0, parallel.whole, device)
    batch = next(trained.epoch(0))
    optimizer = adamw(parallel.trained, OptimizerConfig())
    parallel.module.train()
    torch.manual_seed(1)
    loss, tokens = parallel.run(lambda model: trained.loss(model, batch, device))
    loss.backward()  # type: ignore[no-untyped-call]
    named = parallel.trained.named_parameters()
    gradients = {name: _whole(one.grad) for name, one in named if one.grad is not None}
    parallel.clip(1e9)
    optimizer.step()
    read = sum(one for [one] in all_gather_floats([tokens], device))
    return {"loss": loss.item(), "tokens": read, "gradients": gradients, "weights": parallel.weights()}


SETTINGS = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 32,
    "attention_window": 8,
    "max_token_num": 40,
    "max_position_embeddings": 42,
    "max_item_embeddings": 6,
}


def become(rank: int, processes: int, store: Path) -> None:
    """Make this process one of several, as torchrun does; they find one another by a file that is not there yet."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    if processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # asked for, but not used
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)


def _work(rank: int, processes: int, cases: list[Mapping[str, Any]], files: tuple[Path, Path], folder: Path) -> None:
    from training.distributed import join_processes, leave_processes

    become(rank, processes, folder / "store")
    assert join_processes("cpu") == "cpu"
    torch.save([one_step(**case, files=files) for case in cases], folder / f"{rank}.pt")
    leave_processes()


def _whole(gradient: torch.Tensor) -> torch.Tensor:
    whole = getattr(gradient, "full_tensor", None)
    return gradient if whole is None else whole()
