"""Models that know items by id, from a few real shoppers to answers over HTTP: trained, evaluated, indexed, served."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from index.build.cli import index
from seqrec import History, load_model
from seqrec.data.items import Item
from seqrec.models import MODELS, model_class
from seqrec.models.base.ids import IdModel
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import wait_until_ready
from tests.training.conftest import write_world
from training.cli import train
from training.data.dataset import read_dataset
from training.evaluation.cli import evaluate

SMALL = {
    "sasrec": ["dim=16", "max_length=20", "negatives=20"],
    "bert4rec": ["dim=16", "max_length=20", "layers=1"],
    "fdsa": ["dim=16", "inner=16", "max_length=20", "layers=1"],
    "s3rec": ["dim=16", "inner=16", "max_length=20", "layers=1", 'features="title"'],
    "gru4rec": ["dim=16", "hidden=16", "max_length=20"],
    "attrec": ["dim=16"],
    "recguru": ["dim=16", "inner=16", "max_length=20", "layers=1"],
}
NAMES = sorted(name for name in MODELS if issubclass(model_class(name), IdModel))
NEW = {"item_id": "brand-new", "attributes": {"title": "A mug that nobody has had"}}


def small(name: str, table: Mapping[str, list[str]]) -> list[str]:
    """The settings of a small model. A new model needs no line in the table: its `dim`, if it has one, is 16."""
    has = {setting.name for setting in fields(model_class(name).settings_class)}
    return table.get(name, ["dim=16"] if "dim" in has else [])


@pytest.mark.parametrize("name", NAMES)
def test_from_events_to_answers(
    name: str,
    shoppers: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    data = ["--items", str(shoppers[0]), "--interactions", str(shoppers[1])]
    changes = [f"model.settings.{one}" for one in small(name, SMALL)]
    if name == "s3rec":
        changes += ["self_supervised.batch_size=16", "self_supervised.optimizer.max_epochs=2"]
    if name == "recguru":
        write_world(tmp_path)  # another data set, of which nothing is to be seen in the end
        changes += [
            f"adversarial.data=['{tmp_path}']",
            "adversarial.optimizer.max_epochs=2",
            "adversarial.warmup_epochs=1",
        ]
    changes += ["sequence.batch_size=16", "optimizer.max_epochs=2", "validation.checks=2", "device=cpu", "threads=1"]
    overrides = [word for change in changes for word in ("--set", change)]
    train(["--preset", name, *overrides, *data, "--out", str(tmp_path / "run")])
    checkpoint = tmp_path / "run" / "checkpoint"

    capsys.readouterr()
    evaluate([str(checkpoint), *data, "--json", "--resamples", "20"])
    report = json.loads(capsys.readouterr().out)
    methods = {row["method"] for row in report["rows"]}
    assert name in methods
    assert not any(method.startswith("last item") for method in methods)

    # Without the interactions: the requests below bring their histories, and no stored one comes before them.
    index(["build", "--checkpoint", str(checkpoint), *data[:2], "--publish"])
    encoder = load_model(checkpoint, "cpu")
    dataset = read_dataset(*shoppers)
    known = [dataset.items[int(row)] for row in np.flatnonzero(dataset.trained_rows)]
    cold = [item for item, seen in zip(dataset.items, dataset.trained_rows, strict=True) if not seen]
    assert cold
    with TestClient(create_app(Settings(home=tmp_path / "home", follow_seconds=0.02))) as client:
        wait_until_ready(client)
        history = known[:4]
        for user in (None, dataset.user_ids[0], "nobody knows me"):
            expected = best(encoder, known, History(tuple(history), user))
            body = {"history": [item.item_id for item in history], "k": 5, "exclude_seen": False}
            answer = client.post("/recommend", json=body if user is None else body | {"user_id": user}).json()
            assert answer["source"] == "model"
            assert answer["metric"] == "dot"
            np.testing.assert_allclose([one["score"] for one in answer["items"]], expected, atol=1e-5)

        # Items that training did not see are in the catalogue, not in answers; histories are read without them.
        stored = client.get(f"/items/{cold[0].item_id}").json()
        assert stored["attributes"] == dict(cold[0].attributes)
        assert stored["searchable"] is False
        assert client.post("/similar", json={"item_id": cold[0].item_id}).status_code == 404
        before = client.post("/recommend", json={"history": [known[1].item_id], "k": 1000}).json()
        assert len(before["items"]) == len(known) - 1
        posted = client.post("/items", json={"items": [NEW, as_json(known[0])]})
        assert posted.status_code == 200, posted.text
        answer = posted.json()
        assert (answer["searchable"], answer["not_searchable"]) == (False, [NEW["item_id"]])
        assert "only the items of its training data" in answer["detail"]
        assert client.get("/items/brand-new").json()["attributes"] == NEW["attributes"]
        body = {"history": [cold[0].item_id, "brand-new", "never", {"attributes": {"title": "mug"}}, known[1].item_id]}
        after = client.post("/recommend", json=body | {"k": 1000}).json()
        assert after["unknown"] == [cold[0].item_id, "brand-new", "never"]
        assert after["seq"] >= answer["seq"]
        assert [one["item_id"] for one in after["items"]] == [one["item_id"] for one in before["items"]]
        nothing = client.post("/recommend", json={"history": ["brand-new", {"attributes": {"title": "mug"}}]}).json()
        assert nothing["source"] == "fallback:popular"
        refused = client.post("/similar", json={"attributes": {"title": "mug"}})
        assert refused.status_code == 422
        assert "reads item ids, not text" in refused.json()["detail"]

        # What follows an item is what is like it.
        similar = client.post("/similar", json={"item_id": known[2].item_id, "k": 5}).json()
        alone = client.post("/recommend", json={"history": [known[2].item_id], "k": 5}).json()
        assert similar["items"] == alone["items"]


def best(encoder: Any, items: Sequence[Item], history: History, k: int = 5) -> list[float]:
    """The best scores there are, by brute force."""
    scores = encoder.encode_histories([history]) @ encoder.encode_items(items).T
    return sorted(scores[0].tolist(), reverse=True)[:k]


def as_json(item: Item) -> dict[str, Any]:
    return {"item_id": item.item_id, "attributes": dict(item.attributes)}
