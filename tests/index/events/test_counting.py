"""Counts that follow a store of histories, whatever happens to it, are those of a model that recounts everything."""

from __future__ import annotations

import math
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from benchmarks.tools.redis_server import RedisServer
from index.catalogue.event_types import EventType, EventTypes
from index.catalogue.histories import Event, HistoryStore
from index.catalogue.redis.histories import RedisHistories
from index.catalogue.sqlite.histories import SqliteHistories
from index.events.counting import count_events, current_counts, follow, start_counts
from index.snapshot.sparse import read_counts, write_counts
from seqrec.errors import LogTruncated
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts

SETTINGS = CooccurrenceSettings(window=3, distance_power=0.5)
Counted = tuple[dict[str, float], dict[tuple[str, str], float]]


@dataclass
class Model:
    """Every event in a list, and the state of it at every number of the log."""

    events: list[tuple[str, str, float, str | None, int, str]] = field(default_factory=list)
    types: EventTypes = field(default_factory=EventTypes)
    head: int = 0
    states: dict[int, Counted] = field(default_factory=dict)

    def count(self) -> Counted:
        users: dict[str, list[tuple[float, int, str, float]]] = {}
        for user_id, item_id, timestamp, _, number, type in self.events:
            if self.types.of(type).kind == "history":
                users.setdefault(user_id, []).append((timestamp, number, item_id, self.types.of(type).weight))
        if (gap := self.types.session_gap) is not None:
            users = {user_id: merged(sorted(rows), gap) for user_id, rows in users.items()}
        events: dict[str, float] = {}
        pairs: dict[tuple[str, str], float] = {}
        weights = [round(d**-0.5 * 2**20) / 2**20 for d in (1, 2, 3)]
        for rows in users.values():
            items = [item_id for _, _, item_id, _ in sorted(rows)]
            for place, (_, _, later, times) in enumerate(sorted(rows)):
                events[later] = events.get(later, 0) + times
                for by_distance, earlier in zip(weights, reversed(items[:place]), strict=False):
                    if earlier != later:
                        weight = by_distance * times
                        pairs[earlier, later] = pairs.get((earlier, later), 0) + weight
                        pairs[later, earlier] = pairs.get((later, earlier), 0) + weight / 2
        return events, pairs


def merged(rows: list[tuple[float, int, str, float]], gap: float) -> list[tuple[float, int, str, float]]:
    """Rows, oldest first, with each item once in a session: the first one, with the largest weight."""
    found: list[tuple[float, int, str, float]] = []
    place: dict[str, int] = {}
    last = rows[0][0] if rows else 0.0
    for timestamp, number, item_id, weight in rows:
        if timestamp - last > gap:
            place.clear()
        last = timestamp
        if item_id in place:
            first = found[place[item_id]]
            found[place[item_id]] = (*first[:3], max(first[3], weight))
        else:
            place[item_id] = len(found)
            found.append((timestamp, number, item_id, weight))
    return found


def as_counted(base: BaseCounts) -> Counted:
    rows = np.repeat(np.arange(len(base.item_ids)), np.diff(base.offsets)).tolist()
    pairs = zip(rows, base.columns.tolist(), base.values.tolist(), strict=True)
    return (
        dict(zip(base.item_ids, base.events.tolist(), strict=True)),
        {(base.item_ids[row], base.item_ids[column]): value for row, column, value in pairs},
    )


USERS, ITEMS, IDS = st.sampled_from("uvw"), st.sampled_from("abcde"), st.sampled_from(["1", "2", "3", "4", None, None])
TYPES = st.sampled_from(["", "", "view", "buy", "shown"])
EVENTS = st.builds(Event, USERS, ITEMS, st.integers(0, 12).map(float), IDS, TYPES)
KINDS = st.sampled_from(
    [EventType(), EventType("history", 0.25), EventType("history", 341 / 1024), EventType("negative")]
)


