"""The base of models on top of a frozen text encoder, whose vector of a text is computed once and cached.

The encoder is any text model of `seqrec.models`, such as a Recformer that was trained before or that took over the
weights of a BERT-like encoder. It is stored in the checkpoint, so new items are encoded like all others. A model
derives from `FrozenTextModel` and defines how text vectors become item vectors (`adapt`) and how a sequence of them
becomes queries (`states`); training, pretraining, saving, indexing and serving are inherited.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models import TEXT_ENCODER, model_class
from seqrec.models.base.id_table import ItemIds, known_row, with_row, without_row
from seqrec.models.base.ids import newest
from seqrec.models.base.model import Batch, BuildConfig, SequenceModel, TrainingSet
from seqrec.text.item_text import ItemText, ItemTokens, Recipe, TokenizedHistory, TokenizedItem

log = logging.getLogger(__name__)

CACHED_TEXTS = 2**18
"""The most text vectors that are cached: 400 MB at 384 dimensions."""
ENCODER_BATCH = 512
"""Texts that the encoder reads in one batch, so that memory stays bounded."""


@dataclass(frozen=True, kw_only=True)
class TextRows:
    """b sequences of at most n items, as rows of a table of the u distinct items in them."""

    vectors: Tensor  # float32 [u + 1, text dim], from the cache; 0 where missing, and in the last row, for padding
    missing: tuple[Batch, ...]  # texts that are not cached
    missing_rows: Tensor  # int64 [m], their rows in `vectors`
    missing_keys: tuple[bytes, ...]
    ids: Tensor  # int64 [u + 1], the item's row in the model's own table, if there is one
    rows: Tensor  # int64 [b, n], oldest first, then padding
    lengths: Tensor  # int64 [b]
    tokens: int

    def to(self, device: torch.device | str) -> Self:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved, missing=tuple(batch.to(device) for batch in self.missing))


@dataclass(frozen=True, kw_only=True)
class TrainingRows(TextRows):
    candidates: Tensor  # int64 [c], numbers of training items
    targets: Tensor  # int64 [b, n], the next item as a row of `candidates`; -1 where there is none


class FrozenTextModel(SequenceModel):
    """Base. The settings have the fields `max_length`, the newest items that are read; `temperature`, by which the loss
    divides scores; and `negatives`, the number of random items that it compares with (0: all)."""

    cold_items = True
    builds_on_checkpoints = True
    fine_tuning: ClassVar[tuple[str, ...]] = ("negatives",)
    """Settings that may change when training continues from a checkpoint. With a setting `ids`, training items have
    weights of their own."""

    def __init__(self, settings: Any, text_model: str, text: SequenceModel, items: int = 0, id_bytes: int = 0) -> None:
        """Fresh weights on top of `text`, whose name in MODELS is `text_model`; `items` have ids of their own.

        Raises InputError for a model that is not a text encoder.
        """
        super().__init__()
        if text.metric is not Metric.COSINE or not text.cold_items:
            raise InputError(
                f"{text_model} is not a text encoder, which encodes new items and compares by cosine",
                "model.start_from",
            )
        self.settings, self.text_model, self.text, self.items = settings, text_model, text, items
        self.item_text: ItemText | None = text.item_text
        self.item_ids = ItemIds(id_bytes)
        self.requires_grad_(True)
        self.vector_cache: dict[bytes, npt.NDArray[np.float32]] = {}
        self._training_items: list[TokenizedItem] = []
        self._candidate_of: dict[bytes, int] = {}
        self._training_vectors: Tensor | None = None

    @abstractmethod
    def adapt(self, texts: Tensor, ids: Tensor) -> Tensor:
        """Item vectors from text vectors [m, text dim] and rows of items with ids [m] (`items`: none) -> [m, dim]"""

    @abstractmethod
    def states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The query at each item, which predicts the next one: items [b, n, dim], lengths [b] -> [b, n, dim]"""

    def embed_history_items(self, texts: Tensor, ids: Tensor) -> Tensor:
        """The vectors of items in a history, if they differ from those of candidates: as `adapt`."""
        return self.adapt(texts, ids)

    def fit_text_statistics(self, texts: Tensor) -> None:
        """Called once before training, with the text vectors [m, text dim] of the distinct training items."""
        return

    @classmethod
    def check(cls, config: BuildConfig) -> Recipe | None:
        """Raises InputError without a text encoder or a trained model to build on."""
        if config.start is None:
            if config.text_encoder:
                return config.recipe
            raise InputError(
                f"{config.name} needs a frozen text model: --set model.start_from=DIR, a text encoder or a text model",
                "model.start_from",
            )
        model = config.start.model
        if isinstance(model, cls):
            log.info("of [model.settings] only %s apply: the checkpoint has the others", ", ".join(cls.fine_tuning))
        return None if model.item_text is None else model.item_text.recipe

    @classmethod
    def build(cls, config: BuildConfig, datasets: Sequence[TrainingSet]) -> Self:
        """On a text encoder or a trained text model, or from a trained model of the same class."""
        item_ids = [item.item_id for item in datasets[0].trained_items]
        if config.start is None:
            name, kind = TEXT_ENCODER, model_class(TEXT_ENCODER)
            # It reads single items.
            limits = {
                "max_token_num": config.recipe.max_attr_num * config.recipe.max_attr_length + 1,
                "max_item_embeddings": 2,
            }
            settings = kind.settings_class(**limits)
            text = kind.build(replace(config, name=name, settings=settings, given=frozenset(limits)), datasets)
        else:
            name, text = config.start
        if isinstance(text, cls):
            return cls.fine_tune_from(text, config.settings, item_ids)
        text.drop_language_model_head()
        return cls.from_text_encoder(config.settings, name, text, item_ids)

    @classmethod
    def from_text_encoder(
        cls, settings: Any, text_model: str, text: SequenceModel, item_ids: Sequence[str] = ()
    ) -> Self:
        """A model with fresh weights; `item_ids`: those of training items."""
        known = ItemIds.of(item_ids if getattr(settings, "ids", False) else [])
        model = cls(settings, text_model, text, len(item_ids) if known.size else 0, known.size)
        model.item_ids = known
        return model

    @classmethod
    def fine_tune_from(cls, trained: Self, settings: Any, item_ids: Sequence[str] = ()) -> Self:
        """A copy of `trained` with the `fine_tuning` ones of `settings`. Weights of single items are fresh."""
        settings = replace(trained.settings, **{name: getattr(settings, name) for name in cls.fine_tuning})
        model = cls.from_text_encoder(settings, trained.text_model, trained.text, item_ids)
        shared = {n: weight for n, weight in trained.state_dict().items() if not n.startswith(("item_ids", "own"))}
        model.load_state_dict(shared, strict=False)
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
        """Of all weights except those of the text encoder."""
        super().requires_grad_(requires_grad)
        self.text.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """The text encoder stays in evaluation mode."""
        super().train(mode)
        self.text.eval()
        return self

    def tokenize_items(self, items: Sequence[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """The tokens of the text, and one more for an item with an id of its own."""
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
        """The cost if no text of it is cached."""
        return sum(len(item.ids) for item in self._read(history))

    def encode_items(self, batch: TextRows) -> Tensor:
        """-> [n, dim]"""
        return self.adapt(self._texts(batch), batch.ids)[batch.rows[:, 0]]

    def encode_histories(self, batch: TextRows) -> Tensor:
        """-> [b, dim]"""
        return newest(self._states(batch), batch.lengths)

    def set_training_items(self, items: Sequence[TokenizedItem]) -> None:
        """The candidates of the loss. Items with the same text are one candidate."""
        distinct = {_key(item): item for item in items}
        self._training_items, self._training_vectors = list(distinct.values()), None
        self._candidate_of = {key: place for place, key in enumerate(distinct)}

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> TrainingRows:
        """The newest `max_length` items of each, and the item after each. `set_training_items` knows every item."""
        parts = [sequence.items[-self.settings.max_length - 1 :] for sequence in sequences]
        prepared = self._rows([part[:-1] for part in parts])
        targets = torch.full(prepared["rows"].shape, -1)
        for row, part in zip(targets, parts, strict=True):
            wanted = [self._candidate_of[_key(item)] for item in part[1:]]
            row[: len(wanted)] = torch.tensor(wanted, dtype=torch.int64)
        candidates = torch.arange(len(self._training_items))
        if self.settings.negatives:
            drawn = torch.randperm(len(self._training_items), generator=generator)[: self.settings.negatives]
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

    def positions(self, length: int, lengths: Tensor) -> Tensor:
        """[b, length], counted so that the newest item always has `max_length - 1`; arbitrary at padding."""
        last: int = self.settings.max_length - 1
        places = torch.arange(length, device=lengths.device)
        return (places + (last + 1 - lengths)[:, None]).clamp(max=last)

    def _read(self, history: TokenizedHistory) -> Sequence[TokenizedItem]:
        return history.items[-self.settings.max_length :]

    def _rows(self, sequences: Sequence[Sequence[TokenizedItem]]) -> dict[str, Any]:
        """The fields of `TextRows`; a batch has at least one column."""
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
        """The fields of `TextRows` that concern its distinct items."""
        texts = [without_row(item) for item in items]
        vectors = np.zeros((len(items) + 1, self.text.dim), dtype=np.float32)
        missing: list[int] = []
        for row, text in enumerate(texts):
            cached = self.vector_cache.get(_key(text))
            if cached is None:
                missing.append(row)
            else:
                vectors[row] = cached
        known = [self.items if row is None else row for row in map(known_row, items)]
        return {
            "vectors": torch.from_numpy(vectors),
            "missing": tuple(
                self.text.prepare_items([texts[row] for row in missing[at : at + ENCODER_BATCH]])
                for at in range(0, len(missing), ENCODER_BATCH)
            ),
            "missing_rows": torch.tensor(missing, dtype=torch.int64),
            "missing_keys": tuple(_key(texts[row]) for row in missing),
            "ids": torch.tensor([*known, self.items], dtype=torch.int64),
        }

    def _states(self, batch: TextRows) -> Tensor:
        """[b, n, dim]"""
        items = self.embed_history_items(self._texts(batch), batch.ids)
        return self.states(items[batch.rows], batch.lengths)

    @torch.no_grad()
    def _texts(self, batch: TextRows) -> Tensor:
        """Text vectors of the distinct items, 0 for padding: [u + 1, text dim], each of length sqrt(text dim)."""
        if not batch.missing:
            return batch.vectors
        scale = self.text.dim**0.5
        made = torch.cat([F.normalize(self.text.encode_items(part).float(), dim=1) * scale for part in batch.missing])
        # Replaced, not cleared: other threads may be reading.
        if len(self.vector_cache) + len(made) > CACHED_TEXTS:
            self.vector_cache = {}
        self.vector_cache |= zip(batch.missing_keys, made.cpu().numpy(), strict=True)
        return batch.vectors.index_copy(0, batch.missing_rows, made)

    def _candidates(self, batch: TrainingRows) -> tuple[Tensor, Tensor]:
        """Text vectors [c, text dim] and ids [c] of the candidates."""
        device = batch.candidates.device
        if self._training_vectors is None:
            items = self._training_items
            parts = [items[at : at + ENCODER_BATCH] for at in range(0, len(items), ENCODER_BATCH)]
            batches = [self.prepare_items(part).to(device) for part in parts]
            self._training_vectors = torch.cat([self._texts(one)[:-1] for one in batches])
            self._training_ids = torch.cat([one.ids[:-1] for one in batches])
            self.fit_text_statistics(self._training_vectors)
        return self._training_vectors[batch.candidates], self._training_ids[batch.candidates]


def _key(item: TokenizedItem) -> bytes:
    """Equal for items with the same tokens."""
    return item.ids.tobytes() + item.types.tobytes()
