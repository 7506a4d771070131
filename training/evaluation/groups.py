"""Groups of cases: cold and warm targets, history lengths, target popularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.data.dataset import Cases, Dataset
from training.evaluation.baselines import popularity

Breakdown = Literal["targets", "history length", "target popularity"]

LENGTHS = (1, 3, 5, 10, 20, 50, 100)
EVENTS = (0, 1, 5, 20, 50, 200, 1000)
"""Lower bounds of the buckets, the same for all data, so that reports can be compared."""
EVERYONE = "all targets"


@dataclass(frozen=True, eq=False)
class Group:
    """`members`: [m], the cases of the group."""

    breakdown: Breakdown
    name: str
    members: npt.NDArray[np.bool_]


def groups_of(dataset: Dataset, cases: Cases) -> list[Group]:
    """All cases, then the breakdowns, without empty groups and without a breakdown of one group.

    A case is cold if none of its relevant items has training events. Its popularity is the number of training events of
    its relevant item, or their mean if there are several.
    """
    trained, events = dataset.trained_rows, popularity(dataset)
    warm = np.array([trained[rows].any() for rows in cases.relevant])
    lengths = np.array([len(history) for history in cases.histories])
    popular = np.array([events[rows].mean() for rows in cases.relevant])
    groups = [Group("targets", EVERYONE, np.ones(len(cases), np.bool_))]
    if not warm.all():
        groups += [Group("targets", "warm targets", warm), Group("targets", "cold targets", ~warm)]
    groups += _buckets("history length", lengths, LENGTHS, "items")
    groups += _buckets("target popularity", popular, EVENTS, "events")
    return [group for group in groups if group.members.any()]


def _buckets(breakdown: Breakdown, values: npt.NDArray[np.number], begins: Sequence[int], unit: str) -> list[Group]:
    groups = []
    for begin, end in pairwise([*begins, 0]):
        if end:
            name = f"{begin}-{end - 1} {unit}" if end > begin + 1 else f"{begin} {unit}"
            groups.append(Group(breakdown, name, (values >= begin) & (values < end)))
        else:
            groups.append(Group(breakdown, f"{begin}+ {unit}", values >= begin))
    return groups
