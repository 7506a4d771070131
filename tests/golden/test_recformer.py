"""Our Recformer against tensors computed with the authors' own code (tests/golden/recformer/README.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from seqrec.models.recformer.convert import convert_config
from seqrec.models.recformer.weights import convert_weights, plain_names
from seqrec.text.item_text import ItemText, TokenizedHistory
from seqrec.models.recformer.batch import PackedBatch, pack
from seqrec.models.recformer.model import Recformer
from seqrec.text.tokenizer import read_tokenizer

GOLDEN = Path(__file__).parent / "recformer"
OUTPUT = 2e-5
GRADIENT = 1e-4
BATCHES = ["short", "one_window", "multiple_of_window", "long", "mixed", "item_limit", "token_limit", "odd"]


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def theirs() -> dict[str, Tensor]:
    return plain_names(load_file(GOLDEN / "state_dict.safetensors"))


@pytest.fixture
def model() -> Recformer:
    config = read_json("config.json")
    ours, recipe = convert_config(config, config)
    model = Recformer.from_config(
        Recformer(ours, None).config_json() | {"lm_head": True}, ItemText(recipe, read_tokenizer(GOLDEN))
    )
    model.load_state_dict(convert_weights(theirs(), ours.num_layers, lm_head=True))
    return model.eval()


@pytest.fixture(scope="module")
def encoder() -> dict[str, Tensor]:
    return load_file(GOLDEN / "encoder.safetensors")


def histories(model: Recformer, sequences: list[list[dict[str, str]]]) -> list[TokenizedHistory]:
    return [TokenizedHistory(model.tokenize_items(items)) for items in sequences]


def prepared(model: Recformer, name: str) -> PackedBatch:
    return model.prepare_histories(histories(model, read_json("batches.json")[name]["items"]))


def from_padded(tensors: Mapping[str, Tensor], prefix: str = "", suffix: str = "") -> PackedBatch:
    """The authors' padded batch as a packed one."""
    real = tensors[f"{prefix}attention_mask{suffix}"].bool()
    columns = (
        tensors[f"{prefix}{name}{suffix}"][real] for name in ("input_ids", "token_type_ids", "item_position_ids")
    )
    ids, types, item_positions = (column.numpy() for column in columns)
    return pack(ids, types, item_positions, real.sum(1).numpy(), first=2)


