"""The load of the soak, and its record of what was acknowledged and of what may or may not have happened."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from index.catalogue.open import open_catalogue, open_histories
from index.snapshot.publication import check_servable, published
from index.snapshot.snapshot import SnapshotStore

WRITERS = 3
KEYS = 30  # of each writer; written, changed, deleted and written again
_OUTCOMES = {200, 429, 503}
"""Any other status is a defect."""

READY_SECONDS = 60.0


class Wrong(Exception):
    """The service broke a promise."""


@dataclass
class Slot:
    """An item of one writer. `title` None: absent. `maybe`: titles of later attempts without an answer."""

    title: str | None = None
    seq: int = 0
    maybe: list[str | None] = field(default_factory=list)


class Load:
    """Several concurrent clients. Each item has one writer, so that the order of its changes is known."""

    def __init__(self, items: dict[str, str], seed: int) -> None:
        self.slots = {item_id: Slot(title) for item_id, title in items.items()}
        self.events: dict[str, set[str]] = {}  # by user: ids of acknowledged events
        self.maybe_events: dict[str, set[str]] = {}
        self.numbers: dict[int, tuple[str, str | None]] = {}
        self.highest = 0
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._seed = seed
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._round = 0
        for writer in range(WRITERS):
            self.slots |= {f"w{writer}-{key}": Slot() for key in range(KEYS)}

    def start(self, url: str) -> None:
        self._stopping.clear()
        self._round += 1
        clients = [(self._write, writer) for writer in range(WRITERS)] + [(self._read, 0), (self._reindex, 0)]
        self._threads = [
            threading.Thread(target=self._client, args=(work, number, url), daemon=True) for work, number in clients
        ]
        for thread in self._threads:
            thread.start()

    def until(self, writes: int, most: float) -> None:
        """Wait until `writes` more writes were acknowledged, or for `most` seconds."""
        writes += self.counts["acknowledged writes"]
        end = time.monotonic() + most
        while self.counts["acknowledged writes"] < writes and time.monotonic() < end:
            time.sleep(0.001)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _client(self, work: Any, number: int, url: str) -> None:
        chance = random.Random(f"{self._seed}-{self._round}-{work.__name__}-{number}")
        while not self._stopping.is_set():
            try:
                # A connection stays with one worker, so open a new one from time to time.
                with httpx.Client(base_url=url, timeout=60) as client:
                    for _ in range(20):
                        if not self._stopping.is_set():
                            work(client, chance, number)
            except httpx.TransportError:
                self._stopping.wait(0.02)

    def _write(self, client: httpx.Client, chance: random.Random, writer: int) -> None:
        if chance.random() < 0.15:
            self._post_events(client, chance, writer)
        elif chance.random() < 0.2:
            key = f"w{writer}-{chance.randrange(KEYS)}"
            self._change(client, "DELETE", f"/items/{key}", None, {key: None})
        else:
            titles = {
                f"w{writer}-{key}": f"thing number{key} turn{chance.randrange(10**6)}"
                for key in chance.sample(range(KEYS), chance.randint(1, 4))
            }
            body = {"items": [{"item_id": key, "attributes": {"title": title}} for key, title in titles.items()]}
            self._change(client, "POST", "/items", body, dict(titles))

    def _change(
        self, client: httpx.Client, method: str, path: str, body: object, change: dict[str, str | None]
    ) -> None:
        for key, title in change.items():
            self.slots[key].maybe.append(title)
        reply = client.request(method, path, json=body)
        with self._lock:
            if reply.status_code != 404:
                self._expect(reply, f"{method} {path}")
            if reply.status_code == 404 and None not in {self.slots[key].title for key in change}:
                maybe = [title for key in change for title in self.slots[key].maybe[:-1]]
                if None not in maybe:
                    self.wrong.append(f"{path} was acknowledged and is missing: {reply.text}")
            if reply.status_code == 404:
                for key in change:
                    self.slots[key] = Slot()
            if reply.status_code != 200:
                self.counts["writes refused or uncertain"] += reply.status_code != 404
                return
            self.counts["acknowledged writes"] += 1
            seq = reply.json()["seq"]
            first = seq - len(change) + 1
            for number, (key, title) in enumerate(change.items(), first):
                what = ("delete" if title is None else "put", key)
                if self.numbers.setdefault(number, what) != what:
                    self.wrong.append(f"number {number} was assigned to {self.numbers[number]} and to {what}")
                self.slots[key] = Slot(title, number)
            self.highest = max(self.highest, seq)

    def _post_events(self, client: httpx.Client, chance: random.Random, writer: int) -> None:
        user = f"user-{writer}"
        event_id = f"{chance.randrange(10**9)}"
        self.maybe_events.setdefault(user, set()).add(event_id)
        event = {"user_id": user, "item_id": f"first-{chance.randrange(10)}", "event_id": event_id}
        reply = client.post("/events", json={"events": [event | {"timestamp": time.time() - chance.random() * 1000}]})
        with self._lock:
            self._expect(reply, "POST /events")
            if reply.status_code == 200:
                self.counts["acknowledged events"] += 1
                self.events.setdefault(user, set()).add(event_id)

    def _read(self, client: httpx.Client, chance: random.Random, _: int) -> None:
        body = {"history": [f"first-{chance.randrange(10)}"], "k": 5, "user_id": "user-0"}
        reply = client.post("/recommend", json=body)
        with self._lock:
            self._expect(reply, "POST /recommend")
            self.counts["answers"] += reply.status_code == 200
            self.counts["reads refused"] += reply.status_code != 200
            if reply.status_code == 200 and len(reply.json()["items"]) != 5:
                self.wrong.append(f"an answer with {len(reply.json()['items'])} items instead of 5")
        time.sleep(0.01)

    def _reindex(self, client: httpx.Client, chance: random.Random, _: int) -> None:
        self._stopping.wait(chance.uniform(0, 0.5))
        if not self._stopping.is_set():
            reply = client.post("/reindex")
            with self._lock:
                if reply.status_code not in (202, 503):
                    self.wrong.append(f"POST /reindex: {reply.status_code} {reply.text}")
                self.counts["reindexes requested"] += reply.status_code == 202
        self._stopping.wait(1)

    def _expect(self, reply: httpx.Response, what: str) -> None:
        if reply.status_code not in _OUTCOMES:
            self.wrong.append(f"{what}: {reply.status_code} {reply.text[:500]}")


def check(load: Load, url: str, home: Path, redis_url: str | None) -> None:
    """Compare what is stored and served with what was acknowledged. Raises Wrong."""
    if load.wrong:
        raise Wrong("; ".join(load.wrong[:5]))
    location = redis_url or home
    with closing(open_catalogue(location)) as catalogue:
        there = {e.item.item_id: (seq, str(e.item.attributes["title"])) for seq, e in catalogue.scan()}
        if catalogue.head() < load.highest:
            raise Wrong(f"the catalogue is at {catalogue.head()}; {load.highest} was acknowledged")
        for item_id, slot in load.slots.items():
            seq, title = there.get(item_id, (0, None))
            if title != slot.title and title not in slot.maybe:
                raise Wrong(f"{item_id!r} was acknowledged as {slot.title!r} ({slot.seq}) and is {title!r} ({seq})")
            if title == slot.title and slot.seq and title is not None and seq < slot.seq:
                raise Wrong(f"{item_id!r} was acknowledged with number {slot.seq} and has {seq}")
            load.counts["uncertain writes that happened"] += title != slot.title
            load.slots[item_id] = Slot(title, seq)
        if there.keys() - load.slots.keys():
            raise Wrong(f"items that nobody posted: {sorted(there.keys() - load.slots.keys())[:5]}")
        served, store = published(catalogue), SnapshotStore(home)
        assert served is not None
        check_servable(home, catalogue, store.verify(served).manifest)
        load.counts["snapshots made"] = len({change.snapshot_id for change in catalogue.publications()}) - 1
        for change in catalogue.changes(store.open(served).manifest.seq, 10**6):
            what = (change.op, change.item_id)
            if load.numbers.setdefault(change.seq, what) != what:
                raise Wrong(f"number {change.seq} was assigned to {load.numbers[change.seq]} and to {what}")
    _check_events(load, location)
    with httpx.Client(base_url=url, timeout=60) as client:
        body = {"history": [{"attributes": {"title": "thing"}}], "k": 1000, "min_seq": load.highest}
        end = time.monotonic() + READY_SECONDS
        # One worker is ready; another one may still be loading, and says so with 503.
        while (reply := client.post("/recommend", json=body)).status_code == 503 and time.monotonic() < end:
            time.sleep(0.1)
        found = {item["item_id"]: item["attributes"]["title"] for item in reply.json().get("items", [])}
        if reply.status_code != 200 or found != {item_id: title for item_id, (_, title) in there.items()}:
            missing = sorted(there.keys() - found.keys())[:5]
            raise Wrong(f"stored items are not found: {reply.status_code}, {missing} missing, {reply.text[:300]}")


def _check_events(load: Load, location: Path | str) -> None:
    with closing(open_histories(location)) as histories:
        for user in load.maybe_events:
            stored = [event.event_id for event in histories.recent(user, 10**6)]
            if len(stored) != len(set(stored)):
                raise Wrong(f"an event of {user} is stored twice")
            lost = load.events.get(user, set()) - set(stored)
            if lost or set(stored) - load.maybe_events[user]:
                raise Wrong(f"events of {user} that were acknowledged were lost: {sorted(lost)[:5]}")
