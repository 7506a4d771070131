"""Entries of a stream are stored at least once and count once, whoever dies on the way."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.tools.redis_server import RedisServer
from index.build import consume_redis as module
from index.build.consume import Consumed, parsed
from index.build.consume_cli import consume
from index.build.consume_redis import RedisConsumer
from index.catalogue.histories import HistoryStore
from index.catalogue.open import open_catalogue, open_histories
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from seqrec.encoder import Encoder
from seqrec.errors import CatalogueError, InputError
from tests.index.conftest import Build


@pytest.fixture
def stream(redis_server: RedisServer) -> Iterator[tuple[redis.Redis, str]]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client, f"stream-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def histories(home: Path) -> Iterator[HistoryStore]:
    store = open_histories(home)
    yield store
    store.close()


def add(stream: tuple[redis.Redis, str], kind: str, **record: Any) -> None:
    client, name = stream
    client.xadd(name, {kind: json.dumps(record)})


def event(stream: tuple[redis.Redis, str], item_id: str, **more: Any) -> None:
    add(stream, "event", user_id="u", item_id=item_id, **more)


def test_a_killed_consumer_s_entries_are_stored_once(
    stream: tuple[redis.Redis, str], catalogue: SqliteCatalogue, histories: HistoryStore, encoder: Encoder
) -> None:
    event(stream, "a", timestamp=1, type="view", value=2)
    event(stream, "b", timestamp=2, event_id="mine")
    add(stream, "item", item_id="kite", attributes={"title": "Paper kite"})
    first = RedisConsumer(*stream, "shop", "one")
    entries = first.read(wait=False)
    assert len(entries) == 3
    # It stores, and dies before it can acknowledge.
    client, name = stream
    assert client.xpending(name, "shop")["pending"] == 3
    histories.add(parsed(entries[:2]).events)
    again = RedisConsumer(*stream, "shop", "one")
    done = again.apply(again.read(wait=False), catalogue, histories, lambda: encoder)
    assert done == Consumed(events=0, items=1, rejected=0, lag=0)
    assert [(e.item_id, e.timestamp, e.type, e.value) for e in histories.recent("u", 9)] == [
        ("a", 1.0, "view", 2.0),
        ("b", 2.0, "", None),
    ]
    stored = catalogue.get("kite")
    assert stored is not None
    assert stored[1].vector is not None
    assert client.xpending(name, "shop")["pending"] == 0
    assert again.read(wait=False) == []


def test_entries_of_a_consumer_that_is_gone_go_to_another(
    stream: tuple[redis.Redis, str],
    catalogue: SqliteCatalogue,
    histories: HistoryStore,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event(stream, "a", timestamp=1)
    assert len(RedisConsumer(*stream, "shop", "gone").read(wait=False)) == 1
    other = RedisConsumer(*stream, "shop", "other")
    assert other.read(wait=False) == [], "it may live"
    monkeypatch.setattr(module, "CLAIM_SECONDS", 0.0)
    assert other.apply(other.read(wait=False), catalogue, histories, lambda: encoder).events == 1


def test_what_fails_to_be_stored_stays(
    stream: tuple[redis.Redis, str],
    catalogue: SqliteCatalogue,
    histories: HistoryStore,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event(stream, "a", timestamp=1)
    consumer = RedisConsumer(*stream, "shop", "one")
    entries = consumer.read(wait=False)
    with monkeypatch.context() as broken:

        def full(events: Any) -> int:
            raise CatalogueError("the disk is full")

        broken.setattr(histories, "add", full)
        with pytest.raises(CatalogueError):
            consumer.apply(entries, catalogue, histories, lambda: encoder)
    again = RedisConsumer(*stream, "shop", "one")
    assert again.apply(again.read(wait=False), catalogue, histories, lambda: encoder).events == 1


def test_what_cannot_be_read_is_moved_with_the_reason(
    stream: tuple[redis.Redis, str], catalogue: SqliteCatalogue, histories: HistoryStore, encoder: Encoder
) -> None:
    client, name = stream
    client.xadd(name, {"event": "{"})
    client.xadd(name, {"event": b"\xff"})
    client.xadd(name, {"other": "x"})
    event(stream, "a", colour="red")
    add(stream, "item", item_id="mute", attributes={"title": "!!"})
    add(stream, "item", item_id="desk", attributes={"title": "Oak desk"})
    add(stream, "item", item_id="desk", attributes={"title": "Pine desk"})
    event(stream, "desk")
    consumer = RedisConsumer(*stream, "shop", "one")
    done = consumer.apply(consumer.read(wait=False), catalogue, histories, lambda: encoder)
    assert done == Consumed(events=1, items=1, rejected=5, lag=0)
    rejected = {fields[b"reason"].decode(): fields for _, fields in client.xrange(consumer.rejected_name)}
    assert len(rejected) == 5
    assert "colour: unknown field" in rejected
    assert rejected["the model finds no text in it"][b"item"]
    stored = catalogue.get("desk")
    assert stored is not None
    assert stored[1].item.attributes == {"title": "Pine desk"}
    assert histories.recent("u", 9)[0].timestamp > 1.7e9, "when its entry was added"


def test_the_command_reads_to_the_end_and_continues(
    stream: tuple[redis.Redis, str],
    redis_server: RedisServer,
    home: Path,
    build: Build,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build()
    argv = [redis_server.url, "--stream", stream[1], "--home", str(home), "--once"]
    for n in range(1500):
        event(stream, f"i{n}", timestamp=n)
    add(stream, "item", item_id="kite", attributes={"title": "Paper kite"})
    consume(argv)
    assert capsys.readouterr().out == "1,500 events and 1 items stored; 0 entries to read\n"
    event(stream, "late", timestamp=5000)
    consume([*argv, "--json"])
    assert json.loads(capsys.readouterr().out) == {"events": 1, "items": 0, "rejected": 0, "lag": 0}
    with closing(open_catalogue(home)) as catalogue:
        assert catalogue.get("kite") is not None
    with pytest.raises(CatalogueError, match=r"redis://127\.0\.0\.1:1"):
        consume(["redis://127.0.0.1:1", *argv[1:]])
    with pytest.raises(InputError, match="neither the URL of a Redis"):
        consume(["amqp://x"])
