"""Which thread gets a core first, where there are fewer cores than threads with work."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

_BEHIND = 10
"""Nice levels below the threads that answer: about a tenth of their share of a core."""


def step_back() -> None:
    """Let the other threads of this process go before the one that calls, for as long as it lives (Linux only)."""
    if sys.platform == "linux":
        with suppress(OSError):  # a container may forbid it; then it is as fast as the others
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BEHIND)
