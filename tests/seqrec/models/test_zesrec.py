"""ZESRec: the contract, with its recurrence written out."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from seqrec.errors import InputError
from seqrec.models.zesrec import ZESRecSettings
from tests.contracts.frozen_text_contract import FrozenTextContract


class TestZESRec(FrozenTextContract):
    name = "zesrec"
    settings: ClassVar[dict[str, Any]] = {"dim": 32, "hidden": 32, "max_length": 12, "dropout": 0.0}

    def score(self, model: Any, texts: torch.Tensor, history: list[int], item: int) -> float:
        """Cho et al. 2014, one step at a time."""
        gru, project = model.gru, model.project
        state = torch.zeros(model.settings.hidden)
        for row in history:
            vector = project.weight @ texts[row] + project.bias
            (r, z, n), (hr, hz, hn) = (
                (weight @ read + bias).chunk(3)
                for weight, read, bias in (
                    (gru.weight_ih_l0, vector, gru.bias_ih_l0),
                    (gru.weight_hh_l0, state, gru.bias_hh_l0),
                )
            )
            update = torch.sigmoid(z + hz)
            state = (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * state
        return float(model.out(state) @ (project.weight @ texts[item] + project.bias))


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"temperature": 0.0}, {"dropout": 1.0}])
def test_a_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"model\.settings\.{next(iter(settings))}"):
        ZESRecSettings(**settings)
