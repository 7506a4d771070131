"""BERT4Rec: the contract, what is masked, and the loss against its formula."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel
from seqrec.models.base.model import SequenceModel
from seqrec.models.bert4rec import BERT4Rec, BERT4RecSettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import IdModelContract
from training.data.dataset import Dataset

SMALL: dict[str, Any] = {"dim": 32, "layers": 1, "heads": 2, "max_length": 12, "dropout": 0.0, "mask_share": 0.3}


def brute_states(model: BERT4Rec, rows: list[int]) -> torch.Tensor:
    """[n, d] by loops over one layer and its heads."""
    x = model.norm_in(model.items.weight[rows] + model.position_vectors[-len(rows) :])
    for block in model.blocks:
        query, key, value = block.qkv(x).chunk(3, dim=1)
        size = query.shape[1] // block.heads
        heads = [slice(head * size, (head + 1) * size) for head in range(block.heads)]
        read = [(query[:, h] @ key[:, h].T / size**0.5).softmax(1) @ value[:, h] for h in heads]
        x = block.attention_norm(x + block.out(torch.cat(read, dim=1)))
        x = block.feed_forward_norm(x + block.narrow(F.gelu(block.widen(x))))
    return x


class TestBERT4Rec(IdModelContract):
    name = "bert4rec"
    settings: ClassVar[dict[str, Any]] = {**SMALL, "heads": 4, "last_share": 0.5}
    epochs = 55
    learning_rate = 5e-3

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        hidden = brute_states(model, [*history, model.mask])[-1]
        return float(F.gelu(model.transform(hidden)) @ model.items.weight[item] + model.biases.weight[item, 0])

    def fresh(self, dataset: Dataset | None = None, **settings: Any) -> IdModel:
        """Published initial weights are so small that hundreds of steps would pass before anything is learnt."""
        model = super().fresh(dataset, **settings)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("weight") and "norm" not in name and not name.startswith("biases"):
                    weight.mul_(8)
            model.get_parameter("position_vectors").mul_(20)
        return model

    def make(self) -> SequenceModel:
        model = self.fresh()
        with torch.no_grad():  # an untrained bias is 0 everywhere
            model.get_parameter("biases.weight")[:-1].normal_()
        return model


def model_of(**settings: Any) -> BERT4Rec:
    torch.manual_seed(0)
    return BERT4Rec.from_ids(BERT4RecSettings(**SMALL | settings), [f"item {n}" for n in range(30)], []).eval()


def histories_of(model: BERT4Rec, *rows: list[int]) -> list[TokenizedHistory]:
    return [TokenizedHistory([model.item_ids.token(f"item {row}") for row in some]) for some in rows]


def test_with_norms_what_comes_in_and_what_is_compared_is_normalised() -> None:
    model = model_of(norms=True)
    with torch.no_grad():
        for norm in (model.norm_in, model.norm_out):
            norm.weight.normal_()
            norm.bias.normal_()
        [query] = model.encode_histories(model.prepare_histories(histories_of(model, [3, 9, 1])))
        hidden = brute_states(model, [3, 9, 1, model.mask])[-1]
        torch.testing.assert_close(query[:-1], model.norm_out(F.gelu(model.transform(hidden))), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(query[:-1], F.gelu(model.transform(hidden)))


def test_every_sequence_has_something_masked_and_nothing_else_is() -> None:
    model = model_of(mask_share=0.0, last_share=0.0)
    rows = [list(range(3, 3 + size)) for size in (2, 5, 9, 12)]
    batch = model.prepare_training(histories_of(model, *rows), torch.Generator().manual_seed(1))
    assert batch.masked.sum(1).tolist() == [1, 1, 1, 1]
    restored = batch.rows.masked_scatter(batch.masked, batch.labels)
    assert [own[:size].tolist() for own, size in zip(restored, batch.lengths, strict=True)] == rows
    assert (batch.rows == model.mask).equal(batch.masked)
    assert (batch.rows[0, 2:] == model.padding).all()


def test_any_part_of_a_long_sequence_is_read() -> None:
    model = model_of(last_share=0.0)
    batch = model.prepare_training(histories_of(model, *[list(range(15))] * 200), torch.Generator().manual_seed(1))
    windows = batch.rows.masked_scatter(batch.masked, batch.labels)
    assert windows.equal(windows[:, :1] + torch.arange(12))  # items that follow each other
    assert set(windows[:, 0].tolist()) == {0, 1, 2, 3}  # the first of them, the newest of them


def test_the_share_of_items_is_masked() -> None:
    model = model_of(mask_share=0.4, last_share=0.0)
    batch = model.prepare_training(histories_of(model, *[list(range(12))] * 200), torch.Generator().manual_seed(1))
    assert batch.masked.float().mean().item() == pytest.approx(0.4, abs=0.03)


def test_only_the_last_item_of_some() -> None:
    model = model_of(last_share=1.0)
    batch = model.prepare_training(histories_of(model, [1, 2], [3, 4, 5]), torch.Generator())
    assert batch.masked.tolist() == [[False, True, False], [False, False, True]]
    assert batch.labels.tolist() == [2, 5]


def test_the_loss_is_that_of_its_formula() -> None:
    model = model_of(mask_share=0.5)
    with torch.no_grad():
        model.biases.weight[:-1].normal_()
        batch = model.prepare_training(histories_of(model, [1, 2, 3], list(range(9))), torch.Generator().manual_seed(2))
        losses, labels = [], iter(batch.labels.tolist())
        for rows, size in zip(batch.rows.tolist(), batch.lengths.tolist(), strict=True):
            states = brute_states(model, rows[:size])
            for place in range(size):
                if rows[place] == model.mask:
                    scores = F.gelu(model.transform(states[place])) @ model.items.weight[:30].T
                    losses.append(-(scores + model.biases.weight[:30, 0]).log_softmax(0)[next(labels)])
        torch.testing.assert_close(model.training_loss(batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.settings\.last_share: 1\.5 is above 1"):
        BERT4RecSettings(last_share=1.5)
    with pytest.raises(InputError, match=r"model\.settings\.dim: 33 is not a multiple of 2 heads"):
        BERT4RecSettings(dim=33)
