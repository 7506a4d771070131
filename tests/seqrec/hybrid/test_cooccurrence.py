"""Counts and scores of co-occurrence against the formula, pair by pair."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.errors import InputError
from seqrec.hybrid import cooccurrence
from seqrec.hybrid.cooccurrence import (
    Changes,
    CooccurrenceSettings,
    Counts,
    count,
    history_matrix,
    slice_changes,
    with_half_life,
)

ITEMS = 5
SEQUENCE = st.lists(st.integers(0, ITEMS - 1), max_size=9)
SETTINGS = st.builds(
    CooccurrenceSettings,
    window=st.integers(1, 4),
    distance_power=st.sampled_from([0.0, 0.5, 1.0]),
    backward=st.sampled_from([0.0, 0.5, 1.0]),
    last=st.integers(1, 4),
    recency_power=st.sampled_from([0.0, 1.0]),
    source_power=st.sampled_from([0.0, 0.5]),
)
FADING = st.builds(CooccurrenceSettings, window=st.integers(1, 4), half_life=st.just(10.0), origin=st.just(5.0))


def flat(sequences: list[list[int]]) -> tuple[cooccurrence.Rows, cooccurrence.Rows]:
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return np.array([row for sequence in sequences for row in sequence], dtype=np.int64), offsets


def by_hand(settings: CooccurrenceSettings, sequences: list[list[int]], times: list[list[int]] | None = None) -> Counts:
    pairs, events = np.zeros((ITEMS, ITEMS)), np.zeros(ITEMS)
    weights = settings.distance_weights()
    for number, sequence in enumerate(sequences):
        for later, item in enumerate(sequence):
            event = 1.0
            if times is not None and settings.half_life:
                event = 2.0 ** ((times[number][later] - settings.origin) / settings.half_life)
            events[item] += event
            for earlier in range(max(0, later - settings.window), later):
                if sequence[earlier] != item:
                    pairs[sequence[earlier], item] += weights[later - earlier - 1] * event
                    pairs[item, sequence[earlier]] += settings.backward * weights[later - earlier - 1] * event
    return Counts(cooccurrence.csr_array(pairs), events)


def assert_equal(found: Counts, expected: Counts, exact: bool = True) -> None:
    check = np.array_equal if exact else np.allclose
    assert check(found.pairs.toarray(), expected.pairs.toarray())
    assert check(found.events, expected.events)


@pytest.mark.slow
@given(SETTINGS, st.lists(SEQUENCE, max_size=5))
def test_counts_are_those_of_the_formula_to_the_last_bit(
    settings: CooccurrenceSettings, sequences: list[list[int]]
) -> None:
    rows, offsets = flat(sequences)
    assert_equal(count(settings, rows, offsets, ITEMS), by_hand(settings, sequences))


@pytest.mark.slow
@given(SETTINGS, st.lists(SEQUENCE, max_size=5))
def test_counting_in_pieces_changes_nothing(settings: CooccurrenceSettings, sequences: list[list[int]]) -> None:
    rows, offsets = flat(sequences)
    whole = count(settings, rows, offsets, ITEMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence, "PAIRS_AT_ONCE", 2)
        pieces = count(settings, rows, offsets, ITEMS)
    assert_equal(pieces, by_hand(settings, sequences))
    for name in ("indptr", "indices", "data"):  # bit for bit, in the same order
        assert np.array_equal(getattr(pieces.pairs, name), getattr(whole.pairs, name))


def size_and_peak() -> tuple[int, int]:
    """Bytes of the pairs counted, and what was held at most meanwhile."""
    draw = np.random.default_rng(1)
    rows, offsets = draw.integers(0, 3000, 60_000), np.arange(0, 60_001, 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence, "PAIRS_AT_ONCE", 2**16)
        tracemalloc.start()
        found = count(CooccurrenceSettings(), rows, offsets, 3000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found.pairs.data.nbytes + found.pairs.indices.nbytes, peak


@pytest.mark.slow
def test_a_sum_of_pairs_is_held_once() -> None:
    """Memory of counting is that of the result and of one piece.

    In a process of its own: tracemalloc counts every thread, also those that earlier tests left behind.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        size, peak = alone.submit(size_and_peak).result()
    assert size > 25_000_000
    assert peak < 1.5 * size


@pytest.mark.slow
@given(FADING, SEQUENCE)
def test_with_a_half_life_a_pair_weighs_as_its_later_event(settings: CooccurrenceSettings, sequence: list[int]) -> None:
    times = [3 * place for place in range(len(sequence))]
    rows, offsets = flat([sequence])
    found = count(settings, rows, offsets, ITEMS, np.array(times))
    assert_equal(found, by_hand(settings, [sequence], [times]), exact=False)


@st.composite
def two_states(draw: st.DrawFn) -> tuple[list[list[int]], list[list[bool]], list[list[bool]]]:
    """Sequences, and which of their events are there before and now."""
    sequences = draw(st.lists(SEQUENCE, min_size=1, max_size=4))
    marks = [
        draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=len(s), max_size=len(s))) for s in sequences
    ]
    return sequences, [[b for b, _ in m] for m in marks], [[n for _, n in m] for m in marks]


