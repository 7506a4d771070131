"""Milvus as the engine: the contract, the delta merged with its answers, publication, and a server that goes away."""

from __future__ import annotations

import random
import re
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from index.build.cli import index, reindex
from index.catalogue.base import CatalogueItem, Change
from index.catalogue.open import open_catalogue
from index.engines.milvus import Milvus
from index.snapshot.engine_rows import engine_recall, fill
from index.snapshot.publication import published
from index.snapshot.snapshot import Snapshot, SnapshotStore
from seqrec.data.items import make_item
from seqrec.errors import EngineUnavailable, InputError, SnapshotError
from service.app import create_app
from service.live.engines.base import EngineQuery, SearchEngine
from service.live.engines.milvus import MilvusEngine
from service.live.hybrid import HybridSearch, sparse_query
from service.live.search import SearchSpec, search
from service.live.state import LiveState, Towers
from service.settings import Settings
from tests.contracts.search_engine_contract import SearchEngineContract
from tests.milvus_server import MilvusServer
from tests.service.live.test_filters import check_filtered
from tests.service.side.models import answers_from, ask, place, second_snapshot, split, until

pytestmark = pytest.mark.slow
SECONDS = 60


@pytest.fixture(scope="module")
def milvus(milvus_server: MilvusServer) -> Milvus:
    return Milvus(milvus_server.url("contract"))


def engine_of(milvus: Milvus, snapshot: Snapshot) -> MilvusEngine:
    fill(milvus, snapshot)
    return MilvusEngine(milvus, snapshot)


class TestMilvus(SearchEngineContract):
    milvus: Milvus

    @pytest.fixture(autouse=True)
    def _server(self, milvus: Milvus) -> None:
        self.milvus = milvus

    def make(self, snapshot: Snapshot) -> SearchEngine:
        return engine_of(self.milvus, snapshot)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_delta_is_merged_exactly(
    towers: Towers, milvus: Milvus, plain_snapshot: Snapshot, data: st.DataObject
) -> None:
    """Filters, exclusions and candidates while items are posted, hidden and deleted: as with a flat index."""
    check_filtered(towers, LiveState(plain_snapshot, towers, engine=engine_of(milvus, plain_snapshot)), True, data)


def test_rows_hidden_since_the_snapshot_are_looked_through(
    towers: Towers, milvus: Milvus, plain_snapshot: Snapshot
) -> None:
    """Nearly all rows are deleted: the engine finds them first, and the few others are still found."""
    state = LiveState(plain_snapshot, towers, engine=engine_of(milvus, plain_snapshot))
    ids = list(plain_snapshot.item_ids)
    state.apply([Change(i, "delete", item_id) for i, item_id in enumerate(ids[:-4], 1)], len(ids))
    [query] = towers.encoder.encode_items([{"title": "oak desk 3"}])
    [hits] = search(state.view, query[None], [SearchSpec(3)])
    left = {item_id for row, item_id in enumerate(ids) if row >= len(ids) - 4 and plain_snapshot.available[row]}
    assert len(hits) == min(3, len(left))
    assert {state.view.item_id(hit.position) for hit in hits} <= left


def test_a_hybrid_answers_as_in_process(milvus: Milvus, hybrid_towers: Towers, hybrid_snapshot: Snapshot) -> None:
    states = [
        LiveState(hybrid_snapshot, hybrid_towers, engine=engine)
        for engine in (None, engine_of(milvus, hybrid_snapshot))
    ]
    hybrid = hybrid_towers.encoder.hybrid
    assert hybrid is not None
    ids = list(hybrid_snapshot.item_ids)
    item = make_item("posted", dict(hybrid_snapshot.item(2).attributes))
    for state in states:
        state.apply([Change(1, "put", "posted", CatalogueItem(item)), Change(2, "delete", ids[4])], 2)
    choose = random.Random(3)
    for _ in range(20):
        history = choose.sample(ids[:4] + ids[5:], 4)
        excluded = choose.sample(ids[:4] + ids[5:], 3)
        answers = []
        for state in states:
            view = state.view
            places = [view.position_of(item_id) for item_id in history]
            tokens = [view.tokens(place) for place in places if place is not None]
            sparse = sparse_query(view, list(zip(tokens, places, strict=True)))
            assert sparse is not None
            [vector] = hybrid_towers.encoder.encode_histories([[view.item(p) for p in places if p is not None]])
            spec = SearchSpec(10, frozenset(p for one in excluded if (p := view.position_of(one)) is not None))
            hits = HybridSearch(view, hybrid, vector, sparse).search(spec)
            answers.append([(view.item_id(hit.position), hit.score) for hit in hits])
        assert [item_id for item_id, _ in answers[0]] == [item_id for item_id, _ in answers[1]]
        np.testing.assert_allclose([s for _, s in answers[0]], [s for _, s in answers[1]], rtol=0, atol=1e-4)
        assert len(answers[0]) == 10


