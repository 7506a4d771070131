"""The contract of a model: what the encoder, the trainer and the index call.

A model is one file in `seqrec/models` and one line in the table there. Abstract methods are what a model must define;
the others are hooks with a default, which most models keep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from seqrec.data.items import Item
from seqrec.errors import InputError
from seqrec.hybrid.settings import HybridSettings
from seqrec.metric import Metric
from seqrec.text.item_text import ItemText, ItemTokens, Recipe, TokenizedHistory, TokenizedItem


class Batch(Protocol):
    """The input of one forward pass: tensors, made on the CPU and then moved. Only its model knows what is inside."""

    @property
    def tokens(self) -> int:
        """Real tokens, without padding: the unit in which work is budgeted."""
        ...

    def to(self, device: torch.device | str) -> Self: ...


class TrainingSet(Protocol):
    """What `build` may read of a data set."""

    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def trained_items(self) -> Sequence[Item]:
        """The items that occur in training sequences."""
        ...

    @property
    def trained_users(self) -> Sequence[str]:
        """The ids of users with at least two training events."""
        ...


class NamedModel(NamedTuple):
    """A trained model and its name in MODELS."""

    name: str
    model: SequenceModel


@dataclass(frozen=True)
class BuildConfig:
    """How to build a model for training."""

    name: str
    """The model's name in MODELS, for error messages."""
    settings: Any
    """An instance of the model's `settings_class`."""
    recipe: Recipe
    """Which attributes of an item are text. A `start` has its own."""
    given: frozenset[str] = frozenset()
    """The settings that were set explicitly; the others have their defaults."""
    vocab_size: int = 4000
    """Tokens of a tokenizer that is trained on the data."""
    seed: int = 0
    text_encoder: str = ""
    """Directory, or name on the Hugging Face hub, of a BERT-like encoder to take weights and tokenizer from."""
    start: NamedModel | None = None
    """A trained model to build on."""


@dataclass(frozen=True)
class NoSettings:
    """The settings of a model that has none."""


class SequenceModel(nn.Module, ABC):
    """Turns items and histories into vectors, which are compared by `metric`.

    An item is tokenized once (`tokenize_items`) and its token ids are stored; everything else works on token ids. A
    model that only knows items by id makes one token of a known item and none of an unknown one. Vectors need not be
    normalised: `Encoder` does that for the cosine metric.
    """

    metric: Metric
    """How a query is compared with items: a higher score is better, whichever it is."""
    dim: int
    """The length of the vectors of items and histories, set when the model is made."""
    cold_items: bool
    """Whether it can encode an item that training did not see."""
    item_text: ItemText | None = None
    """The recipe and tokenizer, if it reads text."""
    settings_class: ClassVar[type[Any]] = NoSettings
    """A dataclass of the settings under [model.settings]; its `__post_init__` raises InputError for wrong values."""
    builds_on_checkpoints: ClassVar[bool] = False
    """Whether `build` puts a new model on top of a trained one. If not, training a checkpoint continues its model."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        """A model with fresh weights from what `config_json` returned."""

    @abstractmethod
    def config_json(self) -> dict[str, Any]:
        """Everything but weights and item text that is needed to make the model again; stored in checkpoints."""

    @abstractmethod
    def tokenize_items(self, items: Sequence[Item | Mapping[str, Any]]) -> ItemTokens:
        """CPU. Token ids of each item, given as an Item or as its attributes alone."""

    @abstractmethod
    def prepare_items(self, items: Sequence[TokenizedItem]) -> Batch:
        """CPU."""

    @abstractmethod
    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> Batch:
        """CPU. Items are oldest first. What exceeds the model's limits is cut, the oldest first."""

    @abstractmethod
    def encode_items(self, batch: Any) -> Tensor:
        """-> [n, dim]"""

    @abstractmethod
    def encode_histories(self, batch: Any) -> Tensor:
        """-> [b, dim]"""

    @abstractmethod
    def history_tokens(self, history: TokenizedHistory) -> int:
        """The number of tokens that are read of a history: the cost of a request."""

    # Serving

    @property
    def hybrid(self) -> HybridSettings | None:
        """The weights of words and co-occurrence in the score; None: the score is that of the dense vectors alone."""
        return None

    def term_vectors(self, items: Sequence[TokenizedItem]) -> csr_array:
        """float32 [n, terms]: the sparse vectors of items, if the model is a hybrid."""
        raise TypeError(f"{type(self).__name__} has no sparse vectors")

    def compile_cuda_graphs(self, bfloat16: bool) -> CudaGraphs | None:
        """Compiles the forward pass for inference on a GPU, if the model supports it."""
        return None

    # Training

    @classmethod
    def check(cls, config: BuildConfig) -> Recipe | None:
        """Checks `config` before the data is read. -> which attributes are text; None: the model reads no text.

        Raises InputError for what cannot be built.
        """
        if config.text_encoder:
            raise InputError(
                f"{config.name} cannot start from {config.text_encoder}, a text encoder", "model.start_from"
            )
        raise InputError(f"{config.name} cannot be trained from scratch; name another model", "model.name")

    @classmethod
    def build(cls, config: BuildConfig, datasets: Sequence[TrainingSet]) -> Self:
        """A model to train, from a configuration that `check` accepted. `datasets`: the run's own, then other domains.

        Raises InputError for data that it cannot be trained on.
        """
        raise NotImplementedError

    @property
    def has_training_loss(self) -> bool:
        """Whether it defines `training_loss`, so that the stage `sequence` can train it."""
        return type(self).training_loss is not SequenceModel.training_loss

    def set_training_items(self, items: Sequence[TokenizedItem]) -> None:
        """Called once before training, with the items that occur in training sequences."""
        return

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> Batch:
        """CPU. What `training_loss` reads of whole training sequences, oldest item first.

        All random numbers come from `generator`, so that a resumed run repeats an epoch exactly.
        """
        raise NotImplementedError

    def training_loss(self, batch: Any) -> Tensor:
        """-> [], a mean, so that it does not grow with the batch."""
        raise NotImplementedError

    def post_optimizer_step(self) -> None:
        """Called after each step of the optimizer, for example to keep weights within bounds."""
        return

    def set_gradient_checkpointing(self, enabled: bool) -> bool:
        """Recompute activations in the backward pass instead of storing them. -> whether the model supports it."""
        return False

    def freeze_word_embeddings(self, frozen: bool) -> bool:
        """-> whether the model has word embeddings."""
        return False

    def drop_language_model_head(self) -> None:
        """Remove the weights that only predict masked words. Called before stages that do not; may be repeated."""
        return

    def drop_source_domains(self) -> None:
        """Remove the weights of other data sets. Called before stages that do not read them; may be repeated."""
        return


class CudaGraphs(Protocol):
    """The compiled forward pass of a model."""

    def encode(self, batch: Any) -> Tensor | None:
        """A batch on the CPU -> [b, dim] on the GPU; None: too large, use the model."""
        ...
