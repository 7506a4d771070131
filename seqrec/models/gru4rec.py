"""GRU4Rec (Hidasi et al., ICLR 2016, "Session-based Recommendations with Recurrent Neural Networks").

In the form that RecBole and later comparisons use: item vectors through one GRU, a linear layer back to their size, and
softmax cross entropy over all items at every position. The score of item i is h . e_i, e the table that the items
come in by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, newest, next_items, share
from seqrec.models.base.layers import drop
from seqrec.text.item_text import TokenizedHistory


@dataclass(frozen=True)
class GRU4RecSettings:
    dim: int = 64
    hidden: int = 128
    max_length: int = 50
    dropout: float = 0.3  # of the item vectors that come in

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, hidden=1, max_length=1)
        share(self, "dropout")


class GRU4Rec(IdModel):
    settings_class = GRU4RecSettings
    settings: GRU4RecSettings

    def __init__(self, settings: GRU4RecSettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        self.dim = settings.dim
        self.items = self.item_table(settings.dim, std=settings.dim**-0.5)
        self.gru = nn.GRU(settings.dim, settings.hidden, batch_first=True)
        self.out = nn.Linear(settings.hidden, settings.dim)

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        queries: Tensor = self.out(newest(self.states(batch.rows), batch.lengths))
        return queries

    def states(self, rows: Tensor) -> Tensor:
        """rows [b, n] -> [b, n, hidden]. Padding comes last, so it changes no state that is read."""
        x = drop(self.items(rows), self.settings.dropout, self.training)
        states: Tensor = self.gru(x)[0]
        return states

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> RowBatch:
        """The newest `max_length` items of each, one of them more as the last target."""
        return self.batch([self.known_rows(sequence)[-self.read_items - 1 :] for sequence in sequences])

    def training_loss(self, batch: RowBatch) -> Tensor:
        targets, real = next_items(batch)  # [b, n - 1]
        queries = self.out(self.states(batch.rows[:, :-1])[real])  # [positions, d]
        logits = queries @ self.items.weight[: self.known.items].T  # [positions, items]
        return F.cross_entropy(logits.float(), targets[real])
