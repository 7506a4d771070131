"""S3-Rec (Zhou et al., CIKM 2020, "Self-Supervised Learning for Sequential Recommendation with Mutual Information
Maximization").

One stack of self-attention over items and learned positions, blocks as BERT's, used twice. In pretraining (stage
`self_supervised`) it reads in both directions, and of what it reads a share is masked:

    aap   an item that is there tells its attributes        map   a masked item's place tells its attributes
    mip   a masked item's place tells it from another       sp    the rest of a sequence tells a masked segment of it
                                                                  from one of another sequence

A pair is scored by sigmoid(state W . vector), W of each loss its own. mip and sp compare the right pair with a wrong
one by -log sigmoid(right - wrong); attributes are binary cross entropy over all of them. The four are summed over items
and sequences, as the authors and RecBole sum them, and divided by the items read. After that (stage `sequence`) the
stack reads causally, and learns the next item at every position by softmax cross entropy over all items; the score of
item i is h . e_i, e the table that items come in by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import RowBatch, VocabSizes, check_at_least, newest, next_items, share
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
    features: str = "brand:token,category,genres"  # attributes, by their words; `brand:token` is one as it is
    mask_share: float = 0.2
    aap: float = 0.2
    mip: float = 1.0
    map: float = 1.0
    sp: float = 0.5

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, max_length=2, aap=0, mip=0, map=0, sp=0)
        share(self, "dropout", "mask_share")
        feature_names(self.features)
        if self.dim % self.heads:
            raise InputError(f"{self.dim} is not a multiple of {self.heads} heads", "model.settings.dim")


@dataclass(frozen=True, kw_only=True)
class PretrainingBatch(RowBatch):
    """`rows` are as they were; all others int64 [b, n] as well."""

    masked: Tensor  # bool: which of the rows are to be told
    negatives: Tensor  # another item for each
    rest: Tensor  # the rows without a segment
    segment: Tensor  # the segment without the rest
    other_segment: Tensor  # one of as many items from anywhere in the batch, in its place


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

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        return newest(self.states(batch), batch.lengths)

    def states(self, batch: RowBatch, both_ways: bool = False) -> Tensor:
        """[b, n, d]. Padding comes last, so it is attended to in neither case; `both_ways`: no sequence is empty."""
        x = self.norm(self.items(batch.rows) + self.position_vectors[self.positions(batch)])
        states: Tensor = self.blocks(drop(x, self.settings.dropout, self.training), batch.lengths, both_ways)
        return states

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> RowBatch:
        """The newest `max_length` items of each, one of them more as the last target."""
        return self.batch([self.known_rows(sequence)[-self.read_items - 1 :] for sequence in sequences])

    def training_loss(self, batch: RowBatch) -> Tensor:
        targets, real = next_items(batch)  # [b, n - 1]
        logits = self.states(batch.inputs())[real] @ self.items.weight[: self.known.items].T  # [positions, items]
        return F.cross_entropy(logits.float(), targets[real])

    def prepare_pretraining(
        self, sequences: Sequence[TokenizedHistory], generator: torch.Generator
    ) -> PretrainingBatch:
        """The newest `max_length` items of each; of two items or more, up to half are a segment."""
        parts = [self.rows_of(sequence) for sequence in sequences]
        batch = self.batch(parts)
        everything = [row for part in parts for row in part]
        rests, segments, others = [], [], []
        for part in parts:
            size = _upto(max(1, len(part) // 2), generator) + 1
            begin = _upto(len(part) - size + 1, generator)
            end, elsewhere = begin + size, _upto(len(everything) - size + 1, generator)
            before, after = [self.mask] * begin, [self.mask] * (len(part) - end)
            rests.append([*part[:begin], *[self.mask] * size, *part[end:]])
            segments.append([*before, *part[begin:end], *after])
            others.append([*before, *everything[elsewhere : elsewhere + size], *after])
        drawn = torch.randint(self.known.items - 1, batch.rows.shape, generator=generator)
        return PretrainingBatch(
            rows=batch.rows,
            lengths=batch.lengths,
            users=batch.users,
            tokens=4 * batch.tokens,
            masked=(torch.rand(batch.rows.shape, generator=generator) < self.settings.mask_share) & batch.real,
            negatives=drawn + (drawn >= batch.rows),
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
        mip = _nearer(self.mip(states[masked]), right, wrong)
        rest, segment, other = (
            newest(self._read(batch, rows), batch.lengths) for rows in (batch.rest, batch.segment, batch.other_segment)
        )
        sp = _nearer(self.sp(rest), segment, other)
        return (s.aap * aap + s.mip * mip + s.map * map_ + s.sp * sp) / batch.lengths.sum()

    def _read(self, batch: RowBatch, rows: Tensor) -> Tensor:
        """Other rows in the places of the batch's: [b, n] -> [b, n, d]"""
        read = RowBatch(rows=rows, lengths=batch.lengths, users=batch.users, tokens=batch.tokens)
        return self.states(read, both_ways=True)

    def _attributes(self, states: Tensor, rows: Tensor) -> Tensor:
        """The loss of telling the attributes of items from states: [m, d], [m] -> []"""
        logits = states @ self.tags.weight.T  # [m, vocabulary]
        return F.binary_cross_entropy_with_logits(logits.float(), self.features.among(rows), reduction="sum")


def _nearer(states: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """The loss of telling right from wrong: three times [m, d] -> []"""
    difference = torch.sigmoid((states * right).sum(1)) - torch.sigmoid((states * wrong).sum(1))
    return -F.logsigmoid(difference.float()).sum()


def _upto(limit: int, generator: torch.Generator) -> int:
    """A whole number from 0 to below `limit`."""
    return int(torch.randint(limit, (), generator=generator))
