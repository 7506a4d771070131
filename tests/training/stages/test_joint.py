from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seqrec.data.items import Interactions, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.text.item_text import ItemText, ItemTokens, Recipe
from seqrec.text.tokenizer import train_bpe
from training.config.schema import JointConfig
from training.data.dataset import Dataset, join
from training.stages.joint import JointBatch, JointStage, compare

CPU = torch.device("cpu")


def tokens_of(dataset: Dataset) -> ItemTokens:
    titles = [str(item.attributes["title"]) for item in dataset.items]
    return ItemText(Recipe(("title",)), train_bpe(titles, 320)).tokenize(dataset.items)


def stage_of(dataset: Dataset, seed: int = 1, **settings: object) -> JointStage:
    return JointStage(dataset, tokens_of(dataset), JointConfig(**settings), seed)  # type: ignore[arg-type]


def place_of_target(dataset: Dataset, stage: JointStage, examples: JointBatch, example: int) -> tuple[int, int]:
    """(user, position) of an example, found by its history."""
    user = dataset.user_ids.index(str(examples.histories[example].user_id))
    part, place = dataset.training_part(user), len(examples.histories[example].items)
    assert all(a is stage.tokens[b] for a, b in zip(examples.histories[example].items, part[:place], strict=True))
    return user, place


def test_an_example_is_a_user_cut_at_a_position_of_the_training_part(world: Dataset) -> None:
    stage = stage_of(world, batch_size=16, negatives=5)
    places = []
    for examples in stage.epoch(0):
        for example, label in enumerate(examples.labels):
            user, place = place_of_target(world, stage, examples, example)
            assert examples.candidates[label] == world.training_part(user)[place]
            places.append(place)
    assert len(places) == world.users  # each user once an epoch
    assert min(places) == 0  # an empty history is one of them
    assert max(places) == len(world.training_part(0)) - 1  # and the validation item is never a target


def test_every_user_several_times_an_epoch(world: Dataset) -> None:
    stage = stage_of(world, batch_size=16, examples_per_user=3)
    users = [history.user_id for examples in stage.epoch(0) for history in examples.histories]
    assert sorted(users) == sorted(list(world.user_ids) * 3)
    assert stage.steps_per_epoch == len(list(stage.epoch(0)))


def test_targets_of_the_later_half_and_after_a_least_history(world: Dataset) -> None:
    last = len(world.training_part(0)) - 1
    later = [len(h.items) for e in stage_of(world, targets="later_half").epoch(0) for h in e.histories]
    assert min(later) >= last // 2
    longer = [len(h.items) for e in stage_of(world, min_history=3).epoch(0) for h in e.histories]
    assert min(longer) >= 3


def test_the_same_seed_and_epoch_give_the_same_batches(world: Dataset) -> None:
    def drawn(seed: int, epoch: int) -> list[list[int]]:
        return [[*e.candidates.tolist(), *e.labels.tolist()] for e in stage_of(world, seed).epoch(epoch)]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)


def test_no_candidate_reads_like_another() -> None:
    items = [Item(f"{title}{n}", {"title": title}) for n in range(5) for title in ("mug", "lamp", "desk")]
    users = [f"u{n}" for n in range(20) for _ in range(5)]
    rng = np.random.default_rng(0)
    rows = rng.integers(len(items), size=100)
    dataset = join(items, Interactions(users, [items[row].item_id for row in rows], np.arange(100)))
    stage = stage_of(dataset, negatives=100)
    for examples in stage.epoch(0):
        titles = [items[row].attributes["title"] for row in examples.candidates]
        assert sorted(map(str, titles)) == ["desk", "lamp", "mug"]
        for example, label in enumerate(examples.labels):
            user, place = place_of_target(dataset, stage, examples, example)
            assert titles[label] == items[dataset.training_part(user)[place]].attributes["title"]


def test_the_loss_is_the_cross_entropy_of_cosine_over_temperature(
    world: Dataset, embedding_bag: Callable[..., torch.nn.Module]
) -> None:
    stage = stage_of(world, batch_size=8, negatives=4, temperature=0.5)
    torch.manual_seed(0)
    model = embedding_bag(vocab_size=320)
    examples = next(stage.epoch(0))
    loss, tokens = stage.loss(model, examples, CPU)  # type: ignore[arg-type]
    queries = model.encode_histories(model.prepare_histories(examples.histories))  # type: ignore[operator]
    items = model.encode_items(model.prepare_items([stage.tokens[row] for row in examples.candidates]))  # type: ignore[operator]
    expected = []
    for query, label in zip(queries, examples.labels, strict=True):
        logits = F.cosine_similarity(query[None], items) / 0.5
        expected.append(-logits.log_softmax(0)[int(label)])
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)
    last = [history.items[-1] for history in examples.histories if history.items]
    assert tokens == sum(len(i.ids) for i in last) + sum(len(stage.tokens[r].ids) for r in examples.candidates)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("metric", list(Metric))
def test_comparison_is_that_of_the_metric(metric: Metric) -> None:
    torch.manual_seed(0)
    queries, items = torch.randn(3, 8), torch.randn(5, 8)
    unit = (F.normalize(queries), F.normalize(items)) if metric is Metric.COSINE else (queries, items)
    expected = metric.scores(*(part.numpy() for part in unit))
    np.testing.assert_allclose(compare(metric, queries, items).numpy(), expected, atol=1e-5)


def test_nothing_to_train_on_is_an_error(world: Dataset) -> None:
    with pytest.raises(InputError, match="no user has more than min_history = 50 events"):
        stage_of(world, min_history=50)
