"""The times of events, from which the events of each item within any window are counted exactly.

Arrays in the order of time, a base and the changes since. A window is the end of each array, found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class EventTimes:
    """times: [m], ascending; items: [m], their numbers; values: [m], added to the events of the item, None: 1."""

    times: Floats
    items: Numbers
    values: Floats | None = None

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def empty(cls) -> EventTimes:
        return cls(np.zeros(0), np.zeros(0, np.int32))

    @classmethod
    def of(cls, times: Floats, items: npt.NDArray[np.integer], values: Floats | None = None) -> EventTimes:
        """Sorts by time, then item. With values, each time and item occurs once, and none has the sum 0."""
        order = np.lexsort((items, times))
        times, numbers = times[order], items[order].astype(np.int32)
        if values is None or not len(times):
            return cls(times, numbers, values)
        begins = np.flatnonzero(np.concatenate([[True], (np.diff(times) != 0) | (np.diff(numbers) != 0)]))
        sums = np.add.reduceat(values[order], begins)
        kept = sums != 0
        return cls(times[begins][kept], numbers[begins][kept], sums[kept])

    @classmethod
    def sum_of(cls, parts: Sequence[EventTimes]) -> EventTimes:
        """The parts in one, with values."""
        values = [np.ones(len(part)) if part.values is None else part.values for part in parts]
        times, items = [part.times for part in parts], [part.items for part in parts]
        return cls.of(np.concatenate(times), np.concatenate(items), np.concatenate(values))

    def repeated(self) -> EventTimes:
        """Each event separately, without values, which must be whole and positive."""
        if self.values is None:
            return self
        counts = self.values.astype(np.int64)
        return EventTimes(np.repeat(self.times, counts), np.repeat(self.items, counts))

    def newest(self, time: float) -> float | None:
        """Of those up to `time`; None if there is none."""
        end = int(np.searchsorted(self.times, time, "right"))
        return float(self.times[end - 1]) if end else None

    def since(self, time: float, size: int) -> Floats:
        """[size] Events of each item from `time` on."""
        return self._counted(slice(int(np.searchsorted(self.times, time)), None), size)

    def before(self, time: float, size: int) -> Floats:
        """[size] Events of each item before `time`."""
        return self._counted(slice(0, int(np.searchsorted(self.times, time))), size)

    def _counted(self, part: slice, size: int) -> Floats:
        values = None if self.values is None else self.values[part]
        return np.bincount(self.items[part], values, size).astype(np.float64)
