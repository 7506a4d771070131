"""The split into training, validation and test events: the rule, and where it cuts each user's sequence.

leave-one-out  the last item of a user is for test, the one before it for validation (as in the papers).
time           one moment for all users: events before it train, later events of users with a history are for test.
last-basket    the last basket of a user is for test, the one before it for validation; every item of the basket is to
               be found. A basket is events of one timestamp, or at most `basket_gap` after the one before.

Sequences are oldest first, so a split is two cuts per user: [0, train_end) trains, [train_end, valid_end) validates,
[valid_end, ...) tests. Under the per-user rules a user with fewer than three items (baskets) is only trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import ConfigDict, Field

from seqrec.errors import InputError

SplitBy = Literal["leave-one-out", "time", "last-basket"]
Targets = Literal["first", "all"]
Ends = npt.NDArray[np.int64]
Timestamps = npt.NDArray[np.int64] | npt.NDArray[np.float64]


Share = Annotated[float, Field(gt=0, lt=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class SplitConfig:
    """The split rule: the table [data] of a training run, and options of `seqrec evaluate`.

    time: validation begins at `valid_from` and test at `test_from` (timestamps of the file). If both are 0, the last
    `test_share` of all events is tested on and the `valid_share` before it validates. `targets`: whether the first item
    of each user in the period is to be found, or all of them. last-basket: `basket_gap` in units of the timestamps.
    withheld: share of items whose events are all left out, but for those in test, where they are cold; leave-one-out.
    """

    split: SplitBy = "leave-one-out"
    targets: Targets = "first"
    valid_share: Share = 0.1
    test_share: Share = 0.1
    valid_from: float = 0.0
    test_from: float = 0.0
    basket_gap: Annotated[float, Field(ge=0)] = 0.0
    withheld: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.valid_share + self.test_share >= 1:
            raise InputError("with test_share it leaves nothing to train on", "data.valid_share")
        if self.split == "time" and bool(self.valid_from) != bool(self.test_from):
            raise InputError("give both moments, or neither and the shares decide", "data.valid_from, data.test_from")
        if self.split == "time" and self.test_from and not self.valid_from < self.test_from:
            raise InputError(f"{self.valid_from} is not before test_from = {self.test_from}", "data.valid_from")
        if self.split != "time" and (self.targets != "first" or self.valid_from or self.test_from):
            raise InputError(f'these are for split = "time", not {self.split}', "data.targets, valid_from, test_from")
        if self.split != "last-basket" and self.basket_gap:
            raise InputError(f'this is for split = "last-basket", not {self.split}', "data.basket_gap")
        if self.split != "leave-one-out" and self.withheld:
            raise InputError(f'this is for split = "leave-one-out", not {self.split}', "data.withheld")

    def __str__(self) -> str:
        if self.split == "time":
            return f"time, {'first later item' if self.targets == 'first' else 'all later items'}"
        if self.split == "last-basket":
            return f"last-basket{f', gap {self.basket_gap:g}' if self.basket_gap else ''}"
        return self.split + (f", {100 * self.withheld:g} % of items withheld" if self.withheld else "")


LEAVE_ONE_OUT = SplitConfig()


@dataclass(frozen=True, eq=False)
class Cuts:
    """train_end, valid_end: [users], positions in each user's sequence. moments: the timestamps of a split by time."""

    train_end: Ends
    valid_end: Ends
    moments: tuple[float, float] | None = None


def cut(rule: SplitConfig, offsets: Ends, timestamps: Timestamps | None) -> Cuts:
    """Where `rule` cuts the sequences `offsets[u]:offsets[u + 1]`. `timestamps`: [events], ascending within each user.

    Raises InputError for a rule that needs timestamps where there are none, and where all timestamps are equal.
    """
    lengths = np.diff(offsets)
    if rule.split == "leave-one-out":
        enough = lengths > 2
        return Cuts(np.where(enough, lengths - 2, lengths), np.where(enough, lengths - 1, lengths))
    if timestamps is None:
        raise InputError(f"{rule.split} needs the timestamps of the events, and this data has none", "data.split")
    users = np.repeat(np.arange(len(lengths)), lengths)
    if rule.split == "time":
        moments = _moments(rule, timestamps)
        before = [np.bincount(users[timestamps < moment], minlength=len(lengths)) for moment in moments]
        return Cuts(before[0], before[1], moments)
    # An event begins a basket if the user's event before it is further back than the gap.
    begins = np.ones(len(users), dtype=np.bool_)
    begins[1:] = (users[1:] != users[:-1]) | (timestamps[1:] - timestamps[:-1] > rule.basket_gap)
    baskets = np.bincount(users[begins], minlength=len(lengths))
    number = np.cumsum(begins) - 1 - np.repeat(np.cumsum(baskets) - baskets, lengths)  # within the user, from 0
    back = np.repeat(baskets, lengths) - number  # the last basket: 1
    tests, validates = (np.bincount(users[back == which], minlength=len(lengths)) for which in (1, 2))
    enough = baskets > 2
    test = np.where(enough, tests, 0)
    return Cuts(lengths - test - np.where(enough, validates, 0), lengths - test)


def _moments(rule: SplitConfig, timestamps: Timestamps) -> tuple[float, float]:
    if rule.test_from:
        return rule.valid_from, rule.test_from
    rising = np.sort(timestamps)
    first = len(rising) - max(1, round(len(rising) * rule.test_share))
    test = rising[first]
    valid = rising[max(0, first - max(1, round(len(rising) * rule.valid_share)))]
    if not rising[0] < valid < test:
        raise InputError(
            f"the shares give no split by time: validation and test would begin at {valid} and {test}, and the first "
            f"event is at {rising[0]}. Set valid_from and test_from, larger shares, or choose another split",
            "data.split",
        )
    return valid.item(), test.item()
