"""One way to write a duration: in shop.toml, windows, keys and intervals."""

from __future__ import annotations

import pytest

from seqrec.data.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10 sec", 10), ("5m", 300), ("30min", 1800), ("1.5 h", 5400), (" 7d ", 604_800), ("2w", 1_209_600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1y", "1 d 2 h", "1e3s", "٣d", "1.s"])
def test_anything_else_is_none(text: str) -> None:
    assert parse_duration(text) is None
