"""Linear layers for inference: close to float32, and a row never depends on its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seqrec.encoder import fast_precision, load_model
from seqrec.errors import InputError
from seqrec.runtime.quantization import GeluLinear, Int8Linear, PackedLinear, has_fast_int8, pack_weights


@pytest.mark.parametrize("rows", [1, 3, 17, 64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Linear, GeluLinear])
def test_close_to_float32(rows: int, bias: bool, kind: type[nn.Linear]) -> None:
    torch.manual_seed(0)
    linear = kind(48, 80, bias=bias)
    x = torch.randn(rows, 48) * torch.logspace(-3, 3, rows)[:, None]  # rows of very different size
    with torch.no_grad():
        exact, rounded = linear(x), Int8Linear(linear)(x)
    assert rounded.shape == exact.shape
    relative = (exact - rounded).norm(dim=1) / exact.norm(dim=1)
    assert float(relative.max()) < 0.02


@pytest.mark.parametrize("rows", [0, 1, 3, 64, 1500])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Linear, GeluLinear])
def test_packed_weights_differ_by_rounding_alone(rows: int, bias: bool, kind: type[nn.Linear]) -> None:
    torch.manual_seed(0)
    linear = kind(48, 80, bias=bias)
    x = torch.randn(rows, 48) * 3
    exact = linear(x).detach()
    packed = PackedLinear(linear)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), exact, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed(x.view(rows, 1, 48)), exact.view(rows, 1, 80), atol=1e-5, rtol=1e-5)
    assert torch.equal(packed(x), exact)  # outside of inference it is the layer it was,
    assert packed(x).requires_grad
    assert packed.state_dict().keys() == linear.state_dict().keys()  # and is saved as that


def test_packing_leaves_layers_alone_whose_weights_are_read() -> None:
    class Read(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(GeluLinear(4, 4)), Read(4, 4))
    pack_weights(model)
    assert [type(part) for part in (model[0], model[1][0], model[2])] == [PackedLinear, PackedLinear, Read]


def test_a_row_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    linear = Int8Linear(nn.Linear(32, 32))
    x = torch.randn(9, 32)
    x[3] *= 1000
    together = linear(x)
    for row in range(9):
        assert torch.equal(together[row], linear(x[row : row + 1])[0])


def test_after_gelu_all_values_of_a_byte_are_used() -> None:
    """What comes out of GELU is hardly below 0: with a symmetric range its error would be twice as large."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 64, bias=False)
    x = torch.nn.functional.gelu(3 * torch.randn(200, 256))
    symmetric = (x / x.amax(1, keepdim=True) * 127).round() * x.amax(1, keepdim=True) / 127
    with torch.no_grad():
        rounded = Int8Linear(linear)(x)
        weight = (Int8Linear(linear).weight.float() * Int8Linear(linear).scale).T
        exact, worse = x @ weight.T, symmetric @ weight.T  # of the rounded weights: the activations' error alone
    assert (rounded - exact).norm() < 0.6 * (worse - exact).norm()


@pytest.mark.parametrize("value", [0.5, -0.5, 1e-20, 1e20])
def test_a_row_of_one_value(value: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 8, bias=False)
    x = torch.full((1, 32), value)
    with torch.no_grad():
        exact, rounded = linear(x), Int8Linear(linear)(x)
    assert torch.isfinite(rounded).all()
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.01 * abs(value) + 1e-12)


def test_a_row_of_zeros_gives_the_bias() -> None:
    linear = nn.Linear(8, 4)
    assert torch.equal(Int8Linear(linear)(torch.zeros(2, 8)), linear.bias.detach().expand(2, 4))


def test_load_model_with_int8(tmp_path_factory: pytest.TempPathFactory) -> None:
    from seqrec import load_model
    from seqrec.checkpoint import save_checkpoint
    from seqrec.models.recformer.model import Recformer, RecformerConfig
    from seqrec.text.item_text import ItemText, Recipe
    from seqrec.text.tokenizer import train_bpe

    torch.manual_seed(0)
    text = ItemText(Recipe(("title",)), train_bpe(["red mug", "blue bag"], 270))
    config = RecformerConfig(
        vocab_size=text.vocab_size, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128, max_token_num=64
    )
    path = tmp_path_factory.mktemp("int8") / "checkpoint"
    save_checkpoint(path, "recformer", Recformer(config, text))
    exact, rounded = load_model(path, "cpu"), load_model(path, precision="int8")
    items = [{"title": title} for title in ("red mug", "blue bag", "a bag of red mugs", "🫖 مرحبا")]
    cosine = (exact.encode_items(items) * rounded.encode_items(items)).sum(1)
    assert np.all(cosine > 0.995)
    assert np.all(cosine < 1 - 1e-9)  # it is not float32 in disguise
    with pytest.raises(InputError, match="use one of float32, bfloat16, int8"):
        load_model(path, precision="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vnni", "limit", "fast"),
    [(True, "", True), (False, "", False), (True, "AVX2", False), (True, "avx512_core", False), (True, "ALL", True)],
)
def test_int8_needs_vnni(monkeypatch: pytest.MonkeyPatch, vnni: bool, limit: str, fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_fast_int8() is fast
    assert fast_precision("int8") == ("int8" if fast else "float32")
    assert fast_precision("bfloat16") == "bfloat16"


def test_a_processor_without_vnni_is_reported(
    bag_of_words_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert load_model(bag_of_words_checkpoint, "cpu", "int8").precision == "int8"
    assert "no VNNI instructions, so int8 is not faster here; use float32" in caplog.text
    caplog.clear()
    load_model(bag_of_words_checkpoint, "cpu")
    assert "VNNI" not in caplog.text
