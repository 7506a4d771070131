"""A frozen text model, plus vectors learned for each training item that correct its scores.

Each training item i has two vectors, r_i as a candidate and p_i as an item of a history, and a bias b_i. With unit
vectors t_i and h of the text model,

    score(history, i) = h . t_i  +  scale * (sum_j w_j p_j) . r_i  +  temperature * b_i

where j runs over the newest items of the history and w is a softmax over their places, newest first. As vectors that
is one dot product, [h, scale * sum, temperature] . [t_i, r_i, b_i]. An item that training did not see has r_i = 0 and
b_i = 0, so its score is that of the text model. r and b have mean 0 over the training items, so that new items compete
like average ones. (p, w and r are a factorised item-to-item model: FISM, Kabbur et al. 2013.)
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
    items: int  # training items
    id_bytes: int  # of their ids (`ItemIds.size`)
    dim: int = 128  # of p and r
    history: int = 20  # the newest items of a history that p is summed over
    temperature: float = 0.07  # initial `scale` and inverse initial `sharpness`; factor of the biases


@dataclass(frozen=True)
class ResidualBatch:
    """The input of the text model, and the rows of training items; the row `items` stands for any other item."""

    text: Batch
    rows: Tensor  # int64 [n] for items; [b, history] for histories, newest first

    @property
    def tokens(self) -> int:
        return self.text.tokens

    def to(self, device: torch.device | str) -> ResidualBatch:
        return replace(self, text=self.text.to(device), rows=self.rows.to(device))


class Residual(SequenceModel):
    metric = Metric.DOT
    cold_items = True

    def __init__(self, config: ResidualConfig, text: SequenceModel, item_ids: ItemIds) -> None:
        """The learned part starts near 0. Raises InputError for a text model that does not compare by cosine."""
        super().__init__()
        if text.metric is not Metric.COSINE:
            raise InputError(f"a residual needs a text model that compares by cosine, not by {text.metric}")
        self.config, self.text, self.item_ids = config, text, item_ids
        self.item_text, self.dim = text.item_text, text.dim + config.dim + 1
        rows, unknown = config.items + 1, config.items
        self.item_vectors = nn.Embedding(rows, config.dim, padding_idx=unknown)
        self.item_biases = nn.Embedding(rows, 1, padding_idx=unknown)
        self.history_vectors = nn.Embedding(rows, config.dim, padding_idx=unknown)
        self.recency = nn.Parameter(-0.3 * torch.arange(config.history, dtype=torch.float32))
        self.scale = nn.Parameter(torch.tensor(config.temperature))
        self.sharpness = nn.Parameter(torch.tensor(1 / config.temperature))  # the factor of scores in the loss
        with torch.no_grad():
            for table in (self.item_vectors, self.history_vectors):
                table.weight[:-1].normal_(std=0.02)
            self.item_biases.weight.zero_()

    @classmethod
    def over(
        cls,
        text_model: str,
        text: SequenceModel,
        item_ids: ItemIds,
        items: int,
        dim: int,
        history: int,
        temperature: float,
    ) -> Self:
        """A model with a fresh residual over `text`, whose name in MODELS is `text_model`."""
        config = ResidualConfig(text_model, text.config_json(), items, item_ids.size, dim, history, temperature)
        return cls(config, text, item_ids)

    def share_residual(self, other: Residual) -> None:
        """Use the learned weights of `other`: both towers of a checkpoint share them."""
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
        """The tokens of the text model, and one more for a training item."""
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
        """What follows the text vector of items: rows [n] -> [n, config.dim + 1]"""
        return torch.cat([self.item_vectors(rows), self.item_biases(rows)], dim=1)

    def history_part(self, rows: Tensor) -> Tensor:
        """What follows the text vector of histories: rows [b, history], newest first -> [b, config.dim + 1]"""
        known = rows != self.unknown
        # The softmax of a row without known items would be NaN, so nothing is masked there: the vectors are 0.
        masked = ~known & known.any(1, keepdim=True)
        weights = self.recency.masked_fill(masked, -torch.inf).softmax(dim=1)  # [b, history]
        summed = (weights[:, :, None] * self.history_vectors(rows)).sum(dim=1)  # [b, config.dim]
        return torch.cat([self.scale * summed, summed.new_full((len(rows), 1), self.config.temperature)], dim=1)

    @torch.no_grad()
    def center(self) -> None:
        """Subtract the mean over training items from r and b. It shifts their scores equally and is 0 for new items."""
        for table in (self.item_vectors, self.item_biases):
            table.weight[:-1] -= table.weight[:-1].mean(dim=0)

    @property
    def unknown(self) -> int:
        """The row of items that training did not see."""
        return self.config.items

    def _row(self, item: TokenizedItem) -> int:
        row = known_row(item)
        return self.unknown if row is None else row


def newest_first(rows: Sequence[Sequence[int]], size: int, unknown: int) -> Tensor:
    """Rows of items, oldest first -> int64 [b, size]: the newest `size` of each, newest first, padded by `unknown`."""
    out = torch.full((len(rows), size), unknown, dtype=torch.int64)
    for into, row in zip(out, rows, strict=True):
        newest = row[-size:][::-1]
        into[: len(newest)] = torch.tensor(newest, dtype=torch.int64)
    return out


def unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=1)
