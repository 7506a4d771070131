"""What every catalogue promises. An implementation subclasses `CatalogueContract` and says how it is opened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from index.catalogue.base import Catalogue, CatalogueItem, Placement
from seqrec.data.items import AttributeValue, Item, make_item
from seqrec.errors import InputError, ItemChanged, ItemNotFound, LogTruncated, PlacementNotFound, SnapshotError
from seqrec.text.item_text import TokenizedItem

ROOT = Path(__file__).parents[2]
ODD_WORDS = ["", "  ", '"', '"oak', "oak*", "*", "oak AND", "NOT oak", "text:oak", "(oak", "oak -desk", "^oak", "--"]
ODD_WORDS += ["\0", "oak\0desk", "\ud800", "{text} : oak", "NEAR(oak desk, 2)", "'; DROP TABLE log; --"]
ODD_WORDS += ["a" * 100_000, "a " * 9999]


def entry(item_id: str, attributes: dict[str, AttributeValue] | None = None, available: bool = True) -> CatalogueItem:
    """An item with three tokens and a vector of eight numbers."""
    seed = sum(map(ord, item_id))
    return CatalogueItem(
        Item(item_id, {"title": f"item {item_id}"} if attributes is None else attributes, available),
        TokenizedItem(np.array([seed, 2, 2**31 - 1], np.int32), np.array([1, 2, 2], np.uint8)),
        np.random.default_rng(seed).normal(size=8).astype(np.float32),
        "tower-a",
    )


def same(one: CatalogueItem, other: CatalogueItem) -> bool:
    assert one.tokens is not None
    assert other.tokens is not None
    assert one.vector is not None
    assert other.vector is not None
    assert list(one.item.attributes.items()) == list(other.item.attributes.items())
    assert [type(v) for v in one.item.attributes.values()] == [type(v) for v in other.item.attributes.values()]
    assert one.tokens.ids.dtype == other.tokens.ids.dtype == np.int32
    assert one.tokens.types.dtype == other.tokens.types.dtype == np.uint8
    assert one.vector.dtype == other.vector.dtype == np.float32
    return (
        (one.item.item_id, one.item.available, one.item_tower)
        == (other.item.item_id, other.item.available, other.item_tower)
        and np.array_equal(one.tokens.ids, other.tokens.ids)
        and np.array_equal(one.tokens.types, other.tokens.types)
        and np.array_equal(one.vector, other.vector)
    )


class CatalogueContract:
    factory: ClassVar[str]
    """Import string of what opens a catalogue, given `location`: also other processes open it so."""

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        raise AssertionError("a subclass says this")

    def open(self, location: str) -> Any:
        module, _, attribute = self.factory.partition(":")
        return getattr(import_module(module), attribute)(location)

    @pytest.fixture
    def catalogue(self, location: str) -> Iterator[Catalogue]:
        catalogue = self.open(location)
        yield catalogue
        catalogue.close()

    def writer(self, location: str, name: str, batches: int) -> subprocess.Popen[str]:
        script = str(Path(__file__).parent / "catalogue_writer.py")
        command = [sys.executable, script, self.factory, location, name, str(batches)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}  # a factory may lie among the tests
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)

    def test_is_empty_at_first(self, catalogue: Catalogue) -> None:
        assert catalogue.head() == 0
        assert catalogue.count() == 0
        assert catalogue.get("a") is None
        assert list(catalogue.scan()) == []
        assert list(catalogue.changes(0, 10)) == []
        assert catalogue.publications() == []
        assert catalogue.find("a", 10) == []

    def test_put_counts_created_and_updated(self, catalogue: Catalogue) -> None:
        assert catalogue.put([entry("a"), entry("b")]) == (2, 2, 0)
        assert catalogue.put([entry("b"), entry("c")]) == (4, 1, 1)
        assert catalogue.head() == 4
        assert catalogue.count() == 3
        found = catalogue.get("b")
        assert found is not None
        assert found[0] == 3

    def test_an_empty_batch_changes_nothing(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a")])
        assert catalogue.put([]) == (1, 0, 0)
        assert catalogue.delete([]) == 1
        assert catalogue.head() == 1

    def test_everything_comes_back_as_it_went_in(self, catalogue: Catalogue) -> None:
        attributes: dict[str, AttributeValue] = {
            "z": "last letter first",
            "title": "🫖 ספל תה \u202e\0 e\u0301 'quotes\" \\ \n line",
            "price": 1.0,
            "count": 1,
            "big": 2**70,
            "tags": ("b", "a", ""),
            "none": (),
            "a": "",
        }
        put = entry("ערב/🫖 a", attributes, available=False)
        catalogue.put([put])
        for got in (catalogue.get("ערב/🫖 a"), next(catalogue.scan())):
            assert got is not None
            assert got[0] == 1
            assert same(got[1], put)
        (change,) = catalogue.changes(0, 10)
        assert (change.seq, change.op, change.item_id) == (1, "put", "ערב/🫖 a")
        assert change.entry is not None
        assert same(change.entry, put)
        assert abs(change.time - time.time()) < 60

    def test_many_items_at_once(self, catalogue: Catalogue) -> None:
        catalogue.put([entry(f"ש {n}") for n in range(1200)])
        catalogue.put([entry("ש 7", {"title": "new"})])
        catalogue.delete(["ש 8"])
        wanted = [f"ש {n}" for n in range(1300)] + ["\ud800", "ש 7"]
        found = catalogue.get_many(wanted)
        assert len(found) == 1199
        assert found["ש 7"][0] == 1201
        assert found["ש 7"][1].item.attributes == {"title": "new"}
        assert all(same(found[item_id][1], entry(item_id)) for item_id in ("ש 0", "ש 1199"))
        assert catalogue.get_many([]) == {}
        assert catalogue.ids() == set(found)

    def test_a_lease_has_one_holder_at_a_time(self, catalogue: Catalogue, location: str) -> None:
        other = self.open(location)
        with catalogue.lease("reindex") as lease:
            with pytest.raises(SnapshotError, match="already"), other.lease("reindex"):
                pass
            with other.lease("publish", wait=True):
                lease.check()
            assert catalogue.publish("s1", lease) == 1
        with other.lease("reindex"):
            pass
        other.close()

    def test_an_item_that_no_tower_encoded(self, catalogue: Catalogue) -> None:
        empty = TokenizedItem(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        catalogue.put([CatalogueItem(Item("a", {})), CatalogueItem(Item("b", {}), tokens=empty)])
        (_, a), (_, b) = catalogue.scan()
        assert (a.tokens, a.vector, a.item_tower) == (None, None, None)
        assert b.tokens is not None
        assert len(b.tokens.ids) == len(b.tokens.types) == 0
        assert b.vector is None

    def test_a_repeated_id_refuses_the_whole_batch(self, catalogue: Catalogue) -> None:
        with pytest.raises(InputError, match=r"items\[2\]\.item_id: 'a'"):
            catalogue.put([entry("a"), entry("b"), entry("a")])
        assert catalogue.head() == catalogue.count() == 0

    def test_a_batch_that_fails_half_way_leaves_nothing(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a")])
        broken = CatalogueItem(Item("c", {"price": float("nan")}))
        with pytest.raises(ValueError, match="JSON"):
            catalogue.put([entry("a", {"title": "new"}), entry("b"), broken])
        assert catalogue.head() == 1
        assert [(seq, e.item.attributes) for seq, e in catalogue.scan()] == [(1, {"title": "item a"})]
        assert catalogue.put([entry("b")]).created == 1

    def test_a_put_of_what_was_read_is_refused_once_that_has_changed(self, catalogue: Catalogue) -> None:
        one, two = (CatalogueItem(make_item(f"i{n}", {"title": f"Thing {n}"})) for n in range(2))
        catalogue.put([one], [0])
        head = catalogue.put([two]).seq
        assert catalogue.put([one, two], [head - 1, head]).updated == 2
        with pytest.raises(ItemChanged) as changed:
            catalogue.put([two, one], [head + 2, head - 1])
        assert changed.value.item_id == "i0"
        with pytest.raises(ItemChanged):
            catalogue.put([one], [0])
        with pytest.raises(ItemChanged):
            catalogue.put([CatalogueItem(make_item("new", {"title": "New"}))], [5])
        assert catalogue.head() == head + 2
        assert catalogue.ids() == {"i0", "i1"}

    def test_delete_is_all_or_nothing(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a"), entry("b"), entry("c")])
        with pytest.raises(ItemNotFound, match="'x'"):
            catalogue.delete(["a", "x"])
        assert catalogue.count() == 3
        assert catalogue.delete(["a", "b"]) == catalogue.head() == 5
        assert [e.item.item_id for _, e in catalogue.scan()] == ["c"]
        assert catalogue.get("a") is None
        with pytest.raises(ItemNotFound):
            catalogue.delete(["a"])

    def test_numbers_are_never_used_again(self, catalogue: Catalogue, location: str) -> None:
        catalogue.put([entry("a"), entry("b")])
        catalogue.delete(["a", "b"])
        catalogue.compact(4)
        assert catalogue.head() == 4
        catalogue.close()
        again = self.open(location)
        assert again.head() == 4
        assert again.put([entry("a")]).seq == 5
        again.close()

    def test_changes_come_in_order_and_in_pieces(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a"), entry("b")])
        catalogue.delete(["a"])
        catalogue.publish("s1")
        catalogue.put([entry("a")])
        seen = [(c.seq, c.op, c.item_id, c.snapshot_id) for c in catalogue.changes(0, 10)]
        assert seen == [
            (1, "put", "a", None),
            (2, "put", "b", None),
            (3, "delete", "a", None),
            (4, "publish", None, "s1"),
            (5, "put", "a", None),
        ]
        assert [c.seq for c in catalogue.changes(2, 2)] == [3, 4]
        assert list(catalogue.changes(5, 10)) == []
        assert [c.entry is None for c in catalogue.changes(2, 3)] == [True, True, False]

    def test_scan_is_by_item_id_and_stops_at_a_number(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("b"), entry("é"), entry("a"), entry("Z"), entry("🫖"), entry("\uffee")])
        catalogue.put([entry("a")])
        ids = [e.item.item_id for _, e in catalogue.scan()]
        assert ids == sorted(ids) == ["Z", "a", "b", "é", "\uffee", "🫖"]
        assert [(seq, e.item.item_id) for seq, e in catalogue.scan(through=6)] == [
            (4, "Z"),
            (1, "b"),
            (2, "é"),
            (6, "\uffee"),
            (5, "🫖"),
        ]

    def test_scan_is_one_view_while_others_write(self, catalogue: Catalogue) -> None:
        catalogue.put([entry(str(i)) for i in range(10)])
        rows = catalogue.scan()
        first = next(rows)
        catalogue.delete(["5"])
        catalogue.put([entry("55"), entry("7", {"title": "new"})])
        rest = [e.item for _, e in rows]
        assert first[1].item.item_id == "0"
        assert [item.item_id for item in rest] == [str(i) for i in range(1, 10)]
        assert rest[6].attributes == {"title": "item 7"}

    def test_publications_newest_first_also_after_compaction(self, catalogue: Catalogue) -> None:
        catalogue.publish("s1")
        catalogue.put([entry("a")])
        catalogue.publish("s2")
        catalogue.publish("s1")
        catalogue.compact(catalogue.head())
        assert [(c.seq, c.snapshot_id) for c in catalogue.publications()] == [(4, "s1"), (3, "s2"), (1, "s1")]

    def test_compaction_drops_what_was_replaced_and_says_so(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a"), entry("b"), entry("c")])  # 1 2 3
        catalogue.put([entry("a")])  # 4
        catalogue.delete(["b"])  # 5
        catalogue.put([entry("c")])  # 6, replaces 3
        assert catalogue.compact(5) == 4  # 1 2 3 5
        assert catalogue.compact(5) == 0
        for after in (0, 4):
            with pytest.raises(LogTruncated, match=r"through 5"):
                catalogue.changes(after, 10)
        assert [(c.seq, c.item_id) for c in catalogue.changes(5, 10)] == [(6, "c")]
        assert [(seq, e.item.item_id) for seq, e in catalogue.scan()] == [(4, "a"), (6, "c")]
        assert catalogue.head() == 6

    def test_compaction_of_nothing_keeps_the_log_readable(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a"), entry("b")])
        assert catalogue.compact(2) == 0
        assert [c.seq for c in catalogue.changes(0, 10)] == [1, 2]

    def test_compaction_never_hides_what_came_later(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("a")])
        catalogue.put([entry("a")])
        catalogue.put([entry("b")])
        assert catalogue.compact(1) == 1
        assert [c.seq for c in catalogue.changes(1, 10)] == [2, 3]

    def test_placements_are_changes_and_outlive_compaction(self, catalogue: Catalogue, location: str) -> None:
        catalogue.put([entry("a")])
        first = catalogue.set_placement("home", '{"k": 5}')
        second = catalogue.set_placement("home", '{"k": 6, "q": "Käse"}')
        other = catalogue.set_placement("cart", "{}")
        gone = catalogue.set_placement("cart", None)
        assert [first, second, other, gone] == [2, 3, 4, 5]
        assert catalogue.placements() == {"home": Placement(3, '{"k": 6, "q": "Käse"}')}
        places = [change for change in catalogue.changes(1, 100) if change.op == "place"]
        assert [(c.seq, c.placement, c.rules) for c in places] == [
            (2, "home", '{"k": 5}'),
            (3, "home", '{"k": 6, "q": "Käse"}'),
            (4, "cart", "{}"),
            (5, "cart", None),
        ]
        assert catalogue.superseded() == 4
        assert catalogue.compact(5) == 4
        assert catalogue.superseded() == 0
        again = self.open(location)
        assert again.placements() == {"home": Placement(3, '{"k": 6, "q": "Käse"}')}
        assert again.set_placement("home", None) == 6
        again.close()
        assert catalogue.placements() == {}
        with pytest.raises(PlacementNotFound, match="no placement 'home'"):
            catalogue.set_placement("home", None)
        assert catalogue.head() == 6

    def test_find_takes_all_words_the_last_as_a_prefix(self, catalogue: Catalogue) -> None:
        catalogue.put(
            [
                entry("1", {"title": "Oak desk", "brand": "Acme"}),
                entry("2", {"title": "Oak chair", "tags": ("garden", "desk side")}),
                entry("3", {"title": "Café table שולחן 🫖", "width": 120}),
            ]
        )
        assert set(catalogue.find("desk oak", 10)) == {"1", "2"}
        assert catalogue.find("OAK ac", 10) == ["1"]
        assert catalogue.find("ac oak", 10) == []
        assert catalogue.find("cafe", 10) == catalogue.find("שול", 10) == catalogue.find("120", 10) == ["3"]
        assert catalogue.find("garden des", 1) == ["2"]
        assert len(catalogue.find("oak", 1)) == 1

    def test_find_knows_of_updates_and_deletes(self, catalogue: Catalogue) -> None:
        catalogue.put([entry("1", {"title": "oak desk"}), entry("2", {"title": "oak chair"})])
        catalogue.put([entry("1", {"title": "pine desk"})])
        catalogue.delete(["2"])
        assert catalogue.find("oak", 10) == []
        assert catalogue.find("desk", 10) == ["1"]

    @pytest.mark.parametrize("words", ODD_WORDS)
    def test_find_reads_any_text_as_words(self, catalogue: Catalogue, words: str) -> None:
        catalogue.put([entry("1", {"title": "oak desk a"})])
        assert set(catalogue.find(words, 10)) <= {"1"}
        assert catalogue.count() == 1

    def test_an_id_that_is_no_unicode_is_not_there(self, catalogue: Catalogue) -> None:
        assert catalogue.get("\ud800") is None
        with pytest.raises(ItemNotFound):
            catalogue.delete(["\ud800"])

    def test_the_catalogue_id_stays(self, catalogue: Catalogue, location: str) -> None:
        again = self.open(location)
        assert again.catalogue_id == catalogue.catalogue_id
        assert len(catalogue.catalogue_id) >= 16
        again.close()

    def test_another_connection_sees_what_was_just_written(self, catalogue: Catalogue, location: str) -> None:
        other = self.open(location)
        for i in range(20):
            seq = catalogue.put([entry(f"{i}")]).seq
            assert other.head() == seq
            assert other.get(f"{i}") is not None
        other.close()

    def test_threads_share_one_catalogue(self, catalogue: Catalogue) -> None:
        seqs: list[int] = []
        errors: list[BaseException] = []

        def work(name: str) -> None:
            try:
                for i in range(20):
                    seq = catalogue.put([entry(f"{name}-{i}")]).seq
                    seqs.append(seq)
                    assert catalogue.head() >= seq
                    assert catalogue.get(f"{name}-{i}") is not None
                    list(catalogue.changes(catalogue.head() - 3, 5))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(seqs) == list(range(1, 81))
        assert catalogue.count() == 80

    @pytest.mark.slow
    def test_processes_write_at_once(self, location: str) -> None:
        # Both also make the catalogue, at once.
        writers = [self.writer(location, name, 40) for name in ("a", "b")]
        lines = [writer.communicate(timeout=60)[0].splitlines() for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0]
        seqs = [int(line.split()[1]) for part in lines for line in part]
        catalogue = self.open(location)
        assert len(seqs) == len(set(seqs)) == 80
        assert catalogue.count() == catalogue.head() == 160
        changes = list(catalogue.changes(0, 1000))
        assert [change.seq for change in changes] == list(range(1, 161))
        # A batch is atomic: its two items stand side by side.
        pairs = [(one.item_id, two.item_id) for one, two in zip(changes[::2], changes[1::2], strict=True)]
        assert all(one and two and one[:-1] == two[:-1] for one, two in pairs)
        catalogue.close()

    @pytest.mark.slow
    def test_what_was_acknowledged_outlives_sigkill(self, location: str) -> None:
        acknowledged: dict[str, int] = {}
        chance = random.Random(7)
        for attempt in range(4):
            writer = self.writer(location, f"w{attempt}", 1_000_000)
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 60)):
                batch, seq = writer.stdout.readline().split()
                acknowledged[f"w{attempt}-{batch}"] = int(seq)
            time.sleep(chance.random() * 0.02)
            writer.kill()
            for line in writer.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    batch, seq = line.split()
                    acknowledged[f"w{attempt}-{batch}"] = int(seq)
            writer.wait()
            writer.stdout.close()
        catalogue = self.open(location)
        assert len(acknowledged) > 4
        for batch, seq in acknowledged.items():
            for i, expected in ((0, seq - 1), (1, seq)):
                found = catalogue.get(f"{batch}-{i}")
                assert found is not None, f"{batch}-{i} was acknowledged as {seq} and is lost"
                assert found[0] == expected
        assert catalogue.count() == catalogue.head() == len(list(catalogue.changes(0, 10**6)))
        assert catalogue.count() % 2 == 0  # no half batch
        assert catalogue.put([CatalogueItem(make_item("after", {}))]).seq == catalogue.head()
        catalogue.close()
