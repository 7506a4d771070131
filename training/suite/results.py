"""The results of a suite: figures by table row, averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqrec.training_run import read_metrics
from training.evaluation.groups import EVERYONE
from training.evaluation.ranking import CandidateMode
from training.suite.plan import MODEL, Experiment, TableRow, experiments_of
from training.suite.store import ExperimentStore, K, Record

NDCG, RECALL = f"NDCG@{K}", f"Recall@{K}"


@dataclass(frozen=True)
class Value:
    """A figure over the seeds: mean and sample standard deviation; with one seed the 95 % interval over users."""

    mean: float
    spread: float
    low: float
    high: float
    seeds: int
    wanted: int
    """The number of planned seeds; `seeds` is lower if some failed or are not done yet."""

    def __str__(self) -> str:
        part = f" ({self.seeds} of {self.wanted} seeds)" if self.seeds < self.wanted else ""
        if self.seeds > 1:
            return f"{self.mean:.4f} ± {self.spread:.4f}{part}"
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]{part}"

    @property
    def bars(self) -> tuple[float, float]:
        """The lengths of an error bar below and above the mean."""
        if self.seeds > 1:
            return self.spread, self.spread
        return max(0.0, self.mean - self.low), max(0.0, self.high - self.mean)


class Results:
    """The stored results of each table row."""

    def __init__(self, store: ExperimentStore, rows: Sequence[TableRow]) -> None:
        self.store = store
        self.records = {experiment.name: store.evaluation(experiment) for experiment in experiments_of(rows)}

    def of(self, row: TableRow) -> list[Record]:
        return [record for experiment in row.experiments if (record := self.records[experiment.name]) is not None]

    def value(
        self, row: TableRow, figure: str = NDCG, protocol: CandidateMode = "all items", group: str = EVERYONE
    ) -> Value | None:
        """None if nothing is measured yet or the group is empty."""
        found = [record["methods"][row.method][protocol].get(group) for record in self.of(row)]
        values = [figures[figure] for figures in found if figures]
        if not values:
            return None
        means = np.array([value[0] for value in values])
        spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
        return Value(float(means.mean()), spread, values[0][1], values[0][2], len(values), len(row.experiments))

    def ndcg_by_user(self, row: TableRow) -> Any:
        """[users] NDCG@10, all items, averaged over the seeds."""
        return np.mean([record["ndcg_of_users"][row.method] for record in self.of(row)], axis=0)

    def users(self, rows: Sequence[TableRow], group: str) -> int:
        for row in rows:
            for record in self.of(row):
                return int(record["methods"][row.method]["all items"].get(group, {"users": 0})["users"])
        return 0

    def minutes(self, row: TableRow) -> str:
        """Training time, including that of the experiments it started from."""
        seconds = [
            self._seconds(experiment) for experiment in row.experiments if self.records[experiment.name] is not None
        ]
        return f"{np.mean(seconds) / 60:.1f}" if any(seconds) and row.method == MODEL else "-"

    def _seconds(self, experiment: Experiment) -> float:
        before = 0.0 if experiment.start is None else self._seconds(experiment.start)
        return before + float((self.records[experiment.name] or {}).get("seconds", 0))

    def steps(self, experiment: Experiment) -> list[tuple[int, float]]:
        """(step, NDCG@10 on this data set's test items) at each check of a pretraining."""
        if self.records.get(experiment.name) is None:
            return []
        return [
            (entry["step"], next(iter(entry["zero_shot"].values())))
            for entry in read_metrics(self.store.path(experiment) / "metrics.jsonl")
            if entry["kind"] == "validation" and entry.get("zero_shot")
        ]
