"""The base of models that know items by id: rows of items and users, padding, and cross entropy over all items.

A model derives from `IdModel` and defines how a sequence of rows becomes vectors; saving, indexing and serving are
inherited. An item that training did not see has no row, no token and no vector: histories are read without it, and it
is never recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.base.id_table import ItemIds, known_row
from seqrec.models.base.model import BuildConfig, SequenceModel, TrainingSet
from seqrec.text.item_text import ItemText, ItemTokens, TokenizedHistory, TokenizedItem


@dataclass(frozen=True)
class VocabSizes:
    """The numbers of known items and users, and the bytes of their ids (`ItemIds.size`)."""

    items: int
    item_bytes: int
    users: int = 0
    user_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """b sequences of at most n items. A model whose loss needs more adds fields; tensors are moved with the batch."""

    rows: Tensor  # int64 [b, n], oldest first, then padding
    lengths: Tensor  # int64 [b], without padding; 0 if no item is known
    users: Tensor  # int64 [b]; the number of known users stands for all others
    tokens: int

    def to(self, device: torch.device | str) -> Self:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    @property
    def real(self) -> Tensor:
        """bool [b, n]: what is not padding."""
        return torch.arange(self.rows.shape[1], device=self.rows.device) < self.lengths[:, None]

    def inputs(self) -> RowBatch:
        """Each sequence without its last item, which is only a target."""
        lengths = (self.lengths - 1).clamp(min=0)
        return RowBatch(rows=self.rows[:, :-1], lengths=lengths, users=self.users, tokens=self.tokens)


class IdModel(SequenceModel):
    """Base of the models that know items by id.

    A model that predicts the next item at every position defines `states`; encoding and training follow from it. Others
    override `encode_histories`, `prepare_training` and `training_loss`. The settings have a field `max_length`: the
    newest items of a history that are read.
    """

    metric = Metric.DOT
    cold_items = False
    items: Any
    """The table of item vectors, made by `item_table`. Only a model that overrides `encode_items` may go without."""
    known_class: ClassVar[type[VocabSizes]] = VocabSizes
    knows_users: ClassVar[bool] = False
    """Whether users have weights of their own."""

    def __init__(self, settings: Any, known: VocabSizes) -> None:
        """Fresh weights. A subclass sets `dim` and creates its own after calling this."""
        super().__init__()
        self.settings, self.known = settings, known
        self.read_items: int = settings.max_length
        self.item_ids, self.user_ids = ItemIds(known.item_bytes), ItemIds(known.user_bytes)

    @classmethod
    def check(cls, config: BuildConfig) -> None:
        """Raises InputError for a text encoder: the model reads no text."""
        if config.text_encoder:
            super().check(config)

    @classmethod
    def build(cls, config: BuildConfig, datasets: Sequence[TrainingSet]) -> Self:
        own = datasets[0]
        return cls.from_items(config.settings, own.trained_items, own.trained_users)

    @classmethod
    def from_items(cls, settings: Any, items: Sequence[Item], user_ids: Sequence[str]) -> Self:
        """A model with fresh weights. A model that reads attributes overrides this."""
        return cls.from_ids(settings, [item.item_id for item in items], user_ids)

    @classmethod
    def from_ids(cls, settings: Any, item_ids: Sequence[str], user_ids: Sequence[str], **more: Any) -> Self:
        """The same from ids alone. `more`: fields that `known_class` adds to those of `VocabSizes`.

        Raises InputError for fewer than two items.
        """
        if len(item_ids) < 2:
            raise InputError(f"training sees {len(item_ids)} item, so there is nothing to choose from", "interactions")
        items, users = ItemIds.of(item_ids), ItemIds.of(user_ids if cls.knows_users else [])
        known = cls.known_class(len(item_ids), items.size, len(user_ids) if cls.knows_users else 0, users.size, **more)
        model = cls(settings, known)
        model.item_ids, model.user_ids = items, users
        return model

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        return cls(cls.settings_class(**config["settings"]), cls.known_class(**config["known"]))

    def config_json(self) -> dict[str, Any]:
        return {"settings": asdict(self.settings), "known": asdict(self.known)}

    def states(self, batch: Any) -> Tensor:
        """The query at each item, which predicts the next one: [b, n, dim]."""
        raise NotImplementedError

    def encode_items(self, batch: RowBatch) -> Tensor:
        """-> [n, dim], from a batch of one column; 0 for padding."""
        vectors: Tensor = self.items(batch.rows[:, 0])
        return vectors

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim], the query at the newest item."""
        return newest(self.states(batch), batch.lengths)

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> RowBatch:
        """The newest `max_length` items of each sequence, and one more: the last target."""
        return self.batch([self.known_rows(sequence)[-self.read_items - 1 :] for sequence in sequences])

    def training_loss(self, batch: Any) -> Tensor:
        """Cross entropy over all items at every position. -> []"""
        targets, real = next_items(batch)  # [b, n - 1]
        return self.cross_entropy(self.states(batch.inputs())[real], targets[real])

    def cross_entropy(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Softmax cross entropy over all items: queries [m, dim], rows of the targets [m] -> []"""
        logits = queries @ self.items.weight[: self.known.items].T  # [m, items]
        return F.cross_entropy(logits.float(), rows)

    @property
    def padding(self) -> int:
        """The row that stands for no item."""
        return self.known.items

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """One token for an item that training saw; none for any other, nor for attributes without an id."""
        return ItemTokens.concatenate(
            self.item_ids.token(item.item_id if isinstance(item, Item) else "") for item in items
        )

    def prepare_items(self, items: Sequence[TokenizedItem]) -> RowBatch:
        rows = [known_row(item) for item in items]
        return self.batch([[] if row is None else [row] for row in rows])

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> RowBatch:
        return self.batch([self.rows_of(history) for history in histories], [history.user_id for history in histories])

    def history_tokens(self, history: TokenizedHistory) -> int:
        return len(self.rows_of(history))

    def rows_of(self, history: TokenizedHistory) -> list[int]:
        """The newest `max_length` known items, oldest first."""
        return self.known_rows(history)[-self.read_items :]

    def known_rows(self, history: TokenizedHistory) -> list[int]:
        """All known items, oldest first."""
        return [row for item in history.items if (row := known_row(item)) is not None]

    def batch(self, sequences: Sequence[Sequence[int]], users: Sequence[str | None] | None = None) -> RowBatch:
        """Rows of items, padded to the longest sequence, at least to one column."""
        lengths = torch.tensor([len(rows) for rows in sequences], dtype=torch.int64)
        longest = max([1, *lengths.tolist()])
        rows = torch.tensor([[*rows] + [self.padding] * (longest - len(rows)) for rows in sequences], dtype=torch.int64)
        known = [None if user is None else self.user_ids.row(user) for user in users or [None] * len(sequences)]
        return RowBatch(
            rows=rows.view(-1, longest),
            lengths=lengths,
            users=torch.tensor([self.known.users if user is None else user for user in known], dtype=torch.int64),
            tokens=int(lengths.sum()),
        )

    def item_table(self, dim: int, extra: int = 0, std: float = 0.02) -> nn.Embedding:
        """A vector for each item, from a truncated normal distribution, 0 for padding, and then `extra` more rows."""
        table = nn.Embedding(self.padding + 1 + extra, dim, padding_idx=self.padding)
        with torch.no_grad():
            nn.init.trunc_normal_(table.weight, std=std, a=-2 * std, b=2 * std)
            table.weight[self.padding] = 0
        return table

    def positions(self, batch: RowBatch) -> Tensor:
        """[b, n], counted so that the newest item always has `max_length - 1`; arbitrary at padding."""
        places = torch.arange(batch.rows.shape[1], device=batch.rows.device)
        last: int = self.settings.max_length - 1
        return (places + (last + 1 - batch.lengths)[:, None]).clamp(max=last)


def newest(states: Tensor, lengths: Tensor) -> Tensor:
    """The state of the last item that is not padding: states [b, n, d] -> [b, d]; the first state if there is none."""
    rows = torch.arange(len(states), device=states.device)
    return states[rows, (lengths - 1).clamp(min=0)]


def next_items(batch: RowBatch) -> tuple[Tensor, Tensor]:
    """-> the rows [b, n - 1] that follow each item but the last, and bool [b, n - 1]: which of them are no padding."""
    return batch.rows[:, 1:], batch.real[:, 1:]


def draw_negatives(targets: Tensor, items: int, count: int, generator: torch.Generator) -> Tensor:
    """For each target `count` other items, drawn uniformly from the first `items` rows: int64 [...] -> [..., count]"""
    drawn = torch.randint(items - 1, (*targets.shape, count), generator=generator)
    return drawn + (drawn >= targets[..., None])


def check_choice(value: str, choices: Sequence[str], setting: str) -> None:
    """Raises InputError for a value that is not one of the choices."""
    if value not in choices:
        raise InputError(f"{value!r} is not one of {', '.join(choices)}", f"model.settings.{setting}")


def check_at_least(settings: Any, **minima: float) -> None:
    """Raises InputError for a setting below its minimum."""
    for name, minimum in minima.items():
        if not getattr(settings, name) >= minimum:
            raise InputError(f"{getattr(settings, name)} is below {minimum}", f"model.settings.{name}")


def check_positive(settings: Any, *names: str) -> None:
    """Raises InputError for a setting that is not above 0."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise InputError(f"{getattr(settings, name)} is not above 0", f"model.settings.{name}")


def check_fraction(settings: Any, *names: str) -> None:
    """Raises InputError for a setting outside of [0, 1), such as a dropout."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{getattr(settings, name)} is not from 0 to below 1", f"model.settings.{name}")


def check_heads(settings: Any) -> None:
    """Raises InputError if `dim` is not a multiple of `heads`."""
    if settings.dim % settings.heads:
        raise InputError(f"{settings.dim} is not a multiple of {settings.heads} heads", "model.settings.dim")
