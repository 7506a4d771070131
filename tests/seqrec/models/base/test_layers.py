from __future__ import annotations

import pytest
import torch
from torch import nn

from seqrec.models.base.layers import GROUP, Block, Stack, length_buckets


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_stack_is_its_blocks_on_each_sequence_alone(both_ways: bool) -> None:
    torch.manual_seed(1)
    stack = Stack(Block(8, 2, 8, 0.5, norm_first=True, activation=nn.ReLU()) for _ in range(2)).eval()
    lengths = torch.randint(1, 12, (3 * GROUP + 5,))
    x = torch.randn(len(lengths), 13, 8, requires_grad=True)  # longer than the longest: padding all the way
    assert len(length_buckets(lengths)) == 4
    out = stack(x, lengths, both_ways)
    assert out.shape == x.shape
    real = torch.arange(13) < lengths[:, None]
    grad = torch.autograd.grad(out[real].square().sum(), x)[0]
    for row, length in enumerate(lengths.tolist()):
        alone = x[row : row + 1, :length].detach().requires_grad_()
        states = alone
        allowed = torch.ones(1, 1, length, length, dtype=torch.bool) if both_ways else None
        for block in stack:
            states = block(states, allowed)
        assert torch.allclose(out[row, :length], states[0], atol=1e-5)
        expected = torch.autograd.grad(states.square().sum(), alone)[0]
        assert torch.allclose(grad[row, :length], expected[0], atol=1e-4)
        assert not grad[row, length:].any()


def test_an_empty_sequence_is_no_trouble_one_way() -> None:
    stack = Stack([Block(4, 1, 4, 0.0, norm_first=False, activation=nn.GELU())])
    out = stack(torch.randn(2, 1, 4), torch.tensor([0, 1]))
    assert out.shape == (2, 1, 4)
    assert out.isfinite().all()


def test_groups_hold_each_sequence_once_and_like_lengths_together() -> None:
    lengths = torch.tensor([5, 1, 9, 3] * GROUP)
    groups = length_buckets(lengths)
    assert torch.cat(groups).sort().values.tolist() == list(range(4 * GROUP))
    assert [lengths[group].unique().tolist() for group in groups] == [[1], [3], [5], [9]]
    assert len(length_buckets(lengths[:5])) == 1
