"""Progress and metrics of a training run: a progress bar, metrics.jsonl and TensorBoard event files."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from seqrec.errors import SeqrecError
from seqrec.runtime.progress import redrawn_every
from seqrec.training_run import Entry
from training.evaluation.metrics import Metrics

log = logging.getLogger(__name__)

MAX_STEP_ENTRIES = 100
"""The maximum number of step entries per stage in metrics.jsonl."""

Record = Callable[[Entry], object]


class TrainingDiverged(SeqrecError):
    """The loss became infinite or NaN."""


class StageLogger:
    """Logs one stage: loss and its parts, tokens/s (validation excluded), progress and time left."""

    def __init__(
        self,
        stage: str = "training",
        record: Record = lambda entry: None,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        self.stage, self._record, self.clock = stage, record, clock
        self.since = clock()
        self.losses: list[Tensor] = []
        self.parts: dict[str, list[Tensor]] = {}
        self.tokens = self.written = 0
        self.numbers = ""
        self.bar = tqdm(
            total=1.0,
            desc=stage,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            mininterval=redrawn_every(),
            dynamic_ncols=True,
            disable=quiet,
        )

    def __enter__(self) -> StageLogger:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def record(self, kind: str, **entry: Any) -> None:
        self._record({"kind": kind, "stage": self.stage, **entry})

    def step(
        self,
        step: int,
        epoch: int,
        rate: float,
        loss: Tensor,
        parts: Mapping[str, Tensor],
        tokens: int,
        progress: float,
        seconds: float,
    ) -> None:
        self.losses.append(loss)
        for name, part in parts.items():
            self.parts.setdefault(name, []).append(part.detach())
        self.tokens += tokens
        if progress * MAX_STEP_ENTRIES >= self.written + 1 or progress >= 1:
            self.written = math.floor(progress * MAX_STEP_ENTRIES)
            mean = torch.stack(self.losses).mean().item()
            if not math.isfinite(mean):
                raise TrainingDiverged(
                    f"the loss is {mean} after step {step}; try a lower optimizer.learning_rate or a longer "
                    "optimizer.warmup"
                )
            speed = round(self.tokens / max(self.clock() - self.since, 1e-9))
            means = {name: torch.stack(values).mean().item() for name, values in self.parts.items()}
            entry = {"step": step, "epoch": epoch, "loss": mean, **means, "learning_rate": rate, "tokens_per_s": speed}
            self.record("step", **entry, seconds=round(seconds, 3))
            shown = "".join(f", {name} {value:.3f}" for name, value in means.items())
            self.numbers = f", loss {mean:.3f}{shown}, {speed:,} tokens/s"
            self.losses, self.parts, self.tokens, self.since = [], {}, 0, self.clock()
        self.bar.set_postfix_str(f"step {step}{self.numbers}", refresh=False)
        self.bar.update(progress - self.bar.n)

    def validation(self, step: int, metrics: Metrics, more: Mapping[str, Any], seconds: float) -> None:
        self.record("validation", step=step, **asdict(metrics), **more, seconds=round(seconds, 3))
        if not self.bar.disable:
            figures = f"validation NDCG@10 {metrics.ndcg_expected:.4f}, Recall@10 {metrics.recall:.4f} (all items)"
            self.bar.write(f"step {step}: {figures}", file=sys.stderr)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the time inside the block from tokens/s."""
        began = self.clock()
        yield
        self.since += self.clock() - began

    def state(self) -> dict[str, Any]:
        """The values of the next entry, for a resumed run. Speed is measured again from the resumption."""
        return {
            "losses": [loss.item() for loss in self.losses],
            "parts": {name: [value.item() for value in values] for name, values in self.parts.items()},
            "written": self.written,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
        self.parts = {name: [torch.tensor(value) for value in values] for name, values in state["parts"].items()}
        self.written = state["written"]
        # Otherwise the bar would count all earlier progress as the work of its first second.
        self.bar.initial = self.bar.n = self.written / MAX_STEP_ENTRIES


class MetricsWriter:
    """Writes metrics.jsonl, one entry per line, and the same as TensorBoard event files.

    A resumed run continues at byte `at_byte` of metrics.jsonl (later entries are cut off), and at `step` of the current
    stage, after `steps_before` steps of earlier stages.
    """

    def __init__(self, out: Path, at_byte: int = 0, steps_before: int = 0, step: int = 0) -> None:
        self.file = (out / "metrics.jsonl").open("ab")
        self.file.truncate(at_byte)
        self.steps_before = steps_before
        self.board = _tensorboard(out / "tensorboard", steps_before + step)

    def record(self, entry: Entry) -> None:
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.file.flush()
        if entry["kind"] == "end":
            self.steps_before += entry["steps"]
        else:
            for name, value in entry.items():
                if isinstance(value, int | float) and name not in ("step", "epoch", "seconds", "users"):
                    at = self.steps_before + entry["step"]
                    self.board.add_scalar(f"{entry['kind']}/{name}", value, at)

    def sync(self) -> int:
        """Makes the entries durable. -> the size of metrics.jsonl in bytes"""
        os.fsync(self.file.fileno())
        self.board.flush()
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        self.board.close()


def _tensorboard(folder: Path, at_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    return SummaryWriter(str(folder), purge_step=at_step + 1 if at_step else None)
