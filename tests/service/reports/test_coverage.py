"""Different answered items are counted once, by all workers together, for a day."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.reports.coverage import HOURS, AnsweredItems

NOW = 1.8e9


def test_items_count_once_for_a_day() -> None:
    answered = AnsweredItems()
    assert answered.count(NOW) == 0
    answered.add(["a", "b", "a"], NOW)
    answered.add(["b", "c"], NOW + 3600)
    answered.add([], NOW)
    assert answered.count(NOW + 3600) == pytest.approx(3, abs=0.01)
    assert answered.count(NOW + 3600 * HOURS) == pytest.approx(2, abs=0.01)
    assert answered.count(NOW + 3600 * (HOURS + 1)) == 0


def test_workers_count_together(tmp_path: Path) -> None:
    one, other = AnsweredItems(str(tmp_path)), AnsweredItems(str(tmp_path))
    one.add(["a", "b"], NOW)
    other.add(["b", "c"], NOW)
    late = AnsweredItems(str(tmp_path))
    assert [each.count(NOW) for each in (one, other, late)] == pytest.approx([3, 3, 3], abs=0.01)


def test_items_that_share_a_slot_are_corrected_for() -> None:
    answered = AnsweredItems()
    answered.add((f"item-{number:08d}" for number in range(300_000)), NOW)
    assert answered.count(NOW) == pytest.approx(300_000, rel=0.003)
