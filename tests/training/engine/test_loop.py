from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrec.errors import InputError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from training.config.schema import OptimizerConfig, ValidationConfig
from training.distributed import ParallelModel
from training.engine.logger import StageLogger, TrainingDiverged
from training.engine.loop import BestStep, Schedule, StageResult, adamw, fit
from training.evaluation.metrics import Metrics
from training.stages.base import Stage, StageContext


class Point(nn.Module):
    """One number that wants to be 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class PullToThree(Stage):
    """Ten steps an epoch; each is 2 tokens and takes `seconds` of the clock."""

    name = "pull"
    steps_per_epoch = 10

    @classmethod
    def from_context(cls, context: StageContext) -> PullToThree:
        raise NotImplementedError

    def __init__(self, clock: Clock, seconds: float = 1.0, loss: float = 1.0) -> None:
        self.clock, self.seconds, self.scale = clock, seconds, loss

    def epoch(self, number: int) -> Iterator[int]:
        yield from range(self.steps_per_epoch)

    def loss(self, model: Any, batch: int, device: torch.device) -> tuple[Tensor, int]:
        self.clock.now += self.seconds
        return (model.weight - 3).square().sum() * self.scale, 2


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def quality(value: float) -> Metrics:
    return Metrics(1, value, value, value, value, value)


def run(
    validate: Callable[[Point], float],
    patience: int = 0,
    checks: int = 5,
    seconds: float = 1.0,
    loss: float = 1.0,
    at_start: bool = False,
    check_seconds: float = 0.0,
    **limits: float,
) -> tuple[StageResult, Point, list[dict[str, Any]]]:
    clock, model, entries = Clock(), Point(), list[dict[str, Any]]()

    def check() -> tuple[Metrics, dict[str, Any]]:
        clock.now += check_seconds
        return quality(validate(model)), {}

    fitted = fit(
        ParallelModel(model),  # type: ignore[arg-type]
        PullToThree(clock, seconds, loss),
        check,
        OptimizerConfig(learning_rate=0.1, **limits),  # type: ignore[arg-type]
        ValidationConfig(checks=checks, patience=patience, at_start=at_start),
        torch.device("cpu"),
        StageLogger("pull", entries.append, clock),
    )
    return fitted, model, entries


def test_it_learns_and_reports() -> None:
    fitted, model, entries = run(lambda model: 0.0, max_steps=100)
    assert (fitted.steps, fitted.ended) == (100, "all steps done")
    steps = [entry for entry in entries if entry["kind"] == "step"]
    assert steps[0]["loss"] > 10 * steps[-1]["loss"]
    assert steps[-1].items() >= {"step": 100, "epoch": 9, "tokens_per_s": 2, "seconds": 100.0}.items()
    assert [entry["step"] for entry in entries if entry["kind"] == "validation"] == [20, 40, 60, 80, 100]
    assert entries[-1]["kind"] == "end"
    assert not model.training


def test_the_rate_rises_then_falls_to_nothing() -> None:
    _, _, entries = run(lambda model: 0.0, max_steps=100, warmup=0.2)
    rates = [entry["learning_rate"] for entry in entries if entry["kind"] == "step"]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert max(rates) == pytest.approx(0.1) == pytest.approx(rates[19])
    assert rates[-1] == 0
    assert rates[19:] == sorted(rates[19:], reverse=True)


def test_cosine_decay_is_half_way_in_the_middle() -> None:
    schedule = Schedule(OptimizerConfig(warmup=0, decay="cosine", max_steps=10), 10)
    assert [schedule.factor(at) for at in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert schedule.factor(0.25) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))


def test_progress_is_the_larger_of_steps_and_time() -> None:
    schedule = Schedule(OptimizerConfig(max_steps=100, max_epochs=2, max_minutes=1), steps_per_epoch=20)
    assert schedule.max_steps == 40
    assert schedule.progress(10, 6) == 0.25
    assert schedule.progress(10, 30) == 0.5
    assert schedule.progress(10, 600) == 1


def test_time_ends_it_with_the_rate_decayed() -> None:
    fitted, _, entries = run(lambda model: 0.0, max_minutes=1, max_steps=1000, seconds=2.0)
    assert (fitted.steps, fitted.ended) == (30, "time is up")
    assert [entry for entry in entries if entry["kind"] == "step"][-1]["learning_rate"] < 0.1 / 20


def test_the_best_weights_are_kept() -> None:
    fitted, model, _ = run(lambda model: -abs(model.weight.item() - 1.5), max_steps=100, checks=50)
    assert fitted.best_step < 60
    assert abs(model.weight.item() - 1.5) < 0.2


def test_checks_without_improvement_end_it() -> None:
    fitted, _, entries = run(lambda model: 0.5, max_steps=100, checks=10, patience=3)
    assert (fitted.ended, fitted.steps, fitted.best_step) == ("no improvement", 40, 10)
    assert [entry["step"] for entry in entries if entry["kind"] == "validation"] == [10, 20, 30, 40]


def test_a_collapsed_model_does_not_win_by_its_ties() -> None:
    clock, model = Clock(), Point()
    collapsed = Metrics.of(np.array([1]), np.array([5000]))
    assert collapsed.ndcg == 1.0
    answers = iter([quality(0.4), collapsed])
    fitted = fit(
        ParallelModel(model),  # type: ignore[arg-type]
        PullToThree(clock),
        lambda: (next(answers), {}),
        OptimizerConfig(max_steps=10),
        ValidationConfig(checks=2, patience=0),
        torch.device("cpu"),
        StageLogger(clock=clock),
    )
    assert fitted.best.ndcg == 0.4


def test_items_that_read_the_same_are_no_mistake() -> None:
    """The target among two that tie for the first place, then alone at the second one."""
    best = BestStep(patience=0)
    assert best.offer(1, Metrics.of(np.array([2]), np.array([2])))
    assert best.offer(2, Metrics.of(np.array([1]), np.array([2])))
    assert not best.offer(3, Metrics.of(np.array([2]), np.array([2])))


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_no_number_is_an_error(loss: float) -> None:
    with pytest.raises(TrainingDiverged, match=r"after step 1; try a lower optimizer\.learning_rate"):
        run(lambda model: 0.0, max_steps=10, loss=loss)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        adamw(BagOfWords(BagOfWordsConfig()), OptimizerConfig(max_steps=1))


def test_only_matrices_decay() -> None:
    model = nn.ModuleDict({"word": nn.Embedding(4, 2), "layer": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    decayed, exempt = adamw(model, OptimizerConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.3, 0.0)
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(2, 2)]
    assert len(exempt["params"]) == 4


def test_the_end_is_estimated_after_the_first_steps(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(lambda model: 0.0, max_steps=100, seconds=3.0)
    [line] = [record for record in caplog.records if "ends in" in record.message]
    assert line.levelno == logging.INFO
    assert "pull: ends in about 4 min 51 s (at " in line.message  # 97 of 3 s after the first three
    assert "97 steps of 3 s, 5 validations" in line.message


def test_a_time_limit_that_comes_first_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fitted, *_ = run(lambda model: 0.0, max_steps=1000, max_minutes=1, seconds=2.0)
        run(lambda model: 0.0, max_minutes=1, seconds=2.0)
    one, other = [record for record in caplog.records if "ends in" in record.message]
    assert one.levelno == logging.WARNING
    assert "after about 30 of 1,000 steps; all would take 33 min 14 s" in one.message
    assert fitted.steps == 30
    assert "ends in 54 s (optimizer.max_minutes = 1), after about 30 steps" in other.message


def test_validation_takes_a_bounded_share_of_a_time_limit(caplog: pytest.LogCaptureFixture) -> None:
    fitted, _, entries = run(lambda model: 0.0, max_minutes=2, checks=4, check_seconds=23.0)
    assert [entry["step"] for entry in entries if entry["kind"] == "validation"] == [30, fitted.steps]
    assert fitted.steps > 90  # of 120; with all checks 51
    assert "a validation takes 23 s, so all but the last are skipped" in caplog.text
    fitted, _, entries = run(lambda model: 0.0, max_steps=120, checks=4, check_seconds=23.0)
    assert len([entry for entry in entries if entry["kind"] == "validation"]) == 4
