"""What text cannot say: a text model, and beside it what was learnt of each item that training saw.

The text model stays as it is. Of every item i seen in training there are two more vectors, r_i (what it is like to
come next) and p_i (what it is like to have had), and a number b_i. With text vectors t_i and h of unit length,

    score(history, i) = h . t_i  +  scale * (sum_j w_j p_j) . r_i  +  temperature * b_i

where j runs over the newest items of the history and w is a softmax over their places, newest first. As vectors that
is [h, scale * sum, temperature] . [t_i, r_i, b_i]: one dot product, so one index serves it. An item that training did
not see has r_i = 0 and b_i = 0: its score is the text model's, exactly. r and b have the mean 0 over the items seen,
so the others compete as an average one. (p, w and r are a factorised item-to-item model: FISM, Kabbur et al. 2013.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models import model_class
from seqrec.models.base.id_table import ItemIds, known_row, with_row, without_row
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import ItemText, ItemTokens, TokenizedHistory, TokenizedItem


@dataclass(frozen=True)
class ResidualConfig:
    text_model: str
    text_config: Mapping[str, Any]
    items: int  # that training saw
    id_bytes: int  # of their ids (ItemIds.size)
    dim: int = 128  # of p and r
    history: int = 20  # items of a history that p is summed over, the newest ones
    temperature: float = 0.07  # where `scale` and `sharpness` begin, and what biases are multiplied by


@dataclass(frozen=True)
class ResidualBatch:
    """What the text model reads, and the rows of the items it knows beside it: `items` stands for none."""

    text: Batch
    rows: Tensor  # int64 [n] of items, [b, history] of histories, newest first

    @property
    def tokens(self) -> int:
        return self.text.tokens

    def to(self, device: torch.device | str) -> ResidualBatch:
        return replace(self, text=self.text.to(device), rows=self.rows.to(device))


class Residual(nn.Module):
    metric = Metric.DOT
    cold_items = True

    def __init__(self, config: ResidualConfig, text: SequenceModel, item_ids: ItemIds) -> None:
        """The learnt part begins at (nearly) nothing. Raises InputError for a text model that compares otherwise."""
        super().__init__()
        if text.metric is not Metric.COSINE or not isinstance(text, nn.Module):
            raise InputError(f"residuals stand beside a text model that compares by cosine, not {text.metric}")
        self.config, self.text, self.item_ids = config, text, item_ids
        self.item_text, self.dim = text.item_text, text.dim + config.dim + 1
        rows, unknown = config.items + 1, config.items
        self.item_vectors = nn.Embedding(rows, config.dim, padding_idx=unknown)
        self.item_biases = nn.Embedding(rows, 1, padding_idx=unknown)
        self.history_vectors = nn.Embedding(rows, config.dim, padding_idx=unknown)
        self.recency = nn.Parameter(-0.3 * torch.arange(config.history, dtype=torch.float32))
        self.scale = nn.Parameter(torch.tensor(config.temperature))
        self.sharpness = nn.Parameter(torch.tensor(1 / config.temperature))  # scores are multiplied by it in the loss
        with torch.no_grad():
            for table in (self.item_vectors, self.history_vectors):
                table.weight[:-1].normal_(std=0.02)
            self.item_biases.weight.zero_()

    @classmethod
    def beside(
        cls,
        text_model: str,
        text: SequenceModel,
        item_ids: ItemIds,
        items: int,
        dim: int,
        history: int,
        temperature: float,
    ) -> Self:
        """A fresh residual for the known items beside a model, of the name that MODELS has it by."""
        config = ResidualConfig(text_model, text.config_json(), items, item_ids.size, dim, history, temperature)
        return cls(config, text, item_ids)

    def share_residual(self, other: Residual) -> None:
        """From now on what is learnt of the items is that of `other`: the two towers of one checkpoint have one."""
        self.item_vectors, self.item_biases = other.item_vectors, other.item_biases
        self.history_vectors, self.recency = other.history_vectors, other.recency
        self.scale, self.sharpness = other.scale, other.sharpness

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        settings = ResidualConfig(**config)
        text = model_class(settings.text_model).from_config(settings.text_config, item_text)
        return cls(settings, text, ItemIds(settings.id_bytes))

    def config_json(self) -> dict[str, Any]:
        return asdict(self.config) | {"text_config": dict(self.config.text_config)}

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """The text model's tokens, and one more after them for an item that training saw."""
        tokenized = []
        for item, text in zip(items, self.text.tokenize_items(items), strict=True):
            known = self.item_ids.token(item.item_id) if isinstance(item, Item) else None
            tokenized.append(text if known is None else with_row(text, known))
        return ItemTokens.concatenate(tokenized)

    def prepare_items(self, items: Sequence[TokenizedItem]) -> ResidualBatch:
        rows = torch.tensor([self._row(item) for item in items], dtype=torch.int64)
        return ResidualBatch(self.text.prepare_items([without_row(item) for item in items]), rows)

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> ResidualBatch:
        texts = [TokenizedHistory([without_row(item) for item in h.items], h.user_id) for h in histories]
        rows = [[self._row(item) for item in h.items[-self.config.history :]] for h in histories]
        return ResidualBatch(self.text.prepare_histories(texts), newest_first(rows, self.config.history, self.unknown))

    def history_tokens(self, history: TokenizedHistory) -> int:
        return self.text.history_tokens(TokenizedHistory([without_row(item) for item in history.items]))

    def encode_items(self, batch: ResidualBatch) -> Tensor:
        """-> [n, dim]"""
        return torch.cat([unit(self.text.encode_items(batch.text)), self.item_part(batch.rows)], dim=1)

    def encode_histories(self, batch: ResidualBatch) -> Tensor:
        """-> [b, dim]"""
        return torch.cat([unit(self.text.encode_histories(batch.text)), self.history_part(batch.rows)], dim=1)

    def item_part(self, rows: Tensor) -> Tensor:
        """What is beside the text vector: rows [n] -> [n, config.dim + 1]"""
        return torch.cat([self.item_vectors(rows), self.item_biases(rows)], dim=1)

    def history_part(self, rows: Tensor) -> Tensor:
        """What is beside the text vector: rows [b, history], newest first -> [b, config.dim + 1]"""
        known = rows != self.unknown
        # A row without any known item would be a softmax over nothing: its weights are taken as they are, of zeros.
        weights = self.recency.masked_fill(~known & known.any(1, keepdim=True), -torch.inf).softmax(
            dim=1
        )  # [b, history]
        summed = (weights[:, :, None] * self.history_vectors(rows)).sum(dim=1)  # [b, config.dim]
        return torch.cat([self.scale * summed, summed.new_full((len(rows), 1), self.config.temperature)], dim=1)

    @torch.no_grad()
    def center(self) -> None:
        """Take the mean over the known items out of r and b: it moves all their scores alike, and is 0 for others."""
        for table in (self.item_vectors, self.item_biases):
            table.weight[:-1] -= table.weight[:-1].mean(dim=0)

    @property
    def unknown(self) -> int:
        """The row that stands for an item that training did not see."""
        return self.config.items

    def _row(self, item: TokenizedItem) -> int:
        row = known_row(item)
        return self.unknown if row is None else row


def newest_first(rows: Sequence[Sequence[int]], size: int, unknown: int) -> Tensor:
    """Rows of items, oldest first -> int64 [b, size]: the newest `size` of each, newest first, then `unknown`."""
    out = torch.full((len(rows), size), unknown, dtype=torch.int64)
    for into, row in zip(out, rows, strict=True):
        newest = row[-size:][::-1]
        into[: len(newest)] = torch.tensor(newest, dtype=torch.int64)
    return out


def unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=1)
