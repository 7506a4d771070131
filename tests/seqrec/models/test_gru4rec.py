"""GRU4Rec: the contract, with its recurrence written out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from seqrec.models.gru4rec import GRU4Rec, GRU4RecSettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import IdModelContract


def brute_query(model: GRU4Rec, history: list[int]) -> torch.Tensor:
    """Cho et al. 2014, one step at a time."""
    gru = model.gru
    state = torch.zeros(model.settings.hidden)
    for row in history:
        from_input = gru.weight_ih_l0 @ model.items.weight[row] + gru.bias_ih_l0
        from_state = gru.weight_hh_l0 @ state + gru.bias_hh_l0
        (r, z, n), (hr, hz, hn) = from_input.chunk(3), from_state.chunk(3)
        update = torch.sigmoid(z + hz)
        state = (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * state
    return model.out(state)


class TestGRU4Rec(IdModelContract):
    name = "gru4rec"
    settings: ClassVar[dict[str, Any]] = {"dim": 32, "hidden": 32, "max_length": 12, "dropout": 0.0}
    epochs = 10

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        return float(brute_query(model, history) @ model.items.weight[item])


def test_the_loss_is_the_cross_entropy_of_what_comes_next() -> None:
    torch.manual_seed(0)
    settings = GRU4RecSettings(dim=8, hidden=12, max_length=4, dropout=0.0)
    model = GRU4Rec.from_ids(settings, [f"item {n}" for n in range(20)], [])
    rows = [[1, 2], [9, 3, 4, 5, 6, 7]]
    histories = [TokenizedHistory([model.item_ids.token(f"item {row}") for row in some]) for some in rows]
    batch = model.prepare_training(histories, torch.Generator())
    assert batch.rows.tolist() == [[1, 2, 20, 20, 20], [3, 4, 5, 6, 7]]
    losses = []
    with torch.no_grad():
        for some in ([1, 2], [3, 4, 5, 6, 7]):
            for place in range(1, len(some)):
                scores = model.items.weight[:20] @ brute_query(model, some[:place])
                losses.append(-scores.log_softmax(0)[some[place]])
        torch.testing.assert_close(model.training_loss(batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
