"""Outcomes of recommendations: both stores count what a recount of all events finds."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from index.catalogue.event_types import EventType, EventTypes
from index.catalogue.histories import Event, HistoryStore
from index.catalogue.outcomes import (
    DAY,
    OUTCOMES,
    Attribution,
    Counts,
    CountsRow,
    Dimension,
    Moments,
    Slot,
    Trial,
    added,
    attribution_of,
    attribution_record,
)
from index.catalogue.redis.histories import RedisHistories
from index.catalogue.sqlite import histories as sqlite_histories
from index.catalogue.sqlite.histories import SqliteHistories
from tests.index.catalogue.test_histories import contents_of, histories_key

TODAY = 20_000
SLOTS = (
    Slot("home", 3, "prices", "a", "m1", "s1"),
    Slot("home", 4, "prices", "b", "m1", "s1"),
    Slot("home", 4, "", "", "m2", "s2"),
    Slot("/popular"),
)


@pytest.fixture(params=["sqlite", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], HistoryStore]]:
    opened: list[HistoryStore] = []
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    def open_one() -> HistoryStore:
        opened.append(SqliteHistories(tmp_path / "h.sqlite3") if url is None else RedisHistories(url))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], HistoryStore]) -> HistoryStore:
    return open_store()


def answer(slot: Slot = SLOTS[0], day: int = TODAY, position: int = 1, cold: bool = False) -> Attribution:
    return Attribution((day * DAY + 60).to_bytes(4) + os.urandom(8), slot, position, "model", cold)


def outcome(user: str, item: str, type: str, of: Attribution, event_id: str | None = None, value: float = 0) -> Event:
    return Event(user, item, 1.7e9, event_id, type, value or None, of)


def counts(store: HistoryStore, by: Dimension = "placement", since: int = 0) -> dict[object, Counts]:
    return {row.key: row.counts for row in store.outcomes(by, since, TODAY)}


def test_an_outcome_counts_once_and_as_shown(store: HistoryStore) -> None:
    of = answer()
    assert store.add([outcome("u", "i", "clicked", of), outcome("u", "i", "shown", of)]) == 2
    assert counts(store) == {"home": Counts(1, 1)}
    assert store.add([outcome("u", "i", "clicked", of), outcome("u", "i", "shown", of)]) == 2  # stored, not counted
    assert counts(store) == {"home": Counts(1, 1)}
    store.add([outcome("u", "i", "purchase", of, value=3.0), outcome("u", "j", "cart", of), Event("u", "k", 1.0)])
    assert counts(store) == {"home": Counts(2, 1, 1, 1, 3, 9)}
    assert len(store.stored("u", 99)) == 7


def test_a_propensity_is_kept_with_the_event_and_counts_nothing(store: HistoryStore) -> None:
    of = replace(answer(), propensity=0.025)
    store.add([outcome("u", "i", "shown", of), outcome("u", "j", "shown", answer())])
    assert [one.attribution for one in store.scan()] == [of, answer_of(store, "j")]
    assert attribution_of(attribution_record(of)) == of
    assert counts(store) == {"home": Counts(2)}
    store.delete("u")
    assert counts(store) == {}


def test_outcomes_of_the_fourth_schema_stay_and_have_no_propensity(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "h.sqlite3")
    of = answer()
    store.add([outcome("u", "i", "shown", of)])
    store.close()
    with closing(sqlite3.connect(tmp_path / "h.sqlite3")) as old:
        old.executescript("ALTER TABLE events DROP COLUMN propensity; PRAGMA user_version = 4;")
    store = SqliteHistories(tmp_path / "h.sqlite3")
    assert [one.attribution for one in store.scan()] == [of]
    store.add([outcome("u", "j", "shown", replace(of, propensity=0.5))])
    assert answer_of(store, "j") == replace(of, propensity=0.5)
    assert counts(store) == {"home": Counts(2)}
    store.close()


def answer_of(store: HistoryStore, item: str) -> Attribution | None:
    return next(one.event.attribution for one in store.stored("u", 9) if one.event.item_id == item)


def test_an_event_id_counts_once(store: HistoryStore) -> None:
    of = answer()
    assert store.add([outcome("u", "i", "purchase", of, "e", 2.5)]) == 1
    assert store.add([outcome("u", "i", "purchase", answer(), "e", 2.5)]) == 0
    assert counts(store) == {"home": Counts(1, 0, 0, 1, 2.5, 6.25)}


def test_what_is_taken_back_no_longer_counts(store: HistoryStore) -> None:
    of = answer()
    store.add([outcome("u", "i", "shown", of, "e1"), outcome("u", "i", "purchase", of, "e2", 2.0)])
    store.remove("u", "e1")
    assert counts(store) == {"home": Counts(1, 0, 0, 1, 2, 4)}
    store.remove("u", "e2")
    assert counts(store) == {}
    assert store.trials() == []


def test_every_dimension(store: HistoryStore) -> None:
    store.add([outcome("u", "i", "shown", answer(SLOTS[0], position=2, cold=True))])
    store.add([outcome("u", "i", "clicked", answer(SLOTS[1], position=500))])
    store.add([outcome("u", "i", "shown", answer(SLOTS[3], TODAY - 1))])
    assert list(counts(store)) == ["/popular", "home"]
    assert set(counts(store, "version")) == {0, 3, 4}
    assert set(counts(store, "variant")) == {"", "a", "b"}
    assert set(counts(store, "model")) == {"", "m1"}
    assert set(counts(store, "snapshot")) == {"", "s1"}
    assert set(counts(store, "position")) == {1, 2, 100}
    assert counts(store, "cold")[1] == Counts(1)
    store.add([outcome("u", "i", "shown", replace(answer(), source="model:co-occurrence"))])
    assert set(counts(store, "source")) == {"model", "model:co-occurrence"}
    assert list(counts(store, "placement", TODAY)) == ["home"]


def test_a_deleted_user_counts_nowhere(store: HistoryStore) -> None:
    kept, gone = answer(), answer()
    store.add([outcome("u", "i", "clicked", gone), outcome("v", "i", "shown", kept)])
    before = store.trials()
    store.add([outcome("w", "j", "purchase", answer(), value=0.25) for _ in range(3)])
    assert store.trials() != before
    store.delete("w")
    store.delete("u")
    assert counts(store) == {"home": Counts(1)}
    assert store.trials() == [Trial("home", "prices", "a", Moments(users=1, shown=1, shown_shown=1))]


def test_no_byte_of_a_deleted_user_stays(tmp_path: Path, redis_url: str) -> None:
    stores: list[HistoryStore] = [SqliteHistories(tmp_path / "h.sqlite3"), RedisHistories(redis_url)]
    for store in stores:
        store.add([outcome("somebody", "i", type, answer()) for type in OUTCOMES])
        store.delete("somebody")
        store.compact_events(store.events_head())
    assert b"somebody" not in b"".join(path.read_bytes() for path in tmp_path.glob("h.*"))
    assert not any(b"somebody" in part for part in contents_of(redis_url))
    for store in stores:
        store.close()


def test_old_answers_are_forgotten(store: HistoryStore) -> None:
    old, new = answer(SLOTS[0], TODAY - 40), answer(SLOTS[1])
    store.add([outcome("u", "i", "shown", old, "e1"), outcome("u", "i", "purchase", old, "e2", 2.0)])
    store.add([outcome("u", "i", "shown", new), outcome("u", "j", "clicked", new)])
    assert store.forget_outcomes(TODAY - 30) == 2
    assert counts(store, "variant") == {"b": Counts(2, 1)}
    assert [trial.variant for trial in store.trials()] == ["b"]
    assert sorted(event.type for _, event in store.stored("u", 9)) == ["clicked", "purchase", "shown"]
    assert store.forget_outcomes(TODAY - 30) == 0
    store.remove("u", "e2")
    assert counts(store, "variant") == {"b": Counts(2, 1)}
    store.delete("u")
    assert store.trials() == []
    assert counts(store) == {}


def test_others_write_while_old_answers_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few answers at a time: in between users leave, and events come."""
    store, other = SqliteHistories(tmp_path / "h.sqlite3"), SqliteHistories(tmp_path / "h.sqlite3")
    for number in range(9):
        old = answer(SLOTS[0], TODAY - 40)
        store.add([outcome(f"u{number}", item, type, old) for item in "ij" for type in ("shown", "clicked")])
    between = [lambda: other.delete("u0"), lambda: other.add([outcome("v", "i", "clicked", answer(SLOTS[1]))])]
    monkeypatch.setattr(sqlite_histories, "FORGOTTEN_AT_ONCE", 8)
    monkeypatch.setattr(sqlite_histories.time, "sleep", lambda seconds: between.pop()() if between else None)
    assert store.forget_outcomes(TODAY - 30) in (32, 36)
    assert between == []
    assert counts(store, "variant") == {"b": Counts(1, 1)}
    assert [trial.variant for trial in store.trials()] == ["b"]
    events = list(store.scan())
    assert {event.type for event in events} == {"clicked"}
    assert [event.user_id for event in events if event.attribution] == ["v"]
    assert "u0" not in {event.user_id for event in events}
    assert store.forget_outcomes(TODAY - 30) == 0
    store.close()
    other.close()


