"""FBSM: items that follow each other, told from their texts (after Sharma et al., SDM 2015, "Feature-based factorized
bilinear similarity model for cold-start top-n item recommendation").

The paper compares two items by a bilinear form of their features, x_j' W x_i with W of low rank, and scores an item by
its similarity to what the user had. Here x is what a frozen text encoder says of an item, whitened, and

    answers_i = A x_i + MLP(x_i)        asks_j = B x_j + MLP'(x_j)
    score(history, i) = cos(sum_j w_j asks_j, answers_i)

so W is neither symmetric nor only bilinear: what is bought after an item need not be like it, least of all the item
itself. w is a softmax over how long ago an item was, learnt, of the newest `max_length` items. Trained by softmax
cross entropy over the items that training sees, at every position. It reads text alone, so it can score a new item, but
prefers what training saw (docs/results.md).

Whitened means: without the directions that all texts share, and the others of one variance (on Beauty, NDCG@10 after
three epochs was 0.038, with every component standardised instead 0.028).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.metric import Metric
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.ids import check_at_least, check_positive, share
from seqrec.models.base.layers import drop
from seqrec.models.base.model import SequenceModel

LEAST_VARIANCE = 0.01


@dataclass(frozen=True)
class FBSMSettings:
    dim: int = 256
    hidden: int = 512  # of the two multilayer perceptrons
    max_length: int = 8
    dropout: float = 0.3
    temperature: float = 0.07
    negatives: int = 0  # other items that a target is told from, drawn at random; 0: all that training sees

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, hidden=1, max_length=1, negatives=0)
        share(self, "dropout")
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
    def see(self, texts: Tensor) -> None:
        """Principal components of the texts, of one variance each; the vectors have length 1 on average."""
        texts = texts.double()
        mean = texts.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov((texts - mean).T))
        if variances.mean() < 1e-9:
            return  # they are all the same
        # Directions in which the texts hardly differ would be noise made large.
        whiten = directions / (variances + LEAST_VARIANCE * variances.mean()).sqrt()
        self.mean.copy_(mean)
        self.whiten.copy_(whiten / ((texts - mean) @ whiten).norm(dim=1).mean())

    def adapt(self, texts: Tensor, ids: Tensor) -> Tensor:
        """[m, text dim], [m] -> [m, dim]"""
        vectors: Tensor = self.answers((texts - self.mean) @ self.whiten)
        return vectors

    def as_read(self, texts: Tensor, ids: Tensor) -> Tensor:
        """[m, text dim], [m] -> [m, dim]"""
        vectors: Tensor = self.asks((texts - self.mean) @ self.whiten)
        return vectors

    def states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """[b, n, dim], [b] -> [b, n, dim]. Padding comes last, so it counts for no state that is read."""
        n = items.shape[1]
        age = torch.arange(n, device=items.device)
        age = age[:, None] - age  # [n, n], of column j at row t
        weights = self.recency[age.clamp(min=0, max=len(self.recency) - 1)]
        weights = weights.masked_fill((age < 0) | (age >= len(self.recency)), -torch.inf).softmax(dim=1)
        states: Tensor = weights.to(items.dtype) @ items
        return states


class LinearAndMLP(nn.Module):
    """A linear map, and what it lacks: a hidden layer with GELU beside it."""

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
