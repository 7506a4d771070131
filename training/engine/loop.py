"""The training loop: AdamW, warm-up and decay, clipping, validation, early stopping, the best weights, resuming."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import count, islice
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn

from seqrec.errors import InputError
from training.config.schema import OptimizerConfig, ValidationConfig
from training.distributed import ParallelModel, all_gather_floats, all_gather_objects, rank
from training.engine.logger import StageLogger
from training.engine.state import State, random_state, set_random_state
from training.evaluation.metrics import Metrics
from training.stages.base import Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """How a stage ended. `ended`: 'all steps done', 'time is up' or 'no improvement'."""

    steps: int
    seconds: float
    best: Metrics
    best_step: int
    ended: str


@dataclass(frozen=True)
class CheckpointHooks:
    """Where the loop's state goes: every so often, at each check, and when the process is told to stop.

    `best` is called when the weights are better than ever, `last` when they are those of the last step.
    """

    state: Callable[[State], object]
    every_seconds: float = math.inf
    best: Callable[[], object] = lambda: None
    last: Callable[[], object] = lambda: None


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
    model: ParallelModel,
    stage: Stage,
    validate: Callable[[], tuple[Metrics, Mapping[str, Any]]],
    optimization: OptimizerConfig,
    validation: ValidationConfig,
    device: torch.device,
    reports: StageLogger,
    saving: CheckpointHooks | None = None,
    resumed: State | None = None,
) -> StageResult:
    """Train until the steps or the time are used up, or `patience` checks brought nothing; the model ends with the
    weights of the best check (of the last one where the stage `keeps_last`), in evaluation mode.

    The best check is the one with the highest NDCG@10 where chance breaks ties: a model whose vectors all collapse into
    one ties every item, and must not win by it; nor are items that read the same mistakes. `resumed` is what `saving`
    was given once: the loop goes on from there as if it had never stopped. On SIGTERM and Ctrl-C it saves after the
    step at hand and raises KeyboardInterrupt; a second one ends it at once. Raises TrainingDiverged, and InputError for
    a model without weights.
    """
    loop = _Loop(model, stage, validate, optimization, validation, device, reports, saving)
    with reports, _Signals() as signals:
        return loop.run(signals, resumed)


class _Loop:
    def __init__(
        self,
        model: ParallelModel,
        stage: Stage,
        validate: Callable[[], tuple[Metrics, Mapping[str, Any]]],
        optimization: OptimizerConfig,
        validation: ValidationConfig,
        device: torch.device,
        reports: StageLogger,
        saving: CheckpointHooks | None,
    ) -> None:
        self.model, self.stage, self.validate, self.device = model, stage, validate, device
        self.optimization, self.validation = optimization, validation
        self.reports, self.saving = reports, saving
        self.optimizer = adamw(model.trained, optimization)
        self.schedule = Schedule(optimization, stage.steps_per_epoch)
        self.best = _Best(0 if stage.keeps_last else validation.patience, stage.keeps_last)
        self.step = self.checks = 0
        self.epoch = self.batch = 0  # of the batch that comes next
        self.began = reports.clock()
        self.seconds = self.saved = 0.0
        self.stopping = False

    def run(self, signals: _Signals, resumed: State | None) -> StageResult:
        if resumed is not None:
            self._load_state(resumed)
        elif self.validation.at_start:
            self._check()
        progress = self.schedule.progress(self.step, self.seconds)
        batches = self._batches()
        while not (ended := self._ended(progress)):
            # The rate of a step is that of its end, so that the first step is not lost to a rate of 0.
            rate = self.optimization.learning_rate * self.schedule.factor(
                self.schedule.progress(self.step + 1, self.seconds)
            )
            epoch, batch = next(batches)
            loss, tokens = self._train_on(batch, rate)
            tokens = self._agree(signals, tokens)
            progress = self.schedule.progress(self.step, self.seconds)
            parts = self.stage.parts
            self.reports.step(self.step, epoch, rate, loss, parts, tokens, progress, self.seconds)
            checked = progress * self.validation.checks >= self.checks + 1 or progress >= 1
            if checked:
                self.checks = math.floor(progress * self.validation.checks)
                self._check()
                # The check itself may have used up the time.
                self._agree(signals)
                progress = max(progress, self.schedule.progress(self.step, self.seconds))
            if checked or self.stopping or self._due():
                self._save()
            if self.stopping:
                log.info("stopped after step %d of %s", self.step, self.stage.name)
                raise KeyboardInterrupt
        if self.saving is not None:
            self.model.refresh()
            self.saving.last()
        self.model.load_weights(self.best.weights)
        self.model.module.eval()
        assert self.best.metrics is not None
        fitted = StageResult(self.step, round(self.seconds, 3), self.best.metrics, self.best.step, ended)
        self.reports.record("end", **asdict(fitted))
        return fitted

    def _ended(self, progress: float) -> str:
        if progress >= 1:
            return "all steps done" if self.step == self.schedule.max_steps else "time is up"
        return "no improvement" if self.best.out_of_patience else ""

    def _batches(self) -> Iterator[tuple[int, Any]]:
        """(epoch, batch), epoch after epoch, from where the loop stands."""
        for epoch in count(self.epoch):
            if not self.batch:
                self._begin_epoch(epoch)
            for batch in islice(self.stage.epoch(epoch), self.batch, None):
                self.epoch, self.batch = epoch, self.batch + 1
                yield epoch, batch
            self.batch = 0

    def _begin_epoch(self, number: int) -> None:
        self.model.refresh()
        self.model.module.eval()
        with torch.no_grad():
            self.stage.begin_epoch(number, self.model.whole, self.device)

    def _train_on(self, batch: Any, rate: float) -> tuple[Tensor, int]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.module.train()
        loss, tokens = self.model.run(lambda model: self.stage.loss(model, batch, self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.model.clip(self.optimization.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.stage.post_optimizer_step(self.model.whole)
        self.step += 1
        return loss.detach(), tokens

    def _agree(self, signals: _Signals, tokens: int = 0) -> int:
        """All processes go by one clock and stop at one step. -> the tokens of all of them"""
        told = all_gather_floats([signals.asked, self.reports.clock() - self.began, tokens], self.device)
        self.stopping = any(asked for asked, _, _ in told)
        self.seconds = told[0][1]
        return int(sum(read for _, _, read in told))

    def _check(self) -> None:
        with self.reports.pause():
            self.model.refresh()
            self.model.module.eval()
            metrics, more = self.validate()
        self.reports.validation(self.step, metrics, more, self.seconds)
        if self.best.offer(self.step, metrics):
            self.best.weights = self.model.weights()
            if self.saving is not None:
                self.saving.best()

    def _due(self) -> bool:
        return self.saving is not None and self.seconds - self.saved >= self.saving.every_seconds

    def _save(self) -> None:
        if self.saving is None:
            return
        with self.reports.pause():
            state = {
                "step": self.step,
                "checks": self.checks,
                "epoch": self.epoch,
                "batch": self.batch,
                "seconds": self.seconds,
                "weights": self.model.weights(),
                "optimizer": self.model.optimizer_state(self.optimizer),
                "best": self.best.state(),
                "stage": self.stage.state(),
                "reports": self.reports.state(),
                "random": all_gather_objects(random_state()),
            }
            if rank() == 0:
                self.saving.state(state)
        self.saved = self.seconds

    def _load_state(self, state: State) -> None:
        self.step, self.checks, self.epoch, self.batch = (state[name] for name in ("step", "checks", "epoch", "batch"))
        self.seconds = self.saved = state["seconds"]
        self.began -= self.seconds
        self.model.load_weights(state["weights"])
        self.model.load_optimizer_state(self.optimizer, state["optimizer"])
        self.best.load_state(state["best"])
        made = {name: tensor.to(self.device) for name, tensor in state["stage"].items()}
        self.stage.load_state(made)
        if self.batch and not made:
            self._begin_epoch(self.epoch)
        self.reports.load_state(state["reports"])
        set_random_state(state["random"][rank()])


class _Best:
    """The weights of the best check so far, and how many checks ago that was; with `latest` of the last one."""

    def __init__(self, patience: int, keep_last: bool = False) -> None:
        self.patience, self.keep_last = patience, keep_last
        self.metrics: Metrics | None = None
        self.step = self.checks_since = 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, step: int, metrics: Metrics) -> bool:
        """-> whether they are better than all before; then `weights` are to be those of now."""
        self.checks_since += 1
        if not self.keep_last and self.metrics is not None and metrics.ndcg_expected <= self.metrics.ndcg_expected:
            return False
        self.metrics, self.step, self.checks_since = metrics, step, 0
        return True

    @property
    def out_of_patience(self) -> bool:
        return 0 < self.patience <= self.checks_since

    def state(self) -> State:
        metrics = None if self.metrics is None else asdict(self.metrics)
        return {
            "metrics": metrics,
            "step": self.step,
            "checks_since": self.checks_since,
            "weights": self.weights,
        }

    def load_state(self, state: State) -> None:
        self.metrics = None if state["metrics"] is None else metrics_of(state["metrics"])
        self.step, self.checks_since, self.weights = state["step"], state["checks_since"], state["weights"]


def metrics_of(record: State) -> Metrics:
    """What `asdict` made a dictionary of; what a stage added to it is left out."""
    return Metrics(**{entry.name: record[entry.name] for entry in fields(Metrics)})


class _Signals:
    """Notes the first SIGTERM or Ctrl-C instead of ending at once; a second one does what it always did."""

    asked = False

    def __enter__(self) -> Self:
        self.before: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread, so no signal comes here
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
        log.info("stopping after this step; once more stops at once")


def trainable(model: object) -> list[nn.Parameter]:
    """The weights that gradients change. Raises InputError if there are none."""
    assert isinstance(model, nn.Module)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("this model has no weights, so there is nothing to train", "model.name")
    return parameters


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not biases, norms and embeddings. Raises InputError if there are no weights."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters = trainable(model)
    decayed = [one for one in parameters if one.ndim > 1 and id(one) not in embeddings]
    exempt = [one for one in parameters if one.ndim <= 1 or id(one) in embeddings]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)
