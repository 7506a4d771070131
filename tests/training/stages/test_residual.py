"""The residual stage: it learns what no text says, leaves the text model alone, and cold items as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrec.checkpoint import load_checkpoint, save_checkpoint
from seqrec.data.items import Interactions, make_item
from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.residual import Residual
from training.config.schema import OptimizerConfig, ResidualConfig, RunConfig
from training.data.dataset import Dataset, join
from training.engine.loop import adamw
from training.evaluation.evaluate import validation_metrics
from training.stages.base import StageContext, Towers, TrainingData
from training.stages.encoding import Encoding
from training.stages.residual import ResidualStage

CPU = torch.device("cpu")
ITEMS = 24


@pytest.fixture
def follows() -> Dataset:
    """Item n is followed by item 5n + 7 (mod 23), which no text says; item 23 is in no sequence."""
    items = [make_item(f"item {number:02}", {"title": f"word{number}"}) for number in range(ITEMS)]
    users, ids = [], []
    for user in range(60):
        item = user % 23
        for _ in range(8):
            users.append(f"user {user}")
            ids.append(f"item {item:02}")
            item = (5 * item + 7) % 23
    return join(items, Interactions(users, ids, np.arange(len(ids))))


def context_of(dataset: Dataset, model: Any, **settings: Any) -> StageContext:
    tokens = model.tokenize_items(dataset.items)
    cases = dataset.cases("valid")
    return StageContext(
        config=RunConfig(
            stages=("residual",),
            residual=ResidualConfig(**{"dim": 16, "batch_size": 64, "encoded": 10**6, "reverse": False} | settings),
            optimizer=OptimizerConfig(learning_rate=3e-2, max_epochs=1),
        ),
        data=(TrainingData(dataset, tokens),),
        towers=Towers("bag_of_words", model),
        device=CPU,
        encoding=Encoding(),
        validate=lambda encoder: validation_metrics(encoder, dataset, cases, tokens),
    )


def trained(context: StageContext, epochs: int) -> ResidualStage:
    stage = ResidualStage.from_context(context)
    model = context.towers.history_model
    assert isinstance(model, Residual)
    optimizer = adamw(model, context.config.optimizer)
    torch.manual_seed(0)
    for number in range(epochs):
        stage.begin_epoch(number, model, CPU)
        for batch in stage.epoch(number):
            loss, _ = stage.loss(model, batch, CPU)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return stage


@pytest.mark.slow
def test_it_learns_what_the_text_does_not_say(follows: Dataset, tmp_path: Path) -> None:
    text = BagOfWords(BagOfWordsConfig())
    encoder = Encoder(load_checkpoint(_saved(tmp_path / "text", "bag_of_words", text)), "cpu")
    before = validation_metrics(encoder, follows, follows.cases("valid"))
    context = context_of(follows, text)
    stage = trained(context, 40)
    metrics, _ = stage.validate(context.towers.encoder(CPU))
    assert before.ndcg < 0.4
    assert metrics.ndcg > 0.95
    # What the stage says of itself is what the saved checkpoint does.
    path = _saved(tmp_path / "residual", context.towers.model_name, context.towers.history_model)
    again = validation_metrics(Encoder(load_checkpoint(path), "cpu"), follows, follows.cases("valid"))
    assert again.ndcg == pytest.approx(metrics.ndcg, abs=1e-9)
    assert again.mrr == pytest.approx(metrics.mrr, abs=1e-9)


def test_an_item_that_training_did_not_see_keeps_its_text_score(follows: Dataset) -> None:
    text = BagOfWords(BagOfWordsConfig())
    context = context_of(follows, text)
    trained(context, 3)
    encoder, plain = context.towers.encoder(CPU), Towers("bag_of_words", text).encoder(CPU)
    histories = [follows.items[:3], follows.items[5:6]]
    cold = encoder.encode_items(follows.items[23:])
    assert not cold[:, text.dim :].any()
    np.testing.assert_allclose(
        encoder.encode_histories(histories) @ cold.T,
        plain.encode_histories(histories) @ plain.encode_items(follows.items[23:]).T,
        atol=1e-6,
    )


def test_only_the_residual_is_trained(follows: Dataset) -> None:
    context = context_of(follows, BagOfWords(BagOfWordsConfig()))
    ResidualStage.from_context(context)
    model = context.towers.history_model
    assert isinstance(model, Residual)
    names = {name for name, one in model.named_parameters() if one.requires_grad}
    assert names == {
        "item_vectors.weight",
        "item_biases.weight",
        "history_vectors.weight",
        "recency",
        "scale",
        "sharpness",
    }
    assert model.config.items == 23
    assert context.towers.model_name == "residual"


def test_both_towers_of_a_two_stage_model_have_the_same_residual(follows: Dataset, tmp_path: Path) -> None:
    context = context_of(follows, BagOfWords(BagOfWordsConfig()))
    context.towers.freeze_items()
    trained(context, 2)
    towers = context.towers
    assert towers.split
    assert isinstance(towers.item_model, Residual)
    assert isinstance(towers.history_model, Residual)
    assert towers.item_model.item_vectors is towers.history_model.item_vectors
    path = tmp_path / "two"
    save_checkpoint(path, towers.model_name, towers.history_model, towers.item_model)
    np.testing.assert_allclose(
        Encoder(load_checkpoint(path), "cpu").encode_items(follows.items),
        towers.encoder(CPU).encode_items(follows.items),
        atol=1e-6,
    )


def test_a_limit_on_examples_draws_the_same_ones_again(follows: Dataset) -> None:
    stages = [
        ResidualStage.from_context(context_of(follows, BagOfWords(BagOfWordsConfig()), examples=50)) for _ in range(2)
    ]
    assert len(stages[0].histories) == 50
    assert stages[0].steps_per_epoch == 1
    np.testing.assert_array_equal(stages[0].targets, stages[1].targets)
    assert [list(history) for history in stages[0].histories] == [list(history) for history in stages[1].histories]


@pytest.mark.slow
@pytest.mark.parametrize("encoded", [0, 100, 10**6])
def test_it_learns_from_histories_that_are_not_encoded(follows: Dataset, encoded: int) -> None:
    context = context_of(follows, BagOfWords(BagOfWordsConfig()), encoded=encoded)
    stage = trained(context, 40)
    assert len(stage.texts) == ITEMS + min(encoded, len(stage.histories))
    metrics, _ = stage.validate(context.towers.encoder(CPU))
    assert metrics.recall == 1
    assert metrics.ndcg > 0.85  # not quite the text that it is asked with


def test_backwards_the_same_pairs_are_learnt_the_other_way(follows: Dataset) -> None:
    context = context_of(follows, BagOfWords(BagOfWordsConfig()), reverse=True, encoded=0)
    stage = ResidualStage.from_context(context)
    pairs = {(int(history[-1]), int(target)) for history, target in zip(stage.histories, stage.targets, strict=True)}
    assert pairs == {(after, before) for before, after in pairs}
    held_out = {(user, int(rows[0])) for user, rows in enumerate(follows.cases("valid").relevant)}
    assert len(held_out) == follows.users
    assert len(stage.histories) == 2 * follows.users * 5  # of six events of the training part each


def test_data_in_which_nothing_follows_anything_is_refused() -> None:
    items = [make_item(name, {"title": name}) for name in "abc"]
    dataset = join(items, Interactions(["u", "u", "u"], ["a", "b", "c"], np.arange(3)))
    with pytest.raises(InputError, match="no user has two training events"):
        ResidualStage.from_context(context_of(dataset, BagOfWords(BagOfWordsConfig())))


def _saved(path: Path, name: str, model: Any) -> Path:
    save_checkpoint(path, name, model)
    return path
