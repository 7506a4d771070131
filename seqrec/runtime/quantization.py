"""Linear layers for CPU inference: int8, or float32 with pre-packed weights.

int8 has a scale per output channel of the weights, and a scale and zero point per row of the activations. torch's
dynamic quantization has one activation scale for the whole tensor, so that a row depends on the rest of its batch; here
it does not. Up to 1.9 times as fast as packed float32 on a CPU with VNNI. Without VNNI it is slower where GELU follows,
0.6 to 1.1 times as fast (oneDNN held to AVX2 and to AVX-512 without VNNI), so it is not chosen there.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
EXPECTED_ROWS = 1024
"""Rows of activations for which oneDNN chooses the layout of the weights; any other number works too."""


def has_fast_int8() -> bool:
    """Whether int8 is faster than float32 on this processor: it needs VNNI."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()  # what oneDNN is held to, for tests of older processors
    return bool(torch.cpu._is_vnni_supported()) and limit not in _WITHOUT_VNNI


class GeluLinear(nn.Linear):
    """A linear layer followed by GELU, which its int8 and packed forms compute in one step."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x))


class Int8Linear(nn.Module):
    """An int8 linear layer, for inference only."""

    weight: Tensor
    scale: Tensor
    sums: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.gelu = isinstance(linear, GeluLinear)
        weight = linear.weight.detach()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).t().contiguous())  # [in, out]
        self.register_buffer("scale", scale[:, 0])  # [out]
        self.register_buffer("sums", self.weight.float().sum(0))  # [out]
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [m, in] -> [m, out]"""
        # The range includes 0, so that it is not empty for a constant row. aminmax would take 20 times as long.
        least, most = x.amin(1, keepdim=True).clamp_(max=0), x.amax(1, keepdim=True).clamp_(min=0)
        scale = (most - least).clamp_min_(1e-12).div_(255)  # [m, 1]
        zero = least / scale + 128  # the zero point
        rounded = (x / scale).sub_(zero).round_().to(torch.int8)
        out = torch._int_mm(rounded, self.weight).float().addr_(zero[:, 0], self.sums).mul_(scale).mul_(self.scale)
        if self.bias is not None:
            out.add_(self.bias)
        return F.gelu(out) if self.gelu else out


class PackedLinear(nn.Linear):
    """A linear layer by oneDNN, with weights in the layout of its kernels, and fused with GELU if `gelu`.

    Outside of inference mode it computes the original layer. The weights are those at its creation. 1.1 times as fast
    as torch, with GELU up to 1.5 times, since the wide activations are written once. Results differ only by rounding.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.gelu = isinstance(linear, GeluLinear)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), EXPECTED_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [..., in] -> [..., out]"""
        if not torch.is_inference_mode_enabled():
            return F.gelu(super().forward(x)) if self.gelu else super().forward(x)
        after = "gelu" if self.gelu else "none"
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, after, [], "none")
        return out


def quantize(model: nn.Module) -> None:
    """Replaces the linear layers of a model by int8, in place. Other subclasses stay, since their weights are read."""
    _replace(model, Int8Linear)


def pack_weights(model: nn.Module) -> None:
    """Packs the linear layers of a float32 model on the CPU, in place, if torch has oneDNN."""
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        _replace(model, PackedLinear)


def _replace(model: nn.Module, form: Callable[[nn.Linear], nn.Module]) -> None:
    for name, child in model.named_children():
        if isinstance(child, nn.Linear) and type(child) in (nn.Linear, GeluLinear):
            setattr(model, name, form(child))
        else:
            _replace(child, form)


def _scale(x: Tensor) -> Tensor:
    """[m, n] -> [m, 1]: the scale that maps the largest absolute value of a row to 127."""
    return x.abs().amax(1, keepdim=True).clamp_min_(1e-12) / 127
