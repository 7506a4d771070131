"""GRU4Rec (Hidasi et al., ICLR 2016, "Session-based Recommendations with Recurrent Neural Networks").

In the form of RecBole and later comparisons: item vectors go through one GRU and a linear layer back to their size. The
score of item i is h . e_i, where e is also the input table. Trained by cross entropy over all items at every position.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, check_fraction
from seqrec.models.base.layers import drop


@dataclass(frozen=True)
class GRU4RecSettings:
    dim: int = 64
    hidden: int = 128
    max_length: int = 50
    dropout: float = 0.3  # of the input vectors

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, hidden=1, max_length=1)
        check_fraction(self, "dropout")


class GRU4Rec(IdModel):
    settings_class = GRU4RecSettings
    settings: GRU4RecSettings

    def __init__(self, settings: GRU4RecSettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        self.dim = settings.dim
        self.items = self.item_table(settings.dim, std=settings.dim**-0.5)
        self.gru = nn.GRU(settings.dim, settings.hidden, batch_first=True)
        self.out = nn.Linear(settings.hidden, settings.dim)

    def states(self, batch: RowBatch) -> Tensor:
        """[b, n, dim]. Padding comes last and so does not change the states of items."""
        b, n = batch.rows.shape
        states = self.gru(drop(self.items(batch.rows), self.settings.dropout, self.training))[0]  # [b, n, hidden]
        queries: Tensor = self.out(states.reshape(b * n, -1))
        return queries.view(b, n, -1)
