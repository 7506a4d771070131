"""Counts and scores of co-occurrence against the formula, pair by pair."""

from __future__ import annotations

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


@given(SETTINGS, st.lists(SEQUENCE, max_size=5))
def test_counts_are_those_of_the_formula_to_the_last_bit(
    settings: CooccurrenceSettings, sequences: list[list[int]]
) -> None:
    rows, offsets = flat(sequences)
    assert_equal(count(settings, rows, offsets, ITEMS), by_hand(settings, sequences))


@given(SETTINGS, st.lists(SEQUENCE, max_size=5))
def test_counting_in_pieces_changes_nothing(settings: CooccurrenceSettings, sequences: list[list[int]]) -> None:
    rows, offsets = flat(sequences)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence, "PAIRS_AT_ONCE", 2)
        pieces = count(settings, rows, offsets, ITEMS)
    assert_equal(pieces, by_hand(settings, sequences))


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


def test_scale_reads_fading_counts_as_of_now() -> None:
    settings = CooccurrenceSettings(half_life=10, origin=100)
    assert settings.event_weights(np.array([100, 110, 90])).tolist() == [1, 2, 0.5]
    assert settings.scale(120) == 0.25
    assert CooccurrenceSettings().scale(1e12) == 1


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


def test_fading_needs_timestamps_near_the_origin() -> None:
    settings = CooccurrenceSettings(half_life=1.0)
    rows, offsets = flat([[0, 1]])
    with pytest.raises(InputError, match="need the timestamps"):
        count(settings, rows, offsets, ITEMS)
    with pytest.raises(InputError, match="501 half-lives from the origin"):
        count(settings, rows, offsets, ITEMS, np.array([0, 501]))