def assert_close(ours: Tensor, golden: Tensor, tolerance: float = OUTPUT) -> None:
    torch.testing.assert_close(ours.detach(), golden, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", BATCHES)
def test_tokenised_batch_is_the_authors(model: Recformer, encoder: dict[str, Tensor], name: str) -> None:
    batch = prepared(model, name)
    real = encoder[f"{name}.attention_mask"].bool()
    assert batch.input_ids.tolist() == encoder[f"{name}.input_ids"][real].tolist()
    assert batch.token_types.tolist() == encoder[f"{name}.token_type_ids"][real].tolist()
    assert batch.item_positions.tolist() == encoder[f"{name}.item_position_ids"][real].tolist()
    assert batch.cls.tolist() == (real.sum(1).cumsum(0) - real.sum(1)).tolist()
    for single, sequence in zip(
        read_json("batches.json")[name]["unpadded"], read_json("batches.json")[name]["items"], strict=True
    ):
        alone = model.prepare_histories(histories(model, [sequence]))
        assert alone.input_ids.tolist() == single["input_ids"]
        assert alone.tokens == model.history_tokens(histories(model, [sequence])[0])


@pytest.mark.parametrize("name", BATCHES)
def test_every_stage_of_the_encoder(model: Recformer, encoder: dict[str, Tensor], name: str) -> None:
    batch = prepared(model, name)
    real = encoder[f"{name}.attention_mask"].bool()
    with torch.no_grad():
        states = model.hidden_states(batch)
        pooled = model.encode_histories(batch)
    assert_close(states[0], encoder[f"{name}.embedding_output"][real])
    assert_close(states[-1], encoder[f"{name}.last_hidden_state"][real])
    assert_close(pooled, encoder[f"{name}.pooler_output"])
    for layer, state in enumerate(states):
        if f"{name}.hidden_states.{layer}" in encoder:
            assert_close(state, encoder[f"{name}.hidden_states.{layer}"][real])


def test_padding_to_the_maximum_changes_nothing(model: Recformer, encoder: dict[str, Tensor]) -> None:
    batch = prepared(model, "pad_to_max")
    real = encoder["pad_to_max.attention_mask"].bool()
    assert batch.input_ids.tolist() == encoder["pad_to_max.input_ids"][real].tolist()
    with torch.no_grad():
        assert_close(model.encode_histories(batch), encoder["pad_to_max.pooler_output"])


def seqrec_logits(model: Recformer, golden: dict[str, Tensor]) -> Tensor:
    pooled = model.encode_histories(prepared(model, "mixed"))
    return (
        F.normalize(pooled, dim=1) @ F.normalize(golden["item_embeddings"], dim=1).T / read_json("config.json")["temp"]
    )


def test_recommendation_head(model: Recformer) -> None:
    golden = load_file(GOLDEN / "seqrec.safetensors")
    items = model.tokenize_items(read_json("seqrec.json")["items"])
    batch = model.prepare_items(items)
    real = golden["item_inputs.attention_mask"].bool()
    assert batch.input_ids.tolist() == golden["item_inputs.input_ids"][real].tolist()
    with torch.no_grad():
        assert_close(model.encode_items(batch), golden["item_embeddings"])
        logits = seqrec_logits(model, golden)
    assert_close(logits, golden["logits"])
    assert_close(logits.gather(1, golden["candidates"]), golden["candidate_logits"])
    assert_close(F.cross_entropy(logits, golden["labels"])[None], golden["finetune_loss_full_softmax"])
    sampled = logits.gather(1, golden["sampled_candidates"])
    first = torch.zeros(len(sampled), dtype=torch.long)
    assert_close(F.cross_entropy(sampled, first)[None], golden["finetune_loss_sampled_softmax"])


def pretraining(model: Recformer, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """One pretraining step on the authors' fixed tensors: contrastive + 0.1 x MLM of history (a) and next item (b)."""
    assert model.lm_head is not None
    out: dict[str, Tensor] = {}
    for side in "ab":
        out[f"pooler_output_{side}"] = model.encode_histories(from_padded(golden, suffix=f"_{side}"))
        masked = golden | {f"input_ids_{side}": golden[f"mlm_input_ids_{side}"]}
        state = model.hidden_states(from_padded(masked, suffix=f"_{side}"))[-1]
        labels = golden[f"mlm_labels_{side}"][golden[f"attention_mask_{side}"].bool()]
        out[f"mlm_logits_at_masked_{side}"] = model.lm_head(state[labels != -100])
        out[f"mlm_loss_{side}"] = F.cross_entropy(out[f"mlm_logits_at_masked_{side}"], labels[labels != -100])
    unit = [F.normalize(out[f"pooler_output_{side}"], dim=1) for side in "ab"]
    config = read_json("config.json")
    out["contrastive_logits"] = unit[0] @ unit[1].T / config["temp"]
    out["contrastive_loss"] = F.cross_entropy(out["contrastive_logits"], torch.arange(len(unit[0])))
    out["loss"] = out["contrastive_loss"] + config["mlm_weight"] * (out["mlm_loss_a"] + out["mlm_loss_b"])
    return out


def test_pretraining_step(model: Recformer) -> None:
    golden = load_file(GOLDEN / "pretrain.safetensors")
    with torch.no_grad():
        ours = pretraining(model, golden)
    for name, tensor in ours.items():
        assert_close(tensor.reshape(golden[name].shape), golden[name])
    correct = (ours["contrastive_logits"].argmax(1) == torch.arange(len(ours["contrastive_logits"]))).sum()
    assert int(correct) == int(golden["contrastive_correct"])


@pytest.mark.parametrize("step", ["finetune", "pretrain"])
def test_gradients(model: Recformer, step: str) -> None:
    golden = load_file(GOLDEN / "gradients.safetensors")
    if step == "finetune":
        tensors = load_file(GOLDEN / "seqrec.safetensors")
        F.cross_entropy(seqrec_logits(model, tensors), tensors["labels"]).backward()  # type: ignore[no-untyped-call]
    else:
        pretraining(model, load_file(GOLDEN / "pretrain.safetensors"))["loss"].backward()  # type: ignore[no-untyped-call]
    named = plain_names({name.removeprefix(f"{step}."): t for name, t in golden.items() if name.startswith(f"{step}.")})
    # The authors' key_global.bias has a gradient of rounding noise only, and is no parameter here.
    assert max(float(t.abs().max()) for name, t in named.items() if name.endswith("key_global.bias")) < 1e-5
    expected = convert_weights(named, model.config.num_layers, lm_head=step == "pretrain")
    compared = 0
    for name, parameter in model.named_parameters():
        if name.startswith("lm_head.") and step == "finetune":
            assert parameter.grad is None
            continue
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_close(ours, expected[name], GRADIENT)
        compared += 1
    assert compared == len(expected)


def test_a_row_of_a_batch_is_the_row_alone(model: Recformer) -> None:
    rng = np.random.default_rng(0)
    items = model.tokenize_items(
        [item for sequence in read_json("batches.json")["mixed"]["items"] for item in sequence]
    )
    sequences = [
        TokenizedHistory([items[int(row)] for row in rng.integers(0, len(items), size)])
        for size in (0, 1, 2, 3, 5, 8, 9, 10)
    ]
    with torch.no_grad():
        together = model.encode_histories(model.prepare_histories(sequences))
        for row, history in enumerate(sequences):
            assert_close(together[row], model.encode_histories(model.prepare_histories([history]))[0], 1e-5)


def test_blocks_equal_dense_attention(monkeypatch: pytest.MonkeyPatch, model: Recformer) -> None:
    """Both ways to attend locally, on lengths around every border, and windows that reach over several blocks."""
    from seqrec.models.recformer import layers as recformer

    rng = np.random.default_rng(1)
    for window in (8, 64, 256):
        for layer in model.layers:
            layer.reach = window // 2
        lengths = np.array([1, 2, 63, 64, 65, 100, 127, 128])
        count = int(lengths.sum())
        ids, types, places = (rng.integers(0, top, count) for top in (384, 3, 11))
        outs = []
        for dense in (10_000, 0):
            monkeypatch.setattr(recformer, "DENSE", dense)
            with torch.no_grad():
                outs.append(model.hidden_states(pack(ids, types, places, lengths, first=2))[-1])
        assert_close(outs[0], outs[1], 1e-5)
