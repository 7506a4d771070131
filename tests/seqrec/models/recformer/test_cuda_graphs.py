"""The GPU's forward pass, on the CPU: its masks, its sizes, its vectors. Nothing is compiled."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.recformer.batch import PackedBatch, pack
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.cuda_graphs import BLOCK, SIZES, TOKENS_PER_SEQUENCE, forward, size_of, stream
from seqrec.models.recformer.model import Recformer


@pytest.fixture(scope="module")
def model() -> Recformer:
    torch.manual_seed(0)
    config = RecformerConfig(
        vocab_size=100,
        hidden_size=32,
        num_layers=3,
        num_heads=2,
        intermediate_size=64,
        attention_window=8,
        max_token_num=400,
        max_item_embeddings=20,
        max_position_embeddings=402,
        mask_id=3,
    )
    return Recformer(config, None).eval()


def batch_of(lengths: list[int], seed: int = 0) -> PackedBatch:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    return pack(
        rng.integers(100, size=total), rng.integers(3, size=total), rng.integers(20, size=total), np.array(lengths), 2
    )


def strict(q: Tensor, k: Tensor, v: Tensor, block_mask: Any) -> Tensor:
    """Attention that sees what the mask allows in the blocks that are listed, and nothing else. [1, h, m, e]"""
    m, t = q.shape[2], k.shape[2]
    queries, keys = torch.arange(m)[:, None], torch.arange(t)
    allowed = block_mask.mask_mod(torch.tensor(0), torch.tensor(0), queries, keys)
    counts, blocks = block_mask.kv_num_blocks[0, 0].tolist(), block_mask.kv_indices[0, 0]
    listed = torch.zeros(m // BLOCK, t // BLOCK, dtype=torch.bool)
    for row, count in enumerate(counts):
        assert len(set(blocks[row, :count].tolist())) == count  # one that came twice would count twice
        listed[row, blocks[row, :count].long()] = True
    allowed = allowed & listed.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    assert allowed.any(dim=1).all()  # a row without a key would be no number
    scores = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[3])
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v


LENGTHS = [
    [1],
    [300],
    [400, 400],  # the second begins in the middle of a block
    [1024],  # as many as the size
    [1] * 128,
    [2, 127, 128, 129, 1, 257, 5],
    [8] * 128,  # exactly full, in sequences as well
    [3] * 40 + [399] + [7] * 60,
]


@pytest.mark.slow
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}-{sum(lengths)}")
def test_vectors_are_those_of_the_model(model: Recformer, lengths: list[int]) -> None:
    if max(lengths) > model.config.max_token_num:  # positions beyond the table: only the masks are of interest
        lengths = [400, 400, 224]
    batch = batch_of(lengths)
    placed = stream(batch, 1024, model.config.attention_window // 2)
    assert {len(part) for part in placed[:5]} == {1024}
    assert len(placed.cls) == 1024 // TOKENS_PER_SEQUENCE
    with torch.inference_mode():
        found = forward(model, placed, strict)
        expected = model.encode_histories(batch)
    assert found.shape == (128, 32)
    assert found.isfinite().all()
    torch.testing.assert_close(found[: len(lengths)], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.slow
def test_flex_attention_takes_these_masks(model: Recformer) -> None:
    batch = batch_of([90, 33, 1, 400, 12])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        found = forward(model, stream(batch, 1024, 4), flex_attention)
        torch.testing.assert_close(found[:5], model.encode_histories(batch), atol=2e-5, rtol=1e-5)


def test_a_window_wider_than_a_block_reaches_several() -> None:
    placed = stream(batch_of([400, 400]), 1024, 200)
    # Two blocks on either side; the fourth and the seventh begin in mid-sequence and see its [CLS] too.
    assert placed.near_counts.tolist() == [3, 4, 5, 6, 5, 5, 5, 3]


def test_a_batch_goes_into_the_smallest_size_that_has_room() -> None:
    assert size_of(batch_of([5])) == SIZES[0]
    assert size_of(batch_of([1024])) == 1024
    assert size_of(batch_of([1000, 25])) == 4096
    assert size_of(batch_of([1] * 129)) == 4096  # few tokens, many sequences
    assert size_of(batch_of([4096] * 16)) == SIZES[-1]
    assert size_of(batch_of([4096] * 16 + [1])) is None


def test_no_shape_depends_on_what_is_read() -> None:
    shapes = {
        tuple((tuple(part.shape), part.dtype) for part in stream(batch_of(lengths), 1024, 4)) for lengths in LENGTHS
    }
    assert len(shapes) == 1


def test_positions_stay_within_the_table() -> None:
    placed = stream(batch_of([30]), 1024, 4)
    assert placed.positions.min() == 2
    assert placed.positions.max() == 31


@pytest.mark.slow
def test_where_it_cannot_be_compiled_it_is_done_without(
    model: Recformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch.cuda, "Stream", fails)
    assert model.compile_cuda_graphs(True) is None
    assert "runs uncompiled, slower" in caplog.text
    assert BagOfWords(BagOfWordsConfig()).compile_cuda_graphs(True) is None
