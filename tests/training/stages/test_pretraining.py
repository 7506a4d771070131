"""Pretraining: the authors' loss and gradients, what an example is, who is a negative, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.recformer.batch import PackedBatch
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.convert import convert_config
from seqrec.models.recformer.model import Recformer
from seqrec.models.recformer.weights import convert_weights, plain_names
from seqrec.text.item_text import ItemText, ItemTokens, Recipe, TokenizedHistory, TokenizedItem
from seqrec.text.tokenizer import CLS, MASK, read_tokenizer, train_bpe
from tests.training.conftest import write_world
from training.config.schema import OptimizerConfig, PretrainConfig, ValidationConfig
from training.data.dataset import Dataset, read_dataset
from training.distributed import ParallelModel
from training.engine.logger import StageLogger
from training.engine.loop import fit
from training.evaluation.evaluation_set import EvaluationSet
from training.evaluation.metrics import Metrics
from training.stages.base import Towers, TrainingData
from training.stages.encoding import Encoding
from training.stages.pretraining import (
    IGNORE_INDEX,
    Pairs,
    PretrainStage,
    add_language_model_head,
    contrastive_loss,
)

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[2] / "golden" / "recformer"


# The authors' step


def authors_model() -> Recformer:
    config = json.loads((GOLDEN / "config.json").read_text())
    ours, recipe = convert_config(config, config)
    model = Recformer(replace(ours, lm_head=True), ItemText(recipe, read_tokenizer(GOLDEN)))
    theirs = plain_names(load_file(GOLDEN / "state_dict.safetensors"))
    model.load_state_dict(convert_weights(theirs, ours.num_layers, lm_head=True))
    return model.eval()


def authors_pairs(golden: dict[str, Tensor]) -> Pairs:
    """Their padded histories (a) and next items (b) as what a stage reads."""
    sides: dict[str, list[list[TokenizedItem]]] = {"a": [], "b": []}
    for side, sequences in sides.items():
        for row in range(len(golden[f"input_ids_{side}"])):
            places = golden[f"item_position_ids_{side}"][row].masked_fill(golden[f"attention_mask_{side}"][row] == 0, 0)
            ids, types = golden[f"input_ids_{side}"][row].numpy(), golden[f"token_type_ids_{side}"][row].numpy()
            newest_first = [(places == place).numpy() for place in range(1, int(places.max()) + 1)]
            sequences.append(
                [TokenizedItem(ids[one].astype(np.int32), types[one].astype(np.uint8)) for one in newest_first[::-1]]
            )
    histories = [TokenizedHistory(items) for items in sides["a"]]
    targets = [items[0] for items in sides["b"]]
    return Pairs(histories, targets, np.arange(len(targets)), 2 * np.arange(len(targets)))


class AuthorsStage(PretrainStage):
    """Ours, with the words hidden that they hid."""

    def __init__(self, golden: dict[str, Tensor], dataset: Dataset, chunk: int = 0) -> None:
        config = json.loads((GOLDEN / "config.json").read_text())
        settings = PretrainConfig(temperature=config["temp"], mlm_weight=config["mlm_weight"])
        none = TokenizedItem(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        domain = TrainingData(dataset, ItemTokens.concatenate([none] * len(dataset.items)))
        super().__init__([domain], settings, 1, Encoding(chunk))
        self.golden, self.pairs = golden, authors_pairs(golden)

    @property
    def steps_per_epoch(self) -> int:
        return 1

    def epoch(self, number: int) -> Any:
        yield self.pairs

    def mask(self, batch: PackedBatch, seeds: Any) -> tuple[PackedBatch, Tensor]:
        side, rows = "ab"[int(seeds[0]) % 2], torch.from_numpy(np.asarray(seeds)) // 2
        real = self.golden[f"attention_mask_{side}"][rows].bool()
        assert (batch.input_ids == self.golden[f"input_ids_{side}"][rows][real]).all()
        hidden = replace(batch, input_ids=self.golden[f"mlm_input_ids_{side}"][rows][real])
        return hidden, self.golden[f"mlm_labels_{side}"][rows][real]


def assert_authors_gradients(model: Recformer) -> None:
    golden = load_file(GOLDEN / "gradients.safetensors")
    named = {name.removeprefix("pretrain."): t for name, t in golden.items() if name.startswith("pretrain.")}
    expected = convert_weights(plain_names(named), model.config.num_layers, lm_head=True)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [0, 4])
def test_loss_and_gradients_are_the_authors(world: Dataset, chunk: int) -> None:
    golden = load_file(GOLDEN / "pretrain.safetensors")
    model, stage = authors_model(), AuthorsStage(golden, world, chunk)
    loss, tokens = stage.loss(model, stage.pairs, CPU)
    assert tokens == 2 * int(golden["attention_mask_a"].sum() + golden["attention_mask_b"].sum())
    assert stage.parts.keys() == {"contrastive", "mlm_histories", "mlm_items"}
    named = {"loss": loss, "contrastive_loss": stage.parts["contrastive"]}
    named |= {"mlm_loss_a": stage.parts["mlm_histories"], "mlm_loss_b": stage.parts["mlm_items"]}
    for name, ours in named.items():
        torch.testing.assert_close(ours.detach().reshape(1), golden[name].reshape(1), rtol=0, atol=2e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert_authors_gradients(model)


def test_a_step_of_the_loop_has_the_authors_loss_and_gradients(world: Dataset) -> None:
    golden = load_file(GOLDEN / "pretrain.safetensors")
    model, entries = authors_model(), list[dict[str, Any]]()
    assert model.config.dropout == 0
    fit(
        ParallelModel(model),
        AuthorsStage(golden, world),
        lambda: (Metrics(1, 0.0, 0.0, 0.0, 0.0, 0.0), {}),
        OptimizerConfig(max_steps=1, clip_norm=1e6),
        ValidationConfig(checks=1),
        CPU,
        StageLogger("pretrain", entries.append),
    )
    (step,) = [entry for entry in entries if entry["kind"] == "step"]
    assert step["loss"] == pytest.approx(golden["loss"].item(), abs=2e-5)
    assert step["contrastive"] == pytest.approx(golden["contrastive_loss"].item(), abs=2e-5)
    assert_authors_gradients(model)


def _two_processes(rank: int, folder: str, chunk: int) -> None:
    """One of two processes with a share of the batch each; their mean gradient, which is what DDP makes, is theirs."""
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    golden = load_file(GOLDEN / "pretrain.safetensors")
    model, stage = authors_model(), AuthorsStage(golden, read_dataset(*write_world(Path(folder) / str(rank))), chunk)
    loss, _ = stage.loss(model, stage.pairs, CPU)
    torch.testing.assert_close(loss.detach().reshape(1), golden["loss"].reshape(1), rtol=0, atol=2e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
    assert_authors_gradients(model)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_make_the_authors_loss_and_gradients_too(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    torch.multiprocessing.spawn(_two_processes, (str(tmp_path), 2), nprocs=2)


# Examples


def domain_of(dataset: Dataset) -> TrainingData:
    titles = [str(item.attributes["title"]) for item in dataset.items]
    tokens = ItemText(Recipe(("title",)), train_bpe(titles, 320)).tokenize(dataset.items)
    return TrainingData(dataset, tokens)


def part_of(dataset: Dataset, users: int) -> Dataset:
    return replace(dataset, user_ids=dataset.user_ids[:users], offsets=dataset.offsets[: users + 1])


def stage_of(*domains: TrainingData, seed: int = 1, **settings: Any) -> PretrainStage:
    return PretrainStage(domains, PretrainConfig(**{"mlm_weight": 0.0} | settings), seed)


def test_targets_are_of_the_later_half_of_the_training_part(world: Dataset) -> None:
    stage = stage_of(domain_of(world), batch_size=10)
    places, length = [], len(world.training_part(0))
    for epoch in range(8):
        for pairs in stage.epoch(epoch):
            for history, target, text in zip(pairs.histories, pairs.targets, pairs.texts, strict=True):
                user, place = world.user_ids.index(str(history.user_id)), len(history.items)
                part = world.training_part(user)
                items = [stage.tokens[0][row] for row in part[:place]]
                assert all(a is b for a, b in zip(history.items, items, strict=True))
                assert target is stage.tokens[0][part[place]]
                assert text == stage.text_of[0][part[place]]
                places.append(place)
    assert set(places) == set(range((length - 1) // 2, length))


@pytest.mark.slow
def test_an_epoch_draws_every_user_of_the_union_once_and_leaves_the_rest_out(world: Dataset) -> None:
    stage = stage_of(domain_of(world), domain_of(part_of(world, 13)), batch_size=8)
    epoch = list(stage.epoch(3))
    assert len(epoch) == stage.steps_per_epoch == (60 + 13) // 8
    assert {len(pairs.targets) for pairs in epoch} == {8}
    users = [history.user_id for pairs in epoch for history in pairs.histories]
    assert len(users) == 72
    assert max(users.count(user) for user in set(users)) <= 2  # thirteen are in both domains
    again = list(stage_of(domain_of(world), domain_of(part_of(world, 13)), batch_size=8).epoch(3))
    assert all((a.texts == b.texts).all() and (a.seeds == b.seeds).all() for a, b in zip(epoch, again, strict=True))
    other = next(iter(stage.epoch(4)))
    assert [h.user_id for h in other.histories] != [h.user_id for h in epoch[0].histories]


@pytest.mark.slow
def test_negatives_of_one_domain_where_asked_to(world: Dataset) -> None:
    domains = [domain_of(world), domain_of(part_of(world, 20))]
    stage = stage_of(*domains, batch_size=8, single_domain_batches=True)
    of_item = {id(item.ids): number for number, tokens in enumerate(stage.tokens) for item in tokens}
    found = []
    for pairs in stage.epoch(0):
        (domain,) = {of_item[id(target.ids)] for target in pairs.targets}
        found.append(domain)
    assert len(found) == stage.steps_per_epoch == 60 // 8 + 20 // 8
    assert sorted(found) != found  # not one domain after the other
    assert stage_of(domain_of(part_of(world, 5)), batch_size=64).steps_per_epoch == 1


def test_one_user_alone_cannot_be_distinguished(world: Dataset) -> None:
    with pytest.raises(InputError, match="fewer than two users"):
        stage_of(domain_of(part_of(world, 1)))


# Losses


def test_items_that_read_the_same_are_never_each_others_negatives(world: Dataset) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, vectors = (torch.randn(4, 8, generator=generator) for _ in range(2))
    loss = contrastive_loss(Metric.COSINE, queries, vectors, np.array([5, 7, 5, 9]), 0.1)
    logits = F.normalize(queries, dim=1) @ F.normalize(vectors, dim=1).T / 0.1
    candidates = [[0, 1, 3], [1, 0, 2, 3], [2, 1, 3], [3, 0, 1, 2]]  # the own item first
    by_hand = [-logits[row, columns].log_softmax(0)[0] for row, columns in enumerate(candidates)]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    everything_equal = contrastive_loss(Metric.COSINE, queries, vectors, np.zeros(4, np.int64), 0.1)
    assert everything_equal.item() == 0


def test_the_same_item_in_two_domains_is_one_text(world: Dataset) -> None:
    stage = stage_of(domain_of(world), domain_of(part_of(world, 13)))
    assert (stage.text_of[0] == stage.text_of[1]).all()
    assert len(np.unique(stage.text_of[0])) == len(world.items)


def small_recformer(dataset: Dataset, **settings: Any) -> Recformer:
    titles = [str(item.attributes["title"]) for item in dataset.items]
    text = ItemText(Recipe(("title",)), train_bpe(titles, 320))
    cls_id, mask_id = text.token_id(CLS), text.token_id(MASK)
    assert cls_id is not None
    assert mask_id is not None
    torch.manual_seed(3)
    config = RecformerConfig(
        vocab_size=text.vocab_size,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        max_token_num=64,
        max_position_embeddings=66,
        dropout=0.0,
        cls_id=cls_id,
        mask_id=mask_id,
        **settings,
    )
    return Recformer(config, text)


def test_a_model_gets_its_head_and_loses_it(world: Dataset) -> None:
    model = small_recformer(world)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    vocabulary = add_language_model_head(model)
    assert vocabulary.mask_id == model.config.mask_id
    assert model.lm_head is not None
    torch.testing.assert_close(model.lm_head.decoder.weight, model.word_embeddings.weight)
    assert model.lm_head.decoder.weight is not model.word_embeddings.weight
    head = model.lm_head
    add_language_model_head(model)
    assert model.lm_head is head  # one that is there stays
    assert Recformer.from_config(model.config_json(), model.item_text).lm_head is not None
    model.drop_language_model_head()
    assert model.state_dict().keys() == before.keys()
    assert Recformer.from_config(model.config_json(), model.item_text).lm_head is None


@pytest.mark.slow
def test_hidden_words_are_learned_with_the_rest(world: Dataset) -> None:
    model = small_recformer(world)
    domain = TrainingData(world, model.tokenize_items(world.items))
    vocabulary = add_language_model_head(model)
    stage = PretrainStage([domain], PretrainConfig(batch_size=16), 1, None, vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    seen: list[dict[str, float]] = []
    for epoch in range(12):
        for pairs in stage.epoch(epoch):
            loss, _ = stage.loss(model, pairs, CPU)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen.append({name: part.item() for name, part in stage.parts.items()})
    for name in seen[0]:
        first, last = (np.mean([parts[name] for parts in some]) for some in (seen[:6], seen[-6:]))
        assert last < 0.75 * first, name


def test_a_batch_without_hidden_words_has_a_loss_all_the_same(world: Dataset) -> None:
    class NothingHidden(PretrainStage):
        def mask(self, batch: PackedBatch, seeds: Any) -> tuple[PackedBatch, Tensor]:
            return batch, torch.full_like(batch.input_ids, IGNORE_INDEX)

    model = small_recformer(world, lm_head=True)
    stage = NothingHidden([TrainingData(world, model.tokenize_items(world.items))], PretrainConfig(batch_size=4), 1)
    loss, _ = stage.loss(model, next(iter(stage.epoch(0))), CPU)
    assert loss.item() == stage.parts["contrastive"].item()
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.lm_head is not None
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.lm_head.parameters())


def test_words_are_hidden_of_recformer_alone(embedding_bag: type[nn.Module]) -> None:
    with pytest.raises(InputError, match=r"pretrain\.mlm_weight: EmbeddingBag does not predict masked words"):
        add_language_model_head(embedding_bag(300))  # type: ignore[arg-type]


# Checks


def test_held_out_items_are_ranked_among_as_many_as_asked_for(world: Dataset) -> None:
    model = small_recformer(world).eval()
    tokens = model.tokenize_items(world.items)
    encoder = Towers("recformer", model).encoder(CPU)
    every = EvaluationSet.of("all", world, tokens, "valid", 1000, 0, 1)
    assert len(every.candidates) == len(world.items)
    vectors = encoder.encode_items(world.items)
    queries = encoder.encode_histories([[world.items[row] for row in history] for history in every.cases.histories])
    scores = queries @ vectors.T
    ranks = 1 + (scores > scores[np.arange(len(scores)), every.cases.targets][:, None] + 1e-6).sum(1)
    ndcg = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()
    assert every.metrics(encoder).ndcg == pytest.approx(ndcg, abs=1e-9)
    few = EvaluationSet.of("few", world, tokens, "test", 4, 3, 1)
    assert len(few.cases) == 4
    assert set(few.cases.targets) <= set(few.candidates)
    assert len(few.candidates) <= 7
    assert few.metrics(encoder).ndcg > 0.3  # among seven


@pytest.mark.slow
def test_the_mean_over_domains_decides_and_zero_shot_is_only_reported(world: Dataset) -> None:
    model = small_recformer(world).eval()
    tokens = model.tokenize_items(world.items)
    held_out = [
        EvaluationSet.of(name, world, tokens, "valid", users, 0, 1) for name, users in (("one", 30), ("two", 7))
    ]
    other = EvaluationSet.of("never seen", world, tokens, "test", 1000, 0, 1)
    stage = PretrainStage(
        [TrainingData(world, tokens)], PretrainConfig(mlm_weight=0), 1, held_out=held_out, zero_shot=[other]
    )
    encoder = Towers("recformer", model).encoder(CPU)
    found = stage.validate(encoder)
    assert found is not None
    metrics, details = found
    assert metrics.users == 37
    assert details["domains"].keys() == {"one", "two"}
    assert metrics.ndcg == pytest.approx(np.mean(list(details["domains"].values())))
    assert details["zero_shot"] == {"never seen": other.metrics(encoder).ndcg_expected}
