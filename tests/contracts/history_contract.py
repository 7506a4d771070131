"""What every store of histories promises. An implementation subclasses `HistoryContract` and says how it is opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.catalogue.histories import Event, HistoryStore


class HistoryContract:
    def open(self, location: str) -> HistoryStore:
        raise AssertionError("a subclass says this")

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        raise AssertionError("a subclass says this")

    @pytest.fixture
    def store(self, location: str) -> Iterator[HistoryStore]:
        store = self.open(location)
        yield store
        store.close()

    def test_knows_nobody_at_first(self, store: HistoryStore) -> None:
        assert store.recent("u", 10) == []
        assert store.seen("u") == frozenset()
        assert store.delete("u") == 0
        assert list(store.scan()) == []
        assert store.add([]) == 0

    def test_events_come_back_oldest_first(self, store: HistoryStore) -> None:
        events = [Event("u", f"i{n}", 1.7e9 + n / 8, f"e{n}") for n in range(5)]
        assert store.add(events) == 5
        assert store.recent("u", 10) == events
        assert store.recent("u", 2) == events[3:]
        assert store.recent("u", 0) == []

    def test_late_events_are_sorted_in(self, store: HistoryStore) -> None:
        store.add([Event("u", "b", 20.0), Event("u", "d", 40.0)])
        store.add([Event("u", "c", 30.0), Event("u", "a", -1.5)])
        assert [(e.item_id, e.timestamp) for e in store.recent("u", 10)] == [
            ("a", -1.5),
            ("b", 20.0),
            ("c", 30.0),
            ("d", 40.0),
        ]

    def test_equal_times_keep_their_order(self, store: HistoryStore) -> None:
        store.add([Event("u", item, 5.0) for item in ("z", "a", "m")])
        for item in "nbx" * 4:
            store.add([Event("u", item, 5.0)])
        assert "".join(e.item_id for e in store.recent("u", 100)) == "zam" + "nbx" * 4
        assert "".join(e.item_id for e in store.recent("u", 2)) == "bx"

    def test_an_event_id_counts_once(self, store: HistoryStore) -> None:
        assert store.add([Event("u", "a", 1.0, "e1"), Event("u", "b", 2.0, "e1"), Event("u", "c", 3.0, "e2")]) == 2
        assert store.add([Event("u", "x", 9.0, "e2"), Event("u", "d", 4.0, "e3")]) == 1
        assert [e.item_id for e in store.recent("u", 10)] == ["a", "c", "d"]
        assert store.seen("u") == {"a", "c", "d"}

    def test_an_event_id_is_its_user_s(self, store: HistoryStore) -> None:
        assert store.add([Event("u", "a", 1.0, "e"), Event("v", "a", 1.0, "e")]) == 2

    def test_without_an_event_id_everything_counts(self, store: HistoryStore) -> None:
        assert store.add([Event("u", "a", 1.0)] * 3) == 3
        assert len(store.recent("u", 10)) == 3
        assert store.seen("u") == {"a"}

    def test_all_that_was_ever_seen_is_known(self, store: HistoryStore) -> None:
        store.add([Event("u", f"i{n}", float(n)) for n in range(1500)])
        assert store.seen("u") == {f"i{n}" for n in range(1500)}
        assert len(store.recent("u", 50)) == 50

    def test_users_are_apart(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0), Event("u:items", "b", 1.0), Event("ערב 🫖", "ספל תה", 1.0, "אירוע")])
        assert [e.item_id for e in store.recent("u", 10)] == ["a"]
        assert store.recent("ערב 🫖", 10) == [Event("ערב 🫖", "ספל תה", 1.0, "אירוע")]
        assert store.recent("\ud800", 10) == []
        assert store.seen("\ud800") == frozenset()
        assert store.delete("\ud800") == 0

    def test_a_deleted_user_is_gone(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0, "e"), Event("u", "b", 2.0), Event("v", "c", 1.0)])
        assert store.delete("u") == 2
        assert store.recent("u", 10) == []
        assert store.seen("u") == frozenset()
        assert store.delete("u") == 0
        assert list(store.scan()) == [Event("v", "c", 1.0)]
        assert store.add([Event("u", "a", 1.0, "e")]) == 1  # nothing of it is remembered, event ids neither

    def test_scan_goes_user_by_user(self, store: HistoryStore) -> None:
        store.add([Event("v", "b", 2.0), Event("u", "c", 3.0), Event("v", "a", 1.0, "e")])
        assert list(store.scan()) == [Event("u", "c", 3.0), Event("v", "a", 1.0, "e"), Event("v", "b", 2.0)]

    def test_everything_outlives_its_store(self, store: HistoryStore, location: str) -> None:
        store.add([Event("u", "a", 1.0, "e")])
        other = self.open(location)
        assert other.recent("u", 10) == [Event("u", "a", 1.0, "e")]
        assert other.add([Event("u", "a", 1.0, "e")]) == 0
        other.close()

    def test_threads_share_one_store(self, store: HistoryStore) -> None:
        new: list[int] = []

        def work(name: str) -> None:
            new.extend(
                store.add([Event("u", f"{name}{n}", float(n)), Event("u", f"{n}", 0.0, f"{n}")]) for n in range(20)
            )

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(new) == 60
        assert sum(new) == 80  # three threads sent the same 20 event ids
        assert len(store.recent("u", 1000)) == 80
