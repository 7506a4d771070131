"""Progress bars on stderr, one for each stage of a command."""

from __future__ import annotations

import sys
from typing import Any, Self

from tqdm import tqdm

TERMINAL_SECONDS, LOG_SECONDS = 0.5, 15.0
"""Seconds between two updates, on a terminal and in a log file."""


def format_duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min")] if hours else [(minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def redrawn_every() -> float:
    return TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS


class StageBars:
    """A bar that restarts with each stage. Call it with the stage, the number of units done and the total."""

    def __init__(self, prefix: str = "", unit: str = "it") -> None:
        self._prefix, self._unit = prefix, unit
        self._bar: tqdm[Any] | None = None
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            self._bar = tqdm(total=total, desc=self._prefix + stage, unit=self._unit, mininterval=redrawn_every())
        assert self._bar is not None
        self._bar.update(done - self._bar.n)
