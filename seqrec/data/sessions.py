"""Sessions: a user's events without a pause longer than a gap. In one session an item counts once.

One place for imports, training and the service, so that all see the same history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Merged:
    """Of n events, the k that stay [k], rising, and for each the event [k] whose type and weight it gets."""

    kept: Places
    strongest: Places


def session_numbers(users: npt.NDArray[Any], times: npt.NDArray[Any], gap: float) -> Places:
    """[n] The number of each event's session. gap: in the unit of `times`; infinite: all of a user is one session."""
    order = np.lexsort((times, users))
    new = np.ones(len(order), dtype=np.bool_)
    user, time = users[order], times[order]
    new[1:] = (user[1:] != user[:-1]) | (np.diff(time) > gap)
    sessions = np.empty(len(order), dtype=np.int64)
    sessions[order] = np.cumsum(new)
    return sessions


def merge_equal(
    keys: Sequence[npt.NDArray[Any]], times: npt.NDArray[Any], weights: npt.NDArray[Any], last: bool = False
) -> Merged:
    """One event of those with equal keys: the oldest, or the newest with `last`; of equal times the first in order.

    The strongest has the largest weight, and is the newest of several: views come before the purchase.
    """
    count = len(times)
    if not count:
        return Merged(np.zeros(0, np.int64), np.zeros(0, np.int64))
    order = np.lexsort([times, *reversed(keys)])  # stable
    new = np.ones(count, dtype=np.bool_)
    new[1:] = np.logical_or.reduce([key[order][1:] != key[order][:-1] for key in keys])
    begins = np.flatnonzero(new)
    ends = np.append(begins[1:], count) - 1
    kept = order[ends if last else begins]
    strongest = order[np.lexsort((-np.arange(count), -weights[order], np.cumsum(new)))][begins]
    rising = np.argsort(kept)
    return Merged(kept[rising], strongest[rising])
