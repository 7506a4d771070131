"""Entries of a stream are stored at least once and count once, whoever dies on the way."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.tools.redis_server import RedisServer
from index.build import consume_redis as module
from index.build.consume import Consumed, Record, StreamConsumer, parsed
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


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a Redis that knows another password."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                self.request.sendall(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_once_ends_with_one_line_where_nothing_can_be_read(
    stream: tuple[redis.Redis, str],
    redis_server: RedisServer,
    silent: int,
    refusing: str,
    home: Path,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    build()
    client, name = stream
    client.rpush(f"{name}-list", 1)
    address = redis_server.url.removeprefix("redis://").removesuffix("/0")
    for url, key, reason in (
        (redis_server.url, name, f"there is no stream '{name}'"),
        (redis_server.url, f"{name}-list", "the key of the stream has a value of another type; check --stream"),
        (f"redis://:secret@{refusing}/0", name, r"redis://:\.\.\.@.*: it rejects the user and password of the URL"),
        (f"redis://127.0.0.1:{silent}/0", name, "it does not answer within 0 s"),
        (f"redis://{address}/shop", name, "the database after the host is a number, not 'shop'"),
        ("redis://127.0.0.1:port/0", name, "not redis://HOST:PORT/DB: Port could not be cast"),
    ):
        with pytest.raises((CatalogueError, InputError), match=reason) as caught:
            consume([url, "--stream", key, "--home", str(home), "--once"])
        assert "secret" not in str(caught.value)
    assert not client.exists(name)  # a misspelt name leaves nothing behind


def test_a_server_that_is_away_is_logged_once(
    home: Path, build: Build, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is back, or something else goes wrong."""
    build()
    troubles = iter(["refused", "refused", "refused", "timeout", None, "refused"])

    class Flapping(StreamConsumer[Any]):
        rejected_name = ""
        at_end = False

        def read(self, wait: bool) -> list[Record[Any]]:
            trouble = next(troubles, "stop")
            if trouble == "stop":
                raise KeyboardInterrupt
            if trouble is not None:
                raise CatalogueError(trouble)
            return []

        def lag(self) -> int | None:
            return None

        def close(self) -> None: ...

        def _acknowledge(self, records: object, rejected: object) -> None: ...

    monkeypatch.setattr("index.build.consume_cli._RETRY_SECONDS", 0)
    monkeypatch.setattr("index.build.consume_cli._opener", lambda arguments: Flapping)
    with caplog.at_level("INFO", "index.build.consume_cli"), pytest.raises(KeyboardInterrupt):
        consume(["redis://x", "--home", str(home)])
    said = [record.getMessage().partition("; trying")[0] for record in caplog.records]
    assert said == ["redis://x: refused", "redis://x: timeout", "reading again", "redis://x: refused"]


def test_once_ends_where_nothing_comes_and_there_is_no_end(
    home: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()

    class Endless(StreamConsumer[Any]):
        rejected_name = ""
        at_end = False

        def read(self, wait: bool) -> list[Record[Any]]:
            return []

        def lag(self) -> int | None:
            return None

        def close(self) -> None: ...

        def _acknowledge(self, records: object, rejected: object) -> None: ...

    monkeypatch.setattr("index.build.consume_cli._ONCE_SECONDS", 0.2)
    monkeypatch.setattr("index.build.consume_cli._opener", lambda arguments: Endless)
    with pytest.raises(CatalogueError, match="redis://x: nothing arrived for 0 s, and it is not read to its end"):
        consume(["redis://x", "--home", str(home), "--once"])
