"""What a model on a frozen text encoder must do in addition to `ModelContract`. The encoder is a bag of words here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from index.vectors.flat import FlatIndex
from seqrec import Encoder, load_model
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Interactions, Item, make_item
from seqrec.errors import InputError
from seqrec.models import model_class
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.model_contract import ModelContract
from training.config.schema import OptimizerConfig, RunConfig, SequenceConfig
from training.data.dataset import Dataset, join
from training.engine.loop import adamw
from training.evaluation.evaluate import validation_metrics
from training.stages.base import StageContext, Towers, TrainingData
from training.stages.encoding import PLAIN
from training.stages.sequence import SequenceStage

CPU = torch.device("cpu")
NEW = make_item("never seen", {"title": "purple umbrella"})


class FrozenTextContract(ModelContract):
    """Subclass as `TestX`, set `name` and `settings`, and give `score`."""

    settings: ClassVar[dict[str, Any]] = {}
    """Of a small model."""
    epochs: ClassVar[int] = 25
    learning_rate: ClassVar[float] = 1e-2

    def score(self, model: Any, texts: torch.Tensor, history: list[int], item: int) -> float:
        """The paper's formula from the weights: text vectors of all items [n, text dim]; rows, oldest first."""
        raise NotImplementedError(
            f"define `score` in {type(self).__name__}: the formula of the paper, from the weights"
        )

    def kind(self) -> type[FrozenTextModel]:
        kind = model_class(self.name)
        assert issubclass(kind, FrozenTextModel)
        return kind

    def text(self) -> BagOfWords:
        return BagOfWords(BagOfWordsConfig(dim=32))

    def fresh(self, **settings: Any) -> Any:
        torch.manual_seed(0)
        kind = self.kind()
        known = [item.item_id for item in self.items()]
        return kind.from_text_encoder(
            kind.settings_class(**self.settings | settings), "bag_of_words", self.text(), known
        ).eval()

    def make(self) -> SequenceModel:
        model: SequenceModel = self.fresh()
        return model

    def data(self) -> Dataset:
        """Item n is followed by item n + 1, and the last by the first; one item is in no sequence."""
        items = [*self.items(), NEW]
        count = len(items) - 1
        steps = [(user, step) for user in range(3 * count) for step in range(5 + user % 7)]
        users = [f"user {user}" for user, _ in steps]
        ids = [items[(user + step) % count].item_id for user, step in steps]
        return join(items, Interactions(users, ids, np.arange(len(ids))))

    def stage(self, model: Any, dataset: Dataset) -> SequenceStage:
        tokens = model.tokenize_items(dataset.items)
        optimizer = OptimizerConfig(max_epochs=1)
        config = RunConfig(stages=("sequence",), sequence=SequenceConfig(batch_size=12), optimizer=optimizer)
        return SequenceStage.from_context(
            StageContext(
                config=config,
                data=(TrainingData(dataset, tokens),),
                towers=Towers(self.name, model),
                device=CPU,
                encoding=PLAIN,
                validate=lambda encoder: validation_metrics(encoder, dataset, dataset.cases("valid"), tokens),
            )
        )

    def trained(self, dataset: Dataset, epochs: int, **settings: Any) -> Any:
        """By the real stage."""
        model = self.fresh(**settings)
        stage = self.stage(model, dataset)
        optimizer = adamw(model, OptimizerConfig(learning_rate=self.learning_rate, max_epochs=epochs))
        model.train()
        for number in range(epochs):
            for batch in stage.epoch(number):
                loss, tokens = stage.loss(model, batch, CPU)
                assert tokens > 0
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return model.eval()

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        items = self.items()
        cases = [(items[place : place + 5], items[place + 5]) for place in range(0, len(items) - 5, 3)]
        return self.trained(self.data(), self.epochs), cases

    def text_vectors(self, items: list[Item]) -> torch.Tensor:
        text = self.text()
        vectors = text.encode_items(text.prepare_items(list(text.tokenize_items(items))))
        scaled: torch.Tensor = 32**0.5 * torch.nn.functional.normalize(vectors, dim=1)
        return scaled

    def test_its_scores_are_those_of_its_formula_and_search_finds_the_best(self, encoder: Encoder) -> None:
        model = encoder.checkpoint.history_model
        items = self.items()
        texts = self.text_vectors(items)
        vectors = encoder.encode_items(items)
        index = FlatIndex(vectors, encoder.metric)
        for history in ([4], [2, 9], [7, 3, 11, 0, 5]):
            query = encoder.encode_histories([[items[n] for n in history]])
            with torch.no_grad():
                expected = np.array([self.score(model, texts, history, item) for item in range(len(items))])
            np.testing.assert_allclose(encoder.metric.scores(query, vectors)[0], expected, atol=1e-5)
            rows, _ = index.search(query, 5)
            np.testing.assert_allclose(expected[rows[0]], np.sort(expected)[::-1][:5], atol=1e-5)

    def test_a_text_is_encoded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = self.fresh()
        assert isinstance(model.text, BagOfWords)
        plain, read = model.text.encode_items, []

        def counted(batch: Any) -> torch.Tensor:
            read.append(batch.rows)
            return plain(batch)

        monkeypatch.setattr(model.text, "encode_items", counted)
        encoder = Towers(self.name, model).encoder("cpu")
        items = self.items()
        first = encoder.encode_items(items)
        again = encoder.encode_items(items)
        encoder.encode_histories([items[:5], items[3:9], []])
        assert sum(read) == len(items)
        assert np.array_equal(first, again)
        encoder.encode_histories([[NEW, NEW], [items[0], NEW]])
        assert sum(read) == len(items) + 1

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("seqrec.models.base.frozen_text.CACHED_TEXTS", 10)
        model = self.fresh()
        encoder = Towers(self.name, model).encoder("cpu")
        expected = Towers(self.name, self.fresh()).encoder("cpu").encode_items(self.items())
        for begin in range(0, 24, 6):
            vectors = encoder.encode_items(self.items()[begin : begin + 6])
            np.testing.assert_allclose(vectors, expected[begin : begin + 6], atol=1e-6)
            assert 0 < len(model.vector_cache) <= 10

    def test_the_text_encoder_stays_as_it_is(self) -> None:
        """Whatever a stage says of the model as a whole."""
        model = self.fresh()
        inner = torch.nn.Linear(2, 2)
        model.text.add_module("inner", inner)  # a bag of words has no weights
        model.requires_grad_(True)
        model.train()
        assert not inner.weight.requires_grad
        assert not inner.training
        assert model.training

    def test_an_epoch_is_the_same_again_and_the_loss_distinguishes_seen_items(self) -> None:
        dataset = self.data()
        model: Any = self.fresh()
        losses = []
        for _ in range(2):
            stage = self.stage(model, dataset)
            losses.append([stage.loss(model, batch, CPU)[0].item() for batch in stage.epoch(1)])
        assert losses[0] == losses[1]
        assert np.isfinite(losses).all()
        batch = model.prepare_training(next(iter(stage.epoch(0))).histories, torch.Generator())
        assert len(batch.candidates) == len(dataset.items) - 1, "the one that no sequence has is no candidate"

    def test_the_loss_is_the_cross_entropy_of_what_comes_next(self) -> None:
        model = self.fresh()
        items = self.items()
        texts = self.text_vectors(items)
        tokens = list(model.tokenize_items(items))
        model.set_training_items(tokens)
        pairs = [(0, 5), (3, 1), (8, 8)]
        histories = [TokenizedHistory([tokens[before], tokens[after]]) for before, after in pairs]
        batch = model.prepare_training(histories, torch.Generator())
        losses = []
        with torch.no_grad():
            loss = model.training_loss(batch)
            for before, after in pairs:
                scores = torch.tensor([self.score(model, texts, [before], item) for item in range(len(items))])
                losses.append(-(scores / model.settings.temperature).log_softmax(0)[after])
            torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)

    def test_negatives_are_drawn_in_addition_to_targets(self) -> None:
        model = self.fresh(negatives=4)
        tokens = list(model.tokenize_items(self.items()))
        model.set_training_items(tokens)
        history = TokenizedHistory(tokens[:3])
        batch = model.prepare_training([history], torch.Generator().manual_seed(1))
        assert {1, 2} <= set(batch.candidates.tolist())
        assert 4 <= len(batch.candidates) <= 6
        assert batch.candidates[batch.targets].tolist() == [[1, 2]]
        assert torch.isfinite(model.training_loss(batch))

    def test_what_it_trains_on_goes_with_the_batch(self) -> None:
        model = self.fresh()
        tokens = list(model.tokenize_items(self.items()))
        model.set_training_items(tokens)
        moved = model.prepare_training([TokenizedHistory(tokens[:4])], torch.Generator()).to("meta")
        tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
        assert len(tensors) == 7
        assert all(tensor.is_meta for tensor in tensors)

    def test_a_checkpoint_encodes_what_nobody_has_seen(self, tmp_path: Path) -> None:
        """The text encoder is in it."""
        model = self.trained(self.data(), 1)
        save_checkpoint(tmp_path / "checkpoint", self.name, model)
        before = Towers(self.name, model).encoder("cpu").encode_items([NEW])
        again = load_model(tmp_path / "checkpoint", "cpu").encode_items([NEW])
        np.testing.assert_allclose(again, before, atol=1e-6)  # its weights are packed: other rounding

    def test_a_model_that_is_no_text_encoder_is_refused(self) -> None:
        kind = self.kind()
        text = self.text()
        text.cold_items = False
        with pytest.raises(InputError, match=r"model\.start_from: bag_of_words is not a text encoder"):
            kind.from_text_encoder(kind.settings_class(**self.settings), "bag_of_words", text)
