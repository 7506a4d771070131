"""Recommendations over HTTP, against what numpy says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from seqrec import load_model
from seqrec.data.items import Item
from seqrec.encoder import Encoder
from seqrec.metric import ranked


@pytest.fixture(scope="session")
def encoder(bag_of_words_checkpoint: Path) -> Encoder:
    return load_model(bag_of_words_checkpoint, device="cpu")


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_a_batch_is_written_off_the_event_loop(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all other requests would wait for it."""
    from service.http.routes import recommend as module

    make, threads = module.recommendation_id, set()

    def noted(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name.partition("_")[0])
        return make(*arguments)

    monkeypatch.setattr(module, "recommendation_id", noted)
    response = client.post("/recommend/batch", json={"requests": [{"history": ["desk-1"]}] * 3})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert threads == {"heavy"}


@pytest.mark.slow
def test_the_answer_is_what_numpy_finds(client: TestClient, encoder: Encoder, tiny_items: list[Item]) -> None:
    answer = recommend(client, history=["desk-1", {"attributes": {"title": "Brass lamp"}}], k=5, exclude_seen=False)
    query = encoder.encode_histories([[tiny_items[0], {"title": "Brass lamp"}]])[0]
    scores = encoder.encode_items(tiny_items) @ query
    best = ranked([item.item_id for item in tiny_items], scores)[:5]
    assert ids(answer) == [tiny_items[row].item_id for row in best]
    np.testing.assert_allclose([item["score"] for item in answer["items"]], scores[best], atol=1e-6)
    assert answer["items"][0]["attributes"] == dict(tiny_items[best[0]].attributes)
    assert answer["source"] == "model"
    assert answer["metric"] == "cosine"
    assert answer["unknown"] == []
    assert answer["model"] == encoder.checkpoint.digest
    ready = client.get("/readyz").json()
    assert (answer["snapshot"], answer["seq"]) == (ready["snapshot"], ready["seq"])


@pytest.mark.slow
def test_ten_by_default_and_never_what_was_seen(client: TestClient) -> None:
    answer = recommend(client, history=["desk-1", "lamp-1", "desk-1"])
    assert len(answer["items"]) == 6  # of eight
    assert not {"desk-1", "lamp-1"} & set(ids(answer))
    assert "desk-1" in ids(recommend(client, history=["desk-1"], exclude_seen=False))


@pytest.mark.slow
def test_exclude_and_candidates(client: TestClient) -> None:
    answer = recommend(client, history=["desk-1"], exclude=["desk-2", "nix"])
    assert "desk-2" not in ids(answer)
    answer = recommend(client, history=["desk-1"], candidates=["mug-1", "desk-2", "nix", "desk-1", "mug-1"])
    assert ids(answer) == ["desk-2", "mug-1"]
    assert recommend(client, history=["desk-1"], candidates=[])["items"] == []


@pytest.mark.slow
def test_equal_scores_are_ordered_by_item_id(client: TestClient) -> None:
    same = [{"item_id": item_id, "attributes": {"title": "walnut"}} for item_id in ("w-3", "w-1", "w-2", "w-0")]
    assert client.post("/items", json={"items": same}).status_code == 200
    for k in (1, 2, 3, 4):
        answer = recommend(client, history=[{"attributes": {"title": "walnut"}}], k=k)
        assert ids(answer) == ["w-0", "w-1", "w-2", "w-3"][:k]


@pytest.mark.slow
def test_unknown_ids_are_skipped_and_listed_once(client: TestClient) -> None:
    answer = recommend(client, history=["nix", "desk-1", "nada", "nix"])
    assert answer["unknown"] == ["nix", "nada"]
    assert answer["source"] == "model"
    assert ids(answer) == ids(recommend(client, history=["desk-1"]))


@pytest.mark.slow
@pytest.mark.parametrize("history", [[], ["nix"], [{"attributes": {}}], [{"attributes": {"title": "?!"}}]])
def test_a_history_that_says_nothing_is_answered_by_popularity(client: TestClient, history: list[Any]) -> None:
    answer = recommend(client, history=history, k=3)
    assert answer["source"] == "fallback:popular"
    assert ids(answer) == ["mug-1", "desk-1", "lamp-1"]
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["unknown"] == [entry for entry in history if isinstance(entry, str)]
    narrowed = recommend(client, history=history, candidates=["pot/1", "desk-1", "mug-2"], exclude=["desk-1"])
    assert ids(narrowed) == ["mug-2", "pot/1"]


@pytest.mark.slow
def test_an_unavailable_item_counts_in_histories_but_is_not_answered(client: TestClient) -> None:
    before = recommend(client, history=["desk-1"])
    hidden = {
        "item_id": "desk-1",
        "attributes": {"title": "Oak desk", "brand": "Acme", "price": 120},
        "available": False,
    }
    assert client.post("/items", json={"items": [hidden]}).json()["updated"] == 1
    answer = recommend(client, history=["desk-1"])
    assert answer["unknown"] == []
    assert answer["source"] == "model"
    assert ids(answer) == ids(before)
    assert "desk-1" not in ids(recommend(client, history=["desk-1"], exclude_seen=False))
    assert "desk-1" not in ids(recommend(client, history=[]))
    assert client.get("/items/desk-1").json()["searchable"] is False


def test_a_history_of_a_thousand_is_read_from_its_end(client: TestClient) -> None:
    long = recommend(client, history=["mug-1"] * 900 + ["desk-1"] * 100, exclude_seen=False)
    assert ids(long)[0] == "desk-1"


def test_a_batch_answers_each_as_if_it_were_alone(client: TestClient) -> None:
    bodies = [{"history": ["desk-1"]}, {"history": []}, {"history": ["nix", "mug-1"], "k": 2}]
    response = client.post("/recommend/batch", json={"requests": bodies})
    assert response.status_code == 200
    for together, alone in zip(response.json()["answers"], [recommend(client, **body) for body in bodies], strict=True):
        scores, own = ([item.pop("score") for item in answer["items"]] for answer in (together, alone))
        assert scores == pytest.approx(own, abs=1e-6)  # a product of other shape rounds otherwise
        assert together.pop("recommendation_id") != alone.pop("recommendation_id")
        assert together == alone


@pytest.mark.slow
def test_min_seq_is_waited_for_and_then_refused(make_client: Any) -> None:
    client = make_client(deadline=1)
    seq = client.get("/readyz").json()["seq"]
    assert recommend(client, history=["desk-1"], min_seq=seq)["seq"] == seq
    response = client.post("/recommend", json={"history": ["desk-1"], "min_seq": seq + 1})
    assert response.status_code == 503
    assert f"change {seq + 1} did not arrive within the deadline; answers are at {seq}" in response.json()["detail"]


def test_similar_items(client: TestClient) -> None:
    by_id = client.post("/similar", json={"item_id": "mug-1", "k": 2}).json()
    assert ids(by_id)[0] == "mug-2"
    assert "mug-1" not in ids(by_id)
    assert by_id["metric"] == "cosine"
    by_text = client.post("/similar", json={"attributes": {"title": "Tea mug blue"}, "k": 1}).json()
    assert ids(by_text) == ["mug-1"]


def test_settings_are_the_limits(make_client: Any) -> None:
    client = make_client(max_k=3, max_history=2)
    assert client.post("/recommend", json={"history": [], "k": 4}).json()["detail"] == "k: from 1 to 3, not 4"
    assert client.post("/recommend", json={"history": ["a"] * 3, "k": 1}).status_code == 422