def test_a_collection_is_missing_or_unfinished(milvus: Milvus, snapshot: Snapshot) -> None:
    other = Milvus(f"{milvus.address}?prefix=other")
    vector = np.ones(snapshot.manifest.dim, np.float32)
    with pytest.raises(SnapshotError, match="seqrec index publish"):
        MilvusEngine(other, snapshot).search([EngineQuery(1, vector)])

    def stopped() -> object:
        raise OSError("the disk is full")
        yield

    with pytest.raises(OSError, match="full"):
        other.fill(snapshot.id, 3, snapshot.manifest.metric, True, False, stopped())  # type: ignore[arg-type]
    assert not other.has(snapshot.id)
    fill(other, snapshot)  # another dimension: what was left behind is gone
    assert other.has(snapshot.id)
    assert other.keep_only([]) == [other.name_of(snapshot.id)]


def test_an_approximate_collection(milvus: Milvus, snapshot: Snapshot) -> None:
    """Milvus chooses the index; what it finds may be less, and nothing that it may not."""
    approximate = replace(snapshot, manifest=replace(snapshot.manifest, index="HNSW8"))
    other = Milvus(f"{milvus.address}?prefix=approximate")
    fill(other, approximate)
    assert engine_recall(other, approximate) > 0.9
    vector = np.ones(snapshot.manifest.dim, np.float32)
    [found] = MilvusEngine(other, approximate).search([EngineQuery(10, vector, None, None, [3])])
    assert len(found.rows) == 10
    assert 3 not in found.rows
    assert all(snapshot.available[row] for row in found.rows)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host?prefix=a-b", "http://host?other=1"])
def test_a_wrong_url(url: str) -> None:
    with pytest.raises(InputError, match="SEQREC_MILVUS_URL"):
        Milvus(url)


def test_nobody_answers() -> None:
    with pytest.raises(EngineUnavailable, match=r"Milvus at http://127\.0\.0\.1:1"):
        Milvus("http://127.0.0.1:1").check()