@pytest.mark.slow
@given(SETTINGS, two_states())
def test_changes_lead_from_one_count_to_the_other(
    settings: CooccurrenceSettings, states: tuple[list[list[int]], list[list[bool]], list[list[bool]]]
) -> None:
    """Events put in anywhere, taken out, or both at once."""
    sequences, before, now = states
    rows, offsets = flat(sequences)
    there, later = (np.array([mark for marks in state for mark in marks], dtype=np.bool_) for state in (before, now))
    changes = slice_changes(settings, rows, offsets, there, later)

    def counted(state: list[list[bool]]) -> Counts:
        kept = [[row for row, mark in zip(*pair, strict=True) if mark] for pair in zip(sequences, state, strict=True)]
        return count(settings, *flat(kept), ITEMS)

    found = counted(before) + changes
    assert_equal(found, counted(now))
    assert found.pairs.nnz == np.count_nonzero(found.pairs.toarray())
    assert_equal(found + -changes, counted(before))


@pytest.mark.slow
@given(SETTINGS, st.lists(SEQUENCE, min_size=1, max_size=4), st.lists(SEQUENCE, max_size=3))
def test_scores_are_those_of_the_formula(
    settings: CooccurrenceSettings, sequences: list[list[int]], histories: list[list[int]]
) -> None:
    counts = by_hand(settings, sequences)
    expected = np.zeros((len(histories), ITEMS))
    for number, history in enumerate(histories):
        newest = history[::-1][: settings.last]
        weights = [k**-settings.recency_power for k in range(1, len(newest) + 1)]
        for item, weight in zip(newest, weights, strict=True):
            normal = max(counts.events[item], 1.0) ** settings.source_power
            expected[number] += weight / sum(weights) / normal * counts.pairs.toarray()[item]
    read = history_matrix(settings, [np.array(history, dtype=np.int64) for history in histories], counts.events)
    assert (read @ counts.pairs).toarray() == pytest.approx(expected)


def test_fading_counts_are_read_in_proportion_to_all_events() -> None:
    settings = with_half_life(CooccurrenceSettings(), 10, np.array([80, 90, 100]))
    assert settings.event_weights(np.array([100, 110, 90])).tolist() == [1, 2, 0.5]
    assert (settings.origin, settings.mass) == (100, 1.75)
    assert settings.scale(3.5) == 0.5
    assert CooccurrenceSettings().scale(1e12) == settings.scale(0) == 1
    rows, offsets = flat([[0, 1, 2]])
    found = count(settings, rows, offsets, ITEMS, np.array([100, 110, 120])).as_read(settings)
    assert found.events.tolist() == [0.25, 0.5, 1.0, 0, 0]
    assert found.pairs.toarray()[0].tolist() == [0, 0.5, 0.5, 0, 0]  # the time that passed changes nothing


def test_what_cancels_out_is_left_out() -> None:
    rows = np.array([0, 1, 0, 2], dtype=np.int64)
    changes = Changes(rows, rows[::-1].copy(), np.array([1.0, 2, -1, 0]), rows, np.array([1.0, 1, -1, 1]))
    found = Changes.joined([changes, -changes]).summed()
    assert len(found.values) == len(found.event_values) == 0
    assert changes.summed().events.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 0}, "at least 1"),
        ({"last": 0}, "at least 1"),
        ({"backward": 1.5}, "1.5 is not within 0 and 1"),
        ({"source_power": -1.0}, "-1.0 is not a number from 0 up"),
        ({"half_life": float("nan")}, "nan is not a number from 0 up"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CooccurrenceSettings(**fields)  # type: ignore[arg-type]


def test_fading_needs_timestamps() -> None:
    settings = CooccurrenceSettings(half_life=1.0)
    rows, offsets = flat([[0, 1]])
    with pytest.raises(InputError, match="need timestamps"):
        count(settings, rows, offsets, ITEMS)


def test_events_far_from_the_origin_are_forgotten_or_weigh_as_at_a_limit() -> None:
    settings = CooccurrenceSettings(half_life=1.0)
    assert settings.event_weights(np.array([-1e9, -22.0, 30.0, 31.0, 1e9])).tolist() == [0, 0, 2**30, 2**30, 2**30]


FADING_TIMES = st.lists(st.integers(-50, 60), max_size=8).map(sorted)


@pytest.mark.slow
@given(FADING, st.lists(FADING_TIMES, min_size=1, max_size=4), st.data())
def test_fading_counts_are_exact_whatever_the_order(
    settings: CooccurrenceSettings, times: list[list[int]], data: st.DataObject
) -> None:
    """Counting all, and counting a part and the rest after it, give the same bits; and what goes leaves nothing."""
    sequences = [[data.draw(st.integers(0, ITEMS - 1)) for _ in own] for own in times]
    rows, offsets = flat(sequences)
    stamps = np.array([time for own in times for time in own], dtype=np.float64)
    all_of_them = count(settings, rows, offsets, ITEMS, stamps)
    none, every = np.zeros(len(rows), np.bool_), np.ones(len(rows), np.bool_)
    part = np.array([data.draw(st.booleans()) for _ in rows], dtype=np.bool_)
    found = Counts(cooccurrence.csr_array((ITEMS, ITEMS)), np.zeros(ITEMS))
    for before, now in ((none, part), (part, every)):
        found += slice_changes(settings, rows, offsets, before, now, stamps)
    assert_equal(found, all_of_them)
    found += slice_changes(settings, rows, offsets, every, none, stamps)
    assert found.pairs.nnz == 0
    assert not found.events.any()
