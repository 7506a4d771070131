"""S3-Rec: the contract, the four losses of pretraining against their formulas, and that they learn."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from seqrec.errors import InputError
from seqrec.models.s3rec import S3Rec, S3RecSettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import IdModelContract
from tests.seqrec.models.post_norm import brute_block
from training.config.schema import OptimizerConfig, SelfSupervisedConfig
from training.engine.loop import adamw
from training.stages.self_supervised import SelfSupervised, SelfSupervisedStage

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "dim": 16, "layers": 1, "heads": 2, "inner": 32, "max_length": 12, "dropout": 0.0, "features": "title,brand:token"
}  # fmt: skip


def brute_states(model: S3Rec, rows: list[int], causal: bool) -> torch.Tensor:
    x = model.norm(model.items.weight[rows] + model.position_vectors[-len(rows) :])
    for block in model.blocks:
        x = brute_block(block, x, causal)
    return x


class TestS3Rec(IdModelContract):
    name = "s3rec"
    settings: ClassVar[dict[str, Any]] = SMALL
    epochs = 12

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        return float(brute_states(model, history, causal=True)[-1] @ model.items.weight[item])

    def small(self) -> S3Rec:
        model = self.fresh()
        assert isinstance(model, S3Rec)
        return model.eval()

    def sequences(self, model: S3Rec) -> list[TokenizedHistory]:
        tokens = list(model.tokenize_items(self.items()))
        return [
            TokenizedHistory([tokens[row] for row in rows]) for rows in ([3, 4], [5, 6, 7, 8, 9, 10], list(range(20)))
        ]

    def test_what_is_masked_and_what_is_a_segment(self) -> None:
        model = self.small()
        assert isinstance(model, SelfSupervised)
        sizes, begins, masked = set(), set(), []
        for seed in range(40):
            batch = model.prepare_pretraining(self.sequences(model), torch.Generator().manual_seed(seed))
            assert batch.rows[2].tolist() == list(range(8, 20)), "the newest 12"
            assert (batch.negatives != batch.rows)[batch.real].all()
            assert (batch.negatives < model.known.items).all()
            assert not (batch.masked & ~batch.real).any()
            for row, length in enumerate(batch.lengths.tolist()):
                rest, segment, other = (part[row, :length] for part in (batch.rest, batch.segment, batch.other_segment))
                hidden = rest == model.mask
                assert 1 <= int(hidden.sum()) <= max(1, length // 2)
                assert ((segment == model.mask) == ~hidden).all()
                assert ((other == model.mask) == ~hidden).all()
                assert torch.where(hidden, segment, rest).tolist() == batch.rows[row, :length].tolist()
                if row == 2:
                    sizes.add(int(hidden.sum()))
                    begins.add(int(hidden.int().argmax()))
            masked.append((batch.masked.sum() / batch.real.sum()).item())
        assert sizes == set(range(1, 7))
        assert {0, 1, 2} <= begins
        assert np.mean(masked) == pytest.approx(0.2, abs=0.05)

    def test_the_loss_of_pretraining_is_that_of_its_formulas(self) -> None:
        model = self.small()
        sequences = self.sequences(model)[:2]
        batch = model.prepare_pretraining(sequences, torch.Generator().manual_seed(5))
        assert batch.masked.any()
        has = model.features.multi_hot(torch.arange(model.known.items))
        total = torch.zeros(())
        with torch.no_grad():
            for row, length in enumerate(batch.lengths.tolist()):
                rows, masked = batch.rows[row, :length].tolist(), batch.masked[row, :length].tolist()
                read = [model.mask if hidden else item for item, hidden in zip(rows, masked, strict=True)]
                for place, state in enumerate(brute_states(model, read, causal=False)):
                    head = model.map if masked[place] else model.aap
                    chances = torch.sigmoid(model.tags.weight @ head(state))
                    tags = has[rows[place]]
                    weight = 1.0 if masked[place] else 0.2
                    total -= weight * (tags * chances.log() + (1 - tags) * (1 - chances).log()).sum()
                    if masked[place]:
                        right, wrong = (
                            torch.sigmoid(model.mip(state) @ model.items.weight[item])
                            for item in (rows[place], int(batch.negatives[row, place]))
                        )
                        total -= torch.sigmoid(right - wrong).log()
                rest, segment, other = (
                    brute_states(model, part[row, :length].tolist(), causal=False)[-1]
                    for part in (batch.rest, batch.segment, batch.other_segment)
                )
                right, wrong = (torch.sigmoid(model.sp(rest) @ one) for one in (segment, other))
                total -= 0.5 * torch.sigmoid(right - wrong).log()
            torch.testing.assert_close(model.pretraining_loss(batch), total / 8, atol=1e-4, rtol=1e-5)

    @pytest.mark.slow
    def test_pretraining_learns_attributes(self) -> None:
        """By the real stage: the attributes of an unmasked item are learned."""
        dataset = self.data()
        model = self.fresh(dataset)
        stage = SelfSupervisedStage(
            dataset, model.tokenize_items(dataset.items), SelfSupervisedConfig(batch_size=12), seed=1
        )
        optimizer = adamw(model, OptimizerConfig(learning_rate=1e-2, max_epochs=10))
        losses = []
        for number in range(10):
            for batch in stage.epoch(number):
                loss, _ = stage.loss(model, batch, CPU)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])  # which other sequence it is of stays a coin toss
        assert not model.items.weight[model.padding].any()  # type: ignore[index,union-attr,operator]


@pytest.mark.parametrize("settings", [{"mask_share": 1.0}, {"aap": -1.0}, {"features": ""}, {"dim": 15}])
def test_a_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"model\.settings\.{next(iter(settings))}"):
        S3RecSettings(**settings)
