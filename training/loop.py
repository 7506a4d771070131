"""The training loop: AdamW, warm-up and decay, clipping, validation, early stopping, the best weights."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from seqrec.errors import InputError, SeqrecError
from seqrec.model import SequenceModel
from seqrec.progress import redrawn_every
from training.settings import OptimizerConfig, ValidationConfig
from training.metrics import Metrics

REPORTS = 100
"""Entries of steps in metrics.jsonl over a whole training, at most."""


class TrainingDiverged(SeqrecError):
    """The loss became infinite or no number."""


class Stage(Protocol):
    """What is trained on: batches, and their loss."""

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]: ...

    def loss(self, model: SequenceModel, examples: Any, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] with its graph, and how many tokens were read for it."""
        ...


@dataclass(frozen=True)
class Fitted:
    """How a training ended. `ended`: 'all steps done', 'time is up' or 'no improvement'."""

    steps: int
    seconds: float
    best: Metrics
    best_step: int
    ended: str


class Schedule:
    """How far the training is, from 0 to 1: the larger of the share of the steps and the share of the time.

    So the learning rate has fallen to 0 at the end, whichever limit comes first. A time limit makes the number of
    steps, and with it the result, depend on the machine.
    """

    def __init__(self, config: OptimizerConfig, steps_per_epoch: int) -> None:
        limits = [limit for limit in (config.max_steps, config.max_epochs * steps_per_epoch) if limit]
        self.max_steps = min(limits) if limits else None
        self.max_seconds = config.max_minutes * 60 or None
        self.config = config

    def progress(self, step: int, seconds: float) -> float:
        by_steps = step / self.max_steps if self.max_steps else 0.0
        by_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def factor(self, progress: float) -> float:
        """What the learning rate is multiplied by: linear warm-up, then linear or cosine decay to 0."""
        warmup = self.config.warmup
        if progress < warmup:
            return progress / warmup
        left = (1 - progress) / (1 - warmup)
        return left if self.config.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def fit(
    model: SequenceModel,
    stage: Stage,
    validate: Callable[[], Metrics],
    optimization: OptimizerConfig,
    validation: ValidationConfig,
    device: torch.device,
    record: Callable[[dict[str, Any]], object] = lambda entry: None,
    clock: Callable[[], float] = time.monotonic,
) -> Fitted:
    """Train until the steps or the time are used up, or `patience` checks brought nothing; the model ends with the
    weights of the best check, in evaluation mode.

    The best check is the one with the highest pessimistic NDCG@10: a model whose vectors all collapse into one ties
    every item, and must not win by it. `record` gets each entry of metrics.jsonl. Raises TrainingDiverged, and
    InputError for a model without weights.
    """
    assert isinstance(model, nn.Module)
    optimizer = adamw(model, optimization)
    schedule = Schedule(optimization, stage.steps_per_epoch)
    best = _Best(validation.patience)
    step = checks = 0
    ended = ""
    with _Reports(record, clock) as reports:
        batches = _endless(stage)
        model.train()
        while not ended:
            # The rate of a step is that of its end, so that the first step is not lost to a rate of 0.
            rate = optimization.learning_rate * schedule.factor(schedule.progress(step + 1, reports.seconds))
            for group in optimizer.param_groups:
                group["lr"] = rate
            epoch, examples = next(batches)
            loss, tokens = stage.loss(model, examples, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), optimization.clip_norm)
            optimizer.step()
            step += 1
            progress = schedule.progress(step, reports.seconds)
            reports.step(step, epoch, rate, loss.detach(), tokens, progress)
            if progress * validation.checks >= checks + 1 or progress >= 1:
                checks = math.floor(progress * validation.checks)
                with reports.pause():
                    metrics = validate()
                    model.train()
                reports.check(step, metrics)
                best.offer(step, metrics, model)
                # Ask the clock again: the check itself may have used up the time.
                progress = schedule.progress(step, reports.seconds) if progress < 1 else progress
            if progress >= 1:
                ended = "all steps done" if step == schedule.max_steps else "time is up"
            elif best.patience_lost:
                ended = "no improvement"
        model.load_state_dict(best.weights)
        model.eval()
        assert best.metrics is not None
        fitted = Fitted(step, round(reports.seconds, 3), best.metrics, best.step, ended)
        record({"kind": "end", **asdict(fitted)})
    return fitted


def _endless(stage: Stage) -> Iterator[tuple[int, Any]]:
    """(epoch, batch), epoch after epoch."""
    for epoch in count():
        for examples in stage.epoch(epoch):
            yield epoch, examples


class _Best:
    """The weights of the best check so far, and how many checks ago that was."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.metrics: Metrics | None = None
        self.step = self.checks_since = 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, step: int, metrics: Metrics, model: nn.Module) -> None:
        self.checks_since += 1
        if self.metrics is None or metrics.ndcg_pessimistic > self.metrics.ndcg_pessimistic:
            self.metrics, self.step, self.checks_since = metrics, step, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @property
    def patience_lost(self) -> bool:
        return 0 < self.patience <= self.checks_since


class _Reports:
    """What a person and metrics.jsonl are told: loss, tokens/s (without the time of the checks), share done."""

    def __init__(self, record: Callable[[dict[str, Any]], object], clock: Callable[[], float]) -> None:
        self.record, self.clock = record, clock
        self.start = self.since = clock()
        self.losses: list[Tensor] = []
        self.tokens = self.written = 0
        self.numbers = ""
        self.bar = tqdm(
            total=1.0,
            desc="training",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            mininterval=redrawn_every(),
            dynamic_ncols=True,
        )

    def __enter__(self) -> _Reports:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def seconds(self) -> float:
        return self.clock() - self.start

    def step(self, step: int, epoch: int, rate: float, loss: Tensor, tokens: int, progress: float) -> None:
        self.losses.append(loss)
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
            entry = {"step": step, "epoch": epoch, "loss": mean, "learning_rate": rate, "tokens_per_s": speed}
            self.record({"kind": "step", **entry, "seconds": round(self.seconds, 3)})
            self.numbers = f", loss {mean:.3f}, {speed:,} tokens/s"
            self.losses, self.tokens, self.since = [], 0, self.clock()
        self.bar.set_postfix_str(f"step {step}{self.numbers}", refresh=False)
        self.bar.update(progress - self.bar.n)

    def check(self, step: int, metrics: Metrics) -> None:
        self.record({"kind": "validation", "step": step, **asdict(metrics), "seconds": round(self.seconds, 3)})
        said = f"validation NDCG@10 {metrics.ndcg:.4f}, Recall@10 {metrics.recall:.4f} (all items)"
        self.bar.write(f"step {step}: {said}", file=sys.stderr)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here is none of the training's speed."""
        began = self.clock()
        yield
        self.since += self.clock() - began


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not biases, norms and embeddings. Raises InputError if there are no weights."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("this model has no weights, so there is nothing to train", "model.name")
    decayed = [one for one in parameters if one.ndim > 1 and id(one) not in embeddings]
    exempt = [one for one in parameters if one.ndim <= 1 or id(one) in embeddings]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)
