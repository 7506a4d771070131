"""Models on a frozen text encoder: what one may begin from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seqrec.errors import InputError
from seqrec.models.recformer.model import Recformer
from seqrec.models.unisrec import UniSRec
from tests.golden.test_text_encoder import save_encoder
from training.config.load import load_config, preset_path
from training.data.dataset import Dataset
from training.stages.base import Towers
from training.stages.start import starting_point

SMALL = ["model.settings.dim=8", "model.settings.inner=8", "model.settings.max_length=5"]


def test_it_begins_from_the_directory_of_a_text_encoder(tmp_path: Path, world: Dataset) -> None:
    save_encoder(tmp_path, "bert")
    start = starting_point(load_config(preset_path("unisrec"), [f"model.start_from={tmp_path}", *SMALL]))
    assert start.recipe is not None
    assert start.recipe.attributes == ("title", "brand", "category")
    model = start.build([world])
    assert isinstance(model, UniSRec)
    assert isinstance(model.text, Recformer)
    assert not any(weight.requires_grad for weight in model.text.parameters())
    encoder = Towers("unisrec", model).encoder("cpu")
    one, two, silent = encoder.encode_items([{"title": "red mug"}, {"title": "blue bag"}, {}])
    assert np.isfinite([one, two, silent]).all()
    assert not np.allclose(one, two)
    long = encoder.encode_items([{"title": "red mug " * 50, "brand": "red " * 50, "category": "bag " * 50}])
    assert np.isfinite(long).all()


def test_without_an_encoder_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.start_from: unisrec needs a frozen text model"):
        starting_point(load_config(preset_path("unisrec")))


@pytest.mark.parametrize("preset", ["minilm", "pretrain_minilm", "residual"])
def test_a_preset_that_needs_a_trained_model_is_refused_without_one(preset: str) -> None:
    with pytest.raises(InputError, match=r"model\.start_from: this configuration starts from a trained model: --set"):
        starting_point(load_config(preset_path(preset)))


def test_a_start_that_does_not_exist_is_named(tmp_path: Path) -> None:
    demo = preset_path("demo")
    with pytest.raises(InputError, match=r"model\.start_from: there is no directory .*nowhere, and no model"):
        starting_point(load_config(demo, [f"model.start_from={tmp_path / 'nowhere'}"]))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; name the directory"):
        starting_point(load_config(demo, [f"model.start_from={tmp_path / 'file'}"]))
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "digest").touch()
    with pytest.raises(InputError, match=r"did you mean .*run/checkpoint\?"):
        starting_point(load_config(demo, [f"model.start_from={tmp_path / 'run'}"]))


@pytest.mark.slow
def test_texts_go_through_the_encoder_in_the_same_way_alone_and_among_others(tmp_path: Path, world: Dataset) -> None:
    """More of them than the encoder reads at a time."""
    save_encoder(tmp_path, "roberta")
    start = starting_point(load_config(preset_path("unisrec"), [f"model.start_from={tmp_path}", *SMALL]))
    model = start.build([world])
    assert isinstance(model, UniSRec)
    items = [
        {"title": " ".join(["red", "mug", "blue", "bag"][n % 4 :] * (n % 7 + 1)), "brand": f"{n}"} for n in range(40)
    ]
    tokens = list(model.tokenize_items(items))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("seqrec.models.base.frozen_text.ENCODER_BATCH", 7)
        together = model.eval().encode_items(model.prepare_items(tokens))
        again = model.encode_items(model.prepare_items(tokens[::-1])).flip(0)
        model.vector_cache.clear()
        alone = torch.cat([model.encode_items(model.prepare_items([item])) for item in tokens])
    torch.testing.assert_close(together, again)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
