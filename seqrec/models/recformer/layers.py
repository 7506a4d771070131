"""The layers of a Recformer over a packed stream of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.models.base.layers import attend, drop
from seqrec.models.recformer.batch import PackedBatch
from seqrec.models.recformer.config import RecformerConfig
from seqrec.runtime.quantization import GeluLinear

DENSE = 128
"""Up to this length every token is compared with every other; beyond it, only with those in its window."""
BLOCK = 64
"""Queries that share a window of keys: a smaller block wastes less, a larger one makes larger matrix products."""


class Projection(nn.Linear):
    """A projection whose weight `Layer` reads, instead of applying it to tokens."""


class Layer(nn.Module):
    """One post-norm Longformer layer over a packed stream."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        d, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_heads
        self.reach = config.attention_window // 2
        self.dropout = config.dropout
        self.qkv = nn.Linear(d, 3 * d)
        self.query_global = nn.Linear(d, d)
        self.key_global = Projection(d, d, bias=False)
        self.value_global = Projection(d, d)
        self.attention_output = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d, eps)
        self.up = GeluLinear(d, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, d)
        self.output_norm = nn.LayerNorm(d, eps)

    def forward(self, x: Tensor, batch: PackedBatch, cls_only: bool) -> Tensor:
        """x [t, d] -> [t, d], or the [CLS] rows alone [b, d] with `cls_only`."""
        own = x.index_select(0, batch.cls)  # [b, d]
        attended = self._global(x, own, batch)  # [b, d]
        if not cls_only:
            attended = self._local(x, batch).index_copy(0, batch.cls, attended)
            own = x
        x = self.attention_norm(own + self._drop(self.attention_output(attended)))
        out: Tensor = self.output_norm(x + self._drop(self.down(self.up(x))))
        return out

    def _global(self, x: Tensor, cls: Tensor, batch: PackedBatch) -> Tensor:
        """Each [CLS] attends to all tokens of its sequence. x [t, d], cls [b, d] -> [b, d]"""
        d, h = x.shape[1], self.heads
        e = d // h
        query = self.query_global(cls).view(-1, h, e) * e**-0.5
        key = torch.einsum("bhe,hed->bhd", query, self.key_global.weight.view(h, e, d))
        sums = []
        for group in batch.groups:
            tokens = x.index_select(0, group.tokens).view(*group.real.shape, d)  # [g, n, d]
            scores = key.index_select(0, group.sequences) @ tokens.transpose(1, 2)  # [g, h, n]
            scores = scores.float().masked_fill(~group.real[:, None], -torch.inf)
            sums.append(self._drop(scores.softmax(-1)).to(x.dtype) @ tokens)  # [g, h, d]
        order = torch.cat([group.sequences for group in batch.groups])
        total = torch.cat(sums).index_select(0, order.argsort())  # [b, h, d]
        value = torch.einsum("bhd,hed->bhe", total, self.value_global.weight.view(h, e, d))
        return value.reshape(-1, d) + self.value_global.bias

    def _local(self, x: Tensor, batch: PackedBatch) -> Tensor:
        """Every token attends to its window and to [CLS], in one softmax. x [t, d] -> [t, d]"""
        d = x.shape[1]
        qkv = self.qkv(x)  # [t, 3d]
        outs = []
        for group in batch.groups:
            g, n = group.real.shape
            padded = qkv.index_select(0, group.tokens).view(g, n, 3, self.heads, -1)
            q, k, v = padded.permute(2, 0, 3, 1, 4)  # [g, h, n, e] each
            attend = self._dense if n <= DENSE else self._blocks
            outs.append(attend(q, k, v, group.real).transpose(1, 2).reshape(g * n, d))
        return torch.cat(outs).index_select(0, batch.from_groups)

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        """All pairs of tokens, masked outside of the window. q, k, v [g, h, n, e], real [g, n] -> [g, h, n, e]"""
        place = torch.arange(q.shape[2], device=q.device)
        near = (place[:, None] - place).abs() <= self.reach  # [n, n]
        near[:, 0] = True  # [CLS]
        return self._attend(q, k, v, (near & real[:, None])[:, None])

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        """The same for long sequences: each block of queries against the keys in its windows, and [CLS]."""
        g, h, n, e = q.shape
        r, blocks = self.reach, -(-n // BLOCK)
        extra = blocks * BLOCK - n
        q = F.pad(q, (0, 0, 0, extra)).view(g, h, blocks, BLOCK, e)
        cls = [part[:, :, :1, None].expand(g, h, blocks, 1, e) for part in (k, v)]
        k, v = (
            torch.cat([first, F.pad(part, (0, 0, r, r + extra)).unfold(2, BLOCK + 2 * r, BLOCK).transpose(3, 4)], 3)
            for first, part in zip(cls, (k, v), strict=True)
        )  # [g, h, blocks, 1 + BLOCK + 2r, e]
        place = torch.arange(BLOCK, device=q.device)
        window = torch.arange(-r, BLOCK + r, device=q.device)
        near = (place[:, None] - window).abs() <= r  # [BLOCK, BLOCK + 2r]
        real = real.clone()
        real[:, 0] = False  # [CLS] is one key, the one before the window
        here = F.pad(real, (r, r + extra)).unfold(1, BLOCK + 2 * r, BLOCK)  # [g, blocks, BLOCK + 2r]
        mask = near & here[:, :, None]  # [g, blocks, BLOCK, BLOCK + 2r]
        out = self._attend(
            q.transpose(1, 2).flatten(0, 1),
            k.transpose(1, 2).flatten(0, 1),
            v.transpose(1, 2).flatten(0, 1),
            F.pad(mask, (1, 0), value=True).flatten(0, 1)[:, None],
        )  # [g * blocks, h, BLOCK, e]
        return out.view(g, blocks, h, BLOCK, e).transpose(1, 2).reshape(g, h, blocks * BLOCK, e)[:, :, :n]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Softmax attention where `mask` is True. Every query has at least [CLS] to attend to."""
        dropout = self.dropout if self.training else 0.0
        if q.shape[2] > 32 or q.is_cuda:
            return attend(q, k, v, mask, dropout)
        # For a few tokens the set-up of the fused kernel takes longer than the products (2 to 5 times on a CPU).
        scores = (q @ k.transpose(2, 3)).float() * q.shape[3] ** -0.5
        return self._drop(scores.masked_fill(~mask, -torch.inf).softmax(-1)).to(v.dtype) @ v

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.training)


class LanguageModelHead(nn.Module):
    """Logits over the vocabulary for masked tokens; not tied to the word embeddings (as in the authors' code)."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """[m, d] -> [m, vocab_size]"""
        logits: Tensor = self.decoder(self.norm(F.gelu(self.dense(x))))
        return logits
