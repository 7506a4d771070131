"""What models that know items by their ids have in common: the rows of items, of users, and how histories are padded.

A model derives from `IdModel` and says how rows become vectors and what its loss is; being saved, indexed and served
comes with it. An item that training did not see has no row, no token and no vector: histories are read without it, and
it is never an answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.base.id_table import ItemIds, known_row
from seqrec.text.item_text import ItemText, ItemTokens, TokenizedHistory, TokenizedItem


@dataclass(frozen=True)
class VocabSizes:
    """How much a model knows: items, and bytes of their ids (`ItemIds.size`); the same of users."""

    items: int
    item_bytes: int
    users: int = 0
    user_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """b sequences of at most n items. Models add what their losses need: tensors, which move along."""

    rows: Tensor  # int64 [b, n], oldest first, then padding
    lengths: Tensor  # int64 [b], real items; 0 where nothing is known
    users: Tensor  # int64 [b]; the number of users known stands for all others
    tokens: int

    def to(self, device: torch.device | str) -> Self:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    @property
    def real(self) -> Tensor:
        """bool [b, n]"""
        return torch.arange(self.rows.shape[1], device=self.rows.device) < self.lengths[:, None]

    def inputs(self) -> RowBatch:
        """Each sequence without its last item, which only is to be told."""
        lengths = (self.lengths - 1).clamp(min=0)
        return RowBatch(rows=self.rows[:, :-1], lengths=lengths, users=self.users, tokens=self.tokens)


class IdModel(nn.Module, ABC):
    """Base of the models that know items by id. `settings.max_length`: items of a history that are read, the newest."""

    metric = Metric.DOT
    cold_items = False
    item_text: ItemText | None = None
    dim: int
    items: Any
    """The table of the items' vectors, as `item_table` makes it, unless a model encodes items itself."""
    settings_class: ClassVar[type[Any]]
    """A frozen dataclass of what can be set; `max_length` is among it."""
    known_class: ClassVar[type[VocabSizes]] = VocabSizes
    knows_users: ClassVar[bool] = False
    """Whether users have weights of their own."""
    knows_domains: ClassVar[bool] = False
    """Whether it learns from other data sets as well: `from_ids` is told `others`, how many items each of them has."""

    def __init__(self, settings: Any, known: VocabSizes) -> None:
        """Fresh weights. A subclass makes its own after calling this."""
        super().__init__()
        self.settings, self.known = settings, known
        self.read_items: int = settings.max_length
        self.item_ids, self.user_ids = ItemIds(known.item_bytes), ItemIds(known.user_bytes)

    @classmethod
    def from_items(cls, settings: Any, items: Sequence[Item], user_ids: Sequence[str]) -> Self:
        """A model with fresh weights for what training sees; one that reads attributes does it here."""
        return cls.from_ids(settings, [item.item_id for item in items], user_ids)

    @classmethod
    def from_ids(cls, settings: Any, item_ids: Sequence[str], user_ids: Sequence[str], **more: Any) -> Self:
        """The same by ids alone; `more` are fields that `known_class` has beside those of `VocabSizes`.

        Raises InputError where training sees fewer than two items.
        """
        if len(item_ids) < 2:
            raise InputError(f"training sees {len(item_ids)} item, so there is nothing to tell it from", "interactions")
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

    def encode_items(self, batch: RowBatch) -> Tensor:
        """-> [n, dim], from a batch of one column; zeros for padding. Here: the item's row of the table `items`."""
        vectors: Tensor = self.items(batch.rows[:, 0])
        return vectors

    @abstractmethod
    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""

    @abstractmethod
    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> RowBatch:
        """CPU. What `training_loss` reads."""

    @abstractmethod
    def training_loss(self, batch: Any) -> Tensor:
        """-> []"""

    @property
    def padding(self) -> int:
        """The row that stands for no item."""
        return self.known.items

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """One token for an item that training saw; none for any other, and none for attributes without an id."""
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
        """The newest items of a history that are known, oldest first."""
        return self.known_rows(history)[-self.read_items :]

    def known_rows(self, history: TokenizedHistory) -> list[int]:
        """All of them."""
        return [row for item in history.items if (row := known_row(item)) is not None]

    def batch(self, sequences: Sequence[Sequence[int]], users: Sequence[str | None] | None = None) -> RowBatch:
        """Rows of items, padded to the longest of them; a batch is never without a column."""
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
        """A vector for each item, normally distributed, and 0 for padding; `extra` rows come after that."""
        table = nn.Embedding(self.padding + 1 + extra, dim, padding_idx=self.padding)
        with torch.no_grad():
            nn.init.trunc_normal_(table.weight, std=std, a=-2 * std, b=2 * std)
            table.weight[self.padding] = 0
        return table

    def positions(self, batch: RowBatch) -> Tensor:
        """[b, n] so that the newest item has `settings.max_length - 1`, however many there are; padding has any."""
        places = torch.arange(batch.rows.shape[1], device=batch.rows.device)
        last: int = self.settings.max_length - 1
        return (places + (last + 1 - batch.lengths)[:, None]).clamp(max=last)

    def post_optimizer_step(self) -> None:
        """Nothing to be held within bounds."""


def newest(states: Tensor, lengths: Tensor) -> Tensor:
    """The state of the last real item: states [b, n, d] -> [b, d]; the first state where there is no item."""
    rows = torch.arange(len(states), device=states.device)
    return states[rows, (lengths - 1).clamp(min=0)]


def next_items(batch: RowBatch) -> tuple[Tensor, Tensor]:
    """-> the rows [b, n - 1] that come after each item but the last, and bool [b, n - 1] which of those are real."""
    return batch.rows[:, 1:], batch.real[:, 1:]


def choice(value: str, choices: Sequence[str], setting: str) -> None:
    """Raises InputError for a value that is none of the choices."""
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


def share(settings: Any, *names: str) -> None:
    """Raises InputError for a setting that is not from 0 to below 1, such as a dropout."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{getattr(settings, name)} is not from 0 to below 1", f"model.settings.{name}")
