"""Runs a suite: plan the experiments, make those that are missing, write the report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seqrec.data.items import OnError
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.progress import format_duration
from seqrec.text.item_text import Recipe
from training.config.schema import RunConfig
from training.data.dataset import Dataset
from training.evaluation.evaluation_set import read_folder
from training.suite.data import sample_users, write_folder
from training.suite.plan import Experiment, Plan, Table, experiments_of
from training.suite.recipes import ATTRIBUTES, QUICK_USERS, QUICK_USERS_PRETRAINING, Recipes
from training.suite.report import write_report
from training.suite.store import ExperimentStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuiteConfig:
    """The options of `seqrec suite`. `data`, `pretrain_data`: folders with items and interactions."""

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


def time_limit(config: RunConfig) -> float | None:
    """The sum of the time limits of all stages, in seconds; None if a stage is limited by steps or epochs only."""
    limits = [config.optimizer_of(stage).max_minutes for stage in config.stages]
    return 60 * sum(limits) if all(limits) else None


class Suite:
    """Raises InputError for data that cannot be read, SeqrecError for a text encoder that does not exist."""

    def __init__(self, config: SuiteConfig) -> None:
        self.config = config
        if config.data.resolve() in [folder.resolve() for folder in config.pretrain_data]:
            raise InputError(f"{config.data} is the data set to evaluate on; leave it out", "--pretrain-data")
        recipe = Recipe(ATTRIBUTES, 3, 32)
        dataset = read_folder(config.data, recipe, config.on_error)
        dataset.cases("test")
        others = [read_folder(folder, recipe, config.on_error) for folder in config.pretrain_data]
        folder = config.data
        if config.quick:
            dataset, folder = _quick(dataset, config.out)
            others = [sample_users(other, QUICK_USERS_PRETRAINING, whole_catalogue=False) for other in others]
        encoder = config.text_encoder
        recipes = Recipes.of(
            dataset, config.quick, encoder is not None, config.threads, config.device, list(config.changes)
        )
        self.plan = Plan(recipes, config.models, config.tables, config.seeds, bool(others), encoder is not None)
        self.store = ExperimentStore(config.out, dataset, folder, others, config.pretrain_data, encoder)
        with _quiet("training.config.hardware"):  # it would log for each of dozens of configurations
            self.rows = self.plan.rows()
        self.experiments = experiments_of(self.rows)
        if not self.experiments:
            raise InputError("nothing to do: the chosen tables need other models, or --pretrain-data", "--only")

    def missing(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if self.store.evaluation(experiment) is None]

    def estimate(self) -> str:
        """How much there is to do, and the sum of the configured time limits."""
        missing = {experiment.name for experiment in self.missing()}
        lines = [f"{len(self.experiments)} experiments, {len(self.experiments) - len(missing)} of them done"]
        if missing:
            lines[0] += f"; to do: {_limits(self.missing())} (evaluation not included)"
        counted: set[str] = set()
        for table in dict.fromkeys(row.table for row in self.rows):
            own = experiments_of(row for row in self.rows if row.table == table)
            new = [one for one in own if one.name in missing and one.name not in counted]
            counted |= {one.name for one in new}
            lines.append(f"  {table:<17}{len(new):>3} to do{', ' + _limits(new) if new else ''}")
        return "\n".join(lines)

    def run(self) -> dict[str, str]:
        """Makes what is missing and writes the report, also after an interruption. -> failed experiments and why."""
        missing = self.missing()
        failed: dict[str, str] = {}
        try:
            for number, experiment in enumerate(missing, 1):
                left = _limits(missing[number - 1 :])
                log.info("experiment %d of %d: %s; %s left", number, len(missing), experiment.name, left)
                self._make(experiment, failed)
        finally:
            self.report(failed)
        return failed

    def _make(self, experiment: Experiment, failed: dict[str, str]) -> None:
        try:
            if experiment.start is not None and experiment.start.name in failed:
                raise SeqrecError(f"it starts from {experiment.start.name}, which failed")
            self.store.make(experiment)
        except SeqrecError as error:
            log.warning("%s failed, the suite continues without it: %s", experiment.name, error)
            failed[experiment.name] = str(error)

    def report(self, failed: dict[str, str]) -> None:
        write_report(self.config.out, self.rows, self.plan, self.store, failed)


def _limits(experiments: Sequence[Experiment]) -> str:
    """`at most 40 min of training`, and how many trainings have no time limit."""
    limits = [time_limit(one.config) for one in experiments if one.config is not None]
    unlimited = sum(limit is None for limit in limits)
    parts = []
    if len(limits) > unlimited:
        parts.append(f"at most {format_duration(sum(limit or 0.0 for limit in limits))} of training")
    if unlimited:
        parts.append(f"{unlimited} trainings without a time limit")
    return " and ".join(parts) or "no training"


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Warnings only."""
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
