"""FDSA (Zhang et al., IJCAI 2019, "Feature-level Deeper Self-Attention Network for Sequential Recommendation").

Two stacks of causal self-attention: one over items, one over their features. The features of an item are one vector a
field (the mean over its tags), weighted by attention among the fields; both stacks get the same learned positions. A
linear layer joins the last states of both, and the score of item i is h . e_i, e the table that items come in by.
Trained by softmax cross entropy over all items at every position. The form is RecBole's: blocks as BERT's, one norm
for what goes into both stacks and for what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import RowBatch, VocabSizes, check_at_least, newest, next_items, share
from seqrec.models.base.item_features import ALWAYS, FeatureModel, feature_names
from seqrec.models.base.layers import drop, initialise, position_table, post_norm_blocks
from seqrec.text.item_text import TokenizedHistory


@dataclass(frozen=True)
class FDSASettings:
    dim: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    features: str = ALWAYS  # attributes, by their words; `brand:token` is one feature as it is

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, max_length=1)
        share(self, "dropout")
        feature_names(self.features)
        if self.dim % self.heads:
            raise InputError(f"{self.dim} is not a multiple of {self.heads} heads", "model.settings.dim")


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

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        return newest(self.states(batch), batch.lengths)

    def states(self, batch: RowBatch) -> Tensor:
        """What each item predicts the next one by, [b, n, d]. Padding comes last, so no item attends to it."""
        positions = self.position_vectors[self.positions(batch)]
        items = self._dropped(self.norm(self.items(batch.rows) + positions))
        features = self._dropped(self.norm(self.fused(batch.rows) + positions))
        items, features = self.item_blocks(items, batch.lengths), self.feature_blocks(features, batch.lengths)
        b, n, d = items.shape
        joined = self.join(torch.cat([items, features], dim=2).view(b * n, 2 * d))
        return self._dropped(self.norm(joined)).view(b, n, d)

    def fused(self, rows: Tensor) -> Tensor:
        """The features of each item: rows [b, n] -> [b, n, d]"""
        distinct, place = torch.unique(rows, return_inverse=True)
        fields = self.features.means(distinct, self.tags.weight)  # [m, fields, d]
        m, f, d = fields.shape
        energies = self.energy(F.relu(self.attend(fields.reshape(m * f, d)))).view(m, f)
        fused: Tensor = (energies.softmax(dim=1)[:, :, None] * fields).sum(dim=1)  # [m, d]
        return fused[place]

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> RowBatch:
        """The newest `max_length` items of each, one of them more as the last target."""
        return self.batch([self.known_rows(sequence)[-self.read_items - 1 :] for sequence in sequences])

    def training_loss(self, batch: RowBatch) -> Tensor:
        targets, real = next_items(batch)  # [b, n - 1]
        states = self.states(batch.inputs())
        logits = states[real] @ self.items.weight[: self.known.items].T  # [positions, items]
        return F.cross_entropy(logits.float(), targets[real])

    def _dropped(self, x: Tensor) -> Tensor:
        return drop(x, self.settings.dropout, self.training)
