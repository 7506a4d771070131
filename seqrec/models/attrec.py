"""AttRec (Zhang et al. 2018, "Next Item Recommendation with Self-Attentive Metric Learning").

The model is a distance y, where lower is better. U_u is the user's vector, V_i the item's for the long-term preference
and X_i the item's for the sequence:

    y = w |U_u - V_i|^2 + (1 - w) |m - X_i|^2

m is the user's short-term intent: attention among the newest items X [L, d], without the diagonal, averaged over items,

    Q' = ReLU((X + T) W_Q)    K' = ReLU((X + T) W_K)    m = mean over items of softmax(Q' K'^T / sqrt(d)) X

with sinusoidal time signals T. A single item attends to itself. Served as a dot product: up to terms of the query
alone, -y is [2w U_u, 2(1-w) m, 1, 1] . [V_i, X_i, -w |V_i|^2, -(1-w) |X_i|^2]. A user that training did not see queries
with [0, 2(1-w) m, 0, 1]: the second distance alone.

Trained with every item of a sequence as a target after the items before it, and random negatives, by the hinge loss
sum max(0, margin + y - y_negative). All vectors are kept in the unit ball.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, check_fraction, draw_negatives
from seqrec.models.base.layers import drop
from seqrec.text.item_text import TokenizedHistory


@dataclass(frozen=True)
class AttRecSettings:
    dim: int = 100
    max_length: int = 5
    w: float = 0.3  # of the user's distance; published 0.2 to 0.4
    margin: float = 0.5
    negatives: int = 10
    dropout: float = 0.0  # of the input of the attention

    def __post_init__(self) -> None:
        check_at_least(self, dim=2, max_length=1, w=0, margin=0, negatives=1)
        check_fraction(self, "dropout")
        if self.w > 1:
            raise InputError(f"{self.w} is above 1", "model.settings.w")
        if self.dim % 2:
            raise InputError(f"{self.dim} is not even, as pairs of sines and cosines require", "model.settings.dim")


@dataclass(frozen=True, kw_only=True)
class WindowBatch(RowBatch):
    """b windows of sequences, with the item after each and random others."""

    targets: Tensor  # int64 [b]
    negatives: Tensor  # int64 [b, k]


class AttRec(IdModel):
    settings_class = AttRecSettings
    settings: AttRecSettings
    knows_users = True

    def __init__(self, settings: AttRecSettings, known: VocabSizes) -> None:
        super().__init__(settings, known)
        d = settings.dim
        self.dim = 2 * d + 2
        self.liked = self.item_table(d, std=d**-0.5)  # V
        self.items = self.item_table(d, std=d**-0.5)  # X
        self.users = nn.Embedding(known.users + 1, d, padding_idx=known.users)  # U
        self.query, self.key = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        with torch.no_grad():
            self.users.weight.normal_(std=d**-0.5)
            self.users.weight[known.users] = 0
        self.signals: Tensor
        self.register_buffer("signals", time_signals(settings.max_length, d), persistent=False)
        self.post_optimizer_step()

    def encode_items(self, batch: RowBatch) -> Tensor:
        """-> [n, dim]"""
        rows, w = batch.rows[:, 0], self.settings.w
        liked, items = self.liked(rows), self.items(rows)  # [n, d]
        squares = torch.stack([-w * liked.square().sum(1), -(1 - w) * items.square().sum(1)], dim=1)
        return torch.cat([liked, items, squares], dim=1)

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        w = self.settings.w
        known = (batch.users != self.known.users).to(self.users.weight.dtype)[:, None]  # [b, 1]
        intent = 2 * (1 - w) * self.intent(batch)
        return torch.cat([2 * w * self.users(batch.users), intent, known, torch.ones_like(known)], dim=1)

    def intent(self, batch: RowBatch) -> Tensor:
        """m, [b, d]; 0 if no item is known."""
        items = drop(self.items(batch.rows), self.settings.dropout, self.training)  # [b, n, d]
        b, n, d = items.shape
        timed = (items + self.signals[self.positions(batch)]).reshape(b * n, d)
        query, key = (F.relu(project(timed)).view(b, n, d) for project in (self.query, self.key))
        real = batch.real
        itself = torch.eye(n, dtype=torch.bool, device=items.device)
        alone = (batch.lengths <= 1)[:, None, None]
        allowed = (real[:, None, :] & ~itself) | (itself & (alone | ~real[:, :, None]))  # [b, n, n]
        weights = (query @ key.transpose(1, 2) / d**0.5).masked_fill(~allowed, -torch.inf).softmax(dim=2)
        read: Tensor = (weights @ items) * real[:, :, None]
        return read.sum(dim=1) / batch.lengths.clamp(min=1)[:, None]

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> WindowBatch:
        """Every item of a sequence but the first, with up to `max_length` items before it."""
        windows: list[list[int]] = []
        users: list[str | None] = []
        targets: list[int] = []
        for sequence in sequences:
            rows = self.known_rows(sequence)
            windows += [rows[max(0, place - self.read_items) : place] for place in range(1, len(rows))]
            targets += rows[1:]
            users += [sequence.user_id] * (len(rows) - 1)
        batch, wanted = self.batch(windows, users), torch.tensor(targets, dtype=torch.int64)
        return WindowBatch(
            rows=batch.rows,
            lengths=batch.lengths,
            users=batch.users,
            tokens=batch.tokens,
            targets=wanted,
            negatives=draw_negatives(wanted, self.known.items, self.settings.negatives, generator),
        )

    def training_loss(self, batch: WindowBatch) -> Tensor:
        user, intent = self.users(batch.users), self.intent(batch)  # [b, d]
        items = torch.cat([batch.targets[:, None], batch.negatives], dim=1)  # [b, 1 + k]
        w = self.settings.w
        distances = w * (user[:, None] - self.liked(items)).square().sum(2)
        distances = distances + (1 - w) * (intent[:, None] - self.items(items)).square().sum(2)  # [b, 1 + k]
        return F.relu(self.settings.margin + distances[:, :1] - distances[:, 1:]).sum(dim=1).mean()

    @torch.no_grad()
    def post_optimizer_step(self) -> None:
        """Project vectors outside of the unit ball to its surface."""
        for table in (self.users, self.liked, self.items):
            table.weight.div_(table.weight.norm(dim=1, keepdim=True).clamp(min=1))


def time_signals(length: int, dim: int) -> Tensor:
    """[length, dim]: sines and cosines of the position, with wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al.)."""
    rates = 10000 ** (-torch.arange(0, dim, 2) / dim)  # [dim / 2]
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).view(length, dim)
