"""The training loop: AdamW, warm-up and decay, clipping, validation, early stopping, the best weights, resuming."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import count, islice
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn

from seqrec.errors import InputError
from seqrec.runtime.progress import format_duration
from training.config.schema import OptimizerConfig, ValidationConfig
from training.distributed import ParallelModel, all_gather_floats, all_gather_objects, rank
from training.engine.logger import StageLogger
from training.engine.state import State, random_state, set_random_state
from training.evaluation.metrics import Metrics
from training.stages.base import Stage

log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
"""Of a time limit: the most that validation may take."""
ESTIMATE_SECONDS = 5.0
"""Training time after which the end of a stage is estimated, if a tenth of it is not done before."""


@dataclass(frozen=True)
class StageResult:
    """How a stage ended. `ended`: 'all steps done', 'time is up', 'no improvement' or 'solved' (closed form)."""

    steps: int
    seconds: float
    best: Metrics
    best_step: int
    ended: str


@dataclass(frozen=True)
class CheckpointHooks:
    """Callbacks that save. `state` gets the loop's state every `every_seconds`, at each check and on SIGTERM or Ctrl-C.

    `best` is called when a check has found the best weights so far, `last` after the last step.
    """

    state: Callable[[State], object]
    every_seconds: float = math.inf
    best: Callable[[], object] = lambda: None
    last: Callable[[], object] = lambda: None


class Schedule:
    """Progress of a stage from 0 to 1: the larger of the share of the steps and the share of the time limit.

    The learning rate thus falls to 0 whichever limit is reached first. With a time limit the number of steps, and so
    the result, depends on the speed of the machine.
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
        """The factor of the learning rate: linear warm-up, then linear or cosine decay to 0."""
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
    logger: StageLogger,
    saving: CheckpointHooks | None = None,
    resumed: State | None = None,
    between_steps: Callable[[], object] = lambda: None,
) -> StageResult:
    """Trains until a limit is reached or `patience` checks in a row bring no improvement.

    The model ends with the weights of the best check (of the last one if the stage sets `keeps_last`), in evaluation
    mode.

    The best check has the highest NDCG@10 with ties broken at random: a model that gives all items the same vector ties
    every item and must not be selected for it, and items with equal texts are not errors either. With a time limit,
    checks before the last one are skipped when validation would take more than VALIDATION_SHARE of it.

    `resumed` is a state that was passed to `saving`: the loop continues as if it had not been interrupted. On SIGTERM
    or Ctrl-C it saves after the current step and raises KeyboardInterrupt; a second signal takes effect immediately.
    Raises TrainingDiverged, and InputError for a model without weights.
    """
    loop = _Loop(model, stage, validate, optimization, validation, device, logger, saving, between_steps)
    with logger, _Signals() as signals:
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
        logger: StageLogger,
        saving: CheckpointHooks | None,
        between_steps: Callable[[], object],
    ) -> None:
        self.model, self.stage, self.validate, self.device = model, stage, validate, device
        self.optimization, self.validation = optimization, validation
        self.logger, self.saving, self.between_steps = logger, saving, between_steps
        self.optimizer = adamw(model.trained, optimization)
        self.schedule = Schedule(optimization, stage.steps_per_epoch)
        self.best = BestStep(0 if stage.keeps_last else validation.patience, stage.keeps_last)
        self.step = self.checks = 0
        self.epoch = self.batch = 0  # of the next batch
        self.began = logger.clock()
        self.seconds = self.saved = 0.0
        self.validated = self.last_check = 0.0  # seconds: all checks, the last one
        self.speed_from: tuple[int, float] | None = None  # step and training seconds after the first step
        self.estimated = self.skipping = self.stopping = False

    def run(self, signals: _Signals, resumed: State | None) -> StageResult:
        if resumed is not None:
            self._load_state(resumed)
        elif self.validation.at_start:
            self._check()
        progress = self.schedule.progress(self.step, self.seconds)
        batches = self._batches()
        while not (ended := self._ended(progress)):
            # A step takes the rate at its end; at its beginning the first step would have a rate of 0.
            rate = self.optimization.learning_rate * self.schedule.factor(
                self.schedule.progress(self.step + 1, self.seconds)
            )
            self.between_steps()
            epoch, batch = next(batches)
            loss, tokens = self._train_on(batch, rate)
            tokens = self._agree(signals, tokens)
            progress = self.schedule.progress(self.step, self.seconds)
            parts = self.stage.parts
            self.logger.step(self.step, epoch, rate, loss, parts, tokens, progress, self.seconds)
            self._log_estimate(progress)
            checked = progress * self.validation.checks >= self.checks + 1 or progress >= 1
            if checked:
                self.checks = math.floor(progress * self.validation.checks)
                checked = progress >= 1 or not self._skip_check()
            if checked:
                self._check()
                # The check itself may have exceeded the time limit.
                self._agree(signals)
                progress = max(progress, self.schedule.progress(self.step, self.seconds))
            if checked or self.stopping or self._due():
                self._save()
            if self.stopping:
                log.info("%s: stopped after step %d", self.stage.name, self.step)
                raise KeyboardInterrupt
        if self.saving is not None:
            self.model.refresh()
            self.saving.last()
        self.model.load_weights(self.best.weights)
        self.model.module.eval()
        assert self.best.metrics is not None
        fitted = StageResult(self.step, round(self.seconds, 3), self.best.metrics, self.best.step, ended)
        self.logger.record("end", **asdict(fitted))
        return fitted

    def _ended(self, progress: float) -> str:
        if progress >= 1:
            return "all steps done" if self.step == self.schedule.max_steps else "time is up"
        return "no improvement" if self.best.out_of_patience else ""

    def _batches(self) -> Iterator[tuple[int, Any]]:
        """(epoch, batch), epoch after epoch, from the current position."""
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
        """Makes all processes use the clock of rank 0 and stop at the same step. -> the tokens of all processes"""
        values = all_gather_floats([signals.received, self.logger.clock() - self.began, tokens], self.device)
        self.stopping = any(received for received, _, _ in values)
        self.seconds = values[0][1]
        return int(sum(read for _, _, read in values))

    def _check(self) -> None:
        began = self.logger.clock()
        with self.logger.pause():
            self.model.refresh()
            self.model.module.eval()
            metrics, more = self.validate()
        self.last_check = all_gather_floats([self.logger.clock() - began], self.device)[0][0]
        self.validated += self.last_check
        self.logger.validation(self.step, metrics, more, self.seconds)
        if self.best.offer(self.step, metrics):
            self.best.weights = self.model.weights()
            if self.saving is not None:
                self.saving.best()

    def _skip_check(self) -> bool:
        """Whether this check and the last one would take too much of the time limit."""
        limit = self.schedule.max_seconds
        if limit is None or self.validated + 2 * self.last_check <= VALIDATION_SHARE * limit:
            return False
        if not self.skipping and rank() == 0:
            log.warning(
                "%s: a validation takes %s, so all but the last are skipped: together they may take %.0f %% of the "
                "time limit. Lower validation.users or validation.checks, or raise optimizer.max_minutes",
                self.stage.name,
                format_duration(self.last_check),
                100 * VALIDATION_SHARE,
            )
        self.skipping = True
        return True

    def _log_estimate(self, progress: float) -> None:
        """Logs once, after the first steps, when the stage will end."""
        trained = self.seconds - self.validated
        if self.speed_from is None:
            self.speed_from = (self.step, trained)  # the first step also allocates memory and compiles kernels
            return
        steps, elapsed = self.step - self.speed_from[0], trained - self.speed_from[1]
        if self.estimated or steps < 2 or (elapsed < ESTIMATE_SECONDS and progress < 0.1):
            return
        self.estimated = True
        if rank() == 0:
            level, text = self._estimate(elapsed / steps)
            log.log(level, "%s: %s", self.stage.name, text)

    def _estimate(self, step: float) -> tuple[int, str]:
        """`step`: seconds a step. -> log level and text"""
        limit, most = self.schedule.max_seconds, self.schedule.max_steps
        checks = self.validation.checks - self.checks
        if limit is not None and (most is None or self.seconds + (most - self.step) * step > limit):
            left = limit - self.seconds
            reached = self.step + max(0, int((left - min(checks * self.last_check, VALIDATION_SHARE * limit)) / step))
            text = f"ends in {format_duration(left)} (optimizer.max_minutes = {limit / 60:g}), after about {reached:,}"
            if most is None:
                return logging.INFO, f"{text} steps"
            needed = format_duration((most - self.step) * step + checks * self.last_check)
            return logging.WARNING, f"{text} of {most:,} steps; all would take {needed}: raise the limit or drop it"
        assert most is not None
        left = (most - self.step) * step + checks * self.last_check
        end = time.strftime("%H:%M", time.localtime(time.time() + left))
        each = f" of {format_duration(self.last_check)}" if self.last_check >= 1 else ""
        earlier = ", or earlier if validation stops improving" if self.best.patience else ""
        return logging.INFO, (
            f"ends in about {format_duration(left)} (at {end}){earlier}: {most - self.step:,} steps of {step:.2g} s, "
            f"{checks} validations{each}"
        )

    def _due(self) -> bool:
        return self.saving is not None and self.seconds - self.saved >= self.saving.every_seconds

    def _save(self) -> None:
        if self.saving is None:
            return
        with self.logger.pause():
            state = {
                "step": self.step,
                "checks": self.checks,
                "epoch": self.epoch,
                "batch": self.batch,
                "seconds": self.seconds,
                "validated": self.validated,
                "weights": self.model.weights(),
                "optimizer": self.model.optimizer_state(self.optimizer),
                "best": self.best.state(),
                "stage": self.stage.state(),
                "reports": self.logger.state(),
                "random": all_gather_objects(random_state()),
            }
            if rank() == 0:
                self.saving.state(state)
        self.saved = self.seconds

    def _load_state(self, state: State) -> None:
        self.step, self.checks, self.epoch, self.batch = (state[name] for name in ("step", "checks", "epoch", "batch"))
        self.seconds = self.saved = state["seconds"]
        self.validated = state.get("validated", 0.0)  # version 0.1.0 did not store it
        self.began -= self.seconds
        self.model.load_weights(state["weights"])
        self.model.load_optimizer_state(self.optimizer, state["optimizer"])
        self.best.load_state(state["best"])
        tensors = {name: tensor.to(self.device) for name, tensor in state["stage"].items()}
        self.stage.load_state(tensors)
        if self.batch and not tensors:
            self._begin_epoch(self.epoch)
        self.logger.load_state(state["reports"])
        set_random_state(state["random"][rank()])


class BestStep:
    """The weights of the best check so far and the number of checks since; with `keep_last`, of the last check."""

    def __init__(self, patience: int, keep_last: bool = False) -> None:
        self.patience, self.keep_last = patience, keep_last
        self.metrics: Metrics | None = None
        self.step = self.checks_since = 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, step: int, metrics: Metrics) -> bool:
        """-> whether this check is the best so far; the caller then stores the current weights in `weights`."""
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
    """Metrics from a record that may have more keys, as stages add some."""
    return Metrics(**{entry.name: record[entry.name] for entry in fields(Metrics)})


class _Signals:
    """Records the first SIGTERM or Ctrl-C; a second one has its usual effect."""

    received = False

    def __enter__(self) -> Self:
        self.before: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread, which is the only one to receive signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self.__exit__()
        log.info("stopping after this step; a second signal stops immediately")


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The trainable weights. Raises InputError if there are none."""
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