def test_impressions_that_make_history_stay(store: HistoryStore) -> None:
    store.set_types(EventTypes({"shown": EventType("history")}))
    store.add([outcome("u", "i", "shown", answer(day=TODAY - 40))])
    assert store.forget_outcomes(TODAY - 30) == 1
    assert counts(store) == {}
    assert [event.item_id for event in store.recent("u", 9)] == ["i"]


def test_the_secret_stays(open_store: Callable[[], HistoryStore]) -> None:
    secrets = {open_store().secret for _ in range(2)}
    assert [len(secret) for secret in secrets] == [32]


def recount(events: list[Event], by: Dimension) -> tuple[list[CountsRow], list[Trial]]:
    """From all events that are there and count."""
    rows: dict[tuple[str, str, str | int], Counts] = {}
    users: dict[tuple[str, str, str], dict[str, Counts]] = {}
    types: dict[tuple[str, bytes, str], set[str]] = {}
    for event in events:
        of = event.attribution
        assert of is not None
        others = types.setdefault((event.user_id, of.recommendation, event.item_id), set())
        change = added(others, event.type, event.value)
        others.add(event.type)
        key = int(of.cold) if by == "cold" else of.position if by == "position" else getattr(of.slot, by)
        place = of.slot.placement, of.slot.experiment if by == "variant" else "", key
        rows[place] = rows.get(place, Counts()).plus(change)
        if of.slot.experiment:
            own = users.setdefault((of.slot.placement, of.slot.experiment, of.slot.variant), {})
            own[event.user_id] = own.get(event.user_id, Counts()).plus(change)
    trials = []
    for trial, own in sorted(users.items()):
        moments = Moments()
        for one in own.values():
            moments = moments.changed(Counts(), one)
        trials.append(Trial(*trial, moments))
    return [CountsRow(*place, sums) for place, sums in sorted(rows.items())], trials


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_changes_counts_as_a_recount(store: HistoryStore, seed: int) -> None:
    """Values are whole numbers, so that sums are exact."""
    chance = random.Random(seed)
    answers = [answer(chance.choice(SLOTS), TODAY - chance.randrange(3), n % 4 + 1, n % 3 == 0) for n in range(8)]
    there: list[Event] = []
    for step in range(150):
        user = f"u{chance.randrange(4)}"
        if chance.random() < 0.75:
            batch = [
                outcome(
                    user,
                    f"i{chance.randrange(2)}",
                    chance.choice(OUTCOMES),
                    chance.choice(answers),
                    f"{step}-{n}",
                    chance.randrange(1, 9),
                )
                for n in range(chance.randrange(1, 4))
            ]
            assert store.add(batch) == len(batch)
            for event in batch:  # an outcome that is there already is not counted again
                of = event.attribution
                assert of is not None
                same = (event.user_id, event.item_id, event.type, of.recommendation)
                known = {
                    (one.user_id, one.item_id, one.type, one.attribution.recommendation)
                    for one in there
                    if one.attribution
                }
                there.append(replace(event, attribution=None if same in known else of))
        elif chance.random() < 0.8 and there:
            gone = there.pop(chance.randrange(len(there)))
            assert gone.event_id is not None
            assert store.remove(gone.user_id, gone.event_id)
        else:
            store.delete(user)
            there = [event for event in there if event.user_id != user]
    counted = [event for event in there if event.attribution]
    for by in ("placement", "variant", "model", "position", "cold"):
        rows, trials = recount(counted, by)
        assert store.outcomes(by, 0, TODAY) == rows
        assert store.trials() == trials
    for n in range(4):
        store.delete(f"u{n}")
    assert store.outcomes("placement", 0, TODAY) == []
    assert store.trials() == []


def test_a_redis_of_the_third_schema_gets_a_secret(redis_url: str) -> None:
    store = RedisHistories(redis_url)
    store.add([Event("u", "i", 1.0, "e", "view", 2.0)])
    meta = f"{histories_key(redis_url)}meta"
    with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
        client.hset(meta, "schema", "3")
        client.hdel(meta, "secret")
    store.close()
    store = RedisHistories(redis_url)
    assert len(store.secret) == 32
    assert [event for _, event in store.stored("u", 9)] == [Event("u", "i", 1.0, "e", "view", 2.0)]
    store.close()
