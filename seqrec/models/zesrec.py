"""ZESRec (Ding et al. 2021, "Zero-Shot Recommender Systems").

The vector of an item is a projection of its vector by a frozen text encoder. A recurrent network reads the vectors of
a history; its last state, projected to their size, is compared with items by dot product. No item has weights of its
own, so a model can serve another catalogue than the one it was trained on. Trained by cross entropy over the training
items at every position. (In training, the paper adds an offset per item, which it omits for new items; it is always
omitted here.)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from seqrec.metric import Metric
from seqrec.models.base.frozen_text import FrozenTextModel
from seqrec.models.base.ids import check_at_least, check_fraction, check_positive
from seqrec.models.base.layers import drop
from seqrec.models.base.model import SequenceModel


@dataclass(frozen=True)
class ZESRecSettings:
    dim: int = 128
    hidden: int = 128
    max_length: int = 50
    dropout: float = 0.3  # of the input vectors
    temperature: float = 1.0  # scores are dot products, whose scale is learned
    negatives: int = 0  # random candidates of the loss in addition to the targets; 0: all training items

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, hidden=1, max_length=1, negatives=0)
        check_fraction(self, "dropout")
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
        """[b, n, dim], [b] -> [b, n, dim]. Padding comes last and so does not change the states of items."""
        b, n, _ = items.shape
        states = self.gru(drop(items, self.settings.dropout, self.training))[0]
        queries: Tensor = self.out(states.reshape(b * n, -1))
        return queries.view(b, n, -1)
