"""SASRec (Kang & McAuley, ICDM 2018, "Self-Attentive Sequential Recommendation"), with three losses.

Items and their learned positions go through causal self-attention; the state at an item predicts the next one. The
score of item i is h . e_i, with e the table that the items come in by. At every position of a training sequence:

    bce     log s(h . e_next) + log (1 - s(h . e_-)), one negative
    ce      softmax cross entropy over all items
    gbce    k negatives, and the positive's probability raised to beta (Petrov & Macdonald, RecSys 2023, "gSASRec"):
            beta = a (t (1 - 1/a) + 1/a) with a = k / (items - 1); t = 0 is bce with k negatives

Negatives are drawn from all items but the next one, those of the sequence too: they are candidates when all items are
ranked, and what is never a negative comes first then. (The paper leaves the sequence out, and ranks without it.)

With gbce a score of 0 is not what an item deserves of which nothing is known: with k negatives for each positive that
is ln (beta / k). The loss adds it to h . e, which orders nothing anew. Without it all items first learn it as a vector
they share, which drowns what tells them apart: on MovieLens-1M NDCG@10 stood at that of popularity (0.012) for 1,600
steps; with it, it was 0.073 after 285.

For gbce the negatives are drawn once a sequence, for all of its positions: the expectation is that of drawing them at
each, and they take 1/n of the memory. Where one of them is the next item, it does not count there.

`form = "bert"` is the network of RecBole's SASRec: what comes in is normalised, the blocks are BERT's (GELU, norms
after the sums), and nothing comes after them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, choice, newest, next_items, share
from seqrec.models.base.layers import Block, Stack, drop, initialise, length_buckets, position_table, post_norm_blocks
from seqrec.text.item_text import TokenizedHistory

LOSSES = ("bce", "ce", "gbce")
FORMS = ("paper", "bert")


@dataclass(frozen=True)
class SASRecSettings:
    dim: int = 128
    layers: int = 2
    heads: int = 2
    max_length: int = 200  # the published one for MovieLens; 50 is for sets of short histories
    dropout: float = 0.5
    form: str = "paper"
    inner: int = 0  # of the feed-forward network; 0: dim, as published
    loss: str = "gbce"
    negatives: int = 256  # of gbce; bce has one
    t: float = 0.75  # of gbce: 0 trusts sampled negatives as they are, 1 makes up for all that were not drawn

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, max_length=1, inner=0, negatives=1, t=0)
        share(self, "dropout")
        choice(self.loss, LOSSES, "loss")
        choice(self.form, FORMS, "form")
        if self.t > 1:
            raise InputError(f"{self.t} is above 1", "model.settings.t")
        if self.dim % self.heads:
            raise InputError(f"{self.dim} is not a multiple of {self.heads} heads", "model.settings.dim")


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

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        return newest(self.states(batch), batch.lengths)

    def states(self, batch: RowBatch) -> Tensor:
        """What each item predicts the next one by, [b, n, d]. Padding comes last, so no item attends to it."""
        items, positions = self.items(batch.rows), self.position_vectors[self.positions(batch)]
        paper = self.settings.form == "paper"
        x = items * self.dim**0.5 + positions if paper else self.norm(items + positions)
        x = drop(x, self.settings.dropout, self.training)  # [b, n, d]
        x = self.blocks(x, batch.lengths)
        states: Tensor = self.norm(x) if paper else x
        return states

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> TrainingBatch:
        """The newest `max_length` items of each, one of them more as the last target."""
        rows = [self.known_rows(sequence)[-self.read_items - 1 :] for sequence in sequences]
        batch = self.batch(rows)
        size = (len(rows), 0)
        if self.settings.loss == "bce":
            negatives = self._others(batch.rows[:, 1:], generator)
        else:
            if self.settings.loss == "gbce":
                size = (len(rows), min(self.settings.negatives, self.known.items - 1))
            negatives = torch.randint(self.known.items, size, generator=generator)
        return TrainingBatch(
            rows=batch.rows, lengths=batch.lengths, users=batch.users, tokens=batch.tokens, negatives=negatives
        )

    def training_loss(self, batch: TrainingBatch) -> Tensor:
        targets, real = next_items(batch)  # [b, n - 1]
        inputs = RowBatch(
            rows=batch.rows[:, :-1], lengths=(batch.lengths - 1).clamp(min=0), users=batch.users, tokens=batch.tokens
        )
        states = self.states(inputs)
        if self.settings.loss == "ce":
            logits = states[real] @ self.items.weight[: self.known.items].T  # [positions, items]
            return F.cross_entropy(logits.float(), targets[real])
        positive = (states * self.items(targets)).sum(-1)  # [b, n - 1]
        if self.settings.loss == "bce":
            drawn = self.items(batch.negatives[:, :, 0])
            one_less = F.logsigmoid(-(states * drawn).sum(-1).float())[real]
        else:
            # One group after the other: with k scores for each place, padding would be most of the memory.
            groups = length_buckets(batch.lengths)
            one_less = torch.cat([self._one_less(states[g], targets[g], batch.negatives[g], real[g]) for g in groups])
            positive, real = positive[torch.cat(groups)], real[torch.cat(groups)]
        k = batch.negatives.shape[-1]
        positive = positive + self.no_evidence(k)
        log_likelihood = (self.beta(k) * F.logsigmoid(positive[real].float()) + one_less) / (k + 1)  # [positions]
        return -log_likelihood.mean()

    def _one_less(self, states: Tensor, targets: Tensor, negatives: Tensor, real: Tensor) -> Tensor:
        """Of each real place the sum of log (1 - s(h . e)) over the negatives [b, k] of its sequence, [positions]."""
        n = int(real.sum(dim=1).max())
        scores = states[:, :n] @ self.items(negatives).transpose(1, 2)  # [b, n, k]
        scores = scores + self.no_evidence(negatives.shape[1])
        counted = negatives[:, None, :] != targets[:, :n, None]
        return (F.logsigmoid(-scores.float()) * counted).sum(-1)[real[:, :n]]

    def beta(self, k: int) -> float:
        """What the positive's probability is raised to, with k negatives (gSASRec, equation 16)."""
        if self.settings.loss == "bce":
            return 1.0
        a = k / (self.known.items - 1)
        return a * (self.settings.t * (1 - 1 / a) + 1 / a)

    def no_evidence(self, k: int) -> float:
        """The logit at which the losses of a positive and of its k negatives pull alike on an item of average share."""
        return math.log(self.beta(k) / k)

    def _others(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """For each target [b, m] any other item, all alike, [b, m, 1]."""
        drawn = torch.randint(self.known.items - 1, targets.shape, generator=generator)
        return (drawn + (drawn >= targets))[:, :, None]
