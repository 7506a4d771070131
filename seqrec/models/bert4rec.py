"""BERT4Rec (Sun et al., CIKM 2019): attention in both directions over a history, learnt by filling in masked items.

A history ends with [mask], and the state there says what comes next: with g = GELU(h W + b), the score of item i is
g . e_i + b_i, e the table that the items come in by. As vectors that is [g, 1] . [e_i, b_i]: one dot product.

Training is Cloze: of each sequence a share of the items is masked, at least one, and predicted by softmax cross entropy
over all items. Some sequences have only their last item masked, as inference does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, newest, share
from seqrec.models.base.layers import Block, Stack, drop, initialise, position_table
from seqrec.text.item_text import TokenizedHistory


@dataclass(frozen=True)
class BERT4RecSettings:
    dim: int = 64
    layers: int = 2
    heads: int = 2
    max_length: int = 200  # [mask] included; 50 for sets of short histories
    dropout: float = 0.1
    mask_share: float = 0.2  # larger for short sequences: published 0.6 Beauty, 0.4 Steam, 0.2 MovieLens
    last_share: float = 0.1  # of the sequences, those with only the last item masked
    norms: bool = (
        False  # whether what comes in, and g, are normalised, as in BERT's code and RecBole's; not in the paper
    )

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, max_length=2, mask_share=0, last_share=0)
        share(self, "dropout", "mask_share")
        if self.last_share > 1:
            raise InputError(f"{self.last_share} is above 1", "model.settings.last_share")
        if self.dim % self.heads:
            raise InputError(f"{self.dim} is not a multiple of {self.heads} heads", "model.settings.dim")


@dataclass(frozen=True, kw_only=True)
class ClozeBatch(RowBatch):
    masked: Tensor  # bool [b, n]
    labels: Tensor  # int64 [number of masked], what was there


class BERT4Rec(IdModel):
    settings_class = BERT4RecSettings
    settings: BERT4RecSettings

    def __init__(self, settings: BERT4RecSettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        d = settings.dim
        self.dim = d + 1
        self.read_items = settings.max_length - 1
        self.mask = self.padding + 1
        self.items = self.item_table(d, extra=1)
        self.biases = self.item_table(1)
        self.position_vectors = position_table(settings.max_length, d)
        self.blocks = Stack(
            Block(d, settings.heads, 4 * d, settings.dropout, norm_first=False, activation=nn.GELU())
            for _ in range(settings.layers)
        )
        self.transform = nn.Linear(d, d)
        self.norm_in, self.norm_out = (nn.LayerNorm(d) if settings.norms else nn.Identity() for _ in range(2))
        initialise(self)
        nn.init.zeros_(self.biases.weight)

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> RowBatch:
        return self.batch([[*self.rows_of(history), self.mask] for history in histories])

    def history_tokens(self, history: TokenizedHistory) -> int:
        return len(self.rows_of(history)) + 1

    def encode_items(self, batch: RowBatch) -> Tensor:
        """-> [n, dim]"""
        rows = batch.rows[:, 0]
        return torch.cat([self.items(rows), self.biases(rows)], dim=1)

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        queries = self.queries(newest(self.states(batch), batch.lengths))
        return torch.cat([queries, torch.ones_like(queries[:, :1])], dim=1)

    def states(self, batch: RowBatch) -> Tensor:
        """[b, n, d]"""
        x: Tensor = self.norm_in(self.items(batch.rows) + self.position_vectors[self.positions(batch)])
        x = drop(x, self.settings.dropout, self.training)
        states: Tensor = self.blocks(x, batch.lengths, both_ways=True)  # there is always something real
        return states

    def queries(self, states: Tensor) -> Tensor:
        """What items are compared with: [m, d] -> [m, d]"""
        queries: Tensor = self.norm_out(F.gelu(self.transform(states)))
        return queries

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> ClozeBatch:
        """Of each, `max_length` items that follow each other, drawn anywhere in it: the paper's code cuts a long
        sequence into windows, where its newest part alone would leave the rest unread (on ml-1m a third of all events).
        """
        rows = [self.known_rows(sequence) for sequence in sequences]
        over = torch.tensor([max(0, len(row) - self.settings.max_length) for row in rows])
        begins = (torch.rand(len(rows), generator=generator) * (over + 1)).long().tolist()
        windows = [row[begin : begin + self.settings.max_length] for row, begin in zip(rows, begins, strict=True)]
        batch = self.batch(windows)
        drawn = torch.rand(batch.rows.shape, generator=generator).masked_fill(~batch.real, 2.0)
        masked = drawn < self.settings.mask_share
        # At least one: the one with the smallest number.
        masked[torch.arange(len(drawn)), drawn.argmin(dim=1)] = True
        last = torch.arange(batch.rows.shape[1]) == (batch.lengths - 1)[:, None]
        only_last = torch.rand(len(drawn), generator=generator) < self.settings.last_share
        masked = torch.where(only_last[:, None], last, masked) & batch.real
        return ClozeBatch(
            rows=batch.rows.masked_fill(masked, self.mask),
            lengths=batch.lengths,
            users=batch.users,
            tokens=batch.tokens,
            masked=masked,
            labels=batch.rows[masked],
        )

    def training_loss(self, batch: ClozeBatch) -> Tensor:
        queries = self.queries(self.states(batch)[batch.masked])  # [masked, d]
        items = slice(0, self.known.items)
        logits = queries @ self.items.weight[items].T + self.biases.weight[items, 0]  # [masked, items]
        return F.cross_entropy(logits.float(), batch.labels)
