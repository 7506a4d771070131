"""A transformer block as plain loops, to hold models against."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def brute_block(block: Any, x: Tensor, causal: bool) -> Tensor:
    """One sequence through a block that normalises sums: x [n, d] -> [n, d]"""
    x = brute_attention(block, x, causal)
    out: Tensor = block.feed_forward_norm(x + block.narrow(F.gelu(block.widen(x))))
    return out


def brute_attention(block: Any, x: Tensor, causal: bool) -> Tensor:
    """Its first half."""
    n, d = x.shape
    query, key, value = block.qkv(x).chunk(3, dim=1)
    read = torch.zeros_like(x)
    size = d // block.heads
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        for place in range(n):
            seen = slice(0, place + 1 if causal else n)
            weights = (key[seen, part] @ query[place, part] / math.sqrt(size)).softmax(0)
            read[place, part] = weights @ value[seen, part]
    out: Tensor = block.attention_norm(x + block.out(read))
    return out
