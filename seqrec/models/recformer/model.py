"""Recformer (Li et al., KDD 2023, "Text Is All You Need"): a history is one sentence, read by a Longformer.

A batch is one stream of real tokens: every linear layer, norm and activation runs over that stream, so its cost is
proportional to the tokens that are there. Only attention needs to see sequences; it works on groups of sequences of
similar length, padded within the group.

Two identities make it lean without changing a number (up to rounding):
- [CLS]'s global attention reads all tokens through key_global and value_global. Scores are q.(W_k x + b_k), where b_k
  shifts all of a softmax alike: (W_k' q).x serves. The weighted sum of W_v x + b_v is W_v of the weighted sum of x,
  plus b_v. So neither projection is applied to every token, and key_global has no bias here.
- Only the last layer's [CLS] is read: the last layer computes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.base.layers import attend, drop
from seqrec.runtime.quantization import GeluLinear
from seqrec.text.item_text import ItemText, ItemTokens, TokenizedHistory, TokenizedItem

CLS_TYPE = 0
TOKEN_TYPES = 4  # [CLS], attribute name, attribute value, padding (never seen here; the authors' checkpoints have it)
GROUPS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Sequences are padded with others up to the same one of these lengths, so at most to twice their own length."""
DENSE = 128
"""Up to this many tokens every token is compared with every other; beyond, only with its window."""
BLOCK = 64
"""Queries that share a window of keys; smaller wastes less, larger keeps the matrix products busy."""


