"""Items that neither training nor the index saw, posted with their text alone, are recommended by the next request."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.behaviour.cold_items import most_alike
from benchmarks.tools.service_process import seqrec
from seqrec import load_model
from seqrec.data.items import Item
from tests.e2e.processes import Server

WITHHELD = 50


def test_50_withheld_items(start: Callable[[Path], Server], tmp_path: Path, recformer: Path, items: list[Item]) -> None:
    vectors = load_model(recformer, "cpu").encode_items(items)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    pairs = most_alike(likeness, WITHHELD)
    cold = {row for row, _ in pairs}
    with gzip.open(tmp_path / "items.jsonl.gz", "wt", encoding="utf-8") as file:
        for row, item in enumerate(items):
            if row not in cold:
                file.write(json.dumps({"item_id": item.item_id, "attributes": dict(item.attributes)}) + "\n")
    build = ("index", "build", "--checkpoint", str(recformer), "--items", str(tmp_path / "items.jsonl.gz"), "--publish")
    seqrec(tmp_path / "home", *build)
    server = start(tmp_path / "home")
    for row, twin in pairs:
        item = items[row]
        body = {"history": [items[twin].item_id], "k": 10}
        before = server.client.post("/recommend", json=body).json()
        assert item.item_id not in [one["item_id"] for one in before["items"]]
        posted = {"items": [{"item_id": item.item_id, "attributes": {"title": item.attributes["title"]}}]}
        reply = server.client.post("/items", json=posted)
        assert reply.status_code == 200, reply.text
        assert reply.json() | {"seq": 0} == {"seq": 0, "created": 1, "updated": 0, "searchable": True}
        after = server.client.post("/recommend", json=body).json()
        assert item.item_id in [one["item_id"] for one in after["items"]], item
        assert after["seq"] >= reply.json()["seq"]

    # A reindex takes them into the next snapshot, and the answers stay.
    last = {"history": [items[pairs[-1][1]].item_id], "k": 10}
    before = server.client.post("/recommend", json=last).json()
    seqrec(tmp_path / "home", "reindex")
    after = server.client.post("/recommend", json=last).json()
    for _ in range(600):
        if after["snapshot"] != before["snapshot"]:
            break
        after = server.client.post("/recommend", json=last).json()
    assert after["snapshot"] != before["snapshot"]
    assert [item["item_id"] for item in after["items"]] == [item["item_id"] for item in before["items"]]
