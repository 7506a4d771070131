from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seqrec.models.base.layers import attend, drop


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_mean_stays(share: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(200, 1000)
    dropped = drop(x, share, True)
    kept = dropped != 0
    assert abs((~kept).float().mean().item() - share) < 0.005
    assert torch.allclose(dropped[kept], torch.tensor(1 / (1 - share)), rtol=1e-4)
    # No row, column or neighbour has a pattern of its own: 16 bits of each random word are as good as the others.
    for every in range(4):
        assert abs((~kept).view(-1)[every::4].float().mean().item() - share) < 0.01
    together = (kept[:, 1:] & kept[:, :-1]).float().mean().item()
    assert abs(together - (1 - share) ** 2) < 0.01


def test_gradients_pass_where_values_do() -> None:
    x = torch.randn(7, 5, requires_grad=True)
    dropped = drop(x, 0.4, True)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, dropped != 0)
    assert torch.allclose(x.grad * x, dropped)


def test_nothing_is_dropped_outside_of_training() -> None:
    x = torch.randn(3, 4)
    assert drop(x, 0.5, False) is x
    assert drop(x, 0.0, True) is x
    assert drop(torch.empty(0, 4), 0.5, True).shape == (0, 4)


def test_it_repeats_with_the_seed_of_torch() -> None:
    x = torch.ones(50, 3)
    torch.manual_seed(4)
    first, second = drop(x, 0.5, True), drop(x, 0.5, True)
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    assert torch.equal(drop(x, 0.5, True), first)
    state = torch.get_rng_state()
    third = drop(x, 0.5, True)
    assert torch.equal(third, second)
    torch.set_rng_state(state)
    assert torch.equal(drop(x, 0.5, True), second)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_dropout_is_the_same_on_average(masked: bool) -> None:
    """Dropout of the weights leaves their expectation, so the mean of many passes is attention without it."""
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 1, 2, 6, 4)
    allowed = torch.rand(1, 1, 6, 6) < 0.5 if masked else None
    if allowed is not None:
        allowed |= torch.eye(6, dtype=torch.bool)
    exact = F.scaled_dot_product_attention(query, key, value, allowed, is_causal=allowed is None)
    assert torch.allclose(attend(query, key, value, allowed, 0.0), exact)
    assert torch.allclose(attend(query, key, value, allowed, 1e-9), exact, atol=1e-6)
    many = attend(*(part.expand(20000, 2, 6, 4) for part in (query, key, value)), allowed, 0.3)
    assert torch.allclose(many.mean(dim=0), exact[0], atol=0.05)
    assert many.std(dim=0).min() > 0 or masked
