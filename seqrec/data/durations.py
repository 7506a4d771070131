"""Durations as people write them: "30min", "24h", "7d"."""

from __future__ import annotations

import re

SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]+)\s*")


def parse_duration(text: str) -> float | None:
    """The seconds of "90s", "30min", "1.5 h", "7d", "2w"; None for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None or found[2] not in SECONDS:
        return None
    return float(found[1]) * SECONDS[found[2]]