class Following(RuleBasedStateMachine):
    """Two followers: one that looks at every turn, one that looks seldom and in portions."""

    def open(self) -> HistoryStore:
        raise AssertionError("a subclass says this")

    @initialize()
    def start(self) -> None:
        self.model = Model()
        self.model.states[0] = ({}, {})
        self.store = self.open()
        self.eager = start_counts(self.store, SETTINGS)
        self.lazy = start_counts(self.store, SETTINGS)
        self.snapshot = current_counts(self.store, SETTINGS)

    @rule(events=st.lists(EVENTS, max_size=4))
    def add(self, events: list[Event]) -> None:
        model = self.model
        # Numbers are the store's: a repeated event may leave a gap.
        taken: set[tuple[str, str | None]] = {(e[0], e[3]) for e in model.events if e[3] is not None}
        fresh = []
        for event in events:
            if event.event_id is None or (event.user_id, event.event_id) not in taken:
                taken.add((event.user_id, event.event_id))
                fresh.append(event)
        assert self.store.add(events) == len(fresh)
        self._advance(fresh)

    def _advance(self, fresh: Sequence[Event]) -> None:
        model, head = self.model, self.store.events_head()
        assert head >= model.head + len(fresh)
        if len(fresh) == head - model.head:
            for event in fresh:
                model.head += 1
                model.events.append(
                    (event.user_id, event.item_id, event.timestamp, event.event_id, model.head, event.type)
                )
                model.states[model.head] = model.count()
        else:  # in between, which number is whose is not known here
            for place, event in enumerate(fresh):
                model.events.append((*astuple(event)[:4], model.head + place + 1, event.type))
            model.head = head
            model.states[head] = model.count()

    @rule(user_id=USERS)
    def delete(self, user_id: str) -> None:
        model = self.model
        gone = [event for event in model.events if event[0] == user_id]
        assert self.store.delete(user_id) == len(gone)
        model.events = [event for event in model.events if event[0] != user_id]
        head = self.store.events_head()
        assert head - model.head in ((1,) if gone else (0, 1))  # what was taken back before is unnamed too
        model.head = head
        model.states[head] = model.count()

    @rule(user_id=USERS, event_id=st.sampled_from("1234"))
    def remove(self, user_id: str, event_id: str) -> None:
        model = self.model
        kept = [event for event in model.events if (event[0], event[3]) != (user_id, event_id)]
        assert self.store.remove(user_id, event_id) == (len(kept) < len(model.events))
        if len(kept) < len(model.events):
            model.events = kept
            model.head += 1
            model.states[model.head] = model.count()

    @rule(
        changed=st.dictionaries(st.sampled_from(["view", "buy", "shown"]), KINDS, min_size=1),
        gap=st.sampled_from([None, 0.0, 1.0, 2.0, math.inf]),
    )
    def set_types(self, changed: dict[str, EventType], gap: float | None) -> None:
        """Counts of another setting lead nowhere: each follower counts again."""
        model = self.model
        model.types = model.types.with_types(changed).with_gap(gap)
        self.store.set_types(model.types)
        model.head += model.head > 0
        model.states = {model.head: model.count()}
        assert self.store.events_head() == model.head

    @rule(limit=st.integers(1, 4))
    def follow_a_little(self, limit: int) -> None:
        if self.lazy.seq < self.store.events_head():
            try:
                changes = self.store.event_changes(self.lazy.seq, limit, self.lazy.window)
            except LogTruncated:
                self.lazy = start_counts(self.store, SETTINGS)
                return
            self.lazy.apply(changes)
        if self.lazy.seq in self.model.states:
            assert as_counted(self.lazy.compact()) == self.model.states[self.lazy.seq]

    @rule()
    def make_a_snapshot(self) -> None:
        """And forget what it has counted, as a reindex does that keeps one."""
        with tempfile.TemporaryDirectory() as directory:
            self.snapshot = current_counts(self.store, SETTINGS, self.snapshot)
            write_counts(Path(directory), self.snapshot)
            read = read_counts(
                Path(directory),
                lambda name, dtype, shape: np.load(Path(directory) / name),
                self.snapshot.seq,
                self.snapshot.log_id,
            )
            assert (read.seq, read.log_id) == (self.model.head, self.store.log_id)
        assert as_counted(read) == as_counted(self.snapshot) == self.model.states[self.model.head]
        self.store.compact_events(self.snapshot.seq)

    @rule()
    def restart(self) -> None:
        """A new process begins with the snapshot and follows."""
        self.store.close()
        self.store = self.open()
        self.eager = start_counts(self.store, SETTINGS, self.snapshot)

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def counts_are_those_of_a_recount(self) -> None:
        try:
            follow(self.store, self.eager, limit=3)
        except LogTruncated:
            self.eager = start_counts(self.store, SETTINGS)
        assert self.eager.seq == self.model.head == self.store.events_head()
        expected = self.model.states[self.model.head]
        assert as_counted(self.eager.compact()) == expected
        assert as_counted(count_events(self.store, SETTINGS)) == expected

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def histories_are_those_that_are_counted(self) -> None:
        sequences = self.store.event_sequences()
        whole = {tuple(sequences.items[begin:end]) for begin, end in pairwise(sequences.offsets.tolist())}
        for user_id in "uvw":
            history = tuple(event.item_id for event in self.store.recent(user_id, 1000))
            assert history in whole | {()}
            assert tuple(event.item_id for event in self.store.recent(user_id, 2)) == history[-2:]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


BUDGET = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
def test_following_sqlite(tmp_path: Path) -> None:
    class OnSqlite(Following):
        def __init__(self) -> None:
            super().__init__()
            self.path = tmp_path / f"{uuid.uuid4().hex}.sqlite3"

        def open(self) -> HistoryStore:
            return SqliteHistories(self.path)

    run_state_machine_as_test(OnSqlite, settings=BUDGET)  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_following_redis(redis_server: RedisServer) -> None:
    class OnRedis(Following):
        def __init__(self) -> None:
            super().__init__()
            self.url = f"{redis_server.url}?prefix=test-{uuid.uuid4().hex[:8]}&timeout=20"

        def open(self) -> HistoryStore:
            return RedisHistories(self.url)

    run_state_machine_as_test(OnRedis, settings=BUDGET)  # type: ignore[no-untyped-call]
