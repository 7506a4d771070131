"""S3-Rec (Zhou et al., CIKM 2020, "Self-Supervised Learning for Sequential Recommendation with Mutual Information
Maximization").

One stack of self-attention over items and learned positions, with BERT's blocks, is trained twice. In pretraining
(stage `self_supervised`) it reads in both directions, and a share of the items is masked. Four losses predict:

    aap   the attributes of an item from its state
    map   the attributes of a masked item from its state
    mip   a masked item from its state, against another item
    sp    a masked segment from the state of the rest of its sequence, against a segment of another sequence

A pair is scored by sigmoid(state W . vector), with a W for each loss. mip and sp compare the right pair with a wrong
one by -log sigmoid(right - wrong); aap and map are binary cross entropies over all attributes. The four are summed over
items and sequences, as by the authors and RecBole, and divided by the number of items read. Then (stage `sequence`) the
stack reads causally and learns the next item at every position by cross entropy over all items. The score of item i is
h . e_i, where e is also the input table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.models.base.ids import (
    RowBatch,
    VocabSizes,
    check_at_least,
    check_fraction,
    check_heads,
    draw_negatives,
    newest,
)
from seqrec.models.base.item_features import FeatureModel, feature_names
from seqrec.models.base.layers import drop, initialise, position_table, post_norm_blocks
from seqrec.text.item_text import TokenizedHistory


@dataclass(frozen=True)
class S3RecSettings:
    dim: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    features: str = "brand:token,category,genres"  # a tag per word of an attribute; `brand:token`: one tag per value
    mask_share: float = 0.2
    aap: float = 0.2
    mip: float = 1.0
    map: float = 1.0
    sp: float = 0.5

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, max_length=2, aap=0, mip=0, map=0, sp=0)
        check_fraction(self, "dropout", "mask_share")
        feature_names(self.features)
        check_heads(self)


@dataclass(frozen=True, kw_only=True)
class PretrainingBatch(RowBatch):
    """`rows` are not masked; the other tensors are [b, n] too, int64 except `masked`."""

    masked: Tensor  # bool: the rows to predict
    negatives: Tensor  # another item for each row
    rest: Tensor  # the rows with a segment masked
    segment: Tensor  # the segment with the rest masked
    other_segment: Tensor  # a segment of the same length from anywhere in the batch, in the same place


class S3Rec(FeatureModel):
    settings_class = S3RecSettings
    settings: S3RecSettings

    def __init__(self, settings: S3RecSettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        self.dim = d = settings.dim
        self.mask = self.padding + 1
        self.items = self.item_table(d, extra=1)
        self.tags = nn.Embedding(self.known.vocabulary, d)
        self.position_vectors = position_table(settings.max_length, d)
        self.norm = nn.LayerNorm(d)
        self.blocks = post_norm_blocks(d, settings.layers, settings.heads, settings.inner, settings.dropout)
        self.aap, self.mip, self.map, self.sp = (nn.Linear(d, d) for _ in range(4))
        nn.init.normal_(self.tags.weight, std=0.02)
        initialise(self)

    def states(self, batch: RowBatch, both_ways: bool = False) -> Tensor:
        """[b, n, d]. Padding is never attended to. With `both_ways` no sequence may be empty."""
        x = self.norm(self.items(batch.rows) + self.position_vectors[self.positions(batch)])
        states: Tensor = self.blocks(drop(x, self.settings.dropout, self.training), batch.lengths, both_ways)
        return states

    def prepare_pretraining(
        self, sequences: Sequence[TokenizedHistory], generator: torch.Generator
    ) -> PretrainingBatch:
        """The newest `max_length` items of each, and a random segment of up to half of them."""
        parts = [self.rows_of(sequence) for sequence in sequences]
        batch = self.batch(parts)
        everything = [row for part in parts for row in part]
        rests, segments, others = [], [], []
        for part in parts:
            size = _below(max(1, len(part) // 2), generator) + 1
            begin = _below(len(part) - size + 1, generator)
            end, elsewhere = begin + size, _below(len(everything) - size + 1, generator)
            before, after = [self.mask] * begin, [self.mask] * (len(part) - end)
            rests.append([*part[:begin], *[self.mask] * size, *part[end:]])
            segments.append([*before, *part[begin:end], *after])
            others.append([*before, *everything[elsewhere : elsewhere + size], *after])
        negatives = draw_negatives(batch.rows, self.known.items, 1, generator)[..., 0]
        return PretrainingBatch(
            rows=batch.rows,
            lengths=batch.lengths,
            users=batch.users,
            tokens=4 * batch.tokens,
            masked=(torch.rand(batch.rows.shape, generator=generator) < self.settings.mask_share) & batch.real,
            negatives=negatives,
            rest=self.batch(rests).rows,
            segment=self.batch(segments).rows,
            other_segment=self.batch(others).rows,
        )

    def pretraining_loss(self, batch: PretrainingBatch) -> Tensor:
        """-> []"""
        s, masked = self.settings, batch.masked
        states = self._read(batch, batch.rows.masked_fill(masked, self.mask))
        there = batch.real & ~masked
        aap = self._attributes(self.aap(states[there]), batch.rows[there])
        map_ = self._attributes(self.map(states[masked]), batch.rows[masked])
        right, wrong = self.items(batch.rows[masked]), self.items(batch.negatives[masked])
        mip = _rank_loss(self.mip(states[masked]), right, wrong)
        rest, segment, other = (
            newest(self._read(batch, rows), batch.lengths) for rows in (batch.rest, batch.segment, batch.other_segment)
        )
        sp = _rank_loss(self.sp(rest), segment, other)
        return (s.aap * aap + s.mip * mip + s.map * map_ + s.sp * sp) / batch.lengths.sum()

    def _read(self, batch: RowBatch, rows: Tensor) -> Tensor:
        """The states of other rows [b, n] with the lengths and users of the batch -> [b, n, d]"""
        read = RowBatch(rows=rows, lengths=batch.lengths, users=batch.users, tokens=batch.tokens)
        return self.states(read, both_ways=True)

    def _attributes(self, states: Tensor, rows: Tensor) -> Tensor:
        """The loss of predicting the attributes of items: states [m, d], rows [m] -> []"""
        logits = states @ self.tags.weight.T  # [m, vocabulary]
        return F.binary_cross_entropy_with_logits(logits.float(), self.features.multi_hot(rows), reduction="sum")


def _rank_loss(states: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """The loss of scoring `right` above `wrong`: [m, d] each -> []"""
    difference = torch.sigmoid((states * right).sum(1)) - torch.sigmoid((states * wrong).sum(1))
    return -F.logsigmoid(difference.float()).sum()


def _below(limit: int, generator: torch.Generator) -> int:
    """A random integer in [0, limit)."""
    return int(torch.randint(limit, (), generator=generator))
