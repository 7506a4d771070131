"""Counts that follow changes are, to the last bit, the counts of what is left when everything is counted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.errors import CatalogueError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts, EventChanges, EventCounts, count_sequences


class E(NamedTuple):
    """An event of a user's sequence: sorted by time, then number."""

    timestamp: float
    number: int
    item_id: str


def changes_of(after: int, seq: int, users: Sequence[tuple[set[E], set[E]]]) -> EventChanges:
    """From what each user had to what each user has."""
    merged = [sorted(before | now) for before, now in users]
    return EventChanges(
        after,
        seq,
        [event.item_id for events in merged for event in events],
        np.concatenate([[0], np.cumsum([len(events) for events in merged])]).astype(np.int64),
        np.array([event.timestamp for events in merged for event in events], dtype=np.float64),
        np.array([e in before for (before, _), m in zip(users, merged, strict=True) for e in m], dtype=np.bool_),
        np.array([e in now for (_, now), m in zip(users, merged, strict=True) for e in m], dtype=np.bool_),
        np.ones(sum(map(len, merged))),
    )


def brute_force(
    settings: CooccurrenceSettings, users: Sequence[set[E]]
) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """Events of each item, and what each pair counts, by the formula."""
    events: dict[str, float] = {}
    pairs: dict[tuple[str, str], float] = {}
    weights = settings.distance_weights()
    for user in users:
        items = [event.item_id for event in sorted(user)]
        times = [event.timestamp for event in sorted(user)]
        for place, later in enumerate(items):
            weight = settings.event_weights(np.array([times[place]]))[0]
            events[later] = events.get(later, 0) + weight
            for distance in range(1, min(place, settings.window) + 1):
                earlier = items[place - distance]
                if earlier != later:
                    value = settings.pair_weights(weights[distance - 1], weight)
                    pairs[earlier, later] = pairs.get((earlier, later), 0) + value
                    pairs[later, earlier] = pairs.get((later, earlier), 0) + settings.backward * value
    return events, {pair: value for pair, value in pairs.items() if value}


def as_dicts(base: BaseCounts) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    pairs = {
        (base.item_ids[row], base.item_ids[column]): value
        for row in range(len(base.item_ids))
        for column, value in zip(
            base.columns[base.offsets[row] : base.offsets[row + 1]].tolist(),
            base.values[base.offsets[row] : base.offsets[row + 1]].tolist(),
            strict=True,
        )
    }
    return dict(zip(base.item_ids, base.events.tolist(), strict=True)), pairs


def as_read(counts: EventCounts) -> dict[tuple[str, str], float]:
    pairs: dict[tuple[str, str], float] = {}
    for number, (columns, values) in enumerate(counts.read(range(len(counts))).rows):
        for column, value in zip(columns.tolist(), values.tolist(), strict=True):
            pair = counts.item_id(number), counts.item_id(column)
            pairs[pair] = pairs.get(pair, 0) + value
    return {pair: value for pair, value in pairs.items() if value}


def as_windows(counts: EventCounts, time: float) -> dict[str, float]:
    found = counts.since(time).tolist()
    assert (counts.since(time) + counts.before(time)).tolist() == counts.since(-np.inf).tolist()
    return {counts.item_id(number): value for number, value in enumerate(found) if value}


def in_window(users: Sequence[set[E]], time: float) -> dict[str, float]:
    return dict(Counter(event.item_id for user in users for event in user if event.timestamp >= time))


SETTINGS = st.builds(
    CooccurrenceSettings,
    window=st.integers(1, 5),
    distance_power=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    backward=st.sampled_from([0.0, 0.5, 1.0]),
    half_life=st.sampled_from([0.0, 0.0, 2.0]),
    origin=st.just(3.0),
)


