"""Snapshots in files: one with all kinds of attributes, one of a hybrid."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from index.build.build import build_snapshot
from index.build.import_items import import_items
from index.catalogue.open import open_catalogue
from index.snapshot.snapshot import Snapshot, SnapshotStore
from seqrec.data.items import make_item
from seqrec.encoder import Encoder, load_model
from service.live.state import Towers
from tests.contracts.search_engine_contract import LIST_ITEM
from tests.service.live.test_filters import snapshot_items
from tests.service.live.test_hybrid import SETTINGS, catalogue_of, counts_of, encoder_of, live_state


@pytest.fixture(scope="session")
def encoder(bag_of_words_checkpoint: Path) -> Encoder:
    return load_model(bag_of_words_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def towers(encoder: Encoder) -> Towers:
    return Towers(encoder)


@pytest.fixture(scope="session")
def snapshot(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home = tmp_path_factory.mktemp("engine")
    with closing(open_catalogue(home, create=True)) as catalogue:
        import_items(catalogue, encoder, [*snapshot_items(), make_item("wide", LIST_ITEM)])
        store = SnapshotStore(home)
        return store.open(build_snapshot(store, catalogue, encoder).snapshot_id)


@pytest.fixture(scope="session")
def hybrid_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home = tmp_path_factory.mktemp("hybrid")
    items = catalogue_of(40, random.Random(1))
    encoder = encoder_of(home, SETTINGS)
    ids = [item.item_id for item in items]
    counts = counts_of([ids[:5], ids[3:9]], SETTINGS.cooccurrence)
    return live_state(home / "home", encoder, items, counts, "flat").snapshot


@pytest.fixture(scope="session")
def plain_snapshot(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """`snapshot_items` alone, as tests of filters expect."""
    home = tmp_path_factory.mktemp("plain")
    with closing(open_catalogue(home, create=True)) as catalogue:
        import_items(catalogue, encoder, snapshot_items())
        store = SnapshotStore(home)
        return store.open(build_snapshot(store, catalogue, encoder).snapshot_id)


@pytest.fixture(scope="session")
def hybrid_towers(hybrid_snapshot: Snapshot) -> Towers:
    return Towers(load_model(hybrid_snapshot.path.parents[2] / "checkpoint", device="cpu"))
