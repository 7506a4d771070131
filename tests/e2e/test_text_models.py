"""Models that read text, from a few real shoppers to answers over HTTP: pretrained, trained, indexed, served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from index.build.cli import index
from seqrec import load_model
from seqrec.checkpoint import load_checkpoint, save_checkpoint
from seqrec.data.items import read_items
from seqrec.models import MODELS, model_class
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.base.frozen_text import FrozenTextModel
from service.app import create_app
from service.settings import Settings
from tests.e2e import test_id_models
from tests.service.conftest import wait_until_ready
from tests.training.conftest import write_world
from training.cli import pretrain, train
from training.evaluation.cli import evaluate

SMALL = {
    "unisrec": ["dim=16", "inner=16", "layers=1", "experts=2", "max_length=20"],
    "fbsm": ["dim=16", "hidden=16"],
    "zesrec": ["dim=16", "hidden=16", "max_length=20"],
    "recformer": ["hidden_size=16", "num_layers=1", "num_heads=2", "intermediate_size=16", "max_token_num=64"],
    "residual": [],
}
NAMES = sorted(MODELS.keys() - {"bag_of_words", "hybrid", *test_id_models.NAMES})
"""bag_of_words has nothing to learn, and the hybrid has tests of its own."""
STAGE = {"recformer": "joint", "residual": "residual"}
PRESET = {"recformer": "demo"}
QUICK = ["optimizer.max_epochs=2", "validation.checks=2", "device=cpu", "threads=1"]
NEW = {"item_id": "brand-new", "attributes": {"title": "violet umbrella"}}


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "text", "bag_of_words", BagOfWords(BagOfWordsConfig(dim=32)))
    return tmp_path / "text"


def words(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.parametrize("name", NAMES)
def test_from_events_to_answers(
    name: str,
    text_model: Path,
    recformer: Path,
    shoppers: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    items, interactions = shoppers
    data = ["--items", str(items), "--interactions", str(interactions)]
    changes = [f"{STAGE.get(name, 'sequence')}.batch_size=16", *QUICK]
    if name == "residual":
        changes.append(f"model.start_from={recformer}")
    elif model_class(name).builds_on_checkpoints:
        changes.append(f"model.start_from={text_model}")
    else:
        changes += ["text.vocab_size=500", 'stages=["joint"]']
    changes += [f"model.settings.{one}" for one in test_id_models.small(name, SMALL)]
    train(["--preset", PRESET.get(name, name), *words(changes), *data, "--out", str(tmp_path / "run")])
    checkpoint = tmp_path / "run" / "checkpoint"

    capsys.readouterr()
    evaluate([str(checkpoint), *data, "--json", "--resamples", "20"])
    assert name in {row["method"] for row in json.loads(capsys.readouterr().out)["rows"]}

    index(["build", "--checkpoint", str(checkpoint), *data, "--publish"])
    encoder = load_model(checkpoint, "cpu")
    known = read_items(items)
    with TestClient(create_app(Settings(home=tmp_path / "home", follow_seconds=0.02))) as client:
        wait_until_ready(client)
        body = {"history": [item.item_id for item in known[:4]], "k": 5, "exclude_seen": False}
        answer = client.post("/recommend", json=body).json()
        assert answer["source"] == "model"
        scores = encoder.metric.scores(encoder.encode_histories([known[:4]]), encoder.encode_items(known))[0]
        np.testing.assert_allclose([one["score"] for one in answer["items"]], np.sort(scores)[::-1][:5], atol=1e-5)

        # An item that nobody has seen is searchable at once, through the encoder in the checkpoint.
        assert client.post("/items", json={"items": [NEW]}).json()["searchable"] is True
        scores = encoder.metric.scores(encoder.encode_histories([known[:4]]), encoder.encode_items([NEW["attributes"]]))
        answer = client.post("/recommend", json={**body, "k": 1000}).json()
        found = {one["item_id"]: one["score"] for one in answer["items"]}
        assert found["brand-new"] == pytest.approx(float(scores[0, 0]), abs=1e-5)
        history = [{"attributes": NEW["attributes"]}, known[1].item_id]
        assert client.post("/recommend", json={"history": history}).json()["unknown"] == []


def test_pretrained_on_two_data_sets_and_fine_tuned_with_ids(text_model: Path, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        write_world(tmp_path / folder)
    changes = [f"model.start_from={text_model}", "pretrain.batch_size=16", *QUICK]
    changes += [f"model.settings.{one}" for one in SMALL["unisrec"]]
    folders = ["--data", str(tmp_path / "one"), "--data", str(tmp_path / "other")]
    pretrain(["--preset", "unisrec_pretrain", *words(changes), *folders, "--out", str(tmp_path / "before")])
    before = load_checkpoint(tmp_path / "before" / "checkpoint").history_model
    assert isinstance(before, FrozenTextModel)
    assert before.items == 0

    changes = [f"model.start_from={tmp_path / 'before' / 'checkpoint'}", "sequence.batch_size=16", *QUICK]
    changes += ["model.settings.ids=true", "model.settings.adaptor_only=true"]
    data = ["--items", str(tmp_path / "one" / "items.jsonl")]
    data += ["--interactions", str(tmp_path / "one" / "interactions.csv")]
    train(["--preset", "unisrec", *words(changes), *data, "--out", str(tmp_path / "after")])
    after = load_checkpoint(tmp_path / "after" / "checkpoint").history_model
    assert isinstance(after, FrozenTextModel)
    assert (after.items, after.dim, after.settings.experts) == (30, 16, 2)
    weights, pretrained = after.state_dict(), before.state_dict()
    same = {name for name, weight in pretrained.items() if name in weights and weights[name].equal(weight)}
    assert {name.partition(".")[0] for name in same} >= {"blocks", "norm", "position_vectors"}
    assert "whitenings" not in same