@pytest.mark.slow
@settings(deadline=None)  # on a busy machine
@given(SETTINGS, st.data())
def test_following_equals_counting_again(chosen: CooccurrenceSettings, data: st.DataObject) -> None:
    counts, number = EventCounts(chosen, BaseCounts.empty("log")), 0
    users: list[set[E]] = [set(), set(), set()]
    for _ in range(data.draw(st.integers(1, 5))):
        changed = []
        for user in users:
            kept = {event for event in sorted(user) if data.draw(st.integers(0, 4))}
            for item_id in data.draw(st.text("abcd", max_size=6)):
                number += 1
                kept.add(E(float(data.draw(st.integers(0, 5))), number, item_id))
            changed.append(kept)
        counts.apply(changes_of(counts.seq, number, list(zip(users, changed, strict=True))))
        users = changed
        expected = brute_force(chosen, users)
        compacted = counts.compact()
        assert as_dicts(compacted) == expected
        assert as_read(counts) == expected[1]
        for time in (-1.0, 0.0, 2.0, 2.5, 5.0, 6.0):
            assert (
                as_windows(counts, time) == as_windows(EventCounts(chosen, compacted), time) == in_window(users, time)
            )
        whole = changes_of(0, number, [(set(), user) for user in users])
        anew = count_sequences(chosen, "log", whole)
        assert as_dicts(anew) == expected
        assert anew.times is not None
        assert compacted.times is not None
        assert anew.times.times.tolist() == compacted.times.times.tolist()
        assert anew.times.items.tolist() == compacted.times.items.tolist()
        assert (anew.log_id, anew.seq) == (compacted.log_id, compacted.seq) == ("log", number)
        if data.draw(st.booleans()):
            counts = EventCounts(chosen, compacted)


def test_fading_counts_are_read_in_proportion_to_all_events() -> None:
    settings = CooccurrenceSettings(window=2, half_life=10.0, origin=0.0, mass=6.0)
    counts = EventCounts(settings)
    first = {E(0, 1, "a"), E(10, 2, "b")}
    counts.apply(changes_of(0, 2, [(set(), first)]))  # weights 1 and 2: they are read twice as large
    assert [counts.events_of(item) for item in "abc"] == [2, 4, 0]
    assert as_read(counts) == {("a", "b"): 4, ("b", "a"): 2}
    counts.apply(changes_of(2, 3, [(first, first | {E(30, 3, "c")})]))  # it weighs 8 of 11
    assert counts.events.sum() == pytest.approx(6)
    assert counts.events_of("c") == pytest.approx(6 * 8 / 11)
    assert EventCounts(settings, counts.compact()).events.tolist() == counts.events.tolist()
    assert counts.since(10).tolist() == [0, 1, 1]  # windows count events
    assert counts.before(10).tolist() == [1, 0, 0]


def test_without_settings_only_events_are_counted() -> None:
    counts = EventCounts(None)
    assert counts.window == 0
    assert counts.apply(changes_of(0, 3, [(set(), {E(1, 1, "b"), E(2, 2, "a"), E(3, 3, "b")})])) == ["b", "a"]
    assert (counts.events_of("a"), counts.events_of("b"), counts.events_of("c")) == (1, 2, 0)
    assert counts.compact().item_ids == ["a", "b"]
    assert len(counts.compact().columns) == 0


def test_what_was_read_stays_as_it_was() -> None:
    settings = CooccurrenceSettings(window=3)
    counts = EventCounts(settings)
    first = {E(1, 1, "a"), E(2, 2, "b")}
    counts.apply(changes_of(0, 2, [(set(), first)]))
    number = counts.id_of("a")
    assert number is not None
    seen = counts.read([number])
    counts.apply(changes_of(2, 3, [(first, first | {E(3, 3, "c")})]))
    assert seen.events.tolist() == [1, 1]
    assert [row[0].tolist() for row in seen.rows] == [[counts.id_of("b")]]
    assert counts.id_of("d") is None


def test_changes_of_another_moment_are_refused() -> None:
    counts = EventCounts(None)
    with pytest.raises(CatalogueError, match="after 5 cannot be added to counts as of 0"):
        counts.apply(changes_of(5, 6, []))


@pytest.mark.slow
def test_a_long_sequence_leaves_nothing_behind() -> None:
    """All pairs at once would not fit the memory: the window's must be enough."""
    rng = np.random.default_rng(0)
    user = {E(float(n), n, f"i{item}") for n, item in enumerate(rng.integers(0, 500, 20_000).tolist(), 1)}
    counts = EventCounts(CooccurrenceSettings())
    counts.apply(changes_of(0, 20_000, [(set(), user)]))
    assert counts.changed_pairs > 100_000
    counts.apply(changes_of(20_000, 20_001, [(user, set())]))
    assert counts.compact().item_ids == []
    assert counts.changed_pairs == 0
