"""Dropout that costs little on a CPU.

torch draws a number for each element there, one after the other: of a training step of SASRec on MovieLens that was a
third. Here 16 random bits decide about an element, from a generator that fills memory about 20 times as fast; torch's
own generator seeds it, so what is repeatable with `torch.manual_seed`, or goes on from a saved state, is so with this.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

VALUES = 1 << 16


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """`x` with each element 0 by the chance `share`, from 0 to below 1 (on a CPU rounded to 1/65536), and the others
    divided by 1 - `share`; `x` itself unless `training`."""
    if x.device.type != "cpu":
        return F.dropout(x, share, training)
    dropped = round(share * VALUES)
    if not training or not dropped:
        return x
    seed = int(torch.randint(1 << 62, ()))
    bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.int16)[: x.numel()]
    kept = torch.from_numpy(bits).view(x.shape) >= dropped - VALUES // 2
    return x * kept.to(x.dtype).mul_(VALUES / (VALUES - dropped))


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout: float) -> Tensor:
    """Softmax attention with dropout of its weights: [b, h, n, e] each -> [b, h, n, e].

    `allowed` is bool, [b or 1, h or 1, n or 1, n]: the keys to attend to, at least one; None: all up to the own place.
    """
    if not dropout or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, allowed, dropout, is_causal=allowed is None)
    # With dropout torch has no fused kernel for CPUs, so nothing is lost by writing it out.
    if allowed is None:
        allowed = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    weights = scores.float().masked_fill(~allowed, -torch.inf).softmax(-1)
    return drop(weights, dropout, True).to(value.dtype) @ value
