"""Layers of models over items: transformer blocks, and a dropout that is fast on a CPU.

On a CPU torch draws the random numbers of dropout one by one: a third of a SASRec training step on MovieLens. Here 16
random bits decide about an element, from a generator that is about 20 times as fast. torch's generator seeds it, so
runs stay reproducible with `torch.manual_seed` and when they are resumed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 16


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout: in training, each element is 0 with probability `share` in [0, 1) (on a CPU rounded to 1/65536), and the
    others are divided by 1 - `share`."""
    if x.device.type != "cpu":
        return F.dropout(x, share, training)
    dropped = round(share * _LEVELS)
    if not training or not dropped:
        return x
    seed = int(torch.randint(1 << 62, ()))
    bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.int16)[: x.numel()]
    kept = torch.from_numpy(bits).view(x.shape) >= dropped - _LEVELS // 2
    return x * kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout: float) -> Tensor:
    """Softmax attention with dropout of its weights: [b, h, n, e] each -> [b, h, n, e].

    `allowed` is bool, [b or 1, h or 1, n or 1, n]: the keys to attend to, at least one for each query; None: causal.
    """
    if not dropout or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, allowed, dropout, is_causal=allowed is None)
    # torch has no fused CPU kernel with dropout, so writing it out costs nothing.
    if allowed is None:
        allowed = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    weights = scores.float().masked_fill(~allowed, -torch.inf).softmax(-1)
    return drop(weights, dropout, True).to(value.dtype) @ value


GROUP = 16
"""Sequences of a bucket."""


class Block(nn.Module):
    """Multi-head self-attention and a feed-forward network (Vaswani et al. 2017), each with a residual connection.

    With `norm_first` the inputs of both are normalised (SASRec), otherwise the sums (BERT). Linear layers get inputs of
    two dimensions [b * n, ...], which their int8 form requires.
    """

    def __init__(
        self, dim: int, heads: int, inner: int, dropout: float, norm_first: bool, activation: nn.Module
    ) -> None:
        """`dim` must be a multiple of `heads`."""
        super().__init__()
        self.heads, self.dropout, self.norm_first = heads, dropout, norm_first
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.activation = activation

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x [b, n, d] -> [b, n, d]; allowed bool [b, 1, 1, n]: the keys to attend to; None: causal."""
        b, n, d = x.shape
        x = x.reshape(b * n, d)
        if self.norm_first:
            x = x + self._attention(self.attention_norm(x), b, n, allowed)
            return (x + self._feed_forward(self.feed_forward_norm(x))).view(b, n, d)
        x = self.attention_norm(x + self._attention(x, b, n, allowed))
        out: Tensor = self.feed_forward_norm(x + self._feed_forward(x)).view(b, n, d)
        return out

    def _attention(self, x: Tensor, b: int, n: int, allowed: Tensor | None) -> Tensor:
        query, key, value = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [b, h, n, e] each
        dropout = self.dropout if self.training else 0.0
        read = attend(query, key, value, allowed, dropout)
        out: Tensor = self.out(read.transpose(1, 2).reshape(b * n, -1))
        return self._dropped(out)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self._dropped(self.narrow(self._dropped(self.activation(self.widen(x)))))

    def _dropped(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.training)


class Stack(nn.ModuleList):
    """Blocks in sequence, over a batch of sequences of different lengths.

    On a CPU sequences of similar length are computed together, so that the cost grows with the real items instead of
    the longest sequence of the batch (MovieLens, up to 200 items: 0.6 of the time).
    """

    def forward(self, x: Tensor, lengths: Tensor, both_ways: bool = False) -> Tensor:
        """x [b, n, d], lengths [b] -> [b, n, d], arbitrary at padding, which comes last.

        Attention is causal, or with `both_ways` bidirectional; then no sequence may be empty.
        """
        groups = length_buckets(lengths)
        parts = []
        for chosen in groups:
            own = lengths[chosen]
            longest = x.shape[1] if x.is_cuda else max(1, int(own.max()))
            part = x[chosen, :longest]  # [b', n', d]
            allowed = None
            if both_ways:
                allowed = (torch.arange(longest, device=x.device) < own[:, None])[:, None, None, :]
            for block in self:
                part = block(part, allowed)
            parts.append(F.pad(part, (0, 0, 0, x.shape[1] - longest)))
        return torch.cat(parts)[torch.cat(groups).argsort()] if len(parts) > 1 else parts[0]


def length_buckets(lengths: Tensor) -> list[Tensor]:
    """Groups of sequences of similar length, as indices into `lengths` [b]; a small batch is one group."""
    if lengths.is_cuda or len(lengths) < 2 * GROUP:  # reading the lengths would synchronise with the GPU
        return [torch.arange(len(lengths), device=lengths.device)]
    order = lengths.argsort(stable=True)
    return [order[begin : begin + GROUP] for begin in range(0, len(order), GROUP)]


def post_norm_blocks(dim: int, layers: int, heads: int, inner: int, dropout: float) -> Stack:
    """The blocks of BERT and of RecBole's models."""
    return Stack(Block(dim, heads, inner, dropout, norm_first=False, activation=nn.GELU()) for _ in range(layers))


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Linear weights from a normal distribution truncated at two `std`, biases 0 (BERT, BERT4Rec)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def position_table(length: int, dim: int, std: float = 0.02) -> nn.Parameter:
    """A learned vector per position, [length, dim]."""
    table = torch.empty(length, dim)
    nn.init.trunc_normal_(table, std=std, a=-2 * std, b=2 * std)
    return nn.Parameter(table)
