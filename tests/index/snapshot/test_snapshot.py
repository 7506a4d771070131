from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.catalogue.base import CatalogueItem
from index.snapshot import usage as snapshot_use
from index.snapshot.attribute_columns import COLUMN_FILES
from index.snapshot.columns import NpyWriter, map_npy
from index.snapshot.manifest import Manifest
from index.snapshot.snapshot import FILES, Snapshot, SnapshotStore, open_snapshot
from index.snapshot.writer import write_snapshot
from index.vectors.base import Allowed, Rows, Vectors
from index.vectors.flat import FlatIndex
from index.vectors.recall import measure_recall
from seqrec.data.items import Item
from seqrec.errors import InputError, SnapshotError
from seqrec.metric import Metric
from seqrec.text.item_text import TokenizedItem

DIM = 8


def encoded(item: Item) -> CatalogueItem:
    seed = sum(map(ord, item.item_id))
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    tokens = TokenizedItem(np.arange(seed % 5, dtype=np.int32), np.full(seed % 5, 2, np.uint8))
    return CatalogueItem(item, tokens, vector / np.linalg.norm(vector), "tower")


ITEMS = [
    Item("Z", {}),
    Item("a/b", {"title": "Oak desk", "tags": ("x", "y"), "price": 1.5, "count": 3}),
    Item("b", {"title": "new\nline \0 \u2028", "🫖": "ספל"}, available=False),
    Item("é", {"title": ""}),
    Item("🫖", {"title": "pot"}),
]


def manifest(snapshot_id: str = "20261122T054500-000007-abcdef", metric: Metric = Metric.COSINE) -> Manifest:
    return Manifest(
        snapshot_id=snapshot_id,
        created="2026-11-22T05:45:00Z",
        catalogue_id="c0ffee",
        seq=7,
        checkpoint="1" * 64,
        model="bag_of_words",
        item_tower="tower",
        history_tower="tower",
        tokenizer="",
        item_text="",
        precision="float32",
        dtype="float32",
        metric=metric.value,
        dim=DIM,
        count=0,
        index="flat",
        recall=0.0,
        popularity=True,
        files={},
    )


def write(store: SnapshotStore, items: Sequence[Item] = ITEMS, record: Manifest | None = None) -> Path:
    record = record or manifest()
    path = store.path_of(record.snapshot_id)
    entries = [encoded(item) for item in items]
    write_snapshot(path, record, [entries[:2], [], entries[2:]], lambda item_id: len(item_id) * 10)
    return path


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path)


def test_everything_comes_back(store: SnapshotStore) -> None:
    snapshot = open_snapshot(write(store), verify=True)
    assert snapshot.id == "20261122T054500-000007-abcdef"
    assert snapshot.manifest.count == len(snapshot.item_ids) == 5
    for row, item in enumerate(ITEMS):
        assert snapshot.row_of(item.item_id) == row
        got, expected = snapshot.item(row), encoded(item)
        assert (got.item_id, got.available) == (item.item_id, item.available)
        assert list(got.attributes.items()) == list(item.attributes.items())
        assert expected.tokens is not None
        assert expected.vector is not None
        assert snapshot.tokens[row].ids.tolist() == expected.tokens.ids.tolist()
        assert snapshot.tokens[row].types.tolist() == expected.tokens.types.tolist()
        np.testing.assert_array_equal(snapshot.vectors[row], expected.vector)
    assert snapshot.available.tolist() == [True, True, False, True, True]
    assert snapshot.popularity.tolist() == [10, 30, 10, 10, 10]
    for missing in ("", "A", "a", "a/bc", "zz", "🫗"):
        assert snapshot.row_of(missing) is None


def test_vectors_are_mapped_not_read(store: SnapshotStore) -> None:
    snapshot = open_snapshot(write(store))
    assert not snapshot.vectors.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        snapshot.vectors[0] = 0


@pytest.mark.parametrize("metric", list(Metric))
def test_the_index_finds_every_item_by_its_vector(store: SnapshotStore, metric: Metric) -> None:
    snapshot = open_snapshot(write(store, record=manifest(metric=metric)))
    rows, scores = snapshot.index.search(np.array(snapshot.vectors), 5)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert np.allclose(scores[:, 0], 0 if metric is Metric.L2 else 1, atol=1e-6)
    assert snapshot.manifest.recall == 1.0