@dataclass(frozen=True)
class RecformerConfig:
    """The defaults are the paper's: Longformer-base and its limits."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    attention_window: int = 64  # a token sees half of it on either side
    max_token_num: int = 1024  # of a history, [CLS] included; 512 costs hardly any quality (the authors' README)
    max_item_embeddings: int = 51  # [CLS] and 50 items
    max_position_embeddings: int = 1026
    first_position: int = 2  # RoBERTa's padding index + 1
    layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    cls_id: int = 0
    mask_id: int = 50264
    lm_head: bool = False  # only pretraining reads it
    # False, an ablation of the paper's: without these embeddings.
    token_types: bool = True
    item_positions: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise InputError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.attention_window < 2 or self.attention_window % 2:
            raise InputError(f"attention_window {self.attention_window} is not an even number above 0")
        if min(self.num_layers, self.max_token_num, self.max_item_embeddings - 1) < 1:
            raise InputError("num_layers and max_token_num are at least 1, max_item_embeddings at least 2")
        if self.max_position_embeddings < self.max_token_num + self.first_position:
            raise InputError(
                f"max_position_embeddings {self.max_position_embeddings} is too small for max_token_num "
                f"{self.max_token_num}: positions begin at {self.first_position}"
            )


class Tokens(Protocol):
    """What the embedding reads; all int64 [t]."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def token_types(self) -> Tensor: ...
    @property
    def item_positions(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...


class Group(NamedTuple):
    """Sequences that attend side by side, padded to n tokens."""

    sequences: Tensor  # int64 [g], which of the batch
    tokens: Tensor  # int64 [g * n], where each token lies in the stream (padding: at its sequence's [CLS])
    real: Tensor  # bool [g, n]


@dataclass(frozen=True)
class PackedBatch:
    """Sequences end to end, b of them, t tokens in all; all int64."""

    input_ids: Tensor  # [t]
    token_types: Tensor  # [t]
    item_positions: Tensor  # [t], 0 [CLS], 1 the newest item, ...
    positions: Tensor  # [t]
    cls: Tensor  # [b], where each sequence begins
    groups: tuple[Group, ...]
    from_groups: Tensor  # [t], where each token lies in the groups' tokens end to end

    @property
    def tokens(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> PackedBatch:
        names = ("input_ids", "token_types", "item_positions", "positions", "cls", "from_groups")
        groups = tuple(Group(*(tensor.to(device) for tensor in group)) for group in self.groups)
        return replace(self, groups=groups, **{name: getattr(self, name).to(device) for name in names})


class Projection(nn.Linear):
    """Not applied to tokens: `Layer` reads its weight."""


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
        """What each [CLS] takes from all tokens of its sequence. x [t, d], cls [b, d] -> [b, d]"""
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
        """What every token takes from its window and from [CLS], in one softmax. x [t, d] -> [t, d]"""
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
        """Every token against all, those out of reach masked. q, k, v [g, h, n, e], real [g, n] -> [g, h, n, e]"""
        place = torch.arange(q.shape[2], device=q.device)
        near = (place[:, None] - place).abs() <= self.reach  # [n, n]
        near[:, 0] = True  # [CLS]
        return self._attend(q, k, v, (near & real[:, None])[:, None])

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        """The same for long sequences: blocks of queries, each against the keys its tokens can reach and [CLS]."""
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
        real[:, 0] = False  # [CLS] is counted once: as the key before the window
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
        # For a handful of tokens the fused kernel's set-up costs more than the products (measured 2-5x on a CPU).
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


class Recformer(nn.Module):
    metric = Metric.COSINE
    cold_items = True

    def __init__(self, config: RecformerConfig, item_text: ItemText | None) -> None:
        """Fresh weights. Without `item_text` it encodes tokens but no items."""
        super().__init__()
        d = config.hidden_size
        self.config, self.item_text, self.dim = config, item_text, d
        self.word_embeddings = nn.Embedding(config.vocab_size, d)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, d)
        self.token_type_embeddings = nn.Embedding(TOKEN_TYPES, d) if config.token_types else None
        self.item_position_embeddings = nn.Embedding(config.max_item_embeddings, d) if config.item_positions else None
        self.embedding_norm = nn.LayerNorm(d, config.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.lm_head = LanguageModelHead(config) if config.lm_head else None
        self.gradient_checkpointing = False  # in training: keep what goes into a layer, and compute the rest again
        # With the usual 0.02 everywhere [CLS] of a small model hardly hears its tokens: vectors begin alike and stay so
        # (NDCG@10 0.015 after 300 steps on the demo's data, 0.103 like this).
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05 if module is self.word_embeddings else 0.02)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        return cls(RecformerConfig(**config), item_text)

    def config_json(self) -> dict[str, Any]:
        return asdict(self.config)

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        if self.item_text is None:
            raise InputError("this model was made without a tokenizer; it encodes token ids only")
        return self.item_text.tokenize(items)

    def prepare_items(self, items: Sequence[TokenizedItem]) -> PackedBatch:
        """An item is encoded as a history of one."""
        return self.prepare_histories([TokenizedHistory([item]) for item in items])

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> PackedBatch:
        """Newest item first; cut at `max_item_embeddings - 1` items and `max_token_num` tokens, in mid-item too."""
        ids, types, item_positions, lengths = [], [], [], []
        for history in histories:
            room = self.config.max_token_num - 1
            ids.append(np.array([self.config.cls_id]))
            types.append(np.array([CLS_TYPE]))
            item_positions.append(np.array([0]))
            for position, item in enumerate(self._read(history), 1):
                size = min(len(item.ids), room)
                ids.append(item.ids[:size])
                types.append(item.types[:size])
                item_positions.append(np.full(size, position))
                room -= size
                if not room:
                    break
            lengths.append(self.config.max_token_num - room)
        return pack(
            np.concatenate(ids),
            np.concatenate(types),
            np.concatenate(item_positions),
            np.array(lengths, dtype=np.int64),
            self.config.first_position,
        )

    def history_tokens(self, history: TokenizedHistory) -> int:
        return min(1 + sum(len(item.ids) for item in self._read(history)), self.config.max_token_num)

    def encode_items(self, batch: PackedBatch) -> Tensor:
        """-> [n, d]"""
        return self.encode_histories(batch)

    def encode_histories(self, batch: PackedBatch) -> Tensor:
        """The last layer's [CLS], no pooling layer on top. -> [b, d]"""
        x = self.embed(batch)
        for layer in self.layers[:-1]:
            x = self._through(layer, x, batch, cls_only=False)
        return self._through(self.layers[-1], x, batch, cls_only=True)

    def embed(self, batch: Tokens) -> Tensor:
        """E_w = LayerNorm(token + position + type + item position), the last two where it has them. -> [t, d]"""
        # index_select: its gradient is several times as fast on a CPU as nn.Embedding's.
        x = self.word_embeddings.weight.index_select(0, batch.input_ids)
        x = x + self.position_embeddings.weight.index_select(0, batch.positions)
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings.weight.index_select(0, batch.token_types)
        if self.item_position_embeddings is not None:
            x = x + self.item_position_embeddings.weight.index_select(0, batch.item_positions)
        return drop(self.embedding_norm(x), self.config.dropout, self.training)

    def hidden_states(self, batch: PackedBatch) -> list[Tensor]:
        """Every token after the embedding and each layer: num_layers + 1 tensors [t, d]. The last is for `lm_head`."""
        states = [self.embed(batch)]
        for layer in self.layers:
            states.append(self._through(layer, states[-1], batch, cls_only=False))
        return states

    def _through(self, layer: nn.Module, x: Tensor, batch: PackedBatch, cls_only: bool) -> Tensor:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(layer, x, batch, cls_only, use_reentrant=False)
        else:
            out = layer(x, batch, cls_only)
        return out

    def _read(self, history: TokenizedHistory) -> Sequence[TokenizedItem]:
        """The items that fit, newest first."""
        items = history.items
        oldest = max(0, len(items) - (self.config.max_item_embeddings - 1))
        return [items[row] for row in range(len(items) - 1, oldest - 1, -1)]


def pack(
    ids: npt.NDArray[Any],
    types: npt.NDArray[Any],
    item_positions: npt.NDArray[Any],
    lengths: npt.NDArray[np.int64],
    first: int,
) -> PackedBatch:
    """Sequences end to end, [t] each, with their lengths [b] (each at least 1); `first` is the first position."""
    starts = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    from_groups = np.empty(len(within), dtype=np.int64)
    groups = []
    padded_so_far = 0
    for sequences in _grouped(lengths):
        n = int(lengths[sequences].max())
        place = np.arange(n)
        real = place < lengths[sequences, None]  # [g, n]
        tokens = starts[sequences, None] + np.where(real, place, 0)
        from_groups[tokens[real]] = padded_so_far + np.flatnonzero(real)
        padded_so_far += real.size
        groups.append(Group(torch.from_numpy(sequences), torch.from_numpy(tokens.reshape(-1)), torch.from_numpy(real)))
    return PackedBatch(
        input_ids=torch.from_numpy(ids.astype(np.int64)),
        token_types=torch.from_numpy(types.astype(np.int64)),
        item_positions=torch.from_numpy(item_positions.astype(np.int64)),
        positions=torch.from_numpy(within + first),
        cls=torch.from_numpy(starts),
        groups=tuple(groups),
        from_groups=torch.from_numpy(from_groups),
    )


def _grouped(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Which sequences attend side by side."""
    bucket = np.searchsorted(GROUPS, lengths)
    return [np.flatnonzero(bucket == one) for one in np.unique(bucket)]
