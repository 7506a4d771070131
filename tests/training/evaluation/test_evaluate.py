from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqrec import load_model
from seqrec.data.items import Interactions, Item
from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.settings import HybridSettings
from seqrec.metric import TIE
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.hybrid import Hybrid
from training.data.dataset import Dataset, Split, join
from training.evaluation.comparison import Evaluation, Model
from training.evaluation.comparison import evaluate as compare
from training.evaluation.evaluate import EncodedItems, model_scorers, top_k, validation_metrics
from training.evaluation.examples import format_examples, sample_users_evenly
from training.evaluation.ranking import case_ranks
from training.evaluation.report import as_json, markdown_summary, notes, text_table
from training.stages.base import Towers


@pytest.fixture
def encoder(bag_of_words_checkpoint: Path) -> Encoder:
    return load_model(bag_of_words_checkpoint, "cpu")


def evaluate(encoder: Encoder, dataset: Dataset, split: Split = "test", resamples: int = 20) -> Evaluation:
    model = Model(encoder.checkpoint.model_name, encoder, EncodedItems.of(encoder, dataset))
    return compare([model], dataset, split, resamples=resamples)


def metrics_of(evaluation: Evaluation, method: str, group: str = "all targets") -> dict[str, tuple[int, float]]:
    return {
        row.protocol: (row.users, row.figures["NDCG@10"].value)
        for row in evaluation.rows
        if row.method.startswith(method) and row.group == group
    }


def with_events(dataset: Dataset, *extra: tuple[str, str]) -> Dataset:
    """The data set with more users: (user, items' ids in a row)."""
    users = [dataset.user_ids[user] for user in range(dataset.users) for _ in dataset.sequence(user)]
    items = [dataset.items[row].item_id for row in dataset.events]
    for user, ids in extra:
        users += [user] * len(ids.split())
        items += ids.split()
    return join(dataset.items, Interactions(users, items, np.arange(len(users))))


