from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import seqrec
from seqrec import History, Item, load_model
from seqrec.encoder import Encoder, budget_batches, equal_batches
from seqrec.errors import CheckpointError, InputError
from seqrec.runtime.thread_pool import map_single_core


@pytest.fixture
def encoder(bag_of_words_checkpoint: Path) -> Encoder:
    return load_model(bag_of_words_checkpoint, device="cpu")


def test_attributes_alone_are_an_item(encoder: Encoder) -> None:
    vectors = encoder.encode_items([{"title": "Oak desk"}, Item("a", {"title": "Oak desk"})])
    assert np.array_equal(vectors[0], vectors[1])


def test_a_history_is_items_or_a_history(encoder: Encoder, tiny_items: list[Item]) -> None:
    plain = [dict(item.attributes) for item in tiny_items[:2]]
    vectors = encoder.encode_histories([plain, tiny_items[:2], History(tuple(tiny_items[:2])), []])
    assert vectors.shape == (4, encoder.dim)
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[1], vectors[2])
    assert (vectors[3] == 0).all()


def test_what_is_no_item_is_named(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"items\[1\].title: a value is a string"):
        encoder.encode_items([{"title": "Oak"}, {"title": {"en": "Oak"}}])
    with pytest.raises(InputError, match="attributes are an object"):
        encoder.encode_items(["Oak desk"])  # type: ignore[list-item]


def test_tokens_made_once_give_the_same_vectors(encoder: Encoder, tiny_items: list[Item]) -> None:
    tokens = encoder.tokenize_items(tiny_items)
    assert np.array_equal(encoder.encode_item_tokens(tokens), encoder.encode_items(tiny_items))


def test_progress_counts_every_item_once(encoder: Encoder, tiny_items: list[Item]) -> None:
    encoder.token_budget = 6
    done: list[int] = []
    encoder.encode_item_tokens(encoder.tokenize_items(tiny_items), progress=done.append)
    assert sum(done) == len(tiny_items)
    assert len(done) > 2


def test_batches_are_sorted_by_cost_and_cut_by_the_budget() -> None:
    assert budget_batches([5, 1, 3, 1, 9], 6) == [[1, 3, 2], [0], [4]]
    assert budget_batches([0, 0, 0], 1) == [[0, 1, 2]]
    assert budget_batches([], 10) == []


def test_threads_get_equal_shares() -> None:
    rng = np.random.default_rng(0)
    for costs, threads in ((rng.integers(1, 80, 300), 2), (rng.integers(1, 1024, 60), 3), (np.ones(5, int), 4)):
        shares = equal_batches(costs.tolist(), 1000, threads)
        assert sorted(row for share in shares for row in share) == list(range(len(costs)))
        sums = [int(costs[share].sum()) for share in shares]
        assert max(sums) - min(sums) <= 2 * costs.max()
        assert max(sums) <= 1000 + costs.max()
        assert len(shares) % threads == 0 or threads > len(costs) / 2
    assert equal_batches([100, 200, 300, 1000], 4096, 2) == [[3], [2, 1, 0]]


def test_a_device_or_precision_there_is_not(bag_of_words_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="precision: no precision 'int3'; use one of float32"):
        load_model(bag_of_words_checkpoint, precision="int3")  # type: ignore[arg-type]
    for device in ("abacus", "mps"):
        with pytest.raises(InputError, match="use cpu or cuda"):
            load_model(bag_of_words_checkpoint, device=device)


def test_no_gpu_is_said_before_anything_is_encoded(bag_of_words_checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(InputError, match="torch finds no CUDA device; use cpu"):
        load_model(bag_of_words_checkpoint, device="cuda")
    assert load_model(bag_of_words_checkpoint).device.type == "cpu"


def test_bfloat16_stays_close_and_float32_outside(bag_of_words_checkpoint: Path, tiny_items: list[Item]) -> None:
    exact = load_model(bag_of_words_checkpoint, "cpu").encode_items(tiny_items)
    rough = load_model(bag_of_words_checkpoint, "cpu", "bfloat16").encode_items(tiny_items)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.02)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        load_model(tmp_path / "nowhere")


def test_the_package_offers_what_it_lists() -> None:
    for name in seqrec.__all__:
        assert getattr(seqrec, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = seqrec.nothing


def test_side_by_side_on_several_cores_gives_the_same(
    bag_of_words_checkpoint: Path, tiny_items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqrec.encoder.MIN_SPLIT_TOKENS", 0)
    encoder = load_model(bag_of_words_checkpoint, device="cpu")
    tokens = list(encoder.tokenize_items(tiny_items)) * 7
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = encoder.encode_item_tokens(tokens)
        torch.set_num_threads(3)
        encoder.token_budget = 12
        done: list[int] = []
        threads = set()
        encode = encoder.checkpoint.item_model.encode_items

        def seen(batch: object) -> torch.Tensor:
            threads.add((threading.current_thread().name, torch.get_num_threads()))
            return encode(batch)

        monkeypatch.setattr(encoder.checkpoint.item_model, "encode_items", seen)
        assert np.allclose(encoder.encode_item_tokens(tokens, done.append), alone, atol=1e-6)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert sum(done) == len(tokens)
    assert len(threads) > 1
    assert {number for _, number in threads} == {1}


def test_what_fails_on_one_core_is_raised_and_the_next_call_works() -> None:
    begun: list[int] = []
    fails = threading.Event()

    def compute(batch: int) -> None:
        begun.append(batch)
        if batch == 3:
            fails.set()
            raise MemoryError("batch 3")
        if batch > 3:  # the other core must not be done with all before this one has failed
            fails.wait()
            time.sleep(0.01)

    with pytest.raises(MemoryError, match="batch 3"):
        list(map_single_core(compute, range(1000), 2))
    assert len(begun) < 1000
    assert sorted(map_single_core(begun.append, [1, 2, 4], 2)) == [1, 2, 4]
