"""What a training tells while it runs: a bar for people, metrics.jsonl for programs, TensorBoard for curves."""

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
from training.evaluation.metrics import Metrics

log = logging.getLogger(__name__)

REPORTS = 100
"""Entries of steps in metrics.jsonl over a whole stage, at most."""

Entry = dict[str, Any]
Record = Callable[[Entry], object]


class TrainingDiverged(SeqrecError):
    """The loss became infinite or no number."""


class Reports:
    """Loss and its parts, tokens/s (without the time of the checks), share done and time left of one stage."""

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

    def __enter__(self) -> Reports:
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
        if progress * REPORTS >= self.written + 1 or progress >= 1:
            self.written = math.floor(progress * REPORTS)
            mean = torch.stack(self.losses).mean().item()
            if not math.isfinite(mean):
                raise TrainingDiverged(
                    f"the loss is {mean} after step {step}; a lower optimizer.learning_rate or a longer "
                    "optimizer.warmup mends that"
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

    def check(self, step: int, metrics: Metrics, more: Mapping[str, Any], seconds: float) -> None:
        self.record("validation", step=step, **asdict(metrics), **more, seconds=round(seconds, 3))
        if not self.bar.disable:
            said = f"validation NDCG@10 {metrics.ndcg:.4f}, Recall@10 {metrics.recall:.4f} (all items)"
            self.bar.write(f"step {step}: {said}", file=sys.stderr)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here is none of the training's speed."""
        began = self.clock()
        yield
        self.since += self.clock() - began

    def state(self) -> dict[str, Any]:
        """What the next entry will be made of; the speed is measured anew."""
        return {
            "losses": [loss.item() for loss in self.losses],
            "parts": {name: [value.item() for value in values] for name, values in self.parts.items()},
            "written": self.written,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
        self.parts = {name: [torch.tensor(value) for value in values] for name, values in state["parts"].items()}
        self.written = state["written"]
        # A bar that begins in the middle would take all that was done before for the work of its first second.
        self.bar.initial = self.bar.n = self.written / REPORTS


class MetricsFiles:
    """metrics.jsonl, an entry a line, and TensorBoard's event files where it is installed.

    `at_byte`, and `step` after `steps_before` of earlier stages: where a run that goes on takes up; what was written
    after that is cut off.
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
        elif self.board is not None:
            for name, value in entry.items():
                if isinstance(value, int | float) and name not in ("step", "epoch", "seconds", "users"):
                    at = self.steps_before + entry["step"]
                    self.board.add_scalar(f"{entry['kind']}/{name}", value, at)

    def sync(self) -> int:
        """Make what was written durable; -> how many bytes metrics.jsonl has."""
        os.fsync(self.file.fileno())
        if self.board is not None:
            self.board.flush()
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def _tensorboard(folder: Path, at_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("tensorboard is not installed (the extra `train`), so there are no event files for it")
        return None
    return SummaryWriter(str(folder), purge_step=at_step + 1 if at_step else None)
