"""What a request did, for its log line, its metrics and its spans."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Trace:
    """What the log line of a request shows: the time of each stage in ms, and which state answered.

    `client`: whose request it is, a key or an address. `spans`: when each stage began and ended, in seconds of
    `time.perf_counter`.
    """

    arrived: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    snapshot: str | None = None
    seq: int | None = None
    batch: int = 0
    client: str = ""
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    def add(self, stage: str, seconds: float, ended: float | None = None) -> None:
        """`ended`: by default now."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds * 1000
        end = time.perf_counter() if ended is None else ended
        self.spans.append((stage, end - seconds, end))
