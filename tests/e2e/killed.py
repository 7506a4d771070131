"""Those who kill, and what must be true afterwards."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from benchmarks.tools.redis_server import RedisServer
from index.build.reindex import Request, make_snapshot
from index.catalogue.histories import Event
from index.catalogue.open import open_catalogue, open_histories
from index.events.counting import count_events, follow, start_counts
from index.snapshot.publication import check_servable, published
from index.snapshot.snapshot import Snapshot, SnapshotStore
from seqrec.data.items import Item
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from service.app import create_app
from service.settings import Settings
from tests.e2e.ready import Client, until_served


@dataclass
class Oracle:
    """What was acknowledged, and what may or may not have happened. `check` opens everything as a restart does."""

    home: Path
    checkpoint: Path
    redis_url: str | None = None
    items: dict[str, dict[str, str]] = field(default_factory=dict)
    uncertain: dict[str, dict[str, str] | None] = field(default_factory=dict)  # None: perhaps deleted
    numbers: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    head: int = 0
    events: list[Event] = field(default_factory=list)  # user by user, each user's oldest first
    maybe_events: list[Event] | None = (
        None  # all there are if what is not acknowledged happened; None: it did not begin
    )
    events_head: int = 0

    @property
    def location(self) -> Path | str:
        return self.redis_url or self.home

    def build(self) -> None:
        self.items = {f"old-{n}": {"title": f"old thing number{n}"} for n in range(4)}
        request = Request(checkpoint=self.checkpoint, items=[Item(i, a) for i, a in self.items.items()])
        make_snapshot(self.home, request, location=self.location)

    def settle(self) -> None:
        """What was uncertain has happened."""
        self.items |= {item_id: of for item_id, of in self.uncertain.items() if of is not None}
        self.items = {i: of for i, of in self.items.items() if self.uncertain.get(i, of) is not None}
        self.uncertain = {}
        if self.maybe_events is not None:
            self.events, self.maybe_events = self.maybe_events, None

    def check(self, serve: bool) -> None:
        """Everything acknowledged is there, no number was given twice, all snapshots are whole; and it is served."""
        self._let_leases_run_out()
        with closing(open_catalogue(self.location)) as catalogue:
            there = {entry.item.item_id: dict(entry.item.attributes) for _, entry in catalogue.scan()}
            if there != self.items:  # what was not acknowledged: all of it or nothing
                self.settle()
            self.uncertain = {}
            assert there == self.items
            assert catalogue.head() >= self.head, "acknowledged numbers would be given out again"
            self.head = catalogue.head()
            served = published(catalogue)
            assert served is not None
            store = SnapshotStore(self.home)
            snapshot = store.verify(served)
            check_servable(self.home, catalogue, snapshot.manifest)
            for snapshot_id in store.list():
                assert store.verify(snapshot_id).manifest.catalogue_id == catalogue.catalogue_id
            for change in catalogue.changes(snapshot.manifest.seq, 10**6):
                what = (change.op, change.item_id or change.snapshot_id)
                assert self.numbers.setdefault(change.seq, what) == what, "a number was used twice"
        self._check_events(snapshot)
        if serve:
            self.ask(served)

    def _check_events(self, snapshot: Snapshot) -> None:
        """Every acknowledged event is there once, and counts once: from the snapshot on, and when all are recounted."""
        with closing(open_histories(self.location)) as histories:
            there = list(histories.scan())
            if there != self.events:  # what was not acknowledged: all of it or nothing
                assert there == self.maybe_events
                self.events = there
            self.maybe_events = None
            assert histories.events_head() >= self.events_head, "acknowledged numbers would be given out again"
            self.events_head = histories.events_head()
            for pairs in (None, CooccurrenceSettings(window=3)):
                base = snapshot.counts if pairs is None else None
                counts = start_counts(histories, pairs, base)
                follow(histories, counts)
                found, anew = counts.compact(), count_events(histories, pairs)
                assert (list(found.item_ids), found.events.tolist()) == (list(anew.item_ids), anew.events.tolist())
                assert (found.columns.tolist(), found.values.tolist()) == (anew.columns.tolist(), anew.values.tolist())
                assert dict(zip(anew.item_ids, anew.events.tolist(), strict=True)) == self._counted()

    def _counted(self) -> dict[str, float]:
        return {item: float(count) for item, count in sorted(Counter(event.item_id for event in self.events).items())}

    def _let_leases_run_out(self) -> None:
        """In a Redis a lease outlives its holder by half a minute. Nobody waits for that here."""
        if self.redis_url is not None:
            with redis.Redis.from_url(self.redis_url.partition("?")[0]) as client:
                for key in client.scan_iter("*lease*"):
                    client.delete(key)

    def ask(self, served: str) -> None:
        with Client(
            create_app(Settings(home=self.home, redis_url=self.redis_url, follow_seconds=0.05, deadline=60))
        ) as client:
            until_served(client, served)
            for chosen in ({}, {"candidates": list(self.items)}):
                body = {"history": [{"attributes": {"title": "thing"}}], "k": 1000, "min_seq": self.head, **chosen}
                answer = client.post("/recommend", json=body).json()
                assert {item["item_id"] for item in answer["items"]} == set(self.items)
                assert answer["snapshot"] == served
            popular = client.post("/popular", json={"k": 1000}).json()["items"]
            counted = {item_id: count for item_id, count in self._counted().items() if item_id in self.items}
            assert {item["item_id"]: item["score"] for item in popular} == counted


class Killer:
    """Gives orders to `tests/e2e/killing.py`, which forks those who are killed."""

    def __init__(self, process: subprocess.Popen[str], oracle: Oracle, server: RedisServer | None) -> None:
        """With a `server`, it is the server that is killed."""
        self.process, self.oracle, self.server = process, oracle, server
        self._ended = threading.Event()

    def order(self, do: str, at: int = 0, **more: Any) -> dict[str, Any]:
        """Have it done, killed at step `at`; 0: not at all."""
        victim = reviving = None
        if self.server is not None and at:
            assert self.server.process is not None
            victim = self.server.process.pid
            reviving = threading.Thread(target=self._revive, args=(self.server.process,))
            reviving.start()
        self._send(do, at=at, victim=victim, **more)
        answer = self.answer()
        if reviving is not None:
            if answer["steps"] < at:  # it was not killed
                self._ended.set()
            reviving.join()
            self._ended.clear()
        assert answer["killed"] or answer["done"] or answer["error"], answer
        return answer

    def begin(self, do: str, **more: Any) -> int:
        """Have it begun, but stopped (SIGCONT lets it go on); the process that will do it. `answer` comes next."""
        self._send(do, at=0, victim=None, pause=True, **more)
        return int(self.answer()["process"])

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def _send(self, do: str, **more: Any) -> None:
        oracle = self.oracle
        order = {"do": do, "home": str(oracle.home), "checkpoint": str(oracle.checkpoint), **more}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order | {"redis_url": oracle.redis_url}) + "\n")
        self.process.stdin.flush()

    def _revive(self, process: subprocess.Popen[bytes]) -> None:
        """Start the server again as soon as it is killed: those who use it are still there."""
        assert self.server is not None
        while process.poll() is None and not self._ended.wait(0.002):
            pass
        if process.poll() is not None:
            self.server.start()
