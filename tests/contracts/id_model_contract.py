"""What a model of item ids must do in addition to `ModelContract`: learn, be searched, skip unknown items."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from index.vectors.flat import FlatIndex
from seqrec import Encoder, History
from seqrec.data.items import Interactions, Item, make_item
from seqrec.errors import InputError
from seqrec.models import model_class
from seqrec.models.base.ids import IdModel
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.model_contract import ModelContract
from training.config.schema import OptimizerConfig, SequenceConfig
from training.data.dataset import Dataset, join
from training.engine.loop import adamw
from training.evaluation.evaluate import EncodedItems, top_k, validation_metrics
from training.stages.base import Towers
from training.stages.sequence import SequenceStage

CPU = torch.device("cpu")
NEW = make_item("never seen", {"title": "red desk"})


class IdModelContract(ModelContract):
    """Subclass as `TestX`, set `name` and `settings`, and give `score`."""

    settings: ClassVar[dict[str, Any]] = {}
    """Of a small model. Without dropout the planted pattern is learned in fewer epochs."""
    epochs: ClassVar[int] = 40
    """Of the training that has to learn the planted pattern: item n is followed by item n + 1."""
    learning_rate: ClassVar[float] = 2e-2

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        """The paper's formula, one item at a time, from the model's weights; a higher score is better.

        `history`: rows of items, oldest first. `user`: their row; None for a user that training did not see. A constant
        that is the same for all items may be left out.
        """
        raise NotImplementedError(
            f"define `score` in {type(self).__name__}: the formula of the paper, from the weights"
        )

    def kind(self) -> type[IdModel]:
        kind = model_class(self.name)
        assert issubclass(kind, IdModel)
        return kind

    def fresh(self, dataset: Dataset | None = None, **settings: Any) -> IdModel:
        torch.manual_seed(0)
        kind = self.kind()
        items = self.items() if dataset is None else dataset.items
        known = [item for item in items if item.item_id != NEW.item_id]
        users = ["user 0", "user 1"] if dataset is None else list(dataset.user_ids)
        return kind.from_items(kind.settings_class(**self.settings | settings), known, users)

    def make(self) -> SequenceModel:
        return self.fresh()

    def data(self) -> Dataset:
        """Item n is followed by item n + 1, and the last by the first; one item is in no sequence."""
        items = [*self.items(), NEW]
        count = len(items) - 1
        steps = [(user, step) for user in range(3 * count) for step in range(5 + user % 7)]
        users = [f"user {user}" for user, _ in steps]
        ids = [items[(user + step) % count].item_id for user, step in steps]
        return join(items, Interactions(users, ids, np.arange(len(ids))))

    def trained(self, dataset: Dataset, epochs: int) -> IdModel:
        """By the real stage."""
        model = self.fresh(dataset)
        assert model.has_training_loss
        stage = SequenceStage(dataset, model.tokenize_items(dataset.items), SequenceConfig(batch_size=12), seed=1)
        optimizer = adamw(model, OptimizerConfig(learning_rate=self.learning_rate, max_epochs=epochs))
        model.train()
        for number in range(epochs):
            for batch in stage.epoch(number):
                loss, tokens = stage.loss(model, batch, CPU)
                assert tokens > 0
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                with torch.no_grad():
                    stage.post_optimizer_step(model)
        model.eval()
        return model

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        items = self.items()
        cases = [(items[place : place + 5], items[place + 5]) for place in range(0, len(items) - 5, 3)]
        return self.trained(self.data(), self.epochs), cases

    def test_its_scores_are_those_of_its_formula_and_search_finds_the_best(self, encoder: Encoder) -> None:
        model = encoder.checkpoint.history_model
        assert isinstance(model, self.kind())
        items = self.items()
        vectors = encoder.encode_items(items)
        index = FlatIndex(vectors, encoder.metric)
        for user in ("user 1", None, "nobody has met this user"):
            row = model.user_ids.row(user) if user is not None else None
            for history in ([4], [2, 9], [7, 3, 11, 0, 5]):
                query = encoder.encode_histories([History(tuple(items[n] for n in history), user_id=user)])
                with torch.no_grad():
                    expected = np.array([self.score(model, history, row, item) for item in range(len(items))])
                scores = encoder.metric.scores(query, vectors)[0]
                # Equal but for a constant of the query: it orders nothing.
                np.testing.assert_allclose(
                    scores - scores.mean(),
                    expected - expected.mean(),
                    atol=1e-5,
                    err_msg=f"not the scores (actual) of `score` (desired): history {history}, user {row}",
                )
                rows, _ = index.search(query, 5)
                best = np.sort(expected)[::-1][:5]
                np.testing.assert_allclose(expected[rows[0]], best, atol=1e-5)

    def test_an_item_that_training_did_not_see(self) -> None:
        """It has no vector, comes last, is not recommended, and histories are read without it."""
        dataset = self.data()
        encoder = Towers(self.name, self.fresh(dataset)).encoder("cpu")
        unknown = len(dataset.items) - 1
        assert not encoder.encode_items([NEW]).any()
        with_it, without = encoder.encode_histories([[dataset.items[3], NEW], [dataset.items[3]]])
        np.testing.assert_allclose(with_it, without, atol=1e-6)
        items = EncodedItems.of(encoder, dataset)
        scores = items.scores(np.concatenate([encoder.encode_histories([dataset.items[:3]]), with_it[None]]))
        assert np.isneginf(scores[:, unknown]).all()
        assert np.isfinite(np.delete(scores, unknown, axis=1)).all()
        [answer] = top_k(encoder, dataset, ["user 0"], len(dataset.items), unseen=False)
        assert len(answer) == len(dataset.items) - 1
        assert NEW.item_id not in dict(answer)

    def test_a_cold_item_that_is_looked_for_has_the_worst_rank(self) -> None:
        items = [*self.items()[:4], NEW]
        ids = [items[n].item_id for n in (0, 1, 2, 3, 4, 0)]
        dataset = join(items, Interactions(["u"] * 6, ids, np.arange(6)))
        metrics = validation_metrics(
            Towers(self.name, self.fresh(dataset)).encoder("cpu"), dataset, dataset.cases("valid")
        )
        assert metrics.mrr == pytest.approx(1 / 5)

    def test_an_epoch_is_the_same_again(self) -> None:
        dataset = self.data()
        model = self.fresh(dataset).eval()
        tokens = model.tokenize_items(dataset.items)
        losses = []
        for _ in range(2):
            stage = SequenceStage(dataset, tokens, SequenceConfig(batch_size=7), seed=3)
            assert stage.steps_per_epoch == len(list(stage.epoch(0)))
            losses.append([stage.loss(model, batch, CPU)[0].item() for batch in stage.epoch(1)])
        assert losses[0] == losses[1]
        assert np.isfinite(losses).all()

    def test_what_it_trains_on_goes_with_the_batch(self) -> None:
        model = self.fresh()
        tokens = list(model.tokenize_items(self.items()))
        histories = [TokenizedHistory(tokens[:2], "user 0"), TokenizedHistory(tokens, "user 1")]
        batch = model.prepare_training(histories, torch.Generator().manual_seed(0))
        moved = batch.to("meta")
        tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
        assert len(tensors) >= 3
        assert all(tensor.is_meta for tensor in tensors)

    def test_one_item_is_nothing_to_learn(self) -> None:
        kind = self.kind()
        with pytest.raises(InputError, match="training sees 1 item"):
            kind.from_ids(kind.settings_class(**self.settings), ["one"], ["user"])
