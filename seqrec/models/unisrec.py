"""UniSRec (Hou et al., KDD 2022, "Towards Universal Sequence Representation Learning for Recommender Systems").

The text vector x of an item, from a frozen encoder, goes through a mixture of parametric whitenings (section 2.1):

    item = sum_e g_e (x - b_e) W_e        g = softmax(x W_g + noise * softplus(x W_n)), noise while training only

Items and learned positions go through causal self-attention with BERT's blocks. Scores are cosines; the loss divides
them by 0.07. Pretraining on several data sets (stage `pretrain`) needs no ids. Fine-tuning (stage `sequence`) is cross
entropy over the training items, from text alone or, with `ids`, from the sum of the text vector and a vector per item
(the paper's transductive setting). As published, fine-tuning keeps the pretrained attention: `adaptor_only`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.metric import Metric
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.ids import check_at_least, check_fraction, check_heads, check_positive
from seqrec.models.base.layers import drop, initialise, position_table, post_norm_blocks
from seqrec.models.base.model import SequenceModel

LEAST_NOISE = 1e-2


@dataclass(frozen=True)
class UniSRecSettings:
    dim: int = 300
    layers: int = 2
    heads: int = 2
    inner: int = 256
    experts: int = 8
    max_length: int = 50
    dropout: float = 0.5
    text_dropout: float = 0.2  # of the text vectors
    temperature: float = 0.07
    negatives: int = 0  # random candidates of the loss in addition to the targets; 0: all training items
    ids: bool = False  # whether training items also have vectors of their own, added to those of their texts
    adaptor_only: bool = False  # whether attention stays frozen: for pretrained weights

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, experts=1, max_length=1, negatives=0)
        check_fraction(self, "dropout", "text_dropout")
        check_positive(self, "temperature")
        check_heads(self)


class UniSRec(FrozenTextModel):
    metric = Metric.COSINE
    settings_class = UniSRecSettings
    settings: UniSRecSettings
    fine_tuning = ("ids", "adaptor_only", "negatives")

    def __init__(
        self, settings: UniSRecSettings, text_model: str, text: SequenceModel, items: int = 0, id_bytes: int = 0
    ) -> None:
        super().__init__(settings, text_model, text, items, id_bytes)
        self.dim = d = settings.dim
        t, e = text.dim, settings.experts
        self.shifts = nn.Parameter(torch.zeros(e, t))  # b
        self.whitenings = nn.Parameter(0.02 * torch.randn(e, t, d))  # W
        self.gate, self.gate_noise = nn.Parameter(torch.zeros(t, e)), nn.Parameter(torch.zeros(t, e))
        self.own = nn.Embedding(items + 1, d, padding_idx=items)
        nn.init.normal_(self.own.weight, std=0.02)
        with torch.no_grad():
            self.own.weight[items] = 0
        self.position_vectors = position_table(settings.max_length, d)
        self.norm = nn.LayerNorm(d)
        self.blocks = post_norm_blocks(d, settings.layers, settings.heads, settings.inner, settings.dropout)
        initialise(self.blocks)
        self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Of all weights except those of the text encoder and, with `adaptor_only`, of the attention."""
        super().requires_grad_(requires_grad)
        if self.settings.adaptor_only and hasattr(self, "blocks"):
            self.position_vectors.requires_grad_(False)
            self.norm.requires_grad_(False)
            self.blocks.requires_grad_(False)
        return self

    def adapt(self, texts: Tensor, ids: Tensor) -> Tensor:
        """[m, text dim], [m] -> [m, dim]"""
        e, t, d = self.whitenings.shape
        gates = texts @ self.gate  # [m, e]
        if self.training:
            gates = gates + torch.randn_like(gates) * (F.softplus(texts @ self.gate_noise) + LEAST_NOISE)
        read = drop(texts, self.settings.text_dropout, self.training)
        whitened = read @ self.whitenings.transpose(0, 1).reshape(t, e * d)  # [m, e * d]
        whitened = whitened.view(-1, e, d) - torch.einsum("et,etd->ed", self.shifts, self.whitenings)
        mixed: Tensor = (gates.softmax(dim=1)[:, :, None] * whitened).sum(dim=1)
        vectors: Tensor = mixed + self.own(ids)
        return vectors

    def states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """[b, n, d], [b] -> [b, n, d]. Padding comes last, so no item attends to it."""
        x = items + self.position_vectors[self.positions(items.shape[1], lengths)]
        states: Tensor = self.blocks(drop(self.norm(x), self.settings.dropout, self.training), lengths)
        return states
