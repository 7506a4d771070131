"""SASRec (Kang & McAuley, ICDM 2018, "Self-Attentive Sequential Recommendation"), with three losses.

Items and learned positions go through causal self-attention; the state at an item predicts the next one. The score of
item i is h . e_i, where e is also the input table. The loss at every position of a training sequence:

    bce     log s(h . e_next) + log (1 - s(h . e_-)), one negative
    ce      softmax cross entropy over all items
    gbce    k negatives, and the positive's probability raised to beta (Petrov & Macdonald, RecSys 2023, "gSASRec"):
            beta = a (t (1 - 1/a) + 1/a) with a = k / (items - 1); t = 0 is bce with k negatives

Negatives are drawn from all items except the next one, including those of the sequence: they are candidates when all
items are ranked, and items that are never negatives would rank first. (The paper excludes the sequence from both.)

With gbce, the logit of an item without evidence is not 0 but ln(beta / k), for k negatives per positive. The loss adds
this constant to h . e, which does not change the ranking. Without it, all items first learn it as a shared vector,
which hides their differences: on MovieLens-1M NDCG@10 stayed at that of popularity (0.012) for 1,600 steps; with it, it
was 0.073 after 285 steps.

For gbce, negatives are drawn once per sequence and shared by its positions, which has the same expectation as drawing
them at each position and takes 1/n of the memory. A negative that is the next item is left out at that position.

`form = "bert"` is the network of RecBole's SASRec: a normalised input, BERT's blocks (GELU, norms after the sums) and
no final norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import (
    IdModel,
    RowBatch,
    VocabSizes,
    check_at_least,
    check_choice,
    check_fraction,
    check_heads,
    draw_negatives,
    next_items,
)
from seqrec.models.base.layers import Block, Stack, drop, initialise, length_buckets, position_table, post_norm_blocks
from seqrec.text.item_text import TokenizedHistory

LOSSES = ("bce", "ce", "gbce")
FORMS = ("paper", "bert")


@dataclass(frozen=True)
class SASRecSettings:
    dim: int = 128
    layers: int = 2
    heads: int = 2
    max_length: int = 200  # as published for MovieLens; 50 for data sets with short histories
    dropout: float = 0.5
    form: str = "paper"
    inner: int = 0  # of the feed-forward network; 0: dim, as published
    loss: str = "gbce"
    negatives: int = 256  # of gbce; bce has one
    t: float = 0.75  # of gbce: 0 does not correct for sampling, 1 corrects for all items that were not drawn

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, max_length=1, inner=0, negatives=1, t=0)
        check_fraction(self, "dropout")
        check_choice(self.loss, LOSSES, "loss")
        check_choice(self.form, FORMS, "form")
        if self.t > 1:
            raise InputError(f"{self.t} is above 1", "model.settings.t")
        check_heads(self)


@dataclass(frozen=True, kw_only=True)
class TrainingBatch(RowBatch):
    negatives: Tensor  # int64 [b, n - 1, 1] of bce, [b, k] of gbce, [b, 0] of ce


class SASRec(IdModel):
    settings_class = SASRecSettings
    settings: SASRecSettings

    def __init__(self, settings: SASRecSettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        self.dim = d = settings.dim
        self.items = self.item_table(d)
        self.position_vectors = position_table(settings.max_length, d)
        inner = settings.inner or d
        self.blocks = Stack(
            Block(d, settings.heads, inner, settings.dropout, norm_first=True, activation=nn.ReLU())
            for _ in range(settings.layers)
        )
        if settings.form == "bert":
            self.blocks = post_norm_blocks(d, settings.layers, settings.heads, inner, settings.dropout)
        self.norm = nn.LayerNorm(d)
        initialise(self)

    def states(self, batch: RowBatch) -> Tensor:
        """[b, n, d]. Padding comes last, so no item attends to it."""
        items, positions = self.items(batch.rows), self.position_vectors[self.positions(batch)]
        paper = self.settings.form == "paper"
        x = items * self.dim**0.5 + positions if paper else self.norm(items + positions)
        x = drop(x, self.settings.dropout, self.training)  # [b, n, d]
        x = self.blocks(x, batch.lengths)
        states: Tensor = self.norm(x) if paper else x
        return states

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> TrainingBatch:
        """The newest `max_length` items of each, one more as the last target, and negatives."""
        batch = super().prepare_training(sequences, generator)
        if self.settings.loss == "bce":
            negatives = draw_negatives(batch.rows[:, 1:], self.known.items, 1, generator)
        else:
            count = min(self.settings.negatives, self.known.items - 1) if self.settings.loss == "gbce" else 0
            negatives = torch.randint(self.known.items, (len(sequences), count), generator=generator)
        return TrainingBatch(
            rows=batch.rows, lengths=batch.lengths, users=batch.users, tokens=batch.tokens, negatives=negatives
        )

    def training_loss(self, batch: TrainingBatch) -> Tensor:
        """-> []"""
        if self.settings.loss == "ce":
            return super().training_loss(batch)
        targets, real = next_items(batch)  # [b, n - 1]
        states = self.states(batch.inputs())
        positive = (states * self.items(targets)).sum(-1)  # [b, n - 1]
        if self.settings.loss == "bce":
            drawn = self.items(batch.negatives[:, :, 0])
            negative = F.logsigmoid(-(states * drawn).sum(-1).float())[real]
        else:
            # In groups: with k scores at each position, padding would take most of the memory.
            groups = length_buckets(batch.lengths)
            parts = [self._log_complements(states[g], targets[g], batch.negatives[g], real[g]) for g in groups]
            negative = torch.cat(parts)
            positive, real = positive[torch.cat(groups)], real[torch.cat(groups)]
        k = batch.negatives.shape[-1]
        positive = positive + self.prior_logit(k)
        log_likelihood = (self.beta(k) * F.logsigmoid(positive[real].float()) + negative) / (k + 1)  # [positions]
        return -log_likelihood.mean()

    def _log_complements(self, states: Tensor, targets: Tensor, negatives: Tensor, real: Tensor) -> Tensor:
        """At each position, the sum of log(1 - s(h . e)) over the negatives [b, k] of its sequence: [positions]."""
        n = int(real.sum(dim=1).max())
        scores = states[:, :n] @ self.items(negatives).transpose(1, 2)  # [b, n, k]
        scores = scores + self.prior_logit(negatives.shape[1])
        counted = negatives[:, None, :] != targets[:, :n, None]
        return (F.logsigmoid(-scores.float()) * counted).sum(-1)[real[:, :n]]

    def beta(self, k: int) -> float:
        """The exponent of the positive's probability for k negatives (gSASRec, equation 16)."""
        if self.settings.loss == "bce":
            return 1.0
        a = k / (self.known.items - 1)
        return a * (self.settings.t * (1 - 1 / a) + 1 / a)

    def prior_logit(self, k: int) -> float:
        """The logit at which the gradients of a positive and of its k negatives cancel for an item of average share."""
        return math.log(self.beta(k) / k)
