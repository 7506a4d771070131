"""`seqrec import recformer` on the authors' weights: the same vectors, whatever naming and file they come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seqrec import load_model
from seqrec.errors import CheckpointError, InputError
from seqrec.models.recformer.convert import main

GOLDEN = Path(__file__).parents[3] / "golden" / "recformer"


def run(
    out: Path, *more: str, weights: Path = GOLDEN / "state_dict.safetensors", config: Path = GOLDEN / "config.json"
) -> None:
    main(
        [
            "recformer",
            "--weights",
            str(weights),
            "--config",
            str(config),
            "--tokenizer",
            str(GOLDEN),
            "--out",
            str(out),
            *more,
        ]
    )


def golden_vectors() -> tuple[list[Any], Any, Any]:
    sequences = json.loads((GOLDEN / "batches.json").read_text(encoding="utf-8"))["mixed"]["items"]
    pooled = load_file(GOLDEN / "encoder.safetensors")["mixed.pooler_output"]
    items = load_file(GOLDEN / "seqrec.safetensors")["item_embeddings"]
    return sequences, torch.nn.functional.normalize(pooled).numpy(), torch.nn.functional.normalize(items).numpy()


def check(out: Path) -> None:
    model = load_model(out, device="cpu")
    sequences, histories, items = golden_vectors()
    np.testing.assert_allclose(model.encode_histories(sequences), histories, rtol=0, atol=2e-5)
    catalogue = json.loads((GOLDEN / "seqrec.json").read_text(encoding="utf-8"))["items"]
    np.testing.assert_allclose(model.encode_items(catalogue), items, rtol=0, atol=2e-5)


def test_authors_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "out")
    assert capsys.readouterr().err == ""  # their own configuration lacks nothing
    check(tmp_path / "out")


@pytest.mark.parametrize("naming", ["pretraining", "seqrec", "model", "wrapped"])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_every_naming_and_file(tmp_path: Path, naming: str, suffix: str) -> None:
    tensors = load_file(GOLDEN / "state_dict.safetensors")
    if naming != "pretraining":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head.")}
    if naming == "seqrec":
        tensors["item_embedding.weight"] = torch.zeros(20, 64)
    if naming == "model":
        tensors = {name.removeprefix("longformer."): tensor for name, tensor in tensors.items()}
    if naming == "wrapped":
        tensors = {f"_forward_module.model.{name}": tensor for name, tensor in tensors.items()}
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".bin":
        torch.save({"state_dict": tensors} if naming == "wrapped" else tensors, weights)
    else:
        save_file(tensors, weights)
    run(tmp_path / "out", weights=weights)
    check(tmp_path / "out")


def test_lacking_limits_are_the_papers_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
    for name in ("max_attr_num", "max_attr_length", "max_item_embeddings", "max_token_num"):
        del config[name]
    plain = tmp_path / "config.json"
    plain.write_text(json.dumps(config), encoding="utf-8")
    run(tmp_path / "out", "--max-token-num", "128", config=plain)
    err = capsys.readouterr().err
    assert "max_attr_num = 3 (not in the configuration; override with --max-attr-num)" in err
    assert "max_attr_length = 32" in err
    assert "max_item_embeddings = 11" in err  # the weights hold a table of 11
    assert "max_token_num" not in err
    saved = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["config"]
    assert saved["max_token_num"] == 128


def test_what_cannot_be_imported_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((GOLDEN / "state_dict.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors cannot be read as weights"):
        run(tmp_path / "out", weights=cut)
    tensors = load_file(GOLDEN / "state_dict.safetensors")
    del tensors["longformer.encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "lacking.safetensors")
    with pytest.raises(CheckpointError, match=r"no 'encoder\.layer\.1\.output\.dense\.weight'"):
        run(tmp_path / "out", weights=tmp_path / "lacking.safetensors")
    config = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8")) | {"max_item_embeddings": 12}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"item_position_embeddings\.weight has shape \(11, 64\) in the weights"):
        run(tmp_path / "out", config=tmp_path / "config.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_existing_directory_is_kept(tmp_path: Path) -> None:
    run(tmp_path / "out")
    with pytest.raises(InputError, match="already exists; add --overwrite"):
        run(tmp_path / "out")
    run(tmp_path / "out", "--overwrite")
    check(tmp_path / "out")
