"""Two-stage fine-tuning: the item matrix, its losses against the authors', and a pattern that both stages learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.convert import convert_config
from seqrec.models.recformer.model import Recformer
from seqrec.models.recformer.weights import convert_weights, plain_names
from seqrec.text.item_text import ItemText, Recipe, TokenizedHistory
from seqrec.text.tokenizer import CLS, MASK, read_tokenizer, train_bpe
from training.config.schema import FineTuningConfig, OptimizerConfig, RunConfig
from training.data.dataset import Dataset
from training.evaluation.evaluate import validation_metrics
from training.evaluation.metrics import Metrics
from training.stages.base import StageContext, Towers, TrainingData
from training.stages.encoding import Encoding
from training.stages.two_stage import SoftmaxBatch, StageOne, StageTwo, softmax_loss

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[2] / "golden" / "recformer"
ENOUGH = OptimizerConfig(max_steps=1)


def text_of(dataset: Dataset) -> ItemText:
    return ItemText(Recipe(("title",)), train_bpe([str(item.attributes["title"]) for item in dataset.items], 320))


def context_of(dataset: Dataset, model: Any, **settings: Any) -> StageContext:
    """Both stages with the same settings."""
    config = FineTuningConfig(**{"temperature": 0.1} | settings)
    tokens = model.tokenize_items(dataset.items)
    cases = dataset.cases("valid")
    return StageContext(
        config=RunConfig(stages=("stage1", "stage2"), stage1=config, stage2=config, optimizer=ENOUGH),
        data=(TrainingData(dataset, tokens),),
        towers=Towers("double", model),
        device=CPU,
        encoding=Encoding(),
        validate=lambda encoder: validation_metrics(encoder, dataset, cases, tokens),
    )


@pytest.fixture
def model(world: Dataset, embedding_bag: type[Any]) -> Any:
    torch.manual_seed(2)
    text = text_of(world)
    made = embedding_bag(text.vocab_size)
    made.item_text = text
    return made


def train(stage: StageOne, model: Any, epochs: int, rate: float = 2e-2) -> None:
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate)
    for number in range(epochs):
        model.eval()
        with torch.no_grad():
            stage.begin_epoch(number, model, CPU)
        model.train()
        for batch in stage.epoch(number):
            loss, _ = stage.loss(model, batch, CPU)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def quality(context: StageContext) -> float:
    return context.validate(context.towers.encoder(CPU)).ndcg


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [0, 8])
def test_both_stages_learn_what_follows_what(world: Dataset, model: Any, negatives: int) -> None:
    context = context_of(world, model, negatives=negatives)
    untrained = quality(context)
    train(StageOne.from_context(context), model, 4, rate=5e-3)
    first = quality(context)
    assert untrained + 0.1 < first < 0.95
    context.towers.freeze_items()
    kept = {name: tensor.clone() for name, tensor in context.towers.item_model.state_dict().items()}
    second = StageTwo.from_context(context)
    train(second, model, 4)
    assert quality(context) > first + 0.03
    assert all(tensor.equal(kept[name]) for name, tensor in context.towers.item_model.state_dict().items())
    assert any(not tensor.equal(kept[name]) for name, tensor in model.state_dict().items())


def test_stage_one_encodes_the_catalogue_at_every_epoch(world: Dataset, model: Any) -> None:
    context = context_of(world, model)
    stage = StageOne.from_context(context)
    for number in range(2):
        train(stage, model, 1)
        before = stage.items
        stage.begin_epoch(number + 1, model, CPU)
        assert stage.items is not None
        assert before is not None
        assert not stage.items.equal(before)
        texts = [stage.tokens[row] for row in stage.texts.rows]
        assert stage.items.numpy() == pytest.approx(context.towers.encoder(CPU).encode_item_tokens(texts), abs=1e-6)
        assert not stage.items.requires_grad


def test_stage_two_keeps_the_matrix_that_the_kept_item_tower_makes(world: Dataset, model: Any) -> None:
    context = context_of(world, model)
    context.towers.freeze_items()
    stage = StageTwo.from_context(context)
    stage.begin_epoch(0, model, CPU)
    assert stage.items is not None
    made = stage.items.clone()
    train(stage, model, 3)
    assert stage.items.equal(made)
    encoded = context.towers.encoder(CPU).encode_items(world.items)
    assert made[stage.texts.text_of].numpy() == pytest.approx(encoded, abs=1e-6)
    alone = Towers("double", model).encoder(CPU).encode_items(world.items)
    assert np.abs(encoded - alone).max() > 0.01  # the history tower has gone elsewhere


def test_stage_two_goes_on_from_its_state(world: Dataset, model: Any) -> None:
    context = context_of(world, model)
    context.towers.freeze_items()
    first = StageTwo.from_context(context)
    assert first.state() == {}
    first.begin_epoch(0, model, CPU)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    again = StageTwo.from_context(context)
    again.load_state(state)
    again.begin_epoch(1, model, CPU)
    assert again.items is not None
    assert again.items.equal(state["items"])


def test_stage_two_reports_both_towers_and_one(world: Dataset, model: Any) -> None:
    context = context_of(world, model)
    context.towers.freeze_items()
    stage = StageTwo.from_context(context)
    train(stage, model, 2)
    encoder: Encoder = context.towers.encoder(CPU)
    found = stage.validate(encoder)
    assert found is not None
    metrics, details = found
    assert isinstance(metrics, Metrics)
    assert metrics == context.validate(encoder)
    assert details == {"one_tower_ndcg": context.validate(Towers("double", model).encoder(CPU)).ndcg}
    assert details["one_tower_ndcg"] != metrics.ndcg
    assert StageOne.from_context(context).validate(encoder) is None


# Examples


def test_an_example_is_a_user_cut_anywhere_once_an_epoch(world: Dataset, model: Any) -> None:
    stage = StageOne.from_context(context_of(world, model, batch_size=7))
    places, length = set(), len(world.training_part(0))
    for number in range(10):
        users = []
        for batch in stage.epoch(number):
            assert batch.negatives is None
            for history, target in zip(batch.histories, batch.targets, strict=True):
                user, place = world.user_ids.index(str(history.user_id)), len(history.items)
                assert target == stage.texts.text_of[world.training_part(user)[place]]
                users.append(user)
                places.add(place)
        assert sorted(users) == list(range(world.users))
    assert places == set(range(length))
    assert stage.steps_per_epoch == len(list(stage.epoch(0))) == -(-world.users // 7)
    once, twice = next(stage.epoch(1)), next(stage.epoch(1))
    assert (once.targets == twice.targets).all()
    assert not np.array_equal(once.targets, next(stage.epoch(2)).targets)


def test_negatives_are_any_texts_but_the_target(world: Dataset, model: Any) -> None:
    doubled = replace(world, items=[*world.items[:-1], replace(world.items[0], item_id="again")])
    stage = StageOne.from_context(context_of(doubled, model, batch_size=30, negatives=200))
    assert len(stage.texts) == len(world.items) - 1
    for batch in stage.epoch(0):
        assert batch.negatives is not None
        assert (batch.negatives != batch.targets[:, None]).all()
        assert set(batch.negatives.ravel()) == set(range(len(stage.texts)))
    with pytest.raises(InputError, match=r"stage1\.negatives: .* only one item text"):
        StageOne.from_context(context_of(_one_text(world), model, negatives=3))


def _one_text(dataset: Dataset) -> Dataset:
    return replace(dataset, items=[replace(dataset.items[0], item_id=item.item_id) for item in dataset.items])


def test_nobody_to_train_on(world: Dataset, model: Any) -> None:
    context = context_of(world, model)
    nobody = replace(world, events=world.events[:0], offsets=np.zeros(world.users + 1, np.int64))
    with pytest.raises(InputError, match="no user has a training event"):
        StageOne.from_context(replace(context, data=(TrainingData(nobody, context.data[0].tokens),)))


# What stays


def recformer(dataset: Dataset) -> Recformer:
    text = text_of(dataset)
    cls_id, mask_id = text.token_id(CLS), text.token_id(MASK)
    assert cls_id is not None
    assert mask_id is not None
    config = RecformerConfig(
        vocab_size=text.vocab_size,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        max_token_num=32,
        max_position_embeddings=34,
        dropout=0.0,
        cls_id=cls_id,
        mask_id=mask_id,
    )
    return Recformer(config, text)


def test_word_embeddings_stay_where_asked_to_and_the_stage_after_may_move_them(world: Dataset) -> None:
    model = recformer(world)
    context = context_of(world, model, freeze_words=True)
    words = model.word_embeddings.weight.clone()
    train(StageOne.from_context(context), model, 1)
    assert model.word_embeddings.weight.equal(words)
    assert not model.position_embeddings.weight.equal(torch.zeros(()))
    open_again = replace(context, config=replace(context.config, stage2=FineTuningConfig()))
    train(StageTwo.from_context(open_again), model, 1)
    assert not model.word_embeddings.weight.equal(words)


def test_only_recformer_has_words_to_freeze(world: Dataset, model: Any) -> None:
    with pytest.raises(InputError, match=r"stage1\.freeze_words: .* has no word embeddings to freeze"):
        StageOne.from_context(context_of(world, model, freeze_words=True))


def test_fine_tuning_lays_the_language_model_head_aside(world: Dataset) -> None:
    model = recformer(world)
    model.add_language_model_head()
    context = context_of(world, model)
    context.towers.freeze_items()
    StageTwo.from_context(context)
    for tower in (context.towers.history_model, context.towers.item_model):
        assert isinstance(tower, Recformer)
        assert tower.lm_head is None
        assert not tower.config.lm_head


# The authors' losses


def authors() -> tuple[Recformer, Tensor, dict[str, Tensor]]:
    """Their model, its query vectors of the batch `mixed`, and what they computed from these."""
    config = json.loads((GOLDEN / "config.json").read_text())
    ours, recipe = convert_config(config, config)
    model = Recformer(ours, ItemText(recipe, read_tokenizer(GOLDEN)))
    theirs = plain_names(load_file(GOLDEN / "state_dict.safetensors"))
    model.load_state_dict(convert_weights(theirs, ours.num_layers, lm_head=False))
    sequences = json.loads((GOLDEN / "batches.json").read_text())["mixed"]["items"]
    histories = [TokenizedHistory(model.tokenize_items(items)) for items in sequences]
    queries, _ = Encoding().histories(model.eval(), histories, CPU)
    return model, queries, load_file(GOLDEN / "seqrec.safetensors")


def test_full_softmax_loss_and_gradients_are_the_authors() -> None:
    model, queries, golden = authors()
    examples = SoftmaxBatch([], golden["labels"].numpy(), None)
    loss = softmax_loss(model, queries, golden["item_embeddings"], examples, 0.05)
    torch.testing.assert_close(loss.detach()[None], golden["finetune_loss_full_softmax"], rtol=0, atol=2e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = load_file(GOLDEN / "gradients.safetensors")
    named = {name.removeprefix("finetune."): t for name, t in gradients.items() if name.startswith("finetune.")}
    expected = convert_weights(plain_names(named), model.config.num_layers, lm_head=False)
    for name, parameter in model.named_parameters():
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours, expected[name], rtol=0, atol=1e-4)


def test_sampled_softmax_loss_is_the_authors() -> None:
    model, queries, golden = authors()
    candidates = golden["sampled_candidates"].numpy()
    examples = SoftmaxBatch([], candidates[:, 0], candidates[:, 1:])
    loss = softmax_loss(model, queries, golden["item_embeddings"], examples, 0.05)
    torch.testing.assert_close(loss.detach()[None], golden["finetune_loss_sampled_softmax"], rtol=0, atol=2e-5)
