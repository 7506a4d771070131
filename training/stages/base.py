"""What the loop trains on: a stage gives batches and their loss. The stages there are stand in one table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from seqrec.checkpoint import Checkpoint
from seqrec.encoder import Encoder
from seqrec.models.base.model import SequenceModel
from seqrec.registry import choose
from seqrec.text.item_text import ItemTokens
from training.config.schema import RunConfig
from training.data.dataset import Dataset
from training.evaluation.metrics import Metrics
from training.stages.encoding import Encoding

STAGES = {
    "pretrain": "training.stages.pretraining:PretrainStage",
    "joint": "training.stages.joint:JointStage",
    "stage1": "training.stages.two_stage:StageOne",
    "stage2": "training.stages.two_stage:StageTwo",
    "hybrid": "training.stages.hybrid:HybridStage",
    "residual": "training.stages.residual:ResidualStage",
    "adversarial": "training.stages.adversarial:AdversarialStage",
    "self_supervised": "training.stages.self_supervised:SelfSupervisedStage",
    "sequence": "training.stages.sequence:SequenceStage",
}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A data set, and its items as the model reads them."""

    dataset: Dataset
    tokens: ItemTokens


class Towers:
    """The model in training, `history_model`, and what encodes items: the same object until a stage freezes it."""

    def __init__(self, model_name: str, model: SequenceModel) -> None:
        self.model_name = model_name
        self.history_model = self.item_model = model

    @property
    def split(self) -> bool:
        return self.item_model is not self.history_model

    def freeze_items(self) -> None:
        """From now on items are encoded by a copy of the model as it is, which nothing changes any more."""
        frozen = copy.deepcopy(self.history_model)
        assert isinstance(frozen, nn.Module)
        self.item_model = frozen.requires_grad_(False).eval()

    def encoder(self, device: str | torch.device | None) -> Encoder:
        """An Encoder over both towers. They are in no directory yet: the digests are empty."""
        nowhere = Checkpoint(
            path=Path(),
            model_name=self.model_name,
            digest="",
            item_tower="",
            history_tower="",
            tokenizer="",
            item_text="",
            history_model=self.history_model,
            item_model=self.item_model,
        )
        return Encoder(nowhere, str(device) if device else None)


@dataclass(frozen=True, eq=False)
class StageContext:
    """What a stage is made from. `data`: the run's own first; others are for `pretrain` and `adversarial`."""

    config: RunConfig
    data: tuple[TrainingData, ...]
    towers: Towers
    device: torch.device
    encoding: Encoding
    validate: Callable[[Encoder], Metrics]
    """The run's own validation."""


class Stage(Protocol):
    """Batches, and their loss. A stage derives from this and gets the defaults below."""

    name: str
    closed_form: bool = False
    """Whether `solve` makes the model without batches and gradient steps."""
    keeps_last: bool = False
    """Whether the weights of the last check are kept, and not those of the best one: where checks do not tell."""
    freezes_items: bool = False
    """Whether items are encoded, from this stage on, by the weights that the stage before it ended with."""
    parts: Mapping[str, Tensor] = {}
    """What the last loss was made of, detached: written beside it."""

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        """Raises InputError for data that cannot be trained on like this."""
        ...

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]:
        """The batches of one pass: the same for the same seed and number, whatever came before."""
        ...

    def loss(self, model: SequenceModel, batch: Any, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] of the whole batch with its graph, and how many tokens this process read for it."""
        ...

    def solve(self) -> tuple[Metrics, Mapping[str, Any]]:
        """Of a stage in closed form: replaces the model in the context's towers. -> its validation metrics, and what
        metrics.jsonl gets with them."""
        raise NotImplementedError

    def begin_epoch(self, number: int, model: SequenceModel, device: torch.device) -> None:
        """Before the first batch of an epoch; the model is in evaluation mode, and no gradients are kept.

        A run that goes on in mid-epoch calls it again where `state` is empty: it must then make the same as before.
        """
        return

    def post_optimizer_step(self, model: SequenceModel) -> None:
        """After each step of the optimiser, such as to hold weights within bounds."""
        return

    def validate(self, encoder: Encoder) -> tuple[Metrics, Mapping[str, Any]] | None:
        """The stage's own validation, and what else metrics.jsonl is told about it; None: the run's validation."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What `begin_epoch` and the losses since have made; {} where `begin_epoch` makes it anew."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        return


def stage_class(name: str) -> type[Stage]:
    """The class behind a name of STAGES. Raises InputError for any other."""
    chosen: type[Stage] = choose(STAGES, name, "stage", "stages")
    return chosen
