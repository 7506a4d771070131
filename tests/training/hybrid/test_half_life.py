"""With a half-life, what people do now outweighs what they did long ago; by default where validation prefers it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from seqrec.data.items import Item
from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import Counts, count
from seqrec.hybrid.scoring import HybridScorer
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Dataset
from training.hybrid.fit import fit_hybrid, lines_of

DAY = 86_400
OLD, USERS, ITEMS = 1_600_000_000, 60, 8
NEW = OLD + 400 * DAY


def dataset(unit: int | None = 1) -> Dataset:
    """Long ago forty users had item 1 after item 0; now twenty have item 2. `unit`: timestamps a second."""
    rng = np.random.default_rng(1)
    events: list[int] = []
    times: list[int] = []
    for user in range(USERS):
        old = user < USERS * 2 // 3
        events += [0, 1 if old else 2, *rng.choice(np.arange(3, ITEMS), 2, replace=False).tolist()]  # two are held out
        times += [(OLD if old else NEW) + DAY * user + place for place in range(4)]
    stamps = None if unit is None else np.array(times) * unit
    items = [Item(f"i{row}", {"title": f"thing {row}"}) for row in range(ITEMS)]
    offsets = 4 * np.arange(USERS + 1)
    return Dataset(items, [f"u{user}" for user in range(USERS)], np.array(events), offsets, stamps)


def terms() -> csr_array:
    return csr_array(np.eye(ITEMS, dtype=np.float32))


def fashion(days: int) -> Dataset:
    """Sixty users had item 1 after item 0; `days` later forty had item 2, and it is what forty others are tested by."""
    early, late = OLD, OLD + days * DAY
    users = [([0, 1, 5, 6], early)] * 60 + [([0, 2, 5, 6], late)] * 40 + [([3, 0, 2, 4], late)] * 40
    items = [Item(f"i{row}", {"title": f"thing {row}"}) for row in range(ITEMS)]
    events = np.array([row for sequence, _ in users for row in sequence])
    times = np.array([begin + place for _, begin in users for place in range(4)])
    return Dataset(items, [f"u{user}" for user in range(len(users))], events, 4 * np.arange(len(users) + 1), times)


@pytest.mark.slow
def test_by_default_validation_decides() -> None:
    alike = fit_hybrid(fashion(400), terms(), None, half_life=0).settings.cooccurrence
    assert (alike.half_life, alike.origin, alike.mass) == (0, 0, 0)
    fading = fit_hybrid(fashion(400), terms(), None)
    assert fading.settings.cooccurrence.half_life == pytest.approx(400 * DAY, rel=0.01)
    assert "an event counts half as much after 400 days" in list(lines_of(fading))
    # Nothing to choose from: the events of a few days, places in a sequence, or no times at all.
    for few in (fashion(20), replace(fashion(400), timestamps=np.arange(560))):
        assert fit_hybrid(few, terms(), None).settings.cooccurrence.half_life == 0
    assert fit_hybrid(dataset(None), terms(), None).settings.cooccurrence.half_life == 0


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1, 1000])
def test_what_is_new_outweighs_what_is_old(unit: int) -> None:
    data = dataset(unit)
    fit = fit_hybrid(data, terms(), None, half_life=30.0 * DAY)
    pairs, times = fit.settings.cooccurrence, data.known_times("valid")
    assert times is not None
    assert (pairs.half_life, pairs.origin) == (30 * DAY, times.max())
    assert pairs.origin == NEW + DAY * (USERS - 1) + 1  # seconds, whatever the unit of the file
    rows, offsets = data.known_events("valid")
    fading = count(pairs, rows, offsets, ITEMS, times).as_read(pairs)
    assert pairs.mass == pytest.approx(fading.events.sum())
    forever = fit_hybrid(data, terms(), None).settings
    alike = count(forever.cooccurrence, rows, offsets, ITEMS)
    after_0 = np.array([0])

    def best(settings: HybridSettings, counts: Counts) -> int:
        return int(HybridScorer.of(settings, counts, terms()).cooccurrence([after_0])[0].argmax())

    assert best(forever, alike) == 1
    assert best(fit.settings, fading) == 2


def test_events_without_times_cannot_fade() -> None:
    with pytest.raises(InputError, match="only if their times are known") as refused:
        fit_hybrid(dataset(None), terms(), None, half_life=DAY)
    assert refused.value.field == "hybrid.half_life_days"
