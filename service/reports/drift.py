"""How the histories of requests differ from the events that the served snapshot was made with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from service.live.state import View

GROUPS = 10
"""Of items by popularity, each with about the same number of the snapshot's events."""
LEAST = 1000
"""Items of histories; with fewer there is no figure."""
_REMEMBERED = 100_000
"""Items of histories; with more, earlier ones count half."""


class Drift:
    """Against the events as of when this view was made: that of a snapshot which has just begun to answer."""

    def __init__(self, view: View) -> None:
        self.snapshot = view.snapshot
        self._group, self._expected = popularity_groups(_events_by_row(view))
        self._found = np.zeros(GROUPS)

    def add(self, view: View, history: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Positions of a history in a view of the same snapshot -> how many items had events, and how many had none."""
        rows = history.copy()
        for place in np.flatnonzero(rows >= len(self._group)):
            row = self.snapshot.row_of(view.item_id(int(rows[place])))
            rows[place] = -1 if row is None else row
        groups = self._group[rows[rows >= 0]]
        groups = groups[groups >= 0]
        if self._found.sum() > _REMEMBERED:
            self._found /= 2
        self._found += np.bincount(groups, minlength=GROUPS)
        return len(groups), len(history) - len(groups)

    @property
    def index(self) -> float:
        """The population stability index over the groups: 0 for histories like the events; NaN while too few came."""
        if self._found.sum() < LEAST:
            return math.nan
        there = self._expected > 0
        expected, found = self._expected[there], self._found[there] + 0.5
        found /= found.sum()
        return float(np.sum((found - expected) * np.log(found / expected)))


def popularity_groups(events: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """events: [n] -> the group of each, 0 the most popular, -1 without events; the share of events in each group."""
    group = np.full(len(events), -1, np.int8)
    order = np.argsort(-events, kind="stable")[: np.count_nonzero(events > 0)]
    if not len(order):
        return group, np.zeros(GROUPS)
    shares = events[order] / events[order].sum()
    group[order] = np.minimum((np.cumsum(shares) - shares / 2) * GROUPS, GROUPS - 1).astype(np.int8)
    return group, np.bincount(group[order], shares, GROUPS).astype(np.float64)


def _events_by_row(view: View) -> npt.NDArray[np.float64]:
    """[n] Of the snapshot's items, also of those that were replaced since."""
    n = len(view.snapshot.item_ids)
    events = view.popularity
    by_row = events[:n].copy()
    for late in np.flatnonzero(events[n:]):
        row = view.snapshot.row_of(view.item_id(n + int(late)))
        if row is not None:
            by_row[row] += events[n + late]
    return by_row