def test_the_manifest_says_what_was_asked_for(store: SnapshotStore) -> None:
    record = json.loads((write(store) / "manifest.json").read_text(encoding="utf-8"))
    assert record["format"] == 2
    assert record["count"] == 5
    assert record["recall"] == 1.0
    assert set(record["files"]) == {*FILES, *COLUMN_FILES}
    assert Manifest.from_json(json.dumps(record)).to_json() == json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def test_an_empty_snapshot(store: SnapshotStore) -> None:
    snapshot = open_snapshot(write(store, items=[]), verify=True)
    assert snapshot.manifest.count == 0
    assert snapshot.vectors.shape == (0, DIM)
    assert snapshot.row_of("a") is None
    assert snapshot.index.search(np.ones((1, DIM), np.float32), 3)[0].tolist() == [[-1, -1, -1]]


def damage_cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def damage_longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def damage_missing(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [damage_cut, damage_longer, damage_missing])
def test_a_file_of_another_size_is_refused_by_name(
    store: SnapshotStore, name: str, damage: Callable[[Path], None]
) -> None:
    path = write(store)
    damage(path / name)
    with pytest.raises(SnapshotError, match=name):
        open_snapshot(path)


@pytest.mark.parametrize("name", FILES)
def test_a_single_altered_bit_is_refused_by_name(store: SnapshotStore, name: str) -> None:
    path = write(store)
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(SnapshotError, match=rf"{name} was altered"):
        open_snapshot(path, verify=True)
    with pytest.raises(SnapshotError, match=name):
        store.open(path.name)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"seq": 7', '"seq": 8', "altered"),
        ('"metric": "cosine"', '"metric": "dot"', "altered"),
        ('"format": 2', '"format": 3', "format 3; this version reads formats 1 to 2"),
        ('"count"', "count", "not the manifest of a snapshot"),
        ('"digest"', '"digits"', "not the manifest of a snapshot"),
    ],
)
def test_an_altered_manifest_is_refused(store: SnapshotStore, old: str, new: str, reason: str) -> None:
    path = write(store)
    file = path / "manifest.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SnapshotError, match=rf"manifest\.json: .*{reason}"):
        open_snapshot(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(store: SnapshotStore, content: bytes) -> None:
    path = write(store)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        open_snapshot(path)


def test_no_snapshot_is_refused(store: SnapshotStore, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="seqrec index list"):
        store.open("20261122T054500-000007-abcdef")
    with pytest.raises(SnapshotError, match=r"has no manifest\.json"):
        open_snapshot(tmp_path)
    for bad in ("..", "", "20261122T054500-000007-abcdef/../x", "nothing"):
        with pytest.raises(SnapshotError, match="is no snapshot id"):
            store.path_of(bad)


def test_files_of_another_snapshot_are_refused(store: SnapshotStore) -> None:
    path = write(store)
    other = manifest("20261122T054501-000008-abcdef")
    shorter = write(store, ITEMS[:4], other)
    record = Manifest.from_json((path / "manifest.json").read_text(encoding="utf-8"))
    # As if whoever copied it had also made the sizes fit.
    (shorter / "vectors.npy").write_bytes((path / "vectors.npy").read_bytes())
    mixed = Manifest.from_json((shorter / "manifest.json").read_text(encoding="utf-8"))
    files = dict(mixed.files) | {"vectors.npy": record.files["vectors.npy"]}
    (shorter / "manifest.json").write_text(replace(mixed, files=files).to_json(), encoding="utf-8")
    with pytest.raises(SnapshotError, match=r"vectors\.npy contains float32 \[5, 8\], not float32 \[4, 8\]"):
        open_snapshot(shorter, verify=True)


def test_a_renamed_snapshot_is_refused(store: SnapshotStore) -> None:
    path = write(store)
    path.rename(path.with_name("20271122T054500-000007-abcdef"))
    with pytest.raises(SnapshotError, match="contains snapshot 20261122T054500-000007-abcdef"):
        store.open("20271122T054500-000007-abcdef")


def test_hashing_happens_once_a_host(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(store)
    verified: list[bool] = []

    def spy(path: Path, verify: bool = False) -> Snapshot:
        verified.append(verify)
        return open_snapshot(path, verify)

    monkeypatch.setattr("index.snapshot.snapshot.open_snapshot", spy)
    store.open(path.name)
    store.open(path.name)
    assert verified == [True, False]
    content = (path / "vectors.npy").read_bytes()
    (path / "vectors.npy").unlink()
    (path / "vectors.npy").write_bytes(content)
    store.open(path.name)
    store.verify(path.name)
    assert verified == [True, False, True, True]


def test_listing_shows_whole_snapshots_only(store: SnapshotStore) -> None:
    assert store.list() == []
    path = write(store)
    (store.directory / ".tmp-20261122T054500-000008-abcdef-12345678").mkdir()
    (store.directory / "20261122T054500-000008-abcdef").mkdir()
    (store.directory / "notes").mkdir()
    assert store.list() == [path.name]
    with store.writing():
        pass
    assert not list(store.directory.glob(".tmp-*"))


def test_a_snapshot_whose_files_went_missing_is_noticed(store: SnapshotStore) -> None:
    path = write(store)
    snapshot = store.open(path.name)
    snapshot.check_present()
    file = path / "vectors.npy"
    content = file.read_bytes()
    for damage, reason in (
        (content[:-1], r"vectors\.npy .* has \d+ bytes instead of"),
        (None, r"vectors\.npy .* is missing"),
    ):
        file.unlink()
        if damage is not None:
            file.write_bytes(damage)
        with pytest.raises(SnapshotError, match=reason):
            snapshot.check_present()
    file.write_bytes(content)
    snapshot.check_present()
    path.rename(path.with_name("aside"))
    with pytest.raises(SnapshotError, match="removed or replaced"):
        snapshot.check_present()


def test_a_snapshot_is_not_removed_while_somebody_has_it_open(store: SnapshotStore) -> None:
    path = write(store)
    snapshot = store.open(path.name)
    again = store.open(path.name)
    assert not store.remove(path.name)
    del again
    assert not store.remove(path.name)
    assert snapshot.item(1) == ITEMS[1]
    del snapshot
    assert store.remove(path.name)
    assert store.list() == []
    assert not list((store.directory / ".verified").iterdir())


def test_a_snapshot_that_another_host_used_lately_stays(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(store)
    snapshot_use.mark_used(path)  # our own mark says nothing: locks do
    monkeypatch.setattr(platform, "node", lambda: "another-host")
    assert not store.remove(path.name)
    mark = next((store.directory / ".used").iterdir())
    old = mark.stat().st_mtime - snapshot_use.GRACE_SECONDS - 1
    os.utime(mark, (old, old))
    assert store.remove(path.name)
    assert not list((store.directory / ".used").iterdir())


def test_new_ids_sort_by_age_and_are_ids(store: SnapshotStore) -> None:
    one, two = store.new_id(5), store.new_id(1_234_567)
    assert store.path_of(one).name == one
    assert store.path_of(two).name == two
    assert one.split("-")[0] <= two.split("-")[0]


def test_items_out_of_order_are_refused_and_nothing_stays(store: SnapshotStore) -> None:
    for items in ([ITEMS[1], ITEMS[0]], [ITEMS[0], ITEMS[0]]):
        with pytest.raises(SnapshotError, match="not sorted"):
            write(store, items)
    assert list(store.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("vector", "reason"),
    [(None, "none"), (np.zeros(3, np.float32), r"shape \[3\]"), (np.full(DIM, np.nan, np.float32), "NaN")],
)
def test_a_vector_that_cannot_be_searched_is_refused(store: SnapshotStore, vector: Vectors | None, reason: str) -> None:
    good = encoded(ITEMS[0])
    with pytest.raises(SnapshotError, match=f"'Z' needs a vector of 8 finite numbers; it has {reason}"):
        write_snapshot(
            store.path_of(manifest().snapshot_id),
            manifest(),
            [[CatalogueItem(good.item, good.tokens, vector, "tower")]],
            lambda item_id: 0,
        )


def test_an_id_that_would_break_the_lines_is_refused(store: SnapshotStore) -> None:
    with pytest.raises(InputError, match=r"U\+000A"):
        write(store, [Item("a\nb", {})])


def test_recall_is_measured(store: SnapshotStore) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, DIM)).astype(np.float32)

    class Worse:
        """Finds only even rows."""

        def __init__(self, vectors: Vectors, metric: Metric) -> None:
            self._flat = FlatIndex(vectors[::2], metric)

        def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
            rows, scores = self._flat.search(queries, k, allowed)
            return rows * 2, scores

    for metric in Metric:
        assert measure_recall(vectors, metric, FlatIndex(vectors, metric)) == 1.0
        assert 0.35 < measure_recall(vectors, metric, Worse(vectors, metric)) < 0.65


def test_npy_grows_by_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with NpyWriter(path, np.float32, (3,)) as writer:
        writer.append(np.ones((2, 3)))
        writer.append(np.zeros((0, 3)))
        writer.append([[1, 2, 3]])
    array = np.load(path)
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 1, 1], [1, 1, 1], [1, 2, 3]]
    np.testing.assert_array_equal(map_npy(path), array)
