"""How long a suite will take: a few steps of each kind of training are timed, untrained, and multiplied."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seqrec.checkpoint import save_checkpoint
from seqrec.encoder import Encoder
from seqrec.errors import SeqrecError
from seqrec.text.item_text import TokenizedHistory
from training.config.schema import RunConfig
from training.data.dataset import Dataset
from training.distributed import set_threads
from training.engine.loop import Schedule, adamw
from training.engine.state import seed_everything
from training.evaluation.metrics import Metrics
from training.stages.base import Stage, StageContext, Towers, TrainingData, stage_class
from training.stages.encoding import Encoding
from training.stages.start import starting_point
from training.stages.two_stage import StageOne
from training.suite.plan import Experiment
from training.suite.store import ExperimentStore

log = logging.getLogger(__name__)

STEPS = 3
MOST_SECONDS = 6.0
"""What the steps of one stage may take; the first one, which makes what lasts, does not count."""
CELL = 2.0
"""Seconds that go by around a training: reading it, intervals, the report's pictures."""
ITEMS, HISTORIES = 200, 64
"""How many are encoded to see how long one takes."""


@dataclass(frozen=True)
class StageTime:
    """Seconds: once, at each epoch, at each step; `steps` an epoch of the whole data has."""

    once: float
    epoch: float
    step: float
    steps: int


@dataclass(frozen=True)
class Times:
    """Of one kind of training: its stages, and seconds to encode all items, and one history."""

    stages: dict[str, StageTime]
    items: float
    history: float

    def of(self, config: RunConfig, share: float, users: int) -> float:
        """Seconds at most: a training that stops improving ends earlier. `users` are evaluated at the end."""
        total = self.items + self.history * users
        for name, stage in self.stages.items():
            optimization, validation = config.optimizer_of(name), config.validation_of(name)
            steps = max(1, round(stage.steps * share))
            most = Schedule(optimization, steps).max_steps
            check = self.items + self.history * min(users, validation.users)
            checks = (validation.checks + validation.at_start) * check
            seconds = float("inf") if most is None else most * stage.step + -(-most // steps) * stage.epoch + checks
            total += stage.once + min(seconds, optimization.max_minutes * 60 or float("inf"))
        return total


class Estimator:
    """Times each kind of training once; `close` takes away the untrained checkpoints that it makes for that."""

    def __init__(self, workshop: ExperimentStore) -> None:
        self.workshop = workshop
        self._folder = tempfile.TemporaryDirectory(prefix="seqrec-estimate-")
        self._untrained: dict[str, Path] = {}
        self._times: dict[str, Times] = {}

    def close(self) -> None:
        self._folder.cleanup()

    def seconds(self, cell: Experiment) -> float:
        """Of a cell that is not made yet. NaN where it cannot be told, such as for a model that refuses the data."""
        users = len(self.workshop.dataset.evaluated("test"))
        if cell.config is None:
            return CELL + users * len(self.workshop.dataset.items) * 1e-7  # nine settings of item-kNN
        kind = " ".join((cell.model, *cell.config.stages))
        try:
            if kind not in self._times:
                log.info("timing a few steps of %s", kind)
                self._times[kind] = self._time(replace(cell, share=1.0))
            return CELL + self._times[kind].of(cell.config, 1.0 if cell.others else cell.share, users)
        except SeqrecError as error:
            log.warning("%s: %s", cell.name, error)
            return float("nan")

    def _model(self, cell: Experiment) -> tuple[str, nn.Module]:
        start = None if cell.start is None else self._checkpoint(cell.start)
        begin = starting_point(self.workshop.config(cell, start))
        model = begin.build(self.workshop.trained_on(cell))
        assert isinstance(model, nn.Module)
        return begin.model_name, model

    def _checkpoint(self, cell: Experiment) -> Path:
        """What a cell ends with: the real one if it is there, else one of its size."""
        trained = self.workshop.path(cell) / "checkpoint"
        if trained.is_dir():
            return trained
        if cell.name not in self._untrained:
            path = Path(self._folder.name) / str(len(self._untrained))
            name, model = self._model(cell)
            save_checkpoint(path, name, model)  # type: ignore[arg-type]
            self._untrained[cell.name] = path
        return self._untrained[cell.name]

    def _time(self, cell: Experiment) -> Times:
        assert cell.config is not None
        config = cell.config
        set_threads(config.threads)
        seed_everything(config.seed)
        name, model = self._model(cell)
        towers = Towers(name, model)  # type: ignore[arg-type]
        encoder = towers.encoder(config.device or None)
        tokenize = towers.history_model.tokenize_items
        datasets = self.workshop.trained_on(cell)
        data = tuple(TrainingData(dataset, tokenize(dataset.items)) for dataset in datasets)
        own = self.workshop.dataset
        items, history = _encoding_seconds(encoder, own)
        settings = self.workshop.config(cell)
        settings = replace(settings, pretrain=replace(settings.pretrain, zero_shot=()))
        stages = {}
        for stage_name in config.stages:
            optimization = config.optimizer_of(stage_name)
            context = StageContext(settings, data, towers, encoder.device, Encoding(optimization.chunk), _unused)
            stages[stage_name] = _stage_time(stage_class(stage_name).from_context(context), context, items)
        return Times(stages, items, history)


def _unused(encoder: Encoder) -> Metrics:
    raise AssertionError("nothing is validated while steps are timed")


def _encoding_seconds(encoder: Encoder, dataset: Dataset) -> tuple[float, float]:
    """-> of all items, of one history."""
    tokens = encoder.tokenize_items(dataset.items)
    rows = np.linspace(0, len(tokens) - 1, min(ITEMS, len(tokens))).astype(np.int64)
    cases = dataset.cases("test").sample(HISTORIES, seed=0)
    histories = [TokenizedHistory([tokens[int(row)] for row in history]) for history in cases.histories]
    encoder.encode_history_tokens(histories[:1])
    began = time.monotonic()
    encoder.encode_item_tokens([tokens[int(row)] for row in rows])
    encoded = time.monotonic()
    encoder.encode_history_tokens(histories)
    return (encoded - began) * len(tokens) / len(rows), (time.monotonic() - encoded) / len(histories)


def _stage_time(stage: Stage, context: StageContext, items: float) -> StageTime:
    """`items`: seconds to encode all of them."""
    model, device = context.towers.history_model, context.device
    assert isinstance(model, nn.Module)
    epoch = once = 0.0
    if isinstance(stage, StageOne):
        stage.load_state({"items": torch.zeros(len(stage.texts), model.dim)})  # its vectors do not change its speed
        epoch, once = (0.0, items) if stage.freezes_items else (items, 0.0)
    else:
        began = time.monotonic()
        stage.begin_epoch(0, model, device)
        once = time.monotonic() - began
    optimizer = adamw(model, context.config.optimizer_of(stage.name))
    model.train()
    taken: list[float] = []
    for batch in chain.from_iterable(map(stage.epoch, count())):
        began = time.monotonic()
        loss, _ = stage.loss(model, batch, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            stage.post_optimizer_step(model)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.monotonic() - began)
        if len(taken) > STEPS or (len(taken) > 1 and sum(taken) > MOST_SECONDS):
            break
    step = sum(taken[1:]) / len(taken[1:])
    return StageTime(once + max(0.0, taken[0] - step), epoch, step, stage.steps_per_epoch)
