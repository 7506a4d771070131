from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.build.build import build_snapshot
from index.build.import_items import Imported, import_items
from index.build.reindex import Request, make_snapshot
from index.catalogue.base import CatalogueItem
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from index.snapshot.checkpoints import checkpoint_path, has_checkpoint, keep_checkpoint
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item
from seqrec.encoder import Encoder, load_model
from seqrec.errors import FileFormatError, InputError
from seqrec.text.item_text import ItemTokens, TokenizedItem
from tests.index.conftest import Build


@pytest.fixture
def encoded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call has encoded."""
    calls: list[int] = []
    original = Encoder.encode_item_tokens

    def counting(self: Encoder, items: ItemTokens, *rest: object) -> object:
        if len(items):
            calls.append(len(items))
        return original(self, items, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode_item_tokens", counting)
    return calls


def test_import_upserts_what_is_new_or_changed_only(
    catalogue: SqliteCatalogue, encoder: Encoder, tiny_items: list[Item], encoded: list[int]
) -> None:
    assert import_items(catalogue, encoder, tiny_items) == Imported(created=8)
    assert import_items(catalogue, encoder, tiny_items) == Imported(unchanged=8)
    assert catalogue.head() == 8
    words = Item("desk-1", {"title": "Ash desk"})
    hidden = Item("desk-2", tiny_items[1].attributes, available=False)
    assert import_items(catalogue, encoder, [words, hidden, *tiny_items[2:]]) == Imported(updated=2, unchanged=6)
    assert encoded == [8, 1]  # hiding an item changes no word of it
    for item in (words, hidden):
        found = catalogue.get(item.item_id)
        assert found is not None
        assert found[1].item == item
        assert found[1].item_tower == encoder.checkpoint.item_tower
        np.testing.assert_allclose(found[1].vector, encoder.encode_items([item])[0], atol=1e-6)


def test_import_encodes_again_for_another_tower(
    catalogue: SqliteCatalogue, encoder: Encoder, other_checkpoint: Path, tiny_items: list[Item]
) -> None:
    import_items(catalogue, encoder, tiny_items)
    other = load_model(other_checkpoint)
    assert import_items(catalogue, other, tiny_items) == Imported(unchanged=8, reencoded=8)
    found = catalogue.get("mug-1")
    assert found is not None
    assert found[1].vector is not None
    assert found[1].vector.shape == (16,)


def test_only_what_another_model_encoded_is_counted_as_encoded_again(
    catalogue: SqliteCatalogue, encoder: Encoder, other_checkpoint: Path, tiny_items: list[Item]
) -> None:
    import_items(catalogue, encoder, tiny_items)
    changed = [Item("desk-1", {"title": "Ash desk"}), *tiny_items[1:], Item("new", {"title": "new"})]
    imported = import_items(catalogue, load_model(other_checkpoint), changed)
    assert imported == Imported(created=1, updated=1, unchanged=7, reencoded=7)


def test_the_order_of_attributes_is_a_change(catalogue: SqliteCatalogue, encoder: Encoder) -> None:
    import_items(catalogue, encoder, [Item("a", {"title": "x", "brand": "y"})])
    assert import_items(catalogue, encoder, [Item("a", {"brand": "y", "title": "x"})]).updated == 1


def test_items_without_text_are_named_and_nothing_is_written(
    catalogue: SqliteCatalogue, other_checkpoint: Path
) -> None:
    silent = [Item(f"s{i}", {"brand": "Acme"}) for i in range(6)]
    items = [Item("a", {"title": "desk"}), *silent, Item("b", {"title": "..."})]
    encoder = load_model(other_checkpoint)
    with pytest.raises(InputError, match=r"7 items have nothing that the model can read: 's0', .*, \.\.\.; give them"):
        import_items(catalogue, encoder, items)
    assert catalogue.head() == 0
    assert import_items(catalogue, encoder, items, on_error="skip") == Imported(created=1, left_out=7)


def test_import_goes_in_batches_and_reports_how_far(
    catalogue: SqliteCatalogue, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.catalogue.batches.BATCH", 3)
    reported: list[tuple[int, int]] = []
    items = [Item(str(i), {"title": f"item {i}"}) for i in range(7)]
    import_items(catalogue, encoder, items, progress=lambda done, total: reported.append((done, total)))
    assert reported == [(3, 7), (6, 7), (7, 7)]


def test_a_snapshot_holds_the_catalogue(
    home: Path, catalogue: SqliteCatalogue, encoder: Encoder, tiny_items: list[Item]
) -> None:
    import_items(catalogue, encoder, tiny_items)
    catalogue.delete(["mug-2"])
    store = SnapshotStore(home)
    reported: list[tuple[int, int]] = []
    manifest = build_snapshot(
        store, catalogue, encoder, {"mug-1": 3}, progress=lambda done, total: reported.append((done, total))
    )
    snapshot = store.open(manifest.snapshot_id)
    left = sorted((item for item in tiny_items if item.item_id != "mug-2"), key=lambda item: item.item_id)
    assert list(snapshot.item_ids) == [item.item_id for item in left]
    assert [snapshot.item(row) for row in range(len(left))] == left
    np.testing.assert_allclose(snapshot.vectors, encoder.encode_items(left), atol=1e-6)
    assert [tokens.ids.tolist() for tokens in snapshot.tokens] == [t.ids.tolist() for t in encoder.tokenize_items(left)]
    assert snapshot.popularity[snapshot.row_of("mug-1") or 0] == 3
    assert snapshot.popularity.sum() == 3
    assert reported[-1] == (7, 7)
    assert (manifest.seq, manifest.count, manifest.recall, manifest.metric) == (9, 7, 1.0, "cosine")
    assert manifest.catalogue_id == catalogue.catalogue_id
    checkpoint = encoder.checkpoint
    assert (manifest.checkpoint, manifest.item_tower) == (checkpoint.digest, checkpoint.item_tower)


def test_what_comes_while_it_is_built_is_left_to_the_log(
    home: Path, catalogue: SqliteCatalogue, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.catalogue.batches.BATCH", 2)
    import_items(catalogue, encoder, [Item(str(i), {"title": f"item {i}"}) for i in range(6)])
    store, added = SnapshotStore(home), False

    def add(done: int, total: int) -> None:
        nonlocal added
        if not added:
            added = True
            import_items(catalogue, encoder, [Item("7", {"title": "new"}), Item("5", {"title": "changed"})])
            catalogue.delete(["4"])

    manifest = build_snapshot(store, catalogue, encoder, progress=add)
    assert manifest.seq == 6
    snapshot = store.open(manifest.snapshot_id)
    changes = [(change.op, change.item_id) for change in catalogue.changes(manifest.seq, 10)]
    assert changes == [("put", "7"), ("put", "5"), ("delete", "4")]
    assert set(snapshot.item_ids) >= {"0", "1", "2", "3"}
    assert "7" not in snapshot.item_ids


def test_vectors_of_the_same_tower_are_not_made_again(build: Build, encoded: list[int], home: Path) -> None:
    build()
    assert encoded == [8]
    build()
    assert encoded == [8]


def test_vectors_of_another_precision_do_not_serve(build: Build, encoded: list[int], home: Path) -> None:
    build(precision="int8")
    build(precision="int8")
    assert encoded == [8]
    build(precision="float32")
    assert encoded == [8, 8]


def test_vectors_come_from_the_snapshot_before_when_the_log_has_others(
    build: Build, encoded: list[int], other_checkpoint: Path, catalogue: SqliteCatalogue
) -> None:
    build()
    build(checkpoint=other_checkpoint, items=())
    assert encoded == [8, 8]
    catalogue.put([CatalogueItem(Item("new", {"title": "new item"}))])
    found = catalogue.get("desk-1")
    assert found is not None
    catalogue.put([CatalogueItem(Item("desk-1", {"title": "Ash desk"}), *_unencoded())])
    # The log has vectors of the first tower only: the six others come from the snapshot.
    manifest = build(checkpoint=other_checkpoint, items=()).manifest
    assert encoded == [8, 8, 2]
    assert manifest.count == 9


def _unencoded() -> tuple[TokenizedItem, None, None]:
    return TokenizedItem(np.zeros(0, np.int32), np.zeros(0, np.uint8)), None, None


def test_popularity_is_counted_and_then_carried(build: Build, tmp_path: Path, home: Path) -> None:
    interactions = tmp_path / "events.csv"
    interactions.write_text("user_id,item_id,timestamp\nu,mug-1,1\nv,mug-1,2\nv,desk-1,3\n", encoding="utf-8")
    assert not build().manifest.popularity
    store = SnapshotStore(home)
    for changes in ({"interactions": interactions}, {"items": [Item("new", {"title": "x"})]}):
        manifest = build(**changes).manifest
        snapshot = store.open(manifest.snapshot_id)
        counts = snapshot.counts
        assert manifest.popularity
        assert dict(zip(counts.item_ids, counts.events.tolist(), strict=True)) == {"mug-1": 2, "desk-1": 1}


def test_an_interaction_with_an_unknown_item_is_named(build: Build, tmp_path: Path, home: Path) -> None:
    interactions = tmp_path / "events.csv"
    interactions.write_text("user_id,item_id,timestamp\nu,mug-1,1\nv,sofa,2\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"line 3.*'sofa'"):
        build(interactions=interactions)
    assert SnapshotStore(home).list() == []
    assert build(interactions=interactions, on_error="skip").manifest.popularity


def test_items_that_a_new_model_cannot_read_are_named(
    build: Build, other_checkpoint: Path, catalogue: SqliteCatalogue, home: Path
) -> None:
    build(items=[Item("a", {"title": "desk"}), Item("b", {"brand": "Acme"})])
    before = SnapshotStore(home).list()
    with pytest.raises(InputError, match="1 items have nothing that the model can read: 'b'"):
        build(checkpoint=other_checkpoint, items=())
    assert SnapshotStore(home).list() == before
    manifest = build(checkpoint=other_checkpoint, items=(), on_error="skip").manifest
    assert list(SnapshotStore(home).open(manifest.snapshot_id).item_ids) == ["a"]
    assert catalogue.get("b") is not None


def test_a_model_of_ids_leaves_unknown_items_out(
    home: Path, catalogue: SqliteCatalogue, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize = Encoder.tokenize_items

    def only_known(self: Encoder, items: list[Item]) -> ItemTokens:
        none = TokenizedItem(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        return ItemTokens.concatenate(
            none if item.item_id == "b" else tokens for item, tokens in zip(items, tokenize(self, items), strict=True)
        )

    monkeypatch.setattr(encoder, "cold_items", False)
    monkeypatch.setattr(Encoder, "tokenize_items", only_known)
    items = [Item("a", {"title": "desk"}), Item("b", {"title": "lamp"})]
    assert import_items(catalogue, encoder, items) == Imported(created=2)
    assert import_items(catalogue, encoder, items) == Imported(unchanged=2)
    store = SnapshotStore(home)
    manifest = build_snapshot(store, catalogue, encoder)
    assert list(store.open(manifest.snapshot_id).item_ids) == ["a"]


def test_an_emptied_catalogue_can_be_indexed(build: Build, catalogue: SqliteCatalogue, home: Path) -> None:
    build(items=[Item("a", {"title": "desk"})])
    catalogue.delete(["a"])
    manifest = build(items=()).manifest
    assert manifest.count == 0
    assert list(SnapshotStore(home).open(manifest.snapshot_id).item_ids) == []


def test_the_checkpoint_is_kept_with_the_snapshots(
    build: Build, home: Path, encoder: Encoder, bag_of_words_checkpoint: Path
) -> None:
    manifest = build().manifest
    path = checkpoint_path(home, manifest)
    assert path == home / "checkpoints" / manifest.checkpoint[:12]
    assert {file.name for file in path.iterdir()} == {file.name for file in bag_of_words_checkpoint.iterdir()}
    assert load_model(path).checkpoint.digest == manifest.checkpoint
    (path / "config.json").write_text("{}", encoding="utf-8")
    assert not has_checkpoint(home, manifest)
    keep_checkpoint(home, encoder.checkpoint)
    assert has_checkpoint(home, manifest)


def test_an_item_that_changed_but_for_its_text_is_not_encoded_again(
    build: Build, encoded: list[int], catalogue: SqliteCatalogue, home: Path, tiny_items: list[Item]
) -> None:
    """Also where who wrote it encoded nothing, as a restored backup of another model's."""
    build()
    assert encoded == [8]
    for item in tiny_items:
        catalogue.put([CatalogueItem(replace(item, available=not item.available))])
    manifest = make_snapshot(home, Request()).manifest
    assert sum(encoded) == 8
    snapshot = SnapshotStore(home).open(manifest.snapshot_id)
    assert [bool(shown) for shown in snapshot.available] == [
        not item.available for item in sorted(tiny_items, key=lambda item: item.item_id)
    ]


