"""BERT4Rec (Sun et al., CIKM 2019): bidirectional attention over a history, trained by predicting masked items.

A history ends with [mask], whose state predicts the next item: with g = GELU(h W + b), the score of item i is
g . e_i + b_i, where e is also the input table. As vectors that is one dot product, [g, 1] . [e_i, b_i].

In training a share of the items of each sequence is masked, at least one, and predicted by cross entropy over all items
(the Cloze task). In some sequences only the last item is masked, as in inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, check_fraction, check_heads, newest
from seqrec.models.base.layers import Block, Stack, drop, initialise, position_table
from seqrec.text.item_text import TokenizedHistory


@dataclass(frozen=True)
class BERT4RecSettings:
    dim: int = 64
    layers: int = 2
    heads: int = 2
    max_length: int = 200  # [mask] included; 50 for data sets with short histories
    dropout: float = 0.1
    mask_share: float = 0.2  # more for short sequences; published: 0.6 for Beauty, 0.4 for Steam, 0.2 for MovieLens
    last_share: float = 0.1  # the share of sequences in which only the last item is masked
    norms: bool = False  # LayerNorm of the input and of g, as in the code of BERT and RecBole; not in the paper

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, max_length=2, mask_share=0, last_share=0)
        check_fraction(self, "dropout", "mask_share")
        if self.last_share > 1:
            raise InputError(f"{self.last_share} is above 1", "model.settings.last_share")
        check_heads(self)


@dataclass(frozen=True, kw_only=True)
class ClozeBatch(RowBatch):
    masked: Tensor  # bool [b, n]
    labels: Tensor  # int64 [masked], the items


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
        states: Tensor = self.blocks(x, batch.lengths, both_ways=True)  # a sequence has at least [mask]
        return states

    def queries(self, states: Tensor) -> Tensor:
        """g of each state: [m, d] -> [m, d]"""
        queries: Tensor = self.norm_out(F.gelu(self.transform(states)))
        return queries

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> ClozeBatch:
        """A random window of `max_length` items of each sequence.

        The paper's code cuts long sequences into windows; training on the newest part alone would leave out a third of
        the events of ml-1m.
        """
        rows = [self.known_rows(sequence) for sequence in sequences]
        over = torch.tensor([max(0, len(row) - self.settings.max_length) for row in rows])
        begins = (torch.rand(len(rows), generator=generator) * (over + 1)).long().tolist()
        windows = [row[begin : begin + self.settings.max_length] for row, begin in zip(rows, begins, strict=True)]
        batch = self.batch(windows)
        drawn = torch.rand(batch.rows.shape, generator=generator).masked_fill(~batch.real, 2.0)
        masked = drawn < self.settings.mask_share
        # At least one: the item with the smallest random number.
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
        """Cross entropy of the masked items. -> []"""
        queries = self.queries(self.states(batch)[batch.masked])  # [masked, d]
        items = slice(0, self.known.items)
        logits = queries @ self.items.weight[items].T + self.biases.weight[items, 0]  # [masked, items]
        return F.cross_entropy(logits.float(), batch.labels)
