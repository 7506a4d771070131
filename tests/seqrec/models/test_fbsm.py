"""FBSM: the contract, with its formula written out."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from seqrec.errors import InputError
from seqrec.models.fbsm import FBSM, FBSMSettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.frozen_text_contract import FrozenTextContract


class TestFBSM(FrozenTextContract):
    name = "fbsm"
    settings: ClassVar[dict[str, Any]] = {"dim": 32, "hidden": 32, "max_length": 4, "dropout": 0.0}

    def score(self, model: Any, texts: torch.Tensor, history: list[int], item: int) -> float:
        def mapped(part: Any, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.nn.functional.gelu(part.widen.weight @ x + part.widen.bias)
            straight: torch.Tensor = part.straight.weight @ x + part.straight.bias
            return straight + part.narrow.weight @ hidden + part.narrow.bias

        def of(part: Any, row: int) -> torch.Tensor:
            return mapped(part, model.whiten.T @ (texts[row] - model.mean))

        newest = history[::-1][:4]
        weights = model.recency[: len(newest)].exp()
        query = sum(weight * of(model.asks, row) for weight, row in zip(weights, newest, strict=True))
        return float(torch.nn.functional.cosine_similarity(torch.as_tensor(query), of(model.answers, item), dim=0))


@pytest.mark.slow
def test_an_item_need_not_be_what_follows_it_best() -> None:
    """What a model cannot that encodes a history of one item as it encodes the item."""
    case = TestFBSM()
    model = case.trained(case.data(), 25)
    assert isinstance(model, FBSM)
    items = case.items()
    tokens = list(model.tokenize_items(items))
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(model.encode_items(model.prepare_items(tokens)), dim=1)
        [query] = model.encode_histories(model.prepare_histories([TokenizedHistory(tokens[:1])]))
    assert int((vectors @ query).argmax()) == 1


def test_texts_are_whitened_by_what_training_saw() -> None:
    model = TestFBSM().fresh()
    torch.manual_seed(0)
    texts = torch.randn(4000, 32) @ torch.randn(32, 32) + 3
    model.fit_text_statistics(texts)
    white = (texts - model.mean) @ model.whiten
    variances, off = torch.cov(white.T).diagonal(), torch.cov(white.T).fill_diagonal_(0)
    assert float(white.mean(0).abs().max()) < 1e-5
    assert float(off.abs().max()) < 1e-6
    assert float(variances.sort().values[8:].min() / variances.max()) > 0.7
    assert float(white.norm(dim=1).mean()) == pytest.approx(1, abs=1e-4)
    model.fit_text_statistics(torch.ones(5, 32))  # all equal: no direction to whiten
    assert torch.isfinite(model.adapt(torch.ones(2, 32), torch.zeros(2))).all()


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"temperature": 0.0}, {"dropout": 1.0}])
def test_a_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"model\.settings\.{next(iter(settings))}"):
        FBSMSettings(**settings)