def test_ranks_are_those_of_plain_loops(world: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.ranking.SCORES_AT_ONCE", 7 * len(world.items))  # several chunks
    cases = world.cases("test")
    items = encoder.encode_items(list(world.items))
    queries = encoder.encode_histories([[world.items[row] for row in history] for history in cases.histories])
    scores = queries @ items.T
    found = case_ranks(lambda numbers: scores[numbers], cases, len(world.items))
    for number, (history, target) in enumerate(zip(cases.histories, cases.targets, strict=True)):
        better = [row for row in range(len(items)) if scores[number, row] > scores[number, target] + TIE]
        assert found["all items"].favourable[number] == 1 + len(better)
        unseen = [row for row in better if row not in history]
        assert not found["unseen only"].counted[number] or found["unseen only"].favourable[number] == 1 + len(unseen)


@pytest.mark.slow
def test_a_repeat_is_not_counted_among_the_unseen(world: Dataset, encoder: Encoder) -> None:
    # In this world every user goes round the six things twice: the last item was had before.
    mixed = with_events(world, ("new", "red-mug red-lamp red-desk blue-rug"))
    evaluation = evaluate(encoder, mixed, "test")
    assert {protocol: users for protocol, (users, _) in metrics_of(evaluation, "bag").items()} == {
        "all items": 61,
        "unseen only": 1,
    }
    assert "does not count 60 users who had the held-out item before" in notes(evaluation)[-1]
    nobody = evaluate(encoder, world, "test")
    (row,) = [
        row for row in as_json(nobody)["rows"] if row["method"] == "popularity" and row["protocol"] != "all items"
    ]
    assert row.items() >= {"protocol": "unseen only", "users": 0, "ndcg": None}.items()
    assert "| - | - | - |" in markdown_summary(nobody)


@pytest.mark.slow
def test_cold_targets_are_reported_apart(world: Dataset, encoder: Encoder) -> None:
    items = [*world.items, Item("new", {"title": "red kettle"})]
    dataset = with_events(replace(world, items=items), ("v", "red-mug red-rug new"))
    evaluation = evaluate(encoder, dataset, "test")
    assert metrics_of(evaluation, "bag", "cold targets")["all items"][0] == 1
    assert metrics_of(evaluation, "bag", "warm targets")["all items"][0] == 60
    everyone, warm, cold = (
        metrics_of(evaluation, "popularity", group)["all items"][1]
        for group in ("all targets", "warm targets", "cold targets")
    )
    assert everyone == pytest.approx((60 * warm + cold) / 61)
    assert cold == 0  # nobody bought it
    groups = {row.group for row in evaluate(encoder, world, "test").rows if row.breakdown == "targets"}
    assert groups == {"all targets"}


def test_items_that_read_the_same_tie_exactly(encoder: Encoder) -> None:
    titles = ["oak desk", "oak desk", "tea mug", "oak desk", "floor lamp"] * 9
    items = [Item(f"i{row:02}", {"title": title}) for row, title in enumerate(titles)]
    dataset = join(items, Interactions(["u"] * 3, ["i02", "i01", "i00"], np.arange(3)))
    encoded = EncodedItems.of(encoder, dataset)
    assert len(encoded.texts) == 3
    scores = encoded.scores(encoded.of_rows(np.array([0, 2])))
    assert len(np.unique(scores[0])) == 3
    evaluation = evaluate(encoder, dataset, "test")
    warnings = as_json(evaluation)["warnings"]
    assert any(warning.startswith("Warning: bag_of_words, all targets, all items") for warning in warnings)
    assert warnings[0] in text_table(evaluation)


def test_the_last_item_floor_finds_what_reads_like_it(encoder: Encoder) -> None:
    items = [Item(f"i{row}", {"title": f"{row} {row + 1}"}) for row in range(30)]
    users = [f"u{user}" for user in range(20) for _ in range(3)]
    rows = [row for user in range(20) for row in (user + 5, user, user + 1)]
    dataset = join(items, Interactions(users, [f"i{row}" for row in rows], np.arange(len(rows))))
    (_, all_items), (_, unseen) = metrics_of(evaluate(encoder, dataset, "test"), "last item").values()
    assert 0 < all_items < unseen  # the last item itself is the nearest, where it may be recommended


def test_validation_is_what_evaluate_says_of_the_split(world: Dataset, encoder: Encoder) -> None:
    model = BagOfWords(BagOfWordsConfig(dim=32))
    metrics = validation_metrics(Towers("bag_of_words", model).encoder("cpu"), world, world.cases("valid"))
    assert metrics_of(evaluate(encoder, world, "valid"), "bag")["all items"] == (metrics.users, metrics.ndcg)


@pytest.mark.parametrize("unseen", [True, False])
def test_top_k_is_the_head_of_the_ranking(world: Dataset, encoder: Encoder, unseen: bool) -> None:
    users = ["u3", "u1", "u59"]
    cases = world.cases("test")
    for user, answer in zip(users, top_k(encoder, world, users, 7, unseen), strict=True):
        history = cases.histories[world.user_ids.index(user)]
        query = encoder.encode_histories([[world.items[row] for row in history]])
        scores = (encoder.encode_items(list(world.items)) @ query[0]).astype(float)
        allowed = [row for row in range(len(scores)) if not (unseen and row in history)]
        expected = sorted(allowed, key=lambda row: (-round(scores[row], 5), world.items[row].item_id))[:7]
        assert [item_id for item_id, _ in answer] == [world.items[row].item_id for row in expected]
        np.testing.assert_allclose([score for _, score in answer], scores[expected], atol=1e-5)


def test_top_k_orders_ties_by_id_across_the_cut_and_leaves_out_what_is_not_available(encoder: Encoder) -> None:
    items = [Item(f"i{row}", {"title": "tea mug"}, available=row != 1) for row in (5, 3, 1, 4, 2)]
    dataset = join([*items, Item("x", {"title": "lamp"})], Interactions(["u"] * 3, ["i5", "i3", "x"], np.arange(3)))
    (answer,) = top_k(encoder, dataset, ["u"], 3, unseen=False)
    assert [item_id for item_id, _ in answer] == ["i2", "i3", "i4"]
    (answer,) = top_k(encoder, dataset, ["u"], 10, unseen=True)
    assert [item_id for item_id, _ in answer] == ["i2", "i4", "x"]
    with pytest.raises(InputError, match="no user 'w' with a history"):
        top_k(encoder, dataset, ["w"], 3, unseen=True)


def test_vectors_that_are_no_numbers_are_refused(world: Dataset, encoder: Encoder) -> None:
    class Broken:
        def __init__(self) -> None:
            self.metric = encoder.metric

        def tokenize_items(self, items: list[Item]) -> object:
            return encoder.tokenize_items(items)

        def encode_item_tokens(self, items: list[object], progress: object) -> object:
            return np.full((len(items), 4), np.nan, dtype=np.float32)

    with pytest.raises(InputError, match="item vectors that are not finite"):
        EncodedItems.of(Broken(), world)  # type: ignore[arg-type]


def test_the_tables_say_protocol_split_and_users(world: Dataset, encoder: Encoder) -> None:
    evaluation = evaluate(encoder, world, "valid")
    plain, markdown = text_table(evaluation), markdown_summary(evaluation)
    for text in (plain, markdown):
        assert "valid: the second to last item of 60 users, ranked among 30 items" in text
        for word in ("all items", "unseen only", "NDCG@10", "Recall@10", "MRR", "popularity", "last item", "item-kNN"):
            assert word in text
    tables = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert max(len(line) for line in plain.splitlines() if "|" in line) < 110


def hybrid_of(world: Dataset, **settings: float) -> Encoder:
    dense = BagOfWords(BagOfWordsConfig(dim=16))
    chosen = HybridSettings(last_text=0.2, recent_text=0.1, dense=0.1, **settings)  # type: ignore[arg-type]
    model = Hybrid.of("bag_of_words", dense, Vocabulary.of(world.items), ["title"], chosen)
    return Towers("hybrid", model).encoder("cpu")


@pytest.mark.slow
def test_a_hybrid_is_also_reported_without_co_occurrence_and_with_the_counts_of_training(world: Dataset) -> None:
    evaluation = evaluate(hybrid_of(world, exclude_seen=False, cold_boost=1.0), world)
    found = {row.method: metrics_of(evaluation, row.method)["all items"][1] for row in evaluation.rows}
    without = evaluate(hybrid_of(world, exclude_seen=False, pairs=0.0, cold_boost=0.0), world)
    text = metrics_of(without, "hybrid, no co-occurrence")
    assert found["hybrid, no co-occurrence"] == text["all items"][1]
    assert found["hybrid"] > found["hybrid, no co-occurrence"]
    assert "validation included; 'no co-occurrence' leaves it out" in notes(evaluation)[-1]
    assert not any("counts of training" in row.method for row in evaluate(hybrid_of(world), world, "valid").rows)
    assert {(test.method, test.other) for test in evaluation.tests} >= {("hybrid", "hybrid, no co-occurrence")}


def test_the_counts_of_training_are_those_of_validation(world: Dataset) -> None:
    encoder = hybrid_of(world, exclude_seen=False)
    cases = world.cases("test")
    items = EncodedItems.of(encoder, world)
    some = np.arange(5)
    found = model_scorers(encoder, items, world, cases, "test")["counts of training"](some)
    same = model_scorers(encoder, items, world, cases, "valid", variants=False)[""](some)
    np.testing.assert_array_equal(found, same)
    assert (found != model_scorers(encoder, items, world, cases, "test", variants=False)[""](some)).any()


def test_shown_users_are_spread_and_readable(world: Dataset, encoder: Encoder) -> None:
    users = sample_users_evenly(world, "test", 3)
    assert users == ["u10", "u30", "u50"]
    assert len(sample_users_evenly(world, "test", 1000)) == 60
    answers = top_k(encoder, world, users, 30, unseen=False)
    text = format_examples(world, None, users, answers, "test")
    assert "user u10: history, the last 5 of 11 items, oldest first" in text
    assert text.count("<- came next") == 3
    assert "(red-mug)" in text
