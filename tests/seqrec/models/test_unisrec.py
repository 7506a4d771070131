"""UniSRec: the contract, with its experts and its attention written out; items with vectors of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seqrec.data.items import make_item
from seqrec.errors import InputError
from seqrec.models.unisrec import UniSRec, UniSRecSettings
from seqrec.text.item_text import KNOWN
from tests.contracts.frozen_text_contract import NEW, FrozenTextContract
from tests.seqrec.models.post_norm import brute_block
from training.stages.base import Towers

SMALL: dict[str, Any] = {
    "dim": 24, "layers": 1, "heads": 2, "inner": 32, "experts": 3, "max_length": 12, "dropout": 0.0, "text_dropout": 0.0
}  # fmt: skip


def brute_item(model: UniSRec, text: torch.Tensor) -> torch.Tensor:
    """[text dim] -> [d], expert by expert."""
    gates = (text @ model.gate).softmax(0)
    experts = [(text - model.shifts[e]) @ model.whitenings[e] for e in range(len(gates))]
    return sum((gate * vector for gate, vector in zip(gates, experts, strict=True)), torch.zeros(()))


class TestUniSRec(FrozenTextContract):
    name = "unisrec"
    settings: ClassVar[dict[str, Any]] = SMALL

    def fresh(self, **settings: Any) -> UniSRec:
        model = super().fresh(**settings)
        assert isinstance(model, UniSRec)
        with torch.no_grad():  # which are 0 at first, and would hide a mistake
            model.shifts.normal_()
            model.gate.normal_(std=0.1)
        return model

    def score(self, model: Any, texts: torch.Tensor, history: list[int], item: int) -> float:
        x = torch.stack([brute_item(model, texts[row]) for row in history]) + model.position_vectors[-len(history) :]
        x = model.norm(x)
        for block in model.blocks:
            x = brute_block(block, x, causal=True)
        return float(F.cosine_similarity(x[-1], brute_item(model, texts[item]), dim=0))

    def test_with_ids_items_that_training_saw_have_a_vector_of_their_own(self) -> None:
        model = self.fresh(ids=True)
        item = self.items()[3]
        [known], [nameless], [new] = (model.tokenize_items([one]) for one in (item, item.attributes, NEW))
        assert known.types[-1] == KNOWN
        assert known.ids[:-1].tolist() == nameless.ids.tolist()
        assert KNOWN not in new.types
        encoder = Towers(self.name, model).encoder("cpu")
        own = model.adapt(self.text_vectors([item]), torch.tensor([3])) - model.adapt(
            self.text_vectors([item]), torch.tensor([model.items])
        )
        torch.testing.assert_close(own[0], model.own.weight[3])
        twin = make_item("another", dict(item.attributes))
        seen, unseen, text_alone = encoder.encode_items([item, twin, item.attributes])
        assert not np.allclose(seen, unseen)
        np.testing.assert_allclose(unseen, text_alone, atol=1e-6)

    def test_with_ids_it_learns_and_is_kept(self) -> None:
        dataset = self.data()
        model = self.trained(dataset, 2, ids=True)
        again = UniSRec.from_config(model.config_json(), None)
        again.load_state_dict(model.state_dict())
        one, other = (Towers(self.name, m).encoder("cpu").encode_items(dataset.items) for m in (model, again))
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert model.own.weight[:-1].std() > 0.02
        assert not model.own.weight[-1].any()

    def test_fine_tuning_goes_on_with_the_weights_and_fresh_ids(self) -> None:
        model = self.trained(self.data(), 1)
        tuned = UniSRec.fine_tune_from(model, UniSRecSettings(ids=True, adaptor_only=True, negatives=7), ["a", "b"])
        assert isinstance(tuned, UniSRec)
        assert (tuned.settings.ids, tuned.settings.adaptor_only, tuned.settings.negatives) == (True, True, 7)
        assert tuned.settings.dim == SMALL["dim"]
        assert (tuned.items, tuned.item_ids.row("b")) == (2, 1)
        torch.testing.assert_close(tuned.whitenings, model.whitenings)
        theirs, ours = (dict(one.named_parameters())["blocks.0.qkv.weight"] for one in (model, tuned))
        torch.testing.assert_close(ours, theirs)

    def test_adaptor_only_leaves_attention_as_it_is(self) -> None:
        model = self.fresh(adaptor_only=True)
        model.requires_grad_(True)
        trained = {name.partition(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}
        assert trained == {"shifts", "whitenings", "gate", "gate_noise", "own"}


def test_gates_are_noisy_in_training_alone() -> None:
    model = TestUniSRec().fresh()
    texts, ids = torch.randn(5, 32), torch.full((5,), model.items)
    assert torch.equal(model.adapt(texts, ids), model.adapt(texts, ids))
    model.train()
    assert not torch.equal(model.adapt(texts, ids), model.adapt(texts, ids))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 25}, r"model\.settings\.dim: 25 is not a multiple of 2 heads"),
        ({"temperature": 0.0}, r"model\.settings\.temperature: 0.0 is not above 0"),
        ({"experts": 0}, r"model\.settings\.experts: 0 is below 1"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UniSRecSettings(**settings)
