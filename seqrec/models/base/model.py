"""What a model is. One model is one file in `seqrec/models`, named in the table there; all meet this contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqrec.data.items import Item
from seqrec.metric import Metric
from seqrec.text.item_text import ItemText, ItemTokens, TokenizedHistory, TokenizedItem


class Batch(Protocol):
    """What a model computes on: tensors made on the CPU, then moved. Opaque to everyone but the model that made it."""

    @property
    def tokens(self) -> int:
        """Real tokens in it: the unit in which work is budgeted."""
        ...

    def to(self, device: torch.device | str) -> Self: ...


@runtime_checkable
class SequenceModel(Protocol):
    """An `nn.Module` whose item and history vectors are compared by `metric`.

    Items are made into token ids once (`tokenize_items`; a model that only knows ids makes one token of an item,
    none of an unknown one) and kept; everything after that works on tokens. Vectors are not normalised yet:
    `Encoder` does it where the metric is cosine.
    """

    metric: Metric
    dim: int
    cold_items: bool
    """Whether it can encode an item that training never saw."""
    item_text: ItemText | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        """A model with fresh weights from what `config_json` returned."""
        ...

    def config_json(self) -> dict[str, Any]: ...

    def tokenize_items(self, items: Sequence[Item | Mapping[str, Any]]) -> ItemTokens:
        """CPU. Token ids of each item."""
        ...

    def prepare_items(self, items: Sequence[TokenizedItem]) -> Batch:
        """CPU."""
        ...

    def prepare_histories(self, histories: Sequence[TokenizedHistory]) -> Batch:
        """CPU. Items oldest first; the newest that fit are read."""
        ...

    def encode_items(self, batch: Any) -> Tensor:
        """-> [n, dim]"""
        ...

    def encode_histories(self, batch: Any) -> Tensor:
        """-> [b, dim]"""
        ...

    def history_tokens(self, history: TokenizedHistory) -> int:
        """How many tokens of the history are read; what a request costs."""
        ...


@runtime_checkable
class TrainsItself(SequenceModel, Protocol):
    """A model with a loss of its own; the stage "sequence" trains it on whole sequences of users."""

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> Batch:
        """CPU. Everything that each user had in training, oldest first; chance comes from `generator` alone."""
        ...

    def training_loss(self, batch: Any) -> Tensor:
        """-> [], an average, so that it does not grow with the batch."""
        ...

    def post_optimizer_step(self) -> None:
        """Called after each step of the optimiser, such as to hold weights within bounds."""
        ...


@runtime_checkable
class TellsItemsApart(TrainsItself, Protocol):
    """A model whose loss needs the items that there are, since it keeps no weights for each."""

    def set_training_items(self, items: Sequence[TokenizedItem]) -> None:
        """Once, before training: the items that training sees."""
        ...


@runtime_checkable
class PretrainsItself(TrainsItself, Protocol):
    """A model that first learns from sequences as such; the stage "self_supervised" does it."""

    def prepare_pretraining(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> Batch:
        """CPU. As `prepare_training`."""
        ...

    def pretraining_loss(self, batch: Any) -> Tensor:
        """-> [], an average, so that it does not grow with the batch."""
        ...


@runtime_checkable
class AlignsDomains(TrainsItself, Protocol):
    """A model that represents users of several data sets alike; the stage "adversarial" makes it.

    Domain 0 is the data set that it is for. Of the others it knows items by number alone, so that equal ids do not
    meet, and it can forget them.
    """

    def other_items(self, domain: int) -> Sequence[TokenizedItem]:
        """The items that training sees of another domain, in its order."""
        ...

    def prepare_alignment(
        self, domains: Sequence[Sequence[TokenizedHistory]], twins: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> Batch:
        """CPU. b sequences of two items or more of each domain; twins [domains - 1, b]: where that sequence is of the
        same user as domain 0's in its place. Chance comes from `generator` alone."""
        ...

    def alignment_losses(self, batch: Any) -> Mapping[str, Tensor]:
        """Each [], an average: `reconstruction`; of several domains `discriminator`, `confusion` and `overlap` too."""
        ...

    def drop_source_domains(self) -> None:
        """Keep what domain 0 needs alone. A second time it does nothing."""
        ...