def test_published_served_and_gone(
    home: Path, milvus_server: MilvusServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over HTTP: equal to the search in process; 503 while the server is dead, and answers again after its start."""
    url = milvus_server.url("shop")
    monkeypatch.setenv("SEQREC_HOME", str(home))
    monkeypatch.setenv("SEQREC_MILVUS_URL", url)
    milvus = Milvus(url)
    reindex(["--force"])
    with closing(open_catalogue(home)) as catalogue:
        first = published(catalogue)
    assert first is not None
    assert milvus.served() == milvus.name_of(first)

    asked = [
        {"history": ["mug-1"], "k": 5},
        {"history": ["desk-1", "lamp-1"], "k": 3, "filter": {"price": {"lt": 100}}},
        {"history": ["lamp-1"], "k": 8, "exclude": ["lamp-2"], "filter": {"not": {"brand": "Acme"}}},
        {"history": ["lamp-1"], "k": 8, "filter": {"absent": 1}},
    ]
    bodies = []
    for engine in (None, url):
        app = create_app(Settings(home=home, follow_seconds=0.02, milvus_url=engine))
        with TestClient(app, raise_server_exceptions=False) as client:
            wait_until_ready(client)
            changes = [("tea", {"title": "Tea mug blue", "brand": "Potter"}), ("desk-2", {"title": "Oak desk"})]
            body = {"items": [{"item_id": item_id, "attributes": one} for item_id, one in changes]}
            assert client.post("/items", json=body).status_code == 200
            answers = [client.post("/recommend", json=one).json() for one in asked]
            bodies.append([(rounded(a), a["degraded"]) for a in answers])
            if engine is None:
                continue
            milvus_server.kill()
            try:
                refused = client.post("/recommend", json=asked[0])
                assert refused.status_code == 503
                assert refused.json()["type"] == "urn:problem-type:seqrec:engine-unavailable"
                assert refused.headers["Retry-After"] == "1"
                assert re.search("Milvus at .*", refused.json()["detail"])
                # What the engine does not search is answered all the same.
                assert client.post("/popular", json={"k": 3}).status_code == 200
            finally:
                milvus_server.start()
            until = time.monotonic() + SECONDS
            while (again := client.post("/recommend", json=asked[0])).status_code != 200:
                assert time.monotonic() < until, again.text
                time.sleep(0.1)
            assert rounded(again.json()) == bodies[1][0][0]
    assert bodies[0] == bodies[1]
    assert "no item has the attribute 'absent'" in str(bodies[1][3][1])

    # The next snapshot has what was posted; the alias follows, a rollback takes it back.
    reindex([])
    with closing(open_catalogue(home)) as catalogue:
        second = published(catalogue)
    assert second not in (None, first)
    assert milvus.served() == milvus.name_of(str(second))
    index(["rollback"])
    assert milvus.served() == milvus.name_of(first)
    capsys.readouterr()
    index(["verify", first])
    assert "Milvus has it, recall@10 1.000" in capsys.readouterr().out
    # Collections go with their snapshots.
    store = SnapshotStore(home)
    index(["publish", str(second)])
    reindex(["--force", "--keep", "1"])
    kept = store.list()  # the first is still open in this process
    assert second not in kept
    assert {one for one in (first, str(second), *kept) if milvus.has(one)} == set(kept)


def test_a_placement_names_a_second_model_s_snapshot(
    home: Path, milvus_server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is searched in Milvus without ever being published; one that is not there is refused."""
    url = milvus_server.url("sides")
    milvus = Milvus(url)
    monkeypatch.setenv("SEQREC_HOME", str(home))
    elsewhere = second_snapshot(home, 16)  # while there was no Milvus
    monkeypatch.setenv("SEQREC_MILVUS_URL", url)
    reindex(["--force"])
    other = second_snapshot(home, 8)
    with closing(open_catalogue(home)) as catalogue:
        first = published(catalogue)
    assert milvus.served() == milvus.name_of(str(first))
    assert [milvus.has(one) for one in (str(first), other, elsewhere)] == [True, True, False]
    app = create_app(Settings(home=home, follow_seconds=0.02, milvus_url=url))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        refused = client.put("/placements/home", json=split(str(first), elsewhere))
        assert refused.status_code == 422
        assert refused.json()["field"] == "experiment.variants[1].snapshot"
        assert f"snapshot {elsewhere} is not in Milvus" in refused.json()["detail"]
        place(client, "home", split(str(first), other))
        until(lambda: answers_from(client, other))
        history = ["desk-1", "lamp-1"]
        found = [ask(client, history=history, snapshot=one) for one in (str(first), other)]
        assert [one["snapshot"] for one in found] == [first, other]
        assert found[0]["model"] != found[1]["model"]
        served = {ask(client, history=history, placement="home", session_id=f"u{n}")["snapshot"] for n in range(20)}
        assert served == {first, other}
    app = create_app(Settings(home=home, follow_seconds=0.02))
    with TestClient(app, raise_server_exceptions=False) as client:  # as without Milvus
        until(lambda: client.get("/readyz").status_code == 200 and answers_from(client, other))
        plain = [ask(client, history=history, snapshot=one) for one in (str(first), other)]
        assert list(map(rounded, plain)) == list(map(rounded, found))


def rounded(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(item["item_id"], round(item["score"], 5)) for item in answer["items"]]


def wait_until_ready(client: TestClient) -> None:
    until = time.monotonic() + SECONDS
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < until, client.get("/readyz").text
        time.sleep(0.05)
