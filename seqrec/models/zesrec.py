"""ZESRec (Ding et al. 2021, "Zero-Shot Recommender Systems").

The vector of an item is a projection of what a frozen text encoder says of it; a recurrent network reads the vectors of
a history, and its last state, brought back to their size, is compared with items by dot product. No item has weights of
its own, so a model that was trained on one catalogue reads another. Trained by softmax cross entropy over the items
that training sees, at every position. (The paper adds an offset of each item's own while training, which it leaves out
where items are new; here it is left out always.)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from seqrec.metric import Metric
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.ids import check_at_least, check_positive, share
from seqrec.models.base.layers import drop
from seqrec.models.base.model import SequenceModel


@dataclass(frozen=True)
class ZESRecSettings:
    dim: int = 128
    hidden: int = 128
    max_length: int = 50
    dropout: float = 0.3  # of the item vectors that come in
    temperature: float = 1.0  # scores are dot products, whose scale is learnt
    negatives: int = 0  # other items that a target is told from, drawn at random; 0: all that training sees

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, hidden=1, max_length=1, negatives=0)
        share(self, "dropout")
        check_positive(self, "temperature")


class ZESRec(FrozenTextModel):
    metric = Metric.DOT
    settings_class = ZESRecSettings
    settings: ZESRecSettings

    def __init__(
        self, settings: ZESRecSettings, text_model: str, text: SequenceModel, items: int = 0, id_bytes: int = 0
    ) -> None:
        super().__init__(settings, text_model, text, items, id_bytes)
        self.dim = settings.dim
        self.project = nn.Linear(text.dim, settings.dim)
        self.gru = nn.GRU(settings.dim, settings.hidden, batch_first=True)
        self.out = nn.Linear(settings.hidden, settings.dim)

    def adapt(self, texts: Tensor, ids: Tensor) -> Tensor:
        """[m, text dim], [m] -> [m, dim]"""
        vectors: Tensor = self.project(texts)
        return vectors

    def states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """[b, n, dim], [b] -> [b, n, dim]. Padding comes last, so it changes no state that is read."""
        b, n, _ = items.shape
        states = self.gru(drop(items, self.settings.dropout, self.training))[0]
        queries: Tensor = self.out(states.reshape(b * n, -1))
        return queries.view(b, n, -1)
