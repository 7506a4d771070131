"""Processes that train and are killed outright; forked from one that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.training.engine.ranks import become

_SERVER = multiprocessing.get_context("forkserver")


def train_and_die(at: str, call: int, config: Path, items: Path, interactions: Path, out: Path) -> int | None:
    """Train in a process of its own that kills itself (SIGKILL) just before the `call`-th call of `at`, counted from 1.

    `at`: "module:name" or "module:Class.name". -> the exit code: -9, or 0 if the training was done before that.
    """
    [code] = train_together(1, at, call, config, items, interactions, out)
    return code


def train_together(
    processes: int, at: str, call: int, config: Path, items: Path, interactions: Path, out: Path
) -> list[int | None]:
    """The same in several processes that train one model; all of them die. `call` 0: none does."""
    _SERVER.set_forkserver_preload(
        [
            "training.engine.run",
            "training.stages.joint",
            "training.stages.two_stage",
            "torch.utils.tensorboard",
            "tests.training.engine.killing",
        ]
    )
    store = config.with_name(f"store-{uuid.uuid4().hex}")
    started = []
    for rank in range(processes):
        arguments = ((rank, processes, store), at, call, config, items, interactions, out)
        started.append(_SERVER.Process(target=_train, args=arguments))
        started[-1].start()
    for process in started:
        process.join(240)
    return [process.exitcode for process in started]


def _train(
    place: tuple[int, int, Path], at: str, call: int, config: Path, items: Path, interactions: Path, out: Path
) -> None:
    become(*place)
    from training.config.load import load_config
    from training.distributed import leave_processes
    from training.engine.run import train

    module, _, name = at.partition(":")
    *owners, attribute = name.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, attribute, _deadly(getattr(owner, attribute), call))
    train(load_config(config), items, interactions, out)
    leave_processes()


def _deadly(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **more)

    return counted
