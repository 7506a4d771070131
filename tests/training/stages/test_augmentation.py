"""Histories seen twice, and what pretraining makes of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from seqrec.errors import InputError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.unisrec import UniSRec, UniSRecSettings
from seqrec.text.item_text import KNOWN, NAME, VALUE, TokenizedHistory, TokenizedItem
from training.config.schema import FineTuningConfig, JointConfig, OptimizerConfig, PretrainConfig, RunConfig
from training.config.validation import build
from training.data.dataset import Dataset
from training.stages.augmentation import augment, history_before, without_words
from training.stages.base import Stage, StageContext, Towers, TrainingData
from training.stages.encoding import PLAIN
from training.stages.joint import JointStage
from training.stages.pretraining import PretrainStage, contrastive_loss
from training.stages.two_stage import StageOne

CPU = torch.device("cpu")
ITEMS = [
    TokenizedItem(np.arange(n, n + 8, dtype=np.int32), np.array([NAME] + [VALUE] * 7, np.uint8)) for n in range(50)
]
HISTORY = TokenizedHistory(ITEMS, "user")


def test_a_share_of_the_items_is_left_out_in_order() -> None:
    rng = np.random.default_rng(0)
    lengths = []
    for _ in range(50):
        view = augment(HISTORY, 0.2, 0.0, rng)
        firsts = [int(item.ids[0]) for item in view.items]
        assert firsts == sorted(firsts)
        assert view.user_id == "user"
        lengths.append(len(firsts))
    assert np.mean(lengths) == pytest.approx(40, abs=2)


@pytest.mark.parametrize("items", [0, 1, 2])
def test_something_is_left_of_every_history_that_has_something(items: int) -> None:
    rng = np.random.default_rng(0)
    augmented = [augment(TokenizedHistory(ITEMS[:items]), 0.99, 0.0, rng) for _ in range(20)]
    assert {len(view.items) for view in augmented} >= {min(items, 1)}
    assert all(view.items for view in augmented) == bool(items)


def test_words_are_left_out_and_names_stay_the_same_ones_each_time() -> None:
    rng = np.random.default_rng(0)
    one, other = (augment(HISTORY, 0.2, 1.0, rng) for _ in range(2))
    assert len(one.items) == len(HISTORY.items)
    for item, again, whole in zip(one.items, other.items, ITEMS, strict=True):
        assert item.ids.tolist() == again.ids.tolist()
        assert set(item.ids.tolist()) <= set(whole.ids.tolist())
        assert item.types[0] == NAME
    assert np.mean([len(item.ids) for item in one.items]) == pytest.approx(1 + 0.8 * 7, abs=0.5)


def test_the_item_itself_is_no_word() -> None:
    known = TokenizedItem(np.array([1, 2, 3], np.int32), np.array([VALUE, VALUE, KNOWN], np.uint8))
    assert without_words(known, 0.999).types.tolist() == [KNOWN]


def test_a_cropped_history_is_the_newest_of_it_in_every_length() -> None:
    rng = np.random.default_rng(1)
    items = np.arange(100, 110)
    cropped = [history_before(items, 4, True, rng).tolist() for _ in range(400)]
    counts = Counter(map(tuple, cropped))
    assert set(counts) == {(103,), (102, 103), (101, 102, 103), (100, 101, 102, 103)}
    assert min(counts.values()) > 70  # each as likely
    assert history_before(items, 0, True, rng).tolist() == []
    before = rng.bit_generator.state
    assert history_before(items, 4, False, rng).tolist() == [100, 101, 102, 103]
    assert rng.bit_generator.state == before, "without it, trainings draw what they always drew"


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("name", ["pretrain", "joint", "stage1"])
def test_every_stage_crops_where_asked_to(world: Dataset, name: str, crop: bool) -> None:
    model = BagOfWords(BagOfWordsConfig())
    data = TrainingData(world, model.tokenize_items(world.items))
    fine = FineTuningConfig(crop=crop)
    config = RunConfig(stages=("stage1",), stage1=fine, optimizer=OptimizerConfig(max_epochs=1))
    towers = Towers("bag_of_words", model)
    context = StageContext(config, (data,), towers, CPU, PLAIN, lambda encoder: pytest.fail("nothing is validated"))
    stage: Stage = {
        "pretrain": lambda: PretrainStage([data], PretrainConfig(mlm_weight=0.0, batch_size=16, crop=crop), 1),
        "joint": lambda: JointStage(world, data.tokens, JointConfig(crop=crop), 1),
        "stage1": lambda: StageOne.from_context(context),
    }[name]()
    ids = [tuple(one.ids) for one in data.tokens]
    beginnings = set()
    for batch in stage.epoch(0):
        for history in batch.histories:
            part = [ids[row] for row in world.training_part(world.user_ids.index(str(history.user_id)))]
            read = [tuple(item.ids) for item in history.items]
            places = [begin for begin in range(len(part)) if part[begin : begin + len(read)] == read]
            assert places, "a history is what somebody had, without gaps"
            if read:
                beginnings.add(places[0])
    assert (beginnings == {0}) == (not crop)


def test_a_history_has_to_find_itself_too(world: Dataset) -> None:
    torch.manual_seed(0)
    model = UniSRec.from_text_encoder(
        UniSRecSettings(dim=8, heads=1, inner=8), "bag_of_words", BagOfWords(BagOfWordsConfig(dim=16))
    )
    model.eval()
    domain = TrainingData(world, model.tokenize_items(world.items))
    config = PretrainConfig(batch_size=16, temperature=0.07, mlm_weight=0.0, sequence_weight=0.5)
    stage = PretrainStage([domain], config, 1)
    batch = next(iter(stage.epoch(0)))
    assert len(batch.augmented) == len(batch.histories) == 16
    with torch.no_grad():
        loss, tokens = stage.loss(model, batch, CPU)
        queries, queries_read = PLAIN.histories(model, batch.histories, CPU)
        augmented, views_read = PLAIN.histories(model, batch.augmented, CPU)
        items, items_read = PLAIN.items(model, batch.targets, CPU)
        nearest = contrastive_loss(model.metric, queries, items, batch.texts, 0.07)
        itself = contrastive_loss(model.metric, queries, augmented, batch.texts, 0.07)
    torch.testing.assert_close(loss, nearest + 0.5 * itself)
    torch.testing.assert_close(stage.parts["sequences"], itself)
    assert tokens == queries_read + views_read + items_read


def test_without_a_weight_histories_are_seen_once(world: Dataset) -> None:
    model = BagOfWords(BagOfWordsConfig())
    stage = PretrainStage([TrainingData(world, model.tokenize_items(world.items))], PretrainConfig(mlm_weight=0.0), 1)
    assert not next(iter(stage.epoch(0))).augmented


@pytest.mark.parametrize("settings", [{"drop": 1.0}, {"drop_words": 1.5}, {"sequence_weight": -1.0}])
def test_a_wrong_setting_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"pretrain\.{next(iter(settings))}"):
        build(PretrainConfig, settings, "pretrain.")