def test_stored_items_that_the_file_lacks_are_counted_and_stay(
    build: Build, tiny_items: list[Item], catalogue: SqliteCatalogue
) -> None:
    build()
    imported = build(items=tiny_items[2:]).imported
    assert (imported.unchanged, imported.not_in_file, imported.deleted) == (6, 2, 0)
    assert catalogue.count() == 8


def test_replace_deletes_what_the_file_lacks(
    build: Build, tiny_items: list[Item], catalogue: SqliteCatalogue, home: Path
) -> None:
    build()
    result = build(items=[*tiny_items[2:], Item("new", {"title": "new"})], replace=True)
    assert (result.imported.created, result.imported.not_in_file, result.imported.deleted) == (1, 2, 2)
    assert catalogue.ids() == {item.item_id for item in tiny_items[2:]} | {"new"}
    assert set(SnapshotStore(home).open(result.manifest.snapshot_id).item_ids) == catalogue.ids()


@pytest.mark.parametrize(("kept", "max_delete"), [(4, 0.3), (0, 0.99), (7, 0.0)])
def test_an_incomplete_export_does_not_empty_the_shop(
    build: Build, tiny_items: list[Item], catalogue: SqliteCatalogue, kept: int, max_delete: float
) -> None:
    build()
    head = catalogue.head()
    items = [*tiny_items[:kept], Item("new", {"title": "new"})]
    with pytest.raises(InputError, match=rf"{8 - kept} of 8 stored items .*--max-delete"):
        build(items=items, replace=True, max_delete=max_delete)
    assert (catalogue.head(), catalogue.count()) == (head, 8)
    build(items=items, replace=True, max_delete=1)
    assert catalogue.count() == kept + 1


def test_replace_needs_items(build: Build) -> None:
    build()
    with pytest.raises(InputError, match=r"--replace .* needs --items"):
        build(items=(), replace=True)


def test_items_that_come_back_after_a_delete_are_named(
    build: Build, catalogue: SqliteCatalogue, tiny_items: list[Item]
) -> None:
    build()
    catalogue.delete(["mug-1", "mug-2"])
    imported = build(items=[*tiny_items, Item("new", {"title": "new"})]).imported
    assert (imported.created, imported.recreated) == (3, ("mug-1", "mug-2"))
    assert build().imported.recreated == ()
