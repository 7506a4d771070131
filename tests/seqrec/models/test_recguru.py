"""RecGURU: the contract, its losses against their formulas, and what it forgets of other domains."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.recguru import RecGURU, RecGURUSettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import IdModelContract
from tests.seqrec.models.post_norm import brute_attention
from training.stages.adversarial import AlignsDomains

SMALL: dict[str, Any] = {
    "dim": 16, "layers": 1, "heads": 2, "inner": 32, "max_length": 12, "dropout": 0.0, "negatives": 20
}  # fmt: skip


def brute_user(model: Any, rows: list[int]) -> torch.Tensor:
    read = model.items.weight[rows] + model.position_vectors[len(model.position_vectors) - len(rows) :]
    x = model.norm(torch.cat([model.end, read]))
    for block in model.encoder:
        x = brute_attention(block, x, causal=False)
        x = block.feed_forward_norm(x + block.narrow(F.relu(block.widen(x))))
    user: torch.Tensor = x[0]
    return user


def brute_states(model: Any, rows: list[int], user: torch.Tensor, domain: int = 0) -> torch.Tensor:
    x = model.norm(model.items.weight[rows] + model.position_vectors[len(model.position_vectors) - len(rows) :])
    for block in model.decoders[domain]:
        x = brute_attention(block, x, causal=True)
        x = block.user_norm(x + block.user(user))
        x = block.feed_forward_norm(x + block.narrow(F.relu(block.widen(x))))
    states: torch.Tensor = x
    return states


class TestRecGURU(IdModelContract):
    name = "recguru"
    settings: ClassVar[dict[str, Any]] = SMALL
    learning_rate = 1e-2

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        return float(brute_states(model, history, brute_user(model, history))[-1] @ model.items.weight[item])

    @pytest.mark.slow
    def test_what_is_predicted_was_not_read(self) -> None:
        """The user is read from the first part of a sequence, and the rest is predicted."""
        model = self.fresh().eval()
        assert isinstance(model, RecGURU)
        tokens = list(model.tokenize_items(self.items()))
        sequences = [TokenizedHistory(tokens[:20]), TokenizedHistory(tokens[:2])]
        reads = set()
        for seed in range(80):
            batch = model.prepare_training(sequences, torch.Generator().manual_seed(seed))
            assert batch.rows[0].tolist() == list(range(7, 20)), "the newest 12, and the last target"
            assert batch.read[1] == 1
            read = int(batch.read[0])
            reads.add(read)
            user, terms = brute_user(model, batch.rows[0, :read].tolist()), []
            states = brute_states(model, list(range(7, 19)), user)
            for place in range(read, 13):
                right, state = int(batch.rows[0, place]), states[place - 1]
                wrong = [row for row in batch.negatives[0].tolist() if row != right]
                terms += [-F.logsigmoid(state @ (model.items.weight[right] - model.items.weight[row])) for row in wrong]
            user = brute_user(model, [0])
            state = brute_states(model, [0], user)[0]
            wrong = [row for row in batch.negatives[1].tolist() if row != 1]
            terms += [-F.logsigmoid(state @ (model.items.weight[1] - model.items.weight[row])) for row in wrong]
            torch.testing.assert_close(model.training_loss(batch), torch.stack(terms).mean(), atol=1e-5, rtol=1e-5)
        assert reads == set(range(1, 13))


class TestSoftmax(IdModelContract):
    name = "recguru"
    settings: ClassVar[dict[str, Any]] = SMALL | {"loss": "ce"}
    learning_rate = 1e-2
    score = TestRecGURU.score


def three_domains(**settings: Any) -> RecGURU:
    torch.manual_seed(0)
    ids = [f"item {n}" for n in range(8)]
    return RecGURU.from_ids(RecGURUSettings(**SMALL | settings), ids, [], others=(5, 7)).eval()


def aligned(model: RecGURU) -> tuple[list[list[list[int]]], Any]:
    """-> rows of sequences by domain, and the batch."""
    own = [TokenizedHistory([model.item_ids.token(f"item {n}") for n in rows]) for rows in ([0, 1, 2], [5, 3])]
    domains, rows = [own], [[[0, 1, 2], [5, 3]]]
    for number, first in ((1, 9), (2, 14)):
        items = model.other_items(number)
        domains.append([TokenizedHistory(items[:4]), TokenizedHistory(items[2:5])])
        rows.append([list(range(first, first + 4)), list(range(first + 2, first + 5))])
    twins = np.array([[False, True], [False, False]])
    return rows, model.prepare_alignment(domains, twins, torch.Generator().manual_seed(3))


def test_the_losses_of_alignment_are_those_of_their_formulas() -> None:
    model = three_domains()
    assert isinstance(model, AlignsDomains)
    rows, batch = aligned(model)
    assert [int(domain) for domain in batch.negatives.amin(1)] >= [0, 0, 9, 9, 14, 14]
    assert (batch.negatives.amax(1) < torch.tensor([8, 8, 14, 14, 21, 21])).all()
    users = [[brute_user(model, sequence) for sequence in domain] for domain in rows]
    reconstruction, losses, confused = [], [], []
    assert model.discriminator is not None
    for domain, sequences in enumerate(rows):
        own = []
        for place, sequence in enumerate(sequences):
            states = brute_states(model, sequence[:-1], users[domain][place], domain)
            for state, right in zip(states, sequence[1:], strict=True):
                wrong = [row for row in batch.negatives[2 * domain + place].tolist() if row != right]
                scores = model.items.weight[[right, *wrong]] @ state
                own.append(-scores.log_softmax(0)[0])
            chances = model.discriminator(users[domain][place]).softmax(0)
            losses.append(-chances[domain].log())
            confused.append(-chances.log().mean())
        reconstruction.append(torch.stack(own).mean())
    expected = {
        "reconstruction": torch.stack(reconstruction).mean(),
        "discriminator": torch.stack(losses).mean(),
        "confusion": torch.stack(confused).mean(),
        "overlap": (users[0][1] - users[1][1]).square().mean(),
    }
    losses = model.alignment_losses(batch)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], atol=1e-5, rtol=1e-5, msg=name)


def test_the_discriminator_and_the_rest_learn_from_losses_of_their_own() -> None:
    model = three_domains()
    _, batch = aligned(model)
    for name, of_discriminator in (("discriminator", True), ("confusion", False), ("overlap", False)):
        model.zero_grad(set_to_none=True)
        model.alignment_losses(batch)[name].backward()  # type: ignore[no-untyped-call]
        learning = [weight for weight, value in model.named_parameters() if value.grad is not None]
        assert {weight.startswith("discriminator") for weight in learning} == {of_discriminator}, name


def test_other_domains_are_forgotten() -> None:
    model = three_domains()
    histories = [[0, 3, 2], [5], []]
    tokens = [TokenizedHistory([model.item_ids.token(f"item {n}") for n in rows]) for rows in histories]
    before = model.encode_histories(model.prepare_histories(tokens))
    for _ in range(2):
        model.drop_source_domains()
        assert torch.equal(model.encode_histories(model.prepare_histories(tokens)), before)
    again = RecGURU.from_config(model.config_json(), None)
    again.load_state_dict(model.state_dict())
    assert again.items.weight.shape == (9, 16)
    assert len(again.decoders) == 1
    assert again.discriminator is None


def test_a_checkpoint_with_the_old_name_of_a_setting_is_read() -> None:
    model = three_domains()
    config = model.config_json()
    settings = dict(config["settings"])
    settings["told_from"] = settings.pop("alignment_negatives") + 1
    again = RecGURU.from_config(config | {"settings": settings}, None)
    assert again.settings.alignment_negatives == model.settings.alignment_negatives + 1
    assert "told_from" not in again.config_json()["settings"]


@pytest.mark.parametrize("settings", [{"loss": "hinge"}, {"alignment_negatives": 0}, {"dropout": 1.0}, {"dim": 15}])
def test_a_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"model\.settings\.{next(iter(settings))}"):
        RecGURUSettings(**settings)
