"""FBSM: predicts which item follows another from their texts (after Sharma et al., SDM 2015, "Feature-based factorized
bilinear similarity model for cold-start top-n item recommendation").

The paper compares two items by a bilinear form of their features, x_j' W x_i with W of low rank, and scores an item by
its similarity to the user's items. Here x is the whitened vector of an item by a frozen text encoder, and

    answers_i = A x_i + MLP(x_i)        asks_j = B x_j + MLP'(x_j)
    score(history, i) = cos(sum_j w_j asks_j, answers_i)

So W is neither symmetric nor only bilinear: the next item need not be similar to the last one. w is a learned softmax
over the age of an item, for the newest `max_length` items. Trained by cross entropy over the training items at every
position. It reads only text, so it can score new items, but prefers items that training saw (docs/results.md).

Whitening removes the directions that all texts share and scales the others to equal variance (NDCG@10 on Beauty after
three epochs: 0.038; with standardised components instead: 0.028).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.metric import Metric
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.ids import check_at_least, check_fraction, check_positive
from seqrec.models.base.layers import drop
from seqrec.models.base.model import SequenceModel

VARIANCE_FLOOR = 0.01


@dataclass(frozen=True)
class FBSMSettings:
    dim: int = 256
    hidden: int = 512  # of the two multilayer perceptrons
    max_length: int = 8
    dropout: float = 0.3
    temperature: float = 0.07
    negatives: int = 0  # random candidates of the loss in addition to the targets; 0: all training items

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, hidden=1, max_length=1, negatives=0)
        check_fraction(self, "dropout")
        check_positive(self, "temperature")


class FBSM(FrozenTextModel):
    metric = Metric.COSINE
    settings_class = FBSMSettings
    settings: FBSMSettings
    mean: Tensor  # [text dim]
    whiten: Tensor  # [text dim, text dim]

    def __init__(
        self, settings: FBSMSettings, text_model: str, text: SequenceModel, items: int = 0, id_bytes: int = 0
    ) -> None:
        super().__init__(settings, text_model, text, items, id_bytes)
        self.dim = settings.dim
        self.register_buffer("mean", torch.zeros(text.dim))
        self.register_buffer("whiten", torch.eye(text.dim) / text.dim**0.5)
        self.answers = LinearAndMLP(text.dim, settings.hidden, settings.dim, settings.dropout)
        self.asks = LinearAndMLP(text.dim, settings.hidden, settings.dim, settings.dropout)
        self.recency = nn.Parameter(-0.3 * torch.arange(settings.max_length, dtype=torch.float32))  # newest first

    @torch.no_grad()
    def fit_text_statistics(self, texts: Tensor) -> None:
        """Whitening by the principal components of the texts; the resulting vectors have length 1 on average."""
        texts = texts.double()
        mean = texts.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov((texts - mean).T))
        if variances.mean() < 1e-9:
            return  # all texts are equal
        # The floor keeps directions in which texts hardly differ from being amplified noise.
        whiten = directions / (variances + VARIANCE_FLOOR * variances.mean()).sqrt()
        self.mean.copy_(mean)
        self.whiten.copy_(whiten / ((texts - mean) @ whiten).norm(dim=1).mean())

    def adapt(self, texts: Tensor, ids: Tensor) -> Tensor:
        """[m, text dim], [m] -> [m, dim]"""
        vectors: Tensor = self.answers((texts - self.mean) @ self.whiten)
        return vectors

    def embed_history_items(self, texts: Tensor, ids: Tensor) -> Tensor:
        """[m, text dim], [m] -> [m, dim]"""
        vectors: Tensor = self.asks((texts - self.mean) @ self.whiten)
        return vectors

    def states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """[b, n, dim], [b] -> [b, n, dim]. Padding comes last and so does not change the states of items."""
        n = items.shape[1]
        age = torch.arange(n, device=items.device)
        age = age[:, None] - age  # [n, n], of column j at row t
        weights = self.recency[age.clamp(min=0, max=len(self.recency) - 1)]
        weights = weights.masked_fill((age < 0) | (age >= len(self.recency)), -torch.inf).softmax(dim=1)
        states: Tensor = weights.to(items.dtype) @ items
        return states


class LinearAndMLP(nn.Module):
    """The sum of a linear map and a perceptron with one hidden layer and GELU."""

    def __init__(self, read: int, hidden: int, written: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.straight, self.widen, self.narrow = (
            nn.Linear(read, written),
            nn.Linear(read, hidden),
            nn.Linear(hidden, written),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., read] -> [..., written]"""
        inner = F.gelu(self.widen(drop(x, self.dropout, self.training)))
        out: Tensor = self.straight(x) + self.narrow(drop(inner, self.dropout, self.training))
        return out
