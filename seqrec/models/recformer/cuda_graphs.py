"""Recformer's forward pass for inference on a GPU: compiled for a few sizes and captured as CUDA graphs at start-up.

Sequences are concatenated to one stream, padded to the next of `SIZES` tokens. Both kinds of attention are
FlexAttention over that stream with block masks that skip empty blocks of keys, so that cost grows with the tokens: a
block of queries reads its window and the start of its first token's sequence, a block of [CLS] the blocks that its
sequences span. The masks are computed on the CPU from the lengths. No shape depends on the input, so each size is one
CUDA graph. Training and larger batches use `seqrec.models.recformer.model`, which computes the same.

FlexAttention: Dong et al. 2024, "Flex Attention: A Programming Model for Generating Optimized Attention Kernels".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from seqrec.models.recformer.batch import PackedBatch, Tokens
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.layers import Layer

log = logging.getLogger(__name__)

SIZES = (1024, 4096, 16384, 65536)
"""Tokens of the streams. Each size is compiled separately, which takes a minute the first time on a machine."""
TOKENS_PER_SEQUENCE = 8
"""A stream of t tokens has room for t / 8 sequences."""
BLOCK = 128
"""Tokens in a block of FlexAttention."""
_WARM_UPS = 3


class StreamModel(Protocol):
    """What is read of a `Recformer`."""

    config: RecformerConfig
    layers: nn.ModuleList

    def embed(self, batch: Tokens) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Stream(NamedTuple):
    """b concatenated sequences, t tokens; padding at the end is one more sequence, whose result is not used."""

    input_ids: Tensor  # int64 [t]
    token_types: Tensor  # int64 [t]
    item_positions: Tensor  # int64 [t]
    positions: Tensor  # int64 [t]
    starts: Tensor  # int64 [t], the start of the token's sequence
    cls: Tensor  # int64 [b], the start of each sequence; the last one is repeated as padding
    near_counts: Tensor  # int32 [t / BLOCK], blocks of keys for each block of tokens
    near_blocks: Tensor  # int32 [t / BLOCK, t / BLOCK], those blocks; only the first `near_counts` are valid
    span_counts: Tensor  # int32 [b / BLOCK], blocks of keys for each block of [CLS]
    span_blocks: Tensor  # int32 [b / BLOCK, t / BLOCK]


def size_of(batch: PackedBatch) -> int | None:
    """The smallest size that fits; None: the batch is too large."""
    need = max(batch.tokens, len(batch.cls) * TOKENS_PER_SEQUENCE)
    return next((size for size in SIZES if need <= size), None)


def stream(batch: PackedBatch, size: int, reach: int) -> Stream:
    """A batch on the CPU as a stream of `size` tokens. Each token attends to `reach` others on either side."""
    cls = batch.cls.numpy()
    room = -(-size // TOKENS_PER_SEQUENCE // BLOCK) * BLOCK
    extra = size - batch.tokens
    bounds = np.append(cls, batch.tokens)
    starts = np.repeat(bounds, np.append(np.diff(bounds), extra))
    cls = np.append(cls, np.repeat(cls[-1:], room - len(cls)))
    ends = np.append(bounds[1:], np.repeat(bounds[-1:], room - len(bounds) + 1))
    near_counts, near_blocks = _near(starts, reach)
    span_counts, span_blocks = _spans(cls, ends, size // BLOCK)
    longest = batch.positions.max() - batch.positions.min()  # positions beyond the table would be out of bounds
    place = torch.arange(extra).clamp(max=longest) + batch.positions.min()
    return Stream(
        input_ids=F.pad(batch.input_ids, (0, extra)),
        token_types=F.pad(batch.token_types, (0, extra)),
        item_positions=F.pad(batch.item_positions, (0, extra)),
        positions=torch.cat([batch.positions, place]),
        starts=torch.from_numpy(starts),
        cls=torch.from_numpy(cls),
        near_counts=torch.from_numpy(near_counts),
        near_blocks=torch.from_numpy(near_blocks),
        span_counts=torch.from_numpy(span_counts),
        span_blocks=torch.from_numpy(span_blocks),
    )


Blocks = npt.NDArray[np.int32]


def _near(starts: npt.NDArray[np.int64], reach: int) -> tuple[Blocks, Blocks]:
    """For each block of tokens the blocks within reach, and the block with the [CLS] of its first token.

    Every other [CLS] that its tokens attend to is in the block itself.
    """
    count = len(starts) // BLOCK
    neighbours = -(-reach // BLOCK)
    wanted = np.zeros((count, count), dtype=bool)
    rows = np.arange(count)
    for step in range(-neighbours, neighbours + 1):
        there = (rows + step >= 0) & (rows + step < count)
        wanted[rows[there], rows[there] + step] = True
    wanted[rows, starts[::BLOCK] // BLOCK] = True
    return _listed(wanted)


def _spans(cls: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], count: int) -> tuple[Blocks, Blocks]:
    """For each block of [CLS] the blocks of keys from its first sequence to its last."""
    first, last = cls[::BLOCK] // BLOCK, (ends[BLOCK - 1 :: BLOCK] - 1) // BLOCK
    keys = np.arange(count)
    return _listed((keys >= first[:, None]) & (keys <= last[:, None]))


def _listed(wanted: npt.NDArray[np.bool_]) -> tuple[Blocks, Blocks]:
    """-> the number of wanted blocks in each row, and all blocks with the wanted ones first."""
    order = np.argsort(~wanted, axis=1, kind="stable")
    return wanted.sum(axis=1, dtype=np.int32), order.astype(np.int32)


def forward(model: StreamModel, s: Stream, attention: Callable[..., Any] = flex_attention) -> Tensor:
    """-> [b, d], the same as `encode_histories`."""
    reach = model.config.attention_window // 2
    starts, owners = s.starts, s.cls
    t, b = len(starts), len(owners)

    def near(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = starts[query] == starts[key]
        return own & (((query - key).abs() <= reach) | (key == starts[query]))

    def of_sequence(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return owners[query] == starts[key]

    window = _mask(s.near_counts, s.near_blocks, near, (t, t))
    whole = _mask(s.span_counts, s.span_blocks, of_sequence, (b, t))
    x = model.embed(s)
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        own = x.index_select(0, s.cls)  # [b, d]
        key = F.linear(x, layer.key_global.weight)
        attended = _attend(layer.query_global(own), key, layer.value_global(x), layer.heads, whole, attention)  # [b, d]
        if number + 1 < len(model.layers):
            query, key, value = layer.qkv(x).chunk(3, dim=1)
            local = _attend(query, key, value, layer.heads, window, attention)  # [t, d]
            attended, own = local.index_copy(0, s.cls, attended), x
        x = layer.attention_norm(own + layer.attention_output(attended))
        x = layer.output_norm(x + layer.down(layer.up(x)))
    return x


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: BlockMask, attention: Callable[..., Any]) -> Tensor:
    """q [m, d], k and v [t, d] -> [m, d]"""
    q, k, v = (part.view(len(part), heads, -1).transpose(0, 1)[None] for part in (q, k, v))  # [1, h, ., e]
    out: Tensor = attention(q, k, v, block_mask=mask)[0]
    return out.transpose(0, 1).flatten(1)


def _mask(counts: Tensor, blocks: Tensor, allowed: Callable[..., Tensor], lengths: tuple[int, int]) -> BlockMask:
    return BlockMask.from_kv_blocks(
        counts[None, None], blocks[None, None], None, None, BLOCK, allowed, lengths, compute_q_blocks=False
    )


class RecformerGraphs:
    """Encodes batches that fit one of `SIZES`. Not thread-safe: each size has one input buffer."""

    def __init__(self, model: StreamModel, bfloat16: bool) -> None:
        """Compiles and captures, which takes minutes. Raises what fails, for example if there is no compiler."""
        self._model, self._bfloat16 = model, bfloat16
        self._reach = model.config.attention_window // 2
        self._graphs = {size: self._capture(size) for size in SIZES}

    def encode(self, batch: PackedBatch) -> Tensor | None:
        """A batch on the CPU -> [b, d] on the GPU; None if it is too large."""
        size = size_of(batch)
        if size is None:
            return None
        graph, inputs, out = self._graphs[size]
        for buffer, tensor in zip(inputs, stream(batch, size, self._reach), strict=True):
            buffer.copy_(tensor.pin_memory(), non_blocking=True)
        graph.replay()
        return out[: len(batch.cls)].clone()

    def _capture(self, size: int) -> tuple[torch.cuda.CUDAGraph, Stream, Tensor]:
        log.info("compiling Recformer for streams of %d tokens", size)
        device = next(self._model.parameters()).device
        one = torch.zeros(1, dtype=torch.int64)
        anything = PackedBatch(one, one, one, one, cls=one, groups=(), from_groups=one)
        inputs = Stream(*(tensor.to(device) for tensor in stream(anything, size, self._reach)))
        compiled = torch.compile(forward, dynamic=False, fullgraph=True)

        def run() -> Tensor:
            # Without the cache of cast weights: a graph must not read memory that it does not own.
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, self._bfloat16, cache_enabled=False):
                out: Tensor = compiled(self._model, inputs)
            return out

        side_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side_stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side_stream):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream(device).wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
            out = run()
        return graph, inputs, out


def compile_graphs(model: StreamModel, bfloat16: bool) -> RecformerGraphs | None:
    """None if the model cannot be compiled, which is logged."""
    try:
        return RecformerGraphs(model, bfloat16)
    except Exception:
        log.warning("Recformer could not be compiled for this GPU and runs uncompiled, slower", exc_info=True)
        return None
