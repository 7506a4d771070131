"""The contract of a training stage, which provides batches and their loss, and the table of stages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

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
    """A data set and its tokenized items."""

    dataset: Dataset
    tokens: ItemTokens


class Towers:
    """The model in training, `history_model`, and the model that encodes items: one object until a stage freezes it."""

    def __init__(self, model_name: str, model: SequenceModel) -> None:
        self.model_name = model_name
        self.history_model = self.item_model = model

    @property
    def split(self) -> bool:
        return self.item_model is not self.history_model

    def freeze_items(self) -> None:
        """Items are encoded from now on by a frozen copy of the current model."""
        frozen = copy.deepcopy(self.history_model)
        self.item_model = frozen.requires_grad_(False).eval()

    def encoder(self, device: str | torch.device | None) -> Encoder:
        """An Encoder over both towers, without digests, since they are not saved."""
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
    """The input of a stage. `data`: the run's own data set first; others are for `pretrain` and `adversarial`."""

    config: RunConfig
    data: tuple[TrainingData, ...]
    towers: Towers
    device: torch.device
    encoding: Encoding
    validate: Callable[[Encoder], Metrics]
    """The validation of the run."""


class Stage(Protocol):
    """Batches and their loss. Stages inherit the defaults below."""

    name: str
    closed_form: bool = False
    """Whether `solve` computes the model without batches and gradient steps."""
    keeps_last: bool = False
    """Whether to keep the weights of the last check, not of the best: validation does not measure the stage."""
    freezes_items: bool = False
    """Whether items are encoded, from this stage on, by the final weights of the stage before it."""
    parts: Mapping[str, Tensor] = {}
    """The parts of the last loss, detached, for the log."""

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        """Raises InputError for data or a model that the stage cannot train on."""
        ...

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]:
        """The batches of one pass; they depend on seed and number only."""
        ...

    def loss(self, model: SequenceModel, batch: Any, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] of the whole batch with its graph, and the number of tokens that this process encoded."""
        ...

    def solve(self) -> tuple[Metrics, Mapping[str, Any]]:
        """For a closed-form stage: replaces the model in the towers of the context.

        -> its validation metrics, and further entries for metrics.jsonl
        """
        raise NotImplementedError

    def begin_epoch(self, number: int, model: SequenceModel, device: torch.device) -> None:
        """Called before the first batch of an epoch, with the model in evaluation mode and without gradients.

        A run that is resumed within an epoch calls it again if `state` is empty, and must get the same result.
        """
        return

    def post_optimizer_step(self, model: SequenceModel) -> None:
        """Called after each optimizer step, for example to clip weights."""
        return

    def validate(self, encoder: Encoder) -> tuple[Metrics, Mapping[str, Any]] | None:
        """The validation of the stage and further entries for metrics.jsonl; None: the validation of the run."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Tensors to save with the run; {} if `begin_epoch` recomputes everything."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        return


def stage_class(name: str) -> type[Stage]:
    """The class of a stage. Raises InputError for an unknown name."""
    chosen: type[Stage] = choose(STAGES, name, "stage", "stages")
    return chosen
