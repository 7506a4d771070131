from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from seqrec.checkpoint import load_checkpoint, save_checkpoint
from seqrec.data.files import sha256_file
from seqrec.encoder import load_model
from seqrec.errors import CheckpointError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.base.model import SequenceModel
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.text.item_text import ItemText, Recipe


def recformer(seed: int, hidden_size: int = 8) -> SequenceModel:
    """The smallest that has weights, a tokenizer and a recipe."""
    vocabulary = {"<unk>": 0, "title": 1, "oak": 2}
    text = ItemText(Recipe(("title",)), Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")))
    torch.manual_seed(seed)
    config = RecformerConfig(
        vocab_size=3,
        hidden_size=hidden_size,
        num_layers=1,
        num_heads=1,
        intermediate_size=8,
        max_token_num=16,
        mask_id=0,
    )
    return Recformer(config, text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint", "recformer", recformer(0))
    return tmp_path / "checkpoint"


def resign(path: Path) -> None:
    """What someone does who alters a file and the digest with it."""
    names = sorted(file.name for file in path.iterdir() if file.name != "digest")
    (path / "digest").write_text("".join(f"{sha256_file(path / name)}  {name}\n" for name in names))


def state(model: SequenceModel) -> dict[str, torch.Tensor]:
    assert isinstance(model, torch.nn.Module)
    return model.state_dict()


def test_what_was_saved_is_loaded(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert checkpoint.item_model is checkpoint.history_model
    assert checkpoint.item_tower == checkpoint.history_tower
    assert checkpoint.model_name == "recformer"
    saved = state(recformer(0))
    assert saved.keys() == state(checkpoint.history_model).keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in state(checkpoint.history_model).items())
    assert checkpoint.history_model.item_text is not None
    assert checkpoint.item_text == checkpoint.history_model.item_text.digest


def test_it_holds_the_files_the_page_says(path: Path) -> None:
    files = {file.name for file in path.iterdir()}
    assert files == {"config.json", "digest", "item_text.json", "model.safetensors", "tokenizer.json"}


def test_the_digest_is_one_that_sha256sum_checks(path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not here")
    done = subprocess.run(["sha256sum", "-c", "digest"], cwd=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert load_checkpoint(path).digest == hashlib.sha256((path / "digest").read_bytes()).hexdigest()


def test_equal_models_have_equal_digests_and_others_have_not(tmp_path: Path) -> None:
    digests = [save_checkpoint(tmp_path / str(n), "recformer", recformer(seed)) for n, seed in enumerate([0, 0, 1])]
    assert digests[0] == digests[1] != digests[2]
    assert load_checkpoint(tmp_path / "0").digest == digests[0]


@pytest.mark.slow
def test_two_towers_are_kept_apart(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "two", "recformer", recformer(1), item_model=recformer(2))
    checkpoint = load_checkpoint(tmp_path / "two")
    for model, seed in ((checkpoint.history_model, 1), (checkpoint.item_model, 2)):
        assert all(torch.equal(tensor, state(recformer(seed))[name]) for name, tensor in state(model).items())
    one = {seed: save_and_load(tmp_path / f"one {seed}", recformer(seed)) for seed in (1, 2)}
    assert (checkpoint.history_tower, checkpoint.item_tower) == (one[1].history_tower, one[2].item_tower)
    both, alone = load_model(tmp_path / "two", "cpu"), load_model(tmp_path / "one 2", "cpu")
    assert (both.encode_items([{"title": "oak"}]) == alone.encode_items([{"title": "oak"}])).all()
    assert (both.encode_histories([[{"title": "oak"}]]) != alone.encode_histories([[{"title": "oak"}]])).any()


def save_and_load(path: Path, model: SequenceModel):
    save_checkpoint(path, "recformer", model)
    return load_checkpoint(path)


def test_equal_towers_are_stored_once(tmp_path: Path, path: Path) -> None:
    save_checkpoint(tmp_path / "twice", "recformer", recformer(0), item_model=recformer(0))
    assert sha256_file(tmp_path / "twice" / "model.safetensors") == sha256_file(path / "model.safetensors")


def test_an_existing_one_is_replaced_only_when_asked(path: Path) -> None:
    with pytest.raises(FileExistsError):
        save_checkpoint(path, "recformer", recformer(1))
    before = load_checkpoint(path).digest
    save_checkpoint(path, "recformer", recformer(1), replace=True)
    assert load_checkpoint(path).digest != before


FILES = ["config.json", "model.safetensors", "tokenizer.json", "item_text.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_named(path: Path, name: str) -> None:
    (path / name).write_bytes((path / name).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name} was truncated or altered"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_one_altered_byte_is_named(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} was truncated or altered"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", ["", "nonsense\n", "0" * 64 + "  ../../etc/passwd\n"])
def test_a_digest_that_is_none(path: Path, content: str) -> None:
    (path / "digest").write_text(content)
    with pytest.raises(CheckpointError, match="the checkpoint was altered"):
        load_checkpoint(path)


def test_a_directory_that_is_no_checkpoint(tmp_path: Path, path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not a checkpoint: it has no file `digest`"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is not a directory"):
        load_checkpoint(path / "config.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "has format 2; this version reads format 1"),
        ({"format": None}, "has format None"),
        ({"model": "oracle"}, "no model 'oracle'"),
        ({"config": {"hidden_size": 16, "num_heads": 1}}, "cannot be loaded"),
        ({"config": {"wings": 2}}, "cannot be loaded"),
        ({"item_tower": "another"}, "cannot be loaded"),
    ],
)
def test_a_config_of_something_else_is_refused(path: Path, change: dict[str, object], reason: str) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    resign(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_recipe_of_a_later_format_is_refused(path: Path) -> None:
    recipe = json.loads((path / "item_text.json").read_text())
    (path / "item_text.json").write_text(json.dumps(recipe | {"format": 9}))
    resign(path)
    with pytest.raises(
        CheckpointError, match="cannot be loaded: format: this version cannot read the format of this item-text recipe"
    ):
        load_checkpoint(path)


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_checkpoint(tmp_path / "checkpoint", "recformer", recformer(0))
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_text_and_weights_is_a_checkpoint_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "words", "bag_of_words", BagOfWords(BagOfWordsConfig(dim=8, attributes=("title",))))
    assert {file.name for file in (tmp_path / "words").iterdir()} == {"config.json", "digest", "model.safetensors"}
    checkpoint = load_checkpoint(tmp_path / "words")
    assert isinstance(checkpoint.item_model, BagOfWords)
    assert checkpoint.item_model.config == BagOfWordsConfig(dim=8, attributes=("title",))
    assert (checkpoint.tokenizer, checkpoint.item_text) == ("", "")
