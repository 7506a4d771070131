"""Contestants take turns in one process; ratios are of neighbouring turns only."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

BUSY = 0.1
"""Cores used by other processes above which the machine counts as busy."""


@dataclass(frozen=True)
class Turns:
    """Seconds of each contestant, by name, round by round: [rounds] each."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, against: str) -> list[float]:
        """How many times as fast as `against`, in each round, in ascending order."""
        pairs = zip(self.seconds[against], self.seconds[name], strict=True)
        return sorted(theirs / own for theirs, own in pairs)


def take_turns(what: str, contestants: Mapping[str, Callable[[], object]], rounds: int) -> Turns:
    """Runs each contestant once per round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begin)
        if number:
            took = ", ".join(f"{name} {values[-1]:.3g} s" for name, values in seconds.items())
            print(f"{what}: round {number} of {rounds}: {took}", file=sys.stderr)
    return Turns(seconds)


class Others:
    """The processor time that other processes have used since its creation."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self._start, self._busy, self._own = time.perf_counter(), *self._seconds()

    @staticmethod
    def _seconds() -> tuple[float, float]:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return machine.user + machine.system, own.user + own.system + own.children_user + own.children_system

    def cores(self) -> float:
        busy, own = self._seconds()
        taken = (busy - self._busy) - (own - self._own)
        return float(max(0.0, taken / (time.perf_counter() - self._start)))

    def warn(self) -> float:
        """Print a warning if the machine was busy. -> cores. The load average would include the minute before."""
        cores = self.cores()
        if cores > BUSY:
            print(
                f"\nWARNING: the machine was busy: other processes used {cores:.2f} cores. Do not trust "
                "these numbers, even if they are consistent.",
                file=sys.stderr,
            )
        return cores
