"""Progress on stderr: one bar for each stage of a command."""

from __future__ import annotations

import sys
from typing import Any, Self

from tqdm import tqdm

REDRAWN, REDRAWN_IN_A_LOG = 0.5, 15.0
"""Seconds between two drawings, on a terminal and where stderr is a file, which wants few lines."""


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
    return REDRAWN if sys.stderr.isatty() else REDRAWN_IN_A_LOG


class StageBars:
    """A bar that begins anew with each stage. Call it with the stage, how much is done, and of how much."""

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
