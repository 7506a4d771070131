"""How far histories are from the events of the snapshot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from service.live.state import View
from service.reports.drift import GROUPS, LEAST, Drift, popularity_groups


@dataclass
class Snapshot:
    item_ids: Sequence[str]

    def row_of(self, item_id: str) -> int | None:
        return self.item_ids.index(item_id) if item_id in self.item_ids else None


@dataclass
class Rows:
    """Of a view: what lies at each position."""

    snapshot: Snapshot
    ids: Sequence[str]
    popularity: Any

    def item_id(self, position: int) -> str:
        return self.ids[position]


def view(events: Sequence[float], late: Sequence[tuple[str, float]] = ()) -> View:
    ids = [f"i{row:02d}" for row in range(len(events))]
    popularity = np.array([*events, *(count for _, count in late)], np.float64)
    return cast(View, Rows(Snapshot(ids), [*ids, *(item_id for item_id, _ in late)], popularity))


def test_groups_have_the_same_number_of_events() -> None:
    group, expected = popularity_groups(np.array([5.0] * 40 + [0.0] * 3))
    assert expected == pytest.approx([0.1] * GROUPS)
    assert np.bincount(group[:40]).tolist() == [4] * GROUPS
    assert group[40:].tolist() == [-1] * 3
    group, expected = popularity_groups(np.array([10.0, 80.0, 10.0]))
    assert group[1] < group[0] < group[2]
    assert expected.sum() == pytest.approx(1)
    assert popularity_groups(np.zeros(2))[0].tolist() == [-1, -1]


def test_histories_like_the_events_do_not_drift() -> None:
    events = np.arange(1.0, 41.0)
    served = view(events.tolist())
    drift = Drift(served)
    assert math.isnan(drift.index)
    chance = np.random.default_rng(1)
    drift.add(served, chance.choice(40, LEAST - 1, p=events / events.sum()))
    assert math.isnan(drift.index), "too few"
    drift.add(served, chance.choice(40, 20_000, p=events / events.sum()))
    assert drift.index < 0.02
    for _ in range(20):
        drift.add(served, np.zeros(20_000, np.int64))  # the least popular item alone
    assert drift.index > 1


def test_items_are_known_by_their_events_when_the_snapshot_began_to_answer() -> None:
    """Those that were replaced before or after it are, those that were posted since are cold."""
    before = view([3, 0, 0], [("i01", 4.0)])
    drift = Drift(before)
    assert drift.add(before, np.array([0, 1, 2, 3])) == (3, 1)
    after = cast(View, Rows(cast(Any, before.snapshot), ["i00", "i01", "i02", "i00", "new"], None))
    assert drift.add(after, np.array([3, 4, 2])) == (1, 2)
    assert drift.add(after, np.array([], np.int64)) == (0, 0)


def test_without_events_there_is_nothing_to_compare_with() -> None:
    served = view([0, 0])
    drift = Drift(served)
    assert drift.add(served, np.zeros(2 * LEAST, np.int64)) == (0, 2 * LEAST)
    assert math.isnan(drift.index)
