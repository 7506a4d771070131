"""SASRec: the contract with each loss, causality, and the losses against their formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.sasrec import SASRec, SASRecSettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import IdModelContract
from tests.seqrec.models.post_norm import brute_block

SMALL: dict[str, Any] = {"dim": 32, "layers": 1, "heads": 2, "max_length": 12, "dropout": 0.0}


def brute_states(model: SASRec, history: list[int]) -> torch.Tensor:
    """[n, d] by plain loops over one layer and its heads, the attention written out."""
    n, d = len(history), model.dim
    x = model.items.weight[history] * math.sqrt(d) + model.position_vectors[-n:]
    for block in model.blocks:
        normed = block.attention_norm(x)
        query, key, value = block.qkv(normed).chunk(3, dim=1)
        read = torch.zeros_like(x)
        size = d // block.heads
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            for place in range(n):
                weights = (key[: place + 1, part] @ query[place, part] / math.sqrt(size)).softmax(0)
                read[place, part] = weights @ value[: place + 1, part]
        x = x + block.out(read)
        x = x + block.narrow(torch.relu(block.widen(block.feed_forward_norm(x))))
    return model.norm(x)


class TestSASRec(IdModelContract):
    name = "sasrec"
    settings: ClassVar[dict[str, Any]] = {**SMALL, "loss": "ce"}
    epochs = 10

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        return float(brute_states(model, history)[-1] @ model.items.weight[item])


class TestBertForm(IdModelContract):
    """The form that RecBole has."""

    name = "sasrec"
    settings: ClassVar[dict[str, Any]] = {**SMALL, "loss": "ce", "form": "bert", "inner": 48}
    epochs = 10

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        x = model.norm(model.items.weight[history] + model.position_vectors[-len(history) :])
        for block in model.blocks:
            x = brute_block(block, x, causal=True)
        return float(x[-1] @ model.items.weight[item])


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "epochs"), [("bce", 25), ("gbce", 25)])
def test_the_other_losses_learn_as_well(loss: str, epochs: int, tmp_path: Path) -> None:
    contract = TestSASRec()
    contract.settings = {**SMALL, "loss": loss, "negatives": 16}  # type: ignore[misc]
    contract.epochs = epochs  # type: ignore[misc]
    contract.test_the_planted_item_comes_first(tmp_path)


def model_of(items: int = 30, **settings: Any) -> SASRec:
    torch.manual_seed(0)
    ids = [f"item {n}" for n in range(items)]
    return SASRec.from_ids(SASRecSettings(**SMALL | settings), ids, []).eval()


def histories_of(model: SASRec, *rows: list[int]) -> list[TokenizedHistory]:
    return [TokenizedHistory([model.item_ids.token(f"item {row}") for row in some]) for some in rows]


def test_no_state_depends_on_what_comes_later() -> None:
    model = model_of()
    with torch.no_grad():
        one, other = model.states(model.prepare_histories(histories_of(model, [1, 2, 3, 4, 5], [1, 2, 3, 9, 8])))
    torch.testing.assert_close(one[:3], other[:3])
    assert not torch.allclose(one[3:], other[3:], atol=1e-4)


@pytest.mark.parametrize("loss", ["bce", "ce", "gbce"])
def test_the_loss_is_that_of_its_formula(loss: str) -> None:
    model = model_of(loss=loss, negatives=7, t=0.6)
    sequences = histories_of(model, [1, 2, 3], [4, 5, 6, 7, 8, 9], [2, 1])
    batch = model.prepare_training(sequences, torch.Generator().manual_seed(4))
    rows = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [2, 1]]
    losses = []
    with torch.no_grad():
        for number, row in enumerate(rows):
            for place, state in enumerate(brute_states(model, row[:-1])):
                scores = model.items.weight[:-1] @ state
                target = row[place + 1]
                if loss == "ce":
                    losses.append(-scores.log_softmax(0)[target])
                    continue
                if loss == "bce":
                    k, beta, drawn = 1, 1.0, [int(batch.negatives[number, place, 0])]
                    assert drawn[0] != target
                else:
                    k, drawn = 7, [int(item) for item in batch.negatives[number] if item != target]
                    a = k / 29
                    beta = a * (0.6 * (1 - 1 / a) + 1 / a)
                    scores = scores + math.log(beta / 7)
                total = beta * torch.log(torch.sigmoid(scores[target]))
                total = total + torch.log(1 - torch.sigmoid(scores[drawn])).sum()
                losses.append(-total / (k + 1))
        torch.testing.assert_close(model.training_loss(batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_beta_goes_from_1_to_the_share_of_items_that_is_drawn() -> None:
    assert model_of(items=101, loss="gbce", negatives=10, t=0.0).beta(10) == pytest.approx(1)
    assert model_of(items=101, loss="gbce", negatives=10, t=1.0).beta(10) == pytest.approx(0.1)
    assert model_of(items=101, loss="gbce", negatives=10, t=0.75).beta(10) == pytest.approx(0.1 * (0.75 * -9 + 10))
    assert model_of(items=5, loss="bce").beta(1) == 1


def test_there_are_no_more_negatives_than_other_items() -> None:
    model = model_of(items=4, loss="gbce", negatives=256)
    batch = model.prepare_training(histories_of(model, [0, 1, 2]), torch.Generator())
    assert batch.negatives.shape == (1, 3)
    assert model.beta(3) == pytest.approx(1)
    assert torch.isfinite(model.training_loss(batch))


def test_a_long_sequence_trains_by_its_newest_items() -> None:
    model = model_of(loss="ce", max_length=4)
    batch = model.prepare_training(histories_of(model, list(range(20))), torch.Generator())
    assert batch.rows.tolist() == [[15, 16, 17, 18, 19]]


def test_padding_learns_nothing() -> None:
    model = model_of(loss="gbce", negatives=5)
    batch = model.prepare_training(histories_of(model, [1, 2], list(range(9))), torch.Generator())
    model.training_loss(batch).backward()
    assert model.items.weight.grad is not None
    assert not model.items.weight.grad[model.padding].any()
    assert not model.items.weight[model.padding].any()
    assert F.embedding(torch.tensor([3]), model.items.weight.grad).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "model.settings.loss: 'hinge' is not one of bce, ce, gbce"),
        ({"form": "mine"}, "model.settings.form: 'mine' is not one of paper, bert"),
        ({"dim": 33}, "model.settings.dim: 33 is not a multiple of 2 heads"),
        ({"dropout": 1.0}, "model.settings.dropout: 1.0 is not from 0 to below 1"),
        ({"max_length": 0}, "model.settings.max_length: 0 is below 1"),
        ({"t": 1.5}, "model.settings.t: 1.5 is above 1"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        SASRecSettings(**{**SMALL, **settings})
