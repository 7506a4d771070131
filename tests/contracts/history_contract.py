"""What every store of histories promises. An implementation subclasses `HistoryContract` and says how it is opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from index.catalogue.event_types import EventType, EventTypes
from index.catalogue.histories import Event, EventDays, HistoryStore
from seqrec.errors import CatalogueReplaced, LogTruncated
from seqrec.hybrid.event_counts import EventChanges


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

    def test_an_event_id_is_its_user_s(self, store: HistoryStore) -> None:
        assert store.add([Event("u", "a", 1.0, "e"), Event("v", "a", 1.0, "e")]) == 2

    def test_without_an_event_id_everything_counts(self, store: HistoryStore) -> None:
        assert store.add([Event("u", "a", 1.0)] * 3) == 3
        assert len(store.recent("u", 10)) == 3

    # Types

    def test_type_and_value_come_back(self, store: HistoryStore) -> None:
        events = [
            Event("u", "a", 1.0, "e", "view"),
            Event("u", "b", 2.0, None, "", 2.5),
            Event("u", "c", 3.0, "f", "buy ✓", -1.0),
        ]
        store.add(events)
        assert store.recent("u", 10) == events == list(store.scan())

    def test_by_default_what_was_only_shown_makes_no_history(self, store: HistoryStore) -> None:
        shown = [Event("u", f"s{n}", float(n), None, ("shown", "impression")[n % 2]) for n in range(40)]
        store.add([Event("u", "a", -1.0), *shown, Event("u", "b", 20.0, None, "view")])
        assert [e.item_id for e in store.recent("u", 10)] == ["a", "b"]
        assert [e.item_id for e in store.recent("u", 1)] == ["b"]
        assert as_slices(store.event_sequences()) == [("", "ab")]
        assert len(list(store.scan())) == 42

    def test_shown_items_are_not_counted_as_distance(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 0.0), *(Event("u", "s", 1.0 + n, None, "shown") for n in range(9))])
        store.add([Event("u", "b", 50.0)])
        assert as_slices(store.event_changes(10, 5, 1)) == [("a", "ab")]

    def test_types_are_set_for_everybody(self, store: HistoryStore, location: str) -> None:
        other = self.open(location)
        store.add([Event("u", "a", 1.0, None, "view"), Event("u", "b", 2.0), Event("u", "c", 3.0, None, "shown")])
        other.event_changes(0, 9, 3)
        types = EventTypes({"view": EventType("history", 0.25), "dislike": EventType("negative")})
        store.set_types(types)
        assert other.types() == types
        assert self.open(location).types() == types
        with pytest.raises(LogTruncated):
            other.event_changes(3, 9, 3)
        assert other.event_sequences().weights.tolist() == [0.25, 1.0, 1.0]  # shown has no setting now
        store.add([Event("u", "d", 4.0, None, "view")])
        changes = other.event_changes(store.events_head() - 1, 9, 3)
        assert (changes.items, changes.weights.tolist()) == (list("abcd"), [0.25, 1.0, 1.0, 0.25])
        other.close()

    def test_types_of_an_empty_log(self, store: HistoryStore) -> None:
        store.set_types(EventTypes({}))
        assert store.types() == EventTypes({})
        store.add([Event("u", "a", 1.0, None, "shown")])
        assert as_slices(store.event_changes(0, 9, 3)) == [("", "a")]

    def test_an_item_counts_once_in_a_session(self, store: HistoryStore, location: str) -> None:
        store.set_types(store.types().with_types({"view": EventType("history", 0.5)}).with_gap(10.0))
        other = self.open(location)
        assert other.types().session_gap == 10.0
        times = [("a", 0.0), ("b", 5.0), ("a", 12.0), ("a", 30.0), ("c", 31.0), ("c", 31.0)]
        store.add([Event("u", item_id, when, None, "view") for item_id, when in times])
        store.add([Event("u", "b", 8.0, "e", "buy"), Event("v", "a", 8.0)])
        assert [(e.item_id, e.timestamp, e.type) for e in other.recent("u", 9)] == [
            ("a", 0.0, "view"),
            ("b", 5.0, "buy"),
            ("a", 30.0, "view"),
            ("c", 31.0, "view"),
        ]
        assert [e.item_id for e in other.recent("u", 3)] == ["b", "a", "c"]
        assert other.recent("u", 0) == []
        assert as_slices(other.event_changes(0, 99, 2)) == [("", "abac"), ("", "a")]
        assert other.event_sequences().weights.tolist() == [0.5, 1.0, 0.5, 0.5, 1.0]
        head = store.events_head()
        store.add([Event("u", "d", 32.0)])
        assert as_slices(other.event_changes(head, 9, 1)) == [("abac", "abacd")], "whole sessions"
        assert store.remove("u", "e")
        assert as_slices(other.event_changes(head + 1, 9, 1)) == [("abacd", "abacd")]
        store.set_types(store.types().with_gap(None))
        assert other.types().session_gap is None
        assert len(other.recent("u", 99)) == 7
        other.close()

    def test_negative_items(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0, "1", "dislike"), Event("u", "a", 2.0, "2", "dislike"), Event("u", "b", 3.0)])
        store.add([Event("u", "c", 4.0, "4", "return"), Event("v", "d", 1.0, None, "dislike")])
        assert store.negative("u") == frozenset()
        store.set_types(store.types().with_types({"dislike": EventType("negative"), "return": EventType("negative")}))
        assert store.negative("u") == {"a", "c"}
        assert [e.item_id for e in store.recent("u", 9)] == ["b"]
        assert store.remove("u", "1")
        assert store.negative("u") == {"a", "c"}
        assert store.remove("u", "2")
        assert store.negative("u") == {"c"}
        store.delete("u")
        assert store.negative("u") == store.negative("\ud800") == frozenset()
        assert store.negative("v") == {"d"}

    def test_all_events_are_read_page_by_page(self, store: HistoryStore) -> None:
        times = [5.0, 5.0, 5.0, 5.0, 1.5, 9.0, 5.0]
        store.add([Event("u", f"i{n}", when, None, "shown" if n % 2 else "") for n, when in enumerate(times)])
        pages, before = [], None
        while page := store.stored("u", 2, before):
            pages += [event.item_id for _, event in page]
            before = (page[-1].event.timestamp, page[-1].number)
        assert pages == ["i5", "i6", "i3", "i2", "i1", "i0", "i4"]
        assert store.stored("u", 0) == store.stored("nobody", 5) == store.stored("\ud800", 5) == []

    def test_users_are_apart(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0), Event("u:items", "b", 1.0), Event("ערב 🫖", "ספל תה", 1.0, "אירוע")])
        assert [e.item_id for e in store.recent("u", 10)] == ["a"]
        assert store.recent("ערב 🫖", 10) == [Event("ערב 🫖", "ספל תה", 1.0, "אירוע")]
        assert store.recent("\ud800", 10) == []
        assert store.delete("\ud800") == 0

    def test_a_deleted_user_is_gone(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0, "e"), Event("u", "b", 2.0), Event("v", "c", 1.0)])
        assert store.delete("u") == 2
        assert store.recent("u", 10) == []
        assert store.delete("u") == 0
        assert list(store.scan()) == [Event("v", "c", 1.0)]
        assert store.add([Event("u", "a", 1.0, "e")]) == 1  # nothing of it is remembered, event ids neither

    def test_a_sample_has_different_users_and_all_of_them_where_there_are_few(self, store: HistoryStore) -> None:
        assert store.sample(3) == []
        store.add([Event("busy", f"i{n}", float(n)) for n in range(200)])
        store.add([Event(f"u{n}", "a", 1.0) for n in range(9)])
        everybody = {"busy", *(f"u{n}" for n in range(9))}
        assert set(store.sample(50)) == everybody
        assert len(store.sample(50)) == 10
        for limit in (0, 1, 4):
            some = store.sample(limit)
            assert len(set(some)) == len(some) == limit
            assert set(some) <= everybody
        drawn = {tuple(sorted(store.sample(4))) for _ in range(300)}
        assert len(drawn) > 1
        store.delete("busy")
        assert set(store.sample(50)) == everybody - {"busy"}

    def test_scan_goes_user_by_user(self, store: HistoryStore) -> None:
        store.add([Event("v", "b", 2.0), Event("u", "c", 3.0), Event("v", "a", 1.0, "e")])
        assert list(store.scan()) == [Event("u", "c", 3.0), Event("v", "a", 1.0, "e"), Event("v", "b", 2.0)]

    def test_days_count_all_types_of_all_users_or_of_an_item(self, store: HistoryStore) -> None:
        assert store.days() == EventDays(0, [])
        day = 86_400.0
        events = [Event("u", "a", 0.0), Event("u", "a", day - 1), Event("v", "a", day), Event("v", "b", -1.0)]
        events += [Event("v", 'é/"', 2 * day, type="shown"), Event("w", "a", 2 * day + 1, "1", "buy", 3.5)]
        store.add(events)
        assert store.days() == EventDays(3, [(-1, "", 1), (0, "", 2), (1, "", 1), (2, "buy", 1), (2, "shown", 1)])
        assert store.days("a") == EventDays(3, [(0, "", 2), (1, "", 1), (2, "buy", 1)])
        assert store.days('é/"') == EventDays(1, [(2, "shown", 1)])
        assert store.days("c") == store.days("\ud800") == EventDays(0, [])
        store.delete("u")
        store.remove("w", "1")
        assert store.days() == EventDays(1, [(-1, "", 1), (1, "", 1), (2, "shown", 1)])

    def test_users_by_the_beginning_of_their_ids(self, store: HistoryStore) -> None:
        names = ["a*b", "aa", "ab", "ab/1", "ab2", "b", "é", "a[c", "a\\d"]
        store.add([Event(name, "i", 1.0) for name in (*names, "ab")])
        assert store.beginning("ab", 10) == ["ab", "ab/1", "ab2"]
        assert store.beginning("a*", 10) == ["a*b"]
        assert store.beginning("a[", 10) == ["a[c"]
        assert store.beginning("a\\", 10) == ["a\\d"]
        assert store.beginning("é", 10) == ["é"]
        assert store.beginning("", 100) == sorted(names)
        assert len(store.beginning("a", 2)) == 2
        assert store.beginning("c", 10) == store.beginning("a", 0) == store.beginning("\ud800", 10) == []

    def test_days_of_more_users_than_are_read_at_once(self, store: HistoryStore) -> None:
        store.add([Event(f"u{n}", f"i{n % 2}", 86_400.0 * (n % 3)) for n in range(450)])
        assert store.days() == EventDays(450, [(0, "", 150), (1, "", 150), (2, "", 150)])
        assert store.days("i1") == EventDays(225, [(0, "", 75), (1, "", 75), (2, "", 75)])

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

    # The log

    def test_the_log_begins_at_nothing(self, store: HistoryStore) -> None:
        assert store.events_head() == 0
        assert as_slices(store.event_changes(0, 10, 5)) == []
        assert as_slices(store.event_sequences()) == []
        assert store.event_sequences().seq == 0
        store.compact_events(10)
        assert store.events_head() == 0
        assert not store.remove("u", "e")

    def test_each_event_and_each_removal_has_a_number(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0, "e"), Event("u", "b", 2.0), Event("v", "c", 3.0)])
        assert store.events_head() == 3
        store.add([Event("u", "a", 1.0, "e")])
        assert store.events_head() == 3
        assert store.delete("u") == 2
        assert store.events_head() == 4
        assert store.delete("u") == 0
        assert store.events_head() == 4
        store.add([Event("u", "d", 1.0)])
        assert store.events_head() == 5

    def test_changes_lead_from_one_number_to_another(self, store: HistoryStore) -> None:
        store.add([Event("u", item, float(n)) for n, item in enumerate("abcdefgh")])
        store.add([Event("v", "z", 1.0)])
        changes = store.event_changes(0, 100, 3)
        assert (changes.after, changes.seq) == (0, 9)
        assert as_slices(changes) == [("", "abcdefgh"), ("", "z")]
        store.add([Event("u", "i", 9.0)])
        assert as_slices(store.event_changes(9, 100, 3)) == [("fgh", "fghi")]
        store.add([Event("u", "L", 3.5)])
        assert as_slices(store.event_changes(10, 100, 2)) == [("cdef", "cdLef")]
        assert as_slices(store.event_changes(9, 100, 2)) == [("cdefgh", "cdLefghi")]
        assert as_slices(store.event_changes(11, 100, 2)) == []

    def test_changes_come_in_portions(self, store: HistoryStore) -> None:
        store.add([Event("u", item, float(n)) for n, item in enumerate("abcdef")])
        changes = store.event_changes(2, 3, 1)
        assert (changes.after, changes.seq) == (2, 5)
        assert as_slices(changes) == [("b", "bcde")]
        # What came later than the portion takes no place in it.
        store.add([Event("u", "X", 3.5)] * 4)
        assert as_slices(store.event_changes(4, 1, 2)) == [("cd", "cde")]
        assert as_slices(store.event_changes(3, 1, 2)) == [("bc", "bcd")]

    def test_a_late_event_between_those_of_a_portion(self, store: HistoryStore) -> None:
        store.add([Event("u", item, when) for item, when in [("z", 9.0), ("a", 0.0), ("m", 5.0), ("L", 2.0)]])
        assert as_slices(store.event_changes(1, 2, 3)) == [("z", "amz")]
        assert as_slices(store.event_changes(1, 3, 3)) == [("z", "aLmz")]

    def test_equal_times_in_a_long_history(self, store: HistoryStore) -> None:
        store.add([Event("u", f"i{n}", 5.0) for n in range(50)])
        changes = store.event_changes(30, 2, 2)
        assert list(changes.items) == ["i28", "i29", "i30", "i31"]
        assert changes.before.tolist() == [True, True, False, False]

    def test_a_deleted_user_is_taken_out(self, store: HistoryStore) -> None:
        store.add([Event("u", item, float(n), f"e{n}") for n, item in enumerate("abc")])
        store.add([Event("v", "z", 1.0)])
        store.delete("u")
        assert as_slices(store.event_changes(4, 10, 1)) == [("abc", "")]
        assert sorted(as_slices(store.event_changes(2, 10, 1))) == [("", "z"), ("ab", "")]
        assert as_slices(store.event_changes(0, 10, 1)) == [("", "z")]
        # In portions that end before the removal, the events are there.
        assert sorted(as_slices(store.event_changes(0, 4, 1))) == [("", "abc"), ("", "z")]
        assert as_slices(store.event_changes(2, 1, 1)) == [("ab", "abc")]
        store.add([Event("u", "n", 0.0)])
        assert sorted(as_slices(store.event_changes(4, 10, 1))) == [("", "n"), ("abc", "")]
        assert sorted(as_slices(store.event_sequences())) == [("", "n"), ("", "z")]

    def test_one_event_is_taken_back(self, store: HistoryStore) -> None:
        store.add([Event("u", item, float(n), f"e{n}") for n, item in enumerate("abcab")])
        assert store.remove("u", "e2")
        assert not store.remove("u", "e2")
        assert not store.remove("v", "e1")
        assert [event.item_id for event in store.recent("u", 9)] == list("abab")
        assert as_slices(store.event_changes(5, 10, 9)) == [("abcab", "abab")]
        assert as_slices(store.event_changes(0, 5, 9)) == [("", "abcab")]
        assert store.remove("u", "e0")
        store.add([Event("u", "d", 9.0, "e2")])
        assert as_slices(store.event_changes(6, 10, 9)) == [("abab", "babd")]
        assert as_slices(store.event_changes(6, 1, 9)) == [("abab", "bab")]
        assert store.delete("u") == 4
        assert as_slices(store.event_changes(5, 10, 9)) == [("abcab", "")]
        assert as_slices(store.event_changes(8, 10, 9)) == [("babd", "")]
        assert store.event_sequences().seq == store.events_head() == 9

    def test_what_is_taken_back_later_has_its_place_until_then(self, store: HistoryStore) -> None:
        store.add([Event("u", item, float(n), f"e{n}") for n, item in enumerate("abc")])
        store.add([Event("u", "d", 3.0)])
        store.remove("u", "e1")
        assert as_slices(store.event_changes(3, 1, 9)) == [("abc", "abcd")]
        assert as_slices(store.event_changes(3, 2, 9)) == [("abc", "acd")]

    def test_a_user_of_one_event_takes_it_back(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0, "e")])
        assert store.remove("u", "e")
        assert list(store.scan()) == []
        assert store.delete("u") == 0
        assert as_slices(store.event_changes(1, 10, 9)) == [("a", "")]

    def test_what_was_removed_is_forgotten(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0), Event("v", "b", 1.0, "e"), Event("v", "c", 2.0)])
        store.delete("u")
        store.remove("v", "e")
        store.compact_events(4)
        assert as_slices(store.event_changes(4, 10, 5)) == [("bc", "c")]
        with pytest.raises(LogTruncated):
            store.event_changes(3, 10, 5)
        with pytest.raises(LogTruncated):
            store.event_changes(0, 10, 5)
        store.compact_events(5)
        store.compact_events(2)
        with pytest.raises(LogTruncated):
            store.event_changes(4, 10, 5)
        store.add([Event("v", "d", 3.0)])
        assert as_slices(store.event_changes(5, 10, 5)) == [("c", "cd")]
        assert as_slices(store.event_sequences()) == [("", "cd")]

    def test_a_number_that_is_yet_to_come_means_an_older_state(self, store: HistoryStore) -> None:
        store.add([Event("u", "a", 1.0)])
        with pytest.raises(CatalogueReplaced, match="older state"):
            store.event_changes(2, 10, 5)

    def test_a_log_keeps_its_name(self, store: HistoryStore, location: str) -> None:
        other = self.open(location)
        assert other.log_id == store.log_id
        assert len(store.log_id) == 32
        other.add([Event("u", "a", 1.0)])
        assert store.events_head() == 1
        other.close()

    def test_what_is_counted_of_a_user_does_not_say_who_it_is(self, store: HistoryStore) -> None:
        store.add([Event("somebody", "a", 1.0, "click")])
        store.delete("somebody")
        changes = store.event_changes(1, 10, 5)
        assert "somebody" not in repr(changes)
        assert "click" not in repr(changes)


def as_slices(changes: EventChanges) -> list[tuple[str, str]]:
    """Items of each slice before and now, ids of one letter."""
    found = []
    for begin, end in pairwise(changes.offsets.tolist()):
        items, before, now = changes.items[begin:end], changes.before[begin:end], changes.now[begin:end]
        found.append(
            (
                "".join(item for item, there in zip(items, before, strict=True) if there),
                "".join(item for item, there in zip(items, now, strict=True) if there),
            )
        )
    return found
