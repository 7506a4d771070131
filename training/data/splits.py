"""Which events train, which validate and which test: the rule, and where it cuts each user's sequence.

leave-one-out  the last item of a user tests, the one before it validates (the papers').
time           one moment for everybody: what came before it trains, what users with a history had after it tests.
last-basket    the last basket of a user tests, the one before it validates; every item of it is to be found. A basket
               is events of one timestamp, or no further than `basket_gap` from the one before.

Sequences are oldest first, so a rule is two cuts a user: [0, train_end) trains, [train_end, valid_end) validates,
[valid_end, ...) tests. Under the per-user rules a user with fewer than three items (baskets) trains only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from seqrec.errors import InputError

SplitBy = Literal["leave-one-out", "time", "last-basket"]
Targets = Literal["first", "all"]
Ends = npt.NDArray[np.int64]
Timestamps = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplitConfig:
    """The table [data] of a training run, and the options of `seqrec evaluate`.

    time: test and validation begin at `test_from` and `valid_from` (timestamps of the file), or where these are 0 such
    that the last `test_share` of all events tests and the `valid_share` before it validates. `targets`: of what a user
    had then, the first item is to be found, or all of them. last-basket: `basket_gap` in units of the timestamps.
    """

    split: SplitBy = "leave-one-out"
    targets: Targets = "first"
    valid_share: float = 0.1
    test_share: float = 0.1
    valid_from: float = 0.0
    test_from: float = 0.0
    basket_gap: float = 0.0

    def __post_init__(self) -> None:
        if self.split not in get_args(SplitBy):
            raise InputError(f"{self.split!r} is not one of {', '.join(get_args(SplitBy))}", "data.split")
        if self.targets not in get_args(Targets):
            raise InputError(f"{self.targets!r} is not one of {', '.join(get_args(Targets))}", "data.targets")
        for name in ("valid_share", "test_share"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{getattr(self, name)} is not a share between 0 and 1", f"data.{name}")
        if self.valid_share + self.test_share >= 1:
            raise InputError("with test_share it leaves nothing to train on", "data.valid_share")
        if not self.basket_gap >= 0:
            raise InputError(f"{self.basket_gap} is below 0", "data.basket_gap")
        if self.split == "time" and bool(self.valid_from) != bool(self.test_from):
            raise InputError("give both moments, or neither and the shares decide", "data.valid_from, data.test_from")
        if self.split == "time" and self.test_from and not self.valid_from < self.test_from:
            raise InputError(f"{self.valid_from} is not before test_from = {self.test_from}", "data.valid_from")
        if self.split != "time" and (self.targets != "first" or self.valid_from or self.test_from):
            raise InputError(f'only split = "time" knows it, not {self.split}', "data.targets, valid_from, test_from")
        if self.split != "last-basket" and self.basket_gap:
            raise InputError(f'only split = "last-basket" knows it, not {self.split}', "data.basket_gap")

    def __str__(self) -> str:
        if self.split == "time":
            return f"time, {'first later item' if self.targets == 'first' else 'all later items'}"
        if self.split == "last-basket":
            return f"last-basket{f', gap {self.basket_gap:g}' if self.basket_gap else ''}"
        return self.split


LEAVE_ONE_OUT = SplitConfig()


@dataclass(frozen=True, eq=False)
class Cuts:
    """train_end, valid_end: [users], places in each user's own sequence. moments: where a split by time cuts."""

    train_end: Ends
    valid_end: Ends
    moments: tuple[float, float] | None = None


def cut(rule: SplitConfig, offsets: Ends, timestamps: Timestamps | None) -> Cuts:
    """Where `rule` cuts the sequences `offsets[u]:offsets[u + 1]`. `timestamps`: [events], rising within each user.

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
    # An event begins a basket where its user's one before lies further back than the gap.
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
            "the timestamps do not tell the last events from the first: validation and test would begin at "
            f"{valid} and {test}, and the first event is of {rising[0]}. Say valid_from and test_from, larger shares, "
            "or take another split",
            "data.split",
        )
    return valid.item(), test.item()
