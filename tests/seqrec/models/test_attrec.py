"""AttRec: the contract by its distances, the diagonal, unknown users, the unit ball, the hinge."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from seqrec import History
from seqrec.data.items import Interactions, Item
from seqrec.errors import InputError
from seqrec.models.attrec import AttRec, AttRecSettings
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import NEW, IdModelContract
from training.data.dataset import Dataset, join

SMALL: dict[str, Any] = {"dim": 16, "max_length": 5, "negatives": 8}


def brute_intent(model: AttRec, history: list[int]) -> torch.Tensor:
    """m by loops, from the formulas."""
    history = history[-model.settings.max_length :]
    n, d = len(history), model.settings.dim
    if not n:
        return torch.zeros(d)
    x = model.items.weight[history]
    first = model.settings.max_length - n
    signals = [
        [(math.sin, math.cos)[j % 2](place / 10000 ** (2 * (j // 2) / d)) for j in range(d)]
        for place in range(first, first + n)
    ]
    timed = x + torch.tensor(signals)
    query, key = torch.relu(timed @ model.query.weight.T), torch.relu(timed @ model.key.weight.T)
    rows = []
    for place in range(n):
        others = [other for other in range(n) if other != place] or [place]
        weights = (key[others] @ query[place] / math.sqrt(d)).softmax(0)
        rows.append(weights @ x[others])
    return torch.stack(rows).mean(0)


def distance(model: AttRec, history: list[int], user: int | None, item: int) -> float:
    """y; of a user that is not known only the second part."""
    w = model.settings.w
    y = (1 - w) * (brute_intent(model, history) - model.items.weight[item]).square().sum()
    if user is not None:
        y = y + w * (model.users.weight[user] - model.liked.weight[item]).square().sum()
    return float(y.detach())


class TestAttRec(IdModelContract):
    name = "attrec"
    settings: ClassVar[dict[str, Any]] = {**SMALL, "dim": 32, "w": 0.9}
    reads_order = False  # of two items: each attends to the other alone
    epochs = 20

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        return -distance(model, history, user, item)

    def data(self) -> Dataset:
        """Every other item of a user is the user's own favourite, the others come by chance.

        No order of items could be learnt: an intent is an average of items, so those themselves are nearest to it.
        """
        items, rng = [*self.items(), NEW], np.random.default_rng(0)
        count = len(items) - 1
        users = [f"user {user}" for user in range(count) for _ in range(14)]
        drawn = [int(rng.integers(count)) if step % 2 else user for user in range(count) for step in range(14)]
        return join(items, Interactions(users, [items[row].item_id for row in drawn], np.arange(len(drawn))))

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        items = self.items()
        others = [(items[user - 7], items[user - 3]) for user in range(0, len(items), 3)]
        cases: list[Any] = [
            (History(other, f"user {3 * number}"), items[3 * number]) for number, other in enumerate(others)
        ]
        return self.trained(self.data(), self.epochs), cases


def model_of(**settings: Any) -> AttRec:
    torch.manual_seed(0)
    ids = [f"item {n}" for n in range(30)]
    return AttRec.from_ids(AttRecSettings(**SMALL | settings), ids, ["ann", "bob"]).eval()


def history_of(model: AttRec, rows: list[int], user: str | None = None) -> TokenizedHistory:
    return TokenizedHistory([model.item_ids.token(f"item {row}") for row in rows], user)


def encoded(model: AttRec, *histories: TokenizedHistory) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_histories(model.prepare_histories(histories))


def test_of_three_items_the_order_matters() -> None:
    model = model_of()
    one, other = encoded(model, history_of(model, [1, 2, 3]), history_of(model, [3, 1, 2]))
    assert not torch.allclose(one, other, atol=1e-6)


def test_an_unknown_user_asks_with_the_short_term_part_alone() -> None:
    model = model_of()
    d, w = 16, 0.3
    known, stranger, nobody = encoded(model, *(history_of(model, [1, 2, 3], user) for user in ("bob", "eve", None)))
    torch.testing.assert_close(stranger, nobody)
    assert not stranger[:d].any()
    assert stranger[-2:].tolist() == [0, 1]
    assert known[-2:].tolist() == [1, 1]
    torch.testing.assert_close(known[:d], 2 * w * model.users.weight[1].detach())
    torch.testing.assert_close(known[d : 2 * d], 2 * (1 - w) * brute_intent(model, [1, 2, 3]).detach())
    torch.testing.assert_close(known[d : 2 * d], stranger[d : 2 * d])


def test_users_are_kept_with_the_weights() -> None:
    model = model_of()
    again = AttRec.from_config(model.config_json(), None)
    again.load_state_dict(model.state_dict())
    assert [again.user_ids.row(user) for user in ("ann", "bob", "eve")] == [0, 1, None]


def test_every_item_but_the_first_is_a_target_once() -> None:
    model = model_of()
    sequences = [history_of(model, list(range(8)), "ann"), history_of(model, [9, 4], "eve")]
    batch = model.prepare_training(sequences, torch.Generator().manual_seed(0))
    windows = [rows[rows != model.padding].tolist() for rows in batch.rows]
    assert windows == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6], [9]]
    assert batch.targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 4]
    assert batch.users.tolist() == [0] * 7 + [2]
    assert not (batch.negatives == batch.targets[:, None]).any()


def test_the_loss_is_the_hinge_over_the_negatives() -> None:
    model = model_of(margin=0.7)
    batch = model.prepare_training([history_of(model, [3, 1, 4, 1], "ann")], torch.Generator().manual_seed(0))
    losses = []
    for rows, target, negatives in zip([[3], [3, 1], [3, 1, 4]], [1, 4, 1], batch.negatives.tolist(), strict=True):
        y = distance(model, rows, 0, target)
        losses.append(sum(max(0, 0.7 + y - distance(model, rows, 0, negative)) for negative in negatives))
    assert model.training_loss(batch).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_after_a_step_everything_is_in_the_unit_ball() -> None:
    model = model_of()
    tables = (model.users, model.liked, model.items)
    with torch.no_grad():
        for table in tables:
            table.weight[:-1].normal_(std=3)
        model.items.weight[0] = 0.01
    model.post_optimizer_step()
    for table in tables:
        norms = table.weight.detach().norm(dim=1)
        assert norms.max() <= 1 + 1e-6
        assert norms.max().item() == pytest.approx(1)
    torch.testing.assert_close(model.items.weight[0].detach(), torch.full((16,), 0.01))


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.settings\.dim: 15 is not even"):
        AttRecSettings(dim=15)
    with pytest.raises(InputError, match=r"model\.settings\.w: 1\.5 is above 1"):
        AttRecSettings(w=1.5)
