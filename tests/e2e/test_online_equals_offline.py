"""What the service answers is what a plain search over `load_model` vectors gives, and what `evaluate` ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tools.service_process import seqrec
from seqrec import load_model
from seqrec.data.items import Item
from seqrec.metric import TIE, ranked
from tests.e2e.processes import Server
from training.data.dataset import read_dataset
from training.evaluation.evaluate import top_k

USERS = 200
K = 10
Answer = list[tuple[str, float]]


def assert_same_answer(answer: Answer, expected: Answer, who: str) -> None:
    """Equal scores, and equal order but for items whose scores differ by less than float32 rounding can decide."""
    assert len(answer) == len(expected), who
    np.testing.assert_allclose([s for _, s in answer], [s for _, s in expected], rtol=0, atol=2e-6, err_msg=who)
    score_of = dict(expected)
    for place, ((ours, score), (theirs, _)) in enumerate(zip(answer, expected, strict=True)):
        if ours != theirs:  # only across the border of a run of ties
            assert abs(score - score_of.get(ours, expected[-1][1])) <= 2 * TIE, f"{who}, place {place}"


def test_for_200_users(start: Callable[[Path], Server], tmp_path: Path, recformer: Path, online_retail: Path) -> None:
    files = (online_retail / "items.jsonl.gz", online_retail / "interactions.csv.gz")
    options = ("--items", str(files[0]), "--interactions", str(files[1]))
    seqrec(tmp_path / "home", "index", "build", "--checkpoint", str(recformer), *options, "--publish")
    dataset = read_dataset(*files)
    cases = dataset.cases("test").sample(USERS, seed=7)
    users = [dataset.user_ids[user] for user in cases.users]
    histories: list[list[Item]] = [[dataset.items[row] for row in history] for history in cases.histories]

    model = load_model(recformer, "cpu")
    item_ids = [item.item_id for item in dataset.items]
    scores = model.encode_histories(histories) @ model.encode_items(dataset.items).T
    server = start(tmp_path / "home")
    identical = 0
    for unseen in (True, False):
        offline = top_k(model, dataset, users, K, unseen)
        for number, history in enumerate(histories):
            row = scores[number].copy()
            if unseen:
                row[cases.histories[number]] = -np.inf
            plain = [(item_ids[place], float(row[place])) for place in ranked(item_ids, row)[:K]]
            body = {"history": [item.item_id for item in history], "k": K, "exclude_seen": unseen}
            reply = server.client.post("/recommend", json=body)
            assert reply.status_code == 200, reply.text
            assert reply.json()["source"] == "model"
            online = [(item["item_id"], item["score"]) for item in reply.json()["items"]]
            who = f"user {users[number]}, {'unseen only' if unseen else 'all items'}"
            assert_same_answer(online, plain, who)
            assert_same_answer(online, offline[number], who)
            identical += [item for item, _ in online] == [item for item, _ in plain]
    assert identical >= 0.98 * 2 * USERS  # borders of ties are rare, so the comparison above compares orders


def test_items_that_read_alike_are_ordered_by_id(
    start: Callable[[Path], Server], tmp_path: Path, recformer: Path
) -> None:
    lines = [f'{{"item_id": "{name}", "attributes": {{"title": "White Heart T-Light Holder"}}}}' for name in "dbca"]
    (tmp_path / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
    build = ("index", "build", "--checkpoint", str(recformer), "--items", str(tmp_path / "items.jsonl"), "--publish")
    seqrec(tmp_path / "home", *build)
    server = start(tmp_path / "home")
    body = {"history": [{"attributes": {"title": "Heart"}}], "k": 3}
    reply = server.client.post("/recommend", json=body)
    assert [item["item_id"] for item in reply.json()["items"]] == ["a", "b", "c"]
    assert reply.json()["items"][0]["score"] == pytest.approx(reply.json()["items"][2]["score"], abs=TIE)
    added = {"items": [{"item_id": "aa", "attributes": {"title": "White Heart T-Light Holder"}}]}
    assert server.client.post("/items", json=added).status_code == 200
    reply = server.client.post("/recommend", json=body)
    assert [item["item_id"] for item in reply.json()["items"]] == ["a", "aa", "b"]
    assert server.stop() == 0
