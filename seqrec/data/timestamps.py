"""Exact parsing of timestamps, and checks that those of one data set can be compared."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from seqrec.errors import InputError

Timestamps = npt.NDArray[np.int64] | npt.NDArray[np.float64]

MAX_EXACT_FLOAT = 2**53
"""Larger whole numbers are not all distinct in float64."""

UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
FIRST_SECOND, LAST_SECOND = 631_152_000, 4_102_444_800
"""1990 and 2100. Timestamps of these years in different units do not overlap, so the size shows the unit."""

_MEANT = (
    ("seconds", 1.0, 1e11),
    ("milliseconds", 1e3, 1e14),
    ("microseconds", 1e6, 1e17),
    ("nanoseconds", 1e9, np.inf),
)
"""Since 1970, and from where on a number cannot be meant so: 1e11 seconds are in the year 5138."""

_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")


def parse_number(text: str) -> int | float:
    """A number as it is written: "120" is whole, "120.0" is a float. Raises InputError.

    Unlike `int` and `float` it accepts no underscores, no digits of other scripts, no infinity.
    """
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{_shortened(text)} is not a number")
    try:
        return int(text)
    except ValueError:  # not whole, or more than 4,300 digits
        value = float(text)
    if not math.isfinite(value):
        raise InputError(f"{_shortened(text)} is too large for a number")
    return value


def parse_timestamp(value: object) -> int | float:
    """A timestamp. Whole numbers become int however they are written (1.5e18, 881250949.0), so none loses digits.

    Raises InputError for anything that is not a finite number, or a whole number that does not fit 64 bits.
    """
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, datetime.date):
        raise InputError(f"{value} is a date; write it as a number, such as seconds since 1970", "timestamp")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is not a finite number", "timestamp")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{value!r} is not a finite number", "timestamp")
        if not value.is_integer():
            return value
        value = int(value)
    if not -(2**63) <= value < 2**63:
        written = f"{value}" if value.bit_length() < 100 else f"{float(value):g}" if value.bit_length() < 1000 else "it"
        raise InputError(f"{written} does not fit 64 bits", "timestamp")
    return value


def as_array(times: Sequence[int | float]) -> Timestamps:
    """int64 if all are whole numbers, because nanoseconds since 1970 would lose digits as floats; else float64."""
    if all(isinstance(time, int) for time in times):
        return np.array(times, dtype=np.int64)
    return np.array(times, dtype=np.float64)


def incomparable(times: Sequence[int | float]) -> tuple[list[int], str] | None:
    """The timestamps, by position, that cannot be compared exactly with the others, and why. None if all can.

    Fractions need floats, and whole numbers beyond 2^53 need integers: where both occur, the rarer kind is named.
    """
    fractions = [place for place, time in enumerate(times) if not isinstance(time, int)]
    large = [place for place, time in enumerate(times) if abs(time) > MAX_EXACT_FLOAT] if fractions else []
    if not large:
        return None
    return rarer_kind(fractions, large)


def rarer_kind(fractions: list[int], large: list[int]) -> tuple[list[int], str]:
    """The shorter of two lists of positions, and why its timestamps are rejected."""
    if len(fractions) <= len(large):
        kind, others = "a fraction", f"{len(large)} whole numbers beyond 2^53"
    else:
        kind, others = "a whole number beyond 2^53", f"{len(fractions)} fractions"
    reason = f"{kind} among {others}, which no number type compares exactly; write all as whole numbers of one unit"
    return min(fractions, large, key=len), reason


def of_unit(times: Timestamps, unit: str) -> npt.NDArray[np.bool_]:
    """Which timestamps are between 1990 and 2100 if they are in `unit`."""
    each = UNITS[unit]
    return (times >= FIRST_SECOND * each) & (times < LAST_SECOND * each)


def count_units(times: Timestamps) -> dict[str, int]:
    """The number of timestamps between 1990 and 2100 by unit."""
    counts = {unit: int(np.count_nonzero(of_unit(times, unit))) for unit in UNITS}
    return {unit: count for unit, count in counts.items() if count}


def mixed_units(counts: dict[str, int]) -> str | None:
    """An error message if the counts of `count_units` have several units, else None."""
    if len(counts) < 2:
        return None
    found = " and ".join(f"{count:,} in {unit}" for unit, count in counts.items())
    return f"of several units: {found}, which cannot be put in one order; convert them to one unit"


def _from_text(text: str) -> int | float:
    if not _NUMBER.fullmatch(text):
        if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
            raise InputError(f"{text.strip()} is not a finite number", "timestamp")
        raise InputError(f"{_shortened(text)} is not a number", "timestamp")
    if not abs(float(text)) < 2.0**65:  # checked first, because the exact conversion of 1e999999 is slow
        raise InputError(f"{text[:40]} does not fit 64 bits", "timestamp")
    try:
        return int(text)
    except ValueError:
        exact = Decimal(text.strip())
    if exact == exact.to_integral_value():
        return int(exact)
    if abs(exact) > MAX_EXACT_FLOAT:
        raise InputError(f"{_shortened(text)} has more digits than 64 bits keep; write a whole number", "timestamp")
    return float(text)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def unix_seconds(timestamps: Timestamps) -> tuple[str, npt.NDArray[np.float64]]:
    """What unit numbers of this size are in, and the same in seconds."""
    largest = float(np.abs(timestamps).max(initial=0))
    unit, each = next((name, each) for name, each, end in _MEANT if largest < end or end == np.inf)
    return unit, np.asarray(timestamps, dtype=np.float64) / each
