"""A small world with a rule to learn, and a model that learns it in milliseconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrec.data.items import Item
from seqrec.metric import Metric
from seqrec.models import MODELS
from seqrec.models.base.model import BuildConfig, SequenceModel, TrainingSet
from seqrec.text.item_text import ItemText, ItemTokens, Recipe, TokenizedHistory, TokenizedItem
from seqrec.text.tokenizer import train_bpe
from training.data.dataset import Dataset, read_dataset

COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("mug", "lamp", "desk", "bowl", "rug", "clock")


@dataclass(frozen=True)
class Words:
    ids: Tensor  # int64 [t]
    row_of: Tensor  # int64 [t]
    rows: int

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Words:
        return replace(self, ids=self.ids.to(device), row_of=self.row_of.to(device))


@dataclass(frozen=True)
class EmbeddingBagSettings:
    dim: int = 16
    metric: str = "cosine"


class EmbeddingBag(SequenceModel):
    """Sums of token embeddings, through one linear layer for histories. Reads the last item only."""

    cold_items = True
    settings_class = EmbeddingBagSettings

    def __init__(self, vocab_size: int, dim: int = 16, metric: str = "cosine") -> None:
        super().__init__()
        self.settings = {"vocab_size": vocab_size, "dim": dim, "metric": metric}
        self.metric, self.dim = Metric(metric), dim
        self.item_text: ItemText | None = None
        self.embedding = nn.Embedding(vocab_size, dim)
        self.history = nn.Linear(dim, dim)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        model = cls(**config)
        model.item_text = item_text
        return model

    @classmethod
    def check(cls, config: BuildConfig) -> Recipe:
        return config.recipe

    @classmethod
    def build(cls, config: BuildConfig, datasets: Sequence[TrainingSet]) -> Self:
        texts = [text for item in datasets[0].items for pair in config.recipe.texts(item.attributes) for text in pair]
        item_text = ItemText(config.recipe, train_bpe(texts, config.vocab_size))
        return cls.from_config({"vocab_size": item_text.vocab_size, **asdict(config.settings)}, item_text)

    def config_json(self) -> dict[str, Any]:
        return self.settings

    def tokenize_items(self, items: Sequence[Item | Mapping[str, Any]]) -> ItemTokens:
        assert self.item_text is not None
        return self.item_text.tokenize(items)

    def prepare_items(self, items: Sequence[TokenizedItem]) -> Words:
        ids = torch.from_numpy(np.concatenate([item.ids for item in items] or [np.zeros(0)]).astype(np.int64))
        lengths = torch.tensor([len(item.ids) for item in items])
        return Words(ids, torch.repeat_interleave(torch.arange(len(items)), lengths), len(items))

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> Words:
        nothing = TokenizedItem(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        return self.prepare_items([history.items[-1] if history.items else nothing for history in histories])

    def encode_items(self, batch: Words) -> Tensor:
        return torch.zeros(batch.rows, self.dim).index_add(0, batch.row_of, self.embedding(batch.ids))

    def encode_histories(self, batch: Words) -> Tensor:
        return self.history(self.encode_items(batch))

    def history_tokens(self, history: TokenizedHistory) -> int:
        return len(history.items[-1].ids) if history.items else 0


@pytest.fixture
def embedding_bag(monkeypatch: pytest.MonkeyPatch) -> type[EmbeddingBag]:
    """The class, which `model.name = "embedding_bag"` finds as well."""
    module = ModuleType("embedding_bag_double")
    module.EmbeddingBag = EmbeddingBag  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "embedding_bag_double", module)
    monkeypatch.setitem(MODELS, "embedding_bag", "embedding_bag_double:EmbeddingBag")
    return EmbeddingBag


def write_world(folder: Path, users: int = 60, events: int = 12) -> tuple[Path, Path]:
    """Thirty items, a colour and a thing each. A user stays with the colour and goes through the things in order."""
    items, interactions = folder / "items.jsonl", folder / "interactions.csv"
    titles = [(f"{colour}-{thing}", f"{colour} {thing}") for colour in COLOURS for thing in THINGS]
    items.write_text(
        "".join(json.dumps({"item_id": item_id, "attributes": {"title": title}}) + "\n" for item_id, title in titles)
    )
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(users):
        colour, thing = COLOURS[int(rng.integers(len(COLOURS)))], int(rng.integers(len(THINGS)))
        lines += [f"u{user},{colour}-{THINGS[(thing + step) % len(THINGS)]},{step}" for step in range(events)]
    interactions.write_text("\n".join(lines) + "\n")
    return items, interactions


@pytest.fixture
def world_files(tmp_path: Path) -> tuple[Path, Path]:
    return write_world(tmp_path)


@pytest.fixture
def world(world_files: tuple[Path, Path]) -> Dataset:
    return read_dataset(*world_files)
