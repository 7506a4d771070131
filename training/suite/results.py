"""The results of a suite: figures by table row, averaged over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation.groups import EVERYONE
from training.evaluation.ranking import Protocol
from training.suite.plan import MODEL, Experiment, Line, cells_of
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
    """How many seeds there are to be: fewer are made where some failed, or are to come."""

    def __str__(self) -> str:
        part = f" ({self.seeds} of {self.wanted} seeds)" if self.seeds < self.wanted else ""
        if self.seeds > 1:
            return f"{self.mean:.4f} ± {self.spread:.4f}{part}"
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]{part}"

    @property
    def bars(self) -> tuple[float, float]:
        """How far a picture's bar goes below the mean, and above it: what stands behind the mean in tables."""
        if self.seeds > 1:
            return self.spread, self.spread
        return max(0.0, self.mean - self.low), max(0.0, self.high - self.mean)


class Results:
    """What is there of each line."""

    def __init__(self, workshop: ExperimentStore, lines: Sequence[Line]) -> None:
        self.workshop = workshop
        self.records = {cell.name: workshop.evaluation(cell) for cell in cells_of(lines)}

    def of(self, line: Line) -> list[Record]:
        return [record for cell in line.cells if (record := self.records[cell.name]) is not None]

    def value(
        self, line: Line, figure: str = NDCG, protocol: Protocol = "all items", group: str = EVERYONE
    ) -> Value | None:
        """None where nothing is measured, or nobody is in the group."""
        found = [record["methods"][line.method][protocol].get(group) for record in self.of(line)]
        values = [figures[figure] for figures in found if figures]
        if not values:
            return None
        means = np.array([value[0] for value in values])
        spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
        return Value(float(means.mean()), spread, values[0][1], values[0][2], len(values), len(line.cells))

    def of_users(self, line: Line) -> Any:
        """[users] NDCG@10, all items, averaged over the seeds."""
        return np.mean([record["ndcg_of_users"][line.method] for record in self.of(line)], axis=0)

    def users(self, lines: Sequence[Line], group: str) -> int:
        for line in lines:
            for record in self.of(line):
                return int(record["methods"][line.method]["all items"].get(group, {"users": 0})["users"])
        return 0

    def minutes(self, line: Line) -> str:
        """Of training, together with what it started from: its pretraining and the stages before."""
        seconds = [self._seconds(cell) for cell in line.cells if self.records[cell.name] is not None]
        return f"{np.mean(seconds) / 60:.1f}" if any(seconds) and line.method == MODEL else "-"

    def _seconds(self, cell: Experiment) -> float:
        before = 0.0 if cell.start is None else self._seconds(cell.start)
        return before + float((self.records[cell.name] or {}).get("seconds", 0))

    def steps(self, cell: Experiment) -> list[tuple[int, float]]:
        """(step, NDCG@10 on this data set's test items) at each check of a pretraining."""
        path = self.workshop.path(cell) / "metrics.jsonl"
        if self.records.get(cell.name) is None or not path.is_file():
            return []
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            (entry["step"], next(iter(entry["zero_shot"].values())))
            for entry in entries
            if entry["kind"] == "validation" and entry.get("zero_shot")
        ]
