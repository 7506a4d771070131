"""FDSA (Zhang et al., IJCAI 2019, "Feature-level Deeper Self-Attention Network for Sequential Recommendation").

Two stacks of causal self-attention: one over items, one over their features. The features of an item are one vector per
field (the mean over its tags), weighted by attention among the fields. Both stacks add the same learned positions. A
linear layer joins their last states; the score of item i is h . e_i, where e is also the input table. Trained by cross
entropy over all items at every position. The form is RecBole's: BERT's blocks, and one norm shared by the inputs of
both stacks and the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.models.base.ids import RowBatch, VocabSizes, check_at_least, check_fraction, check_heads
from seqrec.models.base.item_features import COMMON_FEATURES, FeatureModel, feature_names
from seqrec.models.base.layers import drop, initialise, position_table, post_norm_blocks


@dataclass(frozen=True)
class FDSASettings:
    dim: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    features: str = COMMON_FEATURES  # a tag per word of an attribute; `brand:token`: one tag per value

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, max_length=1)
        check_fraction(self, "dropout")
        feature_names(self.features)
        check_heads(self)


class FDSA(FeatureModel):
    settings_class = FDSASettings
    settings: FDSASettings

    def __init__(self, settings: FDSASettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        self.dim = d = settings.dim
        self.items = self.item_table(d)
        self.tags = nn.Embedding(self.known.vocabulary, d)
        self.position_vectors = position_table(settings.max_length, d)
        self.attend, self.energy = nn.Linear(d, d), nn.Linear(d, 1)
        shape = (d, settings.layers, settings.heads, settings.inner, settings.dropout)
        self.item_blocks, self.feature_blocks = post_norm_blocks(*shape), post_norm_blocks(*shape)
        self.join = nn.Linear(2 * d, d)
        self.norm = nn.LayerNorm(d)
        nn.init.normal_(self.tags.weight, std=0.02)
        initialise(self)

    def states(self, batch: RowBatch) -> Tensor:
        """[b, n, d]. Padding comes last, so no item attends to it."""
        positions = self.position_vectors[self.positions(batch)]
        items = self._dropped(self.norm(self.items(batch.rows) + positions))
        features = self._dropped(self.norm(self.fused(batch.rows) + positions))
        items, features = self.item_blocks(items, batch.lengths), self.feature_blocks(features, batch.lengths)
        b, n, d = items.shape
        joined = self.join(torch.cat([items, features], dim=2).view(b * n, 2 * d))
        return self._dropped(self.norm(joined)).view(b, n, d)

    def fused(self, rows: Tensor) -> Tensor:
        """The feature vector of each item: rows [b, n] -> [b, n, d]"""
        distinct, place = torch.unique(rows, return_inverse=True)
        fields = self.features.means(distinct, self.tags.weight)  # [m, fields, d]
        m, f, d = fields.shape
        energies = self.energy(F.relu(self.attend(fields.reshape(m * f, d)))).view(m, f)
        fused: Tensor = (energies.softmax(dim=1)[:, :, None] * fields).sum(dim=1)  # [m, d]
        return fused[place]

    def _dropped(self, x: Tensor) -> Tensor:
        return drop(x, self.settings.dropout, self.training)
