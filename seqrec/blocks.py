"""The transformer block that models over items share. Recformer has one of its own, over tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Multi-head self-attention and a feed-forward network (Vaswani et al. 2017), each with a residual connection.

    `norm_first` normalises what goes into each of the two, and leaves the sum as it is (SASRec); otherwise the sums are
    normalised (BERT). Linear layers work on [b * n, ...], which the int8 form of them needs.
    """

    def __init__(
        self, dim: int, heads: int, inner: int, dropout: float, norm_first: bool, activation: nn.Module
    ) -> None:
        """`dim` is a multiple of `heads`."""
        super().__init__()
        self.heads, self.dropout, self.norm_first = heads, dropout, norm_first
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.activation = activation

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x [b, n, d]; allowed bool [b, 1, 1, n]: the keys to attend to; None: all up to the own place."""
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
        read = F.scaled_dot_product_attention(query, key, value, allowed, dropout, is_causal=allowed is None)
        out: Tensor = self.out(read.transpose(1, 2).reshape(b * n, -1))
        return self._dropped(out)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self._dropped(self.narrow(self._dropped(self.activation(self.widen(x)))))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def post_norm_blocks(dim: int, layers: int, heads: int, inner: int, dropout: float) -> nn.ModuleList:
    """As BERT has them, and RecBole's models of this kind."""
    return nn.ModuleList(
        Block(dim, heads, inner, dropout, norm_first=False, activation=nn.GELU()) for _ in range(layers)
    )


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Linear layers normally distributed within two `std` of 0, biases 0 (BERT, BERT4Rec)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def position_table(length: int, dim: int, std: float = 0.02) -> nn.Parameter:
    """A learned vector for each position, [length, dim]."""
    table = torch.empty(length, dim)
    nn.init.trunc_normal_(table, std=std, a=-2 * std, b=2 * std)
    return nn.Parameter(table)
