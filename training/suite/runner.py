"""The tables of a paper from one command: plan, estimate, make what is not made yet, report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seqrec.data.items import OnError
from seqrec.errors import InputError, SeqrecError
from seqrec.text.item_text import Recipe
from training.data.dataset import Dataset
from training.evaluation.evaluation_set import read_folder
from training.suite.data import sample_users, write_folder
from training.suite.estimate import Estimator
from training.suite.plan import Experiment, Line, Plan, Table, cells_of
from training.suite.recipes import ATTRIBUTES, QUICK_USERS, QUICK_USERS_PRETRAINING, Recipes
from training.suite.report import write_report
from training.suite.store import ExperimentStore

log = logging.getLogger(__name__)

TRUSTED = 60.0
"""Seconds for which the estimate is believed, before what cells took says how far off it is."""


@dataclass(frozen=True)
class SuiteConfig:
    """What a suite is asked for. `data`, `pretrain_data`: folders with items and interactions."""

    data: Path
    out: Path
    models: Sequence[str]
    tables: Sequence[Table]
    seeds: Sequence[int]
    pretrain_data: Sequence[Path] = ()
    text_encoder: Path | None = None
    quick: bool = False
    changes: Sequence[str] = ()
    threads: int = 0
    device: str = ""
    on_error: OnError = "raise"


@dataclass(frozen=True)
class Estimate:
    """Seconds that each cell which is not made yet may take, NaN where that could not be told."""

    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(seconds for seconds in self.seconds.values() if not math.isnan(seconds))

    def text(self, lines: Sequence[Line], cells: Sequence[Experiment]) -> str:
        left = len(self.seconds)
        said = [
            f"{len(cells)} cells, {len(cells) - left} of them made; about {duration(self.total)} for the other {left}"
            " (trainings that stop improving end earlier)"
        ]
        counted: set[str] = set()
        for table in dict.fromkeys(line.table for line in lines):
            own = [cell.name for cell in cells_of(line for line in lines if line.table == table)]
            new = [name for name in own if name in self.seconds and name not in counted]
            counted |= set(new)
            known = sum(self.seconds[name] for name in new if not math.isnan(self.seconds[name]))
            said.append(f"  {table:<17}{len(new):>3} cells  {duration(known):>8}")
        return "\n".join(said)


class Suite:
    """Raises InputError for data that cannot be read, SeqrecError for a text encoder that is not there."""

    def __init__(self, asked: SuiteConfig) -> None:
        self.asked = asked
        if asked.data.resolve() in [folder.resolve() for folder in asked.pretrain_data]:
            raise InputError(f"{asked.data} is what is evaluated; leave it out", "--pretrain-data")
        recipe = Recipe(ATTRIBUTES, 3, 32)
        dataset = read_folder(asked.data, recipe, asked.on_error)
        dataset.cases("test")
        others = [read_folder(folder, recipe, asked.on_error) for folder in asked.pretrain_data]
        folder = asked.data
        if asked.quick:
            dataset, folder = _quick(dataset, asked.out)
            others = [sample_users(other, QUICK_USERS_PRETRAINING, whole_catalogue=False) for other in others]
        recipes = Recipes.of(
            dataset, asked.quick, asked.text_encoder is not None, asked.threads, asked.device, list(asked.changes)
        )
        self.plan = Plan(recipes, asked.models, asked.tables, asked.seeds, bool(others), asked.text_encoder is not None)
        self.workshop = ExperimentStore(asked.out, dataset, folder, others, asked.pretrain_data, asked.text_encoder)
        with _unsaid("training.config.hardware"):  # for each of dozens of configurations, which are kept with the runs
            self.lines = self.plan.lines()
        self.cells = cells_of(self.lines)
        if not self.cells:
            raise InputError("nothing to make: the tables asked for need other models, or --pretrain-data", "--only")

    def missing(self) -> list[Experiment]:
        return [cell for cell in self.cells if self.workshop.evaluation(cell) is None]

    def estimate(self) -> Estimate:
        estimator = Estimator(self.workshop)
        try:
            return Estimate({cell.name: estimator.seconds(cell) for cell in self.missing()})
        finally:
            estimator.close()

    def run(self, estimate: Estimate) -> dict[str, str]:
        """Make what is missing and write the report, also where it is broken off. -> cells that failed, and why."""
        missing = self.missing()
        failed: dict[str, str] = {}
        left = {name: seconds for name, seconds in estimate.seconds.items() if not math.isnan(seconds)}
        spent = planned = 0.0
        try:
            for number, cell in enumerate(missing, 1):
                expected = sum(left.values()) * (spent + TRUSTED) / (planned + TRUSTED)
                log.info("cell %d of %d: %s; about %s left", number, len(missing), cell.name, duration(expected))
                began = time.monotonic()
                if self._make(cell, failed) and cell.name in left:
                    spent += time.monotonic() - began
                    planned += left[cell.name]
                left.pop(cell.name, None)
        finally:
            self.report(failed)
        return failed

    def _make(self, cell: Experiment, failed: dict[str, str]) -> bool:
        """-> whether it is made."""
        try:
            if cell.start is not None and cell.start.name in failed:
                raise SeqrecError(f"it starts from {cell.start.name}, which failed")
            self.workshop.make(cell)
        except SeqrecError as error:
            log.warning("%s failed, the suite goes on without it: %s", cell.name, error)
            failed[cell.name] = str(error)
        return cell.name not in failed

    def report(self, failed: dict[str, str]) -> None:
        write_report(self.asked.out, self.lines, self.plan, self.workshop, failed)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _unsaid(logger: str) -> Iterator[None]:
    """Without what a module tells for information."""
    named = logging.getLogger(logger)
    before = named.level
    named.setLevel(logging.WARNING)
    try:
        yield
    finally:
        named.setLevel(before)


def _quick(dataset: Dataset, out: Path) -> tuple[Dataset, Path]:
    """The users of `--quick`, and the folder that has them."""
    sampled, folder = sample_users(dataset, QUICK_USERS), out / "data"
    write_folder(sampled, folder)
    return sampled, folder
