"""Fewer compute threads while other processes use the cores.

A parallel region ends when its slowest thread does, so two threads that share cores with another process are slower
than one. Measured with the demo on two cores, 51,000 tokens/s without other load: next to processes that used 1.5 cores
two threads encoded 7,500 tokens/s, one thread 16,000 to 21,000.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import psutil
import torch

log = logging.getLogger(__name__)

PERIOD = 3.0
"""Seconds between two looks at the load."""
SPARE = 0.25
"""Share of a core that others may use before a thread is given up for it."""


def cpu_seconds() -> tuple[float, float, float]:
    """CPU seconds of all processes, of this one, and of all cores including idle time, since some fixed moment."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # guest times are part of user and nice
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    own = os.times()
    return total - idle, own.user + own.system, total


class ThreadAdapter:
    """Sets torch's threads to the cores that other processes leave free, from 1 to `most`.

    On a machine without other load nothing changes, so results stay reproducible there. Call it between steps.
    """

    def __init__(
        self,
        most: int,
        use: Callable[[int], object] = torch.set_num_threads,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[], tuple[float, float, float]] = cpu_seconds,
    ) -> None:
        self.most = self.threads = most
        self._use, self._clock, self._read = use, clock, read
        self._at, self._before = clock(), read()

    def __call__(self) -> None:
        if self.most < 2 or self._clock() - self._at < PERIOD:
            return
        now = self._read()
        busy, own, total = (after - before for after, before in zip(now, self._before, strict=True))
        self._at, self._before = self._clock(), now
        if total <= 0:
            return
        # A share of all cores, since cores may be hardware threads of which torch uses every other one.
        free = 1 - max(0.0, busy - own) / total
        cores = os.cpu_count() or self.most
        threads = max(1, min(self.most, int(free * max(cores, self.most) + SPARE)))
        if threads != self.threads:
            log.info(
                "computing with %d of %d threads, since other processes use %.1f cores",
                threads,
                self.most,
                (1 - free) * cores,
            )
            self.threads = threads
            self._use(threads)
