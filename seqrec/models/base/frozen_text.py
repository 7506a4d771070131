"""What models on top of a frozen text encoder have in common: the text vector of an item, made once and remembered.

The encoder is any model that reads text (`seqrec.models`), such as a Recformer that took over the weights of a text
encoder or was trained before; it is kept in the checkpoint, so an item that nobody has seen is encoded like any other.
A model derives from `FrozenTextModel` and says how text vectors become item vectors (`adapt`), and a sequence of those
a query (`states`); being trained, pretrained, saved, indexed and served comes with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models import model_class
from seqrec.models.base.id_table import ItemIds, known_row, with_row, without_row
from seqrec.models.base.ids import newest
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import ItemText, ItemTokens, TokenizedHistory, TokenizedItem

REMEMBERED = 2**18
"""Text vectors that are kept, at most: 400 MB where they have 384 dimensions."""
AT_ONCE = 512
"""Texts that the frozen encoder reads at a time, so that memory stays bounded."""


@dataclass(frozen=True, kw_only=True)
class TextRows:
    """b sequences of at most n items, as rows of a table of the u different items among them."""

    vectors: Tensor  # float32 [u + 1, text dim]; 0 where it is yet to be made, and in the last row, of padding
    missing: tuple[Batch, ...]  # the texts to be made
    missing_rows: Tensor  # int64 [m], where they go
    missing_keys: tuple[bytes, ...]
    ids: Tensor  # int64 [u + 1], the item's row in the model's own table, if it has one
    rows: Tensor  # int64 [b, n], oldest first, then padding
    lengths: Tensor  # int64 [b]
    tokens: int

    def to(self, device: torch.device | str) -> Self:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved, missing=tuple(batch.to(device) for batch in self.missing))


@dataclass(frozen=True, kw_only=True)
class TrainingRows(TextRows):
    candidates: Tensor  # int64 [c], which of the items that were shown are told apart
    targets: Tensor  # int64 [b, n], rows of `candidates`: what comes next; -1 where nothing does


class FrozenTextModel(nn.Module, ABC):
    """Base. `settings`: `max_length` items are read, the newest; scores are divided by `temperature` in the loss, and
    compared with `negatives` other items drawn at random (0: with all)."""

    metric: Metric
    cold_items = True
    dim: int
    settings_class: ClassVar[type[Any]]
    fine_tuning: ClassVar[tuple[str, ...]] = ("negatives",)
    """Settings that a training which goes on from a checkpoint may change; `ids`, where there is such a one, says
    whether items that training saw have weights of their own as well."""

    def __init__(self, settings: Any, text_model: str, text: SequenceModel, items: int = 0, id_bytes: int = 0) -> None:
        """Fresh weights on top of `text`, of the name that MODELS has it by; `items` have an id of their own.

        Raises InputError for a model that is no text encoder.
        """
        super().__init__()
        if text.metric is not Metric.COSINE or not text.cold_items or not isinstance(text, nn.Module):
            raise InputError(f"{text_model} is no text encoder: it compares by {text.metric}", "model.start_from")
        self.settings, self.text_model, self.text, self.items = settings, text_model, text, items
        self.item_text: ItemText | None = text.item_text
        self.item_ids = ItemIds(id_bytes)
        self.requires_grad_(True)
        self._made: dict[bytes, npt.NDArray[np.float32]] = {}
        self._shown: list[TokenizedItem] = []
        self._candidate_of: dict[bytes, int] = {}
        self._shown_vectors: Tensor | None = None

    @abstractmethod
    def adapt(self, texts: Tensor, ids: Tensor) -> Tensor:
        """Item vectors: text vectors [m, text dim], rows of items that have an id [m] (`items`: none) -> [m, dim]"""

    @abstractmethod
    def states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """What each item of a sequence predicts the next one by: items [b, n, dim], lengths [b] -> [b, n, dim]"""

    def as_read(self, texts: Tensor, ids: Tensor) -> Tensor:
        """Items as part of a sequence, where they are not what they are as answers: as `adapt`."""
        return self.adapt(texts, ids)

    def see(self, texts: Tensor) -> None:
        """Once, before training: text vectors [m, text dim] of the different items that training sees."""
        return

    @classmethod
    def on(cls, settings: Any, text_model: str, text: SequenceModel, item_ids: Sequence[str] = ()) -> Self:
        """A model with fresh weights; `item_ids`: of the items that training sees."""
        known = ItemIds.of(item_ids if getattr(settings, "ids", False) else [])
        model = cls(settings, text_model, text, len(item_ids) if known.size else 0, known.size)
        model.item_ids = known
        return model

    def going_on(self, settings: Any, item_ids: Sequence[str] = ()) -> Self:
        """A model with this one's weights and the `fine_tuning` ones of `settings`; the weights that items have of
        their own are fresh, for `item_ids`."""
        settings = replace(self.settings, **{name: getattr(settings, name) for name in self.fine_tuning})
        model = self.on(settings, self.text_model, self.text, item_ids)
        own = {name: weight for name, weight in self.state_dict().items() if not name.startswith(("item_ids", "own"))}
        model.load_state_dict(own, strict=False)
        return model

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        text = model_class(config["text_model"]).from_config(config["text_config"], item_text)
        settings = cls.settings_class(**config["settings"])
        return cls(settings, config["text_model"], text, config["items"], config["id_bytes"])

    def config_json(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.settings),
            "text_model": self.text_model,
            "text_config": dict(self.text.config_json()),
            "items": self.items,
            "id_bytes": self.item_ids.size,
        }

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Of all weights but the text encoder's."""
        super().requires_grad_(requires_grad)
        self._text.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """The text encoder stays as it is."""
        super().train(mode)
        self._text.eval()
        return self

    @property
    def _text(self) -> nn.Module:
        assert isinstance(self.text, nn.Module)
        return self.text

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """The text's tokens, and one more after them for an item that has an id of its own."""
        texts = self.text.tokenize_items(items)
        if not self.items:
            return texts
        return ItemTokens.concatenate(
            with_row(text, self.item_ids.token(item.item_id)) if isinstance(item, Item) else text
            for item, text in zip(items, texts, strict=True)
        )

    def prepare_items(self, items: Sequence[TokenizedItem]) -> TextRows:
        return TextRows(**self._rows([[item] for item in items]))

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> TextRows:
        return TextRows(**self._rows([self._read(history) for history in histories]))

    def history_tokens(self, history: TokenizedHistory) -> int:
        """What it costs where no text of it is remembered."""
        return sum(len(item.ids) for item in self._read(history))

    def encode_items(self, batch: TextRows) -> Tensor:
        """-> [n, dim]"""
        return self.adapt(self._texts(batch), batch.ids)[batch.rows[:, 0]]

    def encode_histories(self, batch: TextRows) -> Tensor:
        """-> [b, dim]"""
        return newest(self._states(batch), batch.lengths)

    def set_training_items(self, items: Sequence[TokenizedItem]) -> None:
        """The items that training sees: what the loss tells a target from. Those that read the same are one."""
        distinct = {_key(item): item for item in items}
        self._shown, self._shown_vectors = list(distinct.values()), None
        self._candidate_of = {key: place for place, key in enumerate(distinct)}

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> TrainingRows:
        """The newest `max_length` items of each, and what came after each of them. Every item was shown."""
        parts = [sequence.items[-self.settings.max_length - 1 :] for sequence in sequences]
        prepared = self._rows([part[:-1] for part in parts])
        targets = torch.full(prepared["rows"].shape, -1)
        for row, part in zip(targets, parts, strict=True):
            wanted = [self._candidate_of[_key(item)] for item in part[1:]]
            row[: len(wanted)] = torch.tensor(wanted, dtype=torch.int64)
        candidates = torch.arange(len(self._shown))
        if self.settings.negatives:
            drawn = torch.randperm(len(self._shown), generator=generator)[: self.settings.negatives]
            candidates = torch.unique(torch.cat([drawn, targets[targets >= 0]]))
            targets = torch.where(targets >= 0, torch.searchsorted(candidates, targets), -1)
        return TrainingRows(**prepared, candidates=candidates, targets=targets)

    def training_loss(self, batch: TrainingRows) -> Tensor:
        """Softmax cross entropy over the candidates, at every position. -> []"""
        real = batch.targets >= 0
        texts, ids = self._candidates(batch)
        queries = self._states(batch)[real]  # [positions, dim]
        items = self.adapt(texts, ids)
        if self.metric is Metric.COSINE:
            queries, items = F.normalize(queries, dim=1), F.normalize(items, dim=1)
        logits = queries @ items.T / self.settings.temperature
        return F.cross_entropy(logits.float(), batch.targets[real])

    def post_optimizer_step(self) -> None:
        """Nothing to be held within bounds."""

    def positions(self, length: int, lengths: Tensor) -> Tensor:
        """[b, length] so that the newest item has `max_length - 1`, however many there are; padding has any."""
        last: int = self.settings.max_length - 1
        places = torch.arange(length, device=lengths.device)
        return (places + (last + 1 - lengths)[:, None]).clamp(max=last)

    def _read(self, history: TokenizedHistory) -> Sequence[TokenizedItem]:
        return history.items[-self.settings.max_length :]

    def _rows(self, sequences: Sequence[Sequence[TokenizedItem]]) -> dict[str, Any]:
        """The fields of `TextRows`; a batch is never without a column."""
        place: dict[bytes, int] = {}
        distinct: list[TokenizedItem] = []
        for item in (item for sequence in sequences for item in sequence):
            if place.setdefault(_key(item), len(distinct)) == len(distinct):
                distinct.append(item)
        longest = max([1, *(len(sequence) for sequence in sequences)])
        rows = np.full((len(sequences), longest), len(distinct), dtype=np.int64)
        for row, sequence in zip(rows, sequences, strict=True):
            row[: len(sequence)] = [place[_key(item)] for item in sequence]
        return self._table(distinct) | {
            "rows": torch.from_numpy(rows),
            "lengths": torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64),
            "tokens": sum(len(item.ids) for sequence in sequences for item in sequence),
        }

    def _table(self, items: Sequence[TokenizedItem]) -> dict[str, Any]:
        """What of `TextRows` is about its different items."""
        texts = [without_row(item) for item in items]
        vectors = np.zeros((len(items) + 1, self.text.dim), dtype=np.float32)
        missing: list[int] = []
        for row, text in enumerate(texts):
            made = self._made.get(_key(text))
            if made is None:
                missing.append(row)
            else:
                vectors[row] = made
        known = [self.items if row is None else row for row in map(known_row, items)]
        return {
            "vectors": torch.from_numpy(vectors),
            "missing": tuple(
                self.text.prepare_items([texts[row] for row in missing[at : at + AT_ONCE]])
                for at in range(0, len(missing), AT_ONCE)
            ),
            "missing_rows": torch.tensor(missing, dtype=torch.int64),
            "missing_keys": tuple(_key(texts[row]) for row in missing),
            "ids": torch.tensor([*known, self.items], dtype=torch.int64),
        }

    def _states(self, batch: TextRows) -> Tensor:
        """[b, n, dim]"""
        return self.states(self.as_read(self._texts(batch), batch.ids)[batch.rows], batch.lengths)

    @torch.no_grad()
    def _texts(self, batch: TextRows) -> Tensor:
        """Text vectors of the different items, 0 of padding: [u + 1, text dim], each of length sqrt(text dim)."""
        if not batch.missing:
            return batch.vectors
        scale = self.text.dim**0.5
        made = torch.cat([F.normalize(self.text.encode_items(part).float(), dim=1) * scale for part in batch.missing])
        if len(self._made) + len(made) > REMEMBERED:
            self._made = {}
        self._made |= zip(batch.missing_keys, made.cpu().numpy(), strict=True)
        return batch.vectors.index_copy(0, batch.missing_rows, made)

    def _candidates(self, batch: TrainingRows) -> tuple[Tensor, Tensor]:
        """Text vectors [c, text dim] and ids [c] of the candidates."""
        device = batch.candidates.device
        if self._shown_vectors is None:
            parts = [self._shown[at : at + AT_ONCE] for at in range(0, len(self._shown), AT_ONCE)]
            batches = [self.prepare_items(part).to(device) for part in parts]
            self._shown_vectors = torch.cat([self._texts(one)[:-1] for one in batches])
            self._shown_ids = torch.cat([one.ids[:-1] for one in batches])
            self.see(self._shown_vectors)
        return self._shown_vectors[batch.candidates], self._shown_ids[batch.candidates]


def _key(item: TokenizedItem) -> bytes:
    """Equal where two items read the same."""
    return item.ids.tobytes() + item.types.tobytes()
