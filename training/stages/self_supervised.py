"""Self-supervised pretraining of models that have it, such as S3-Rec.

Batches are those of the stage `sequence`; the loss is the `pretraining_loss` of the model. It does not train next-item
prediction, so validation does not measure it, and the weights of the last check are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from seqrec.errors import InputError
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import TokenizedHistory
from training.stages.base import StageContext
from training.stages.sequence import SequenceStage, needs_whole_weights


@runtime_checkable
class SelfSupervised(Protocol):
    """What a model defines for this stage."""

    def prepare_pretraining(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> Batch:
        """CPU. As `SequenceModel.prepare_training`."""
        ...

    def pretraining_loss(self, batch: Any) -> Tensor:
        """-> [], a mean, so that it does not grow with the batch."""
        ...


class SelfSupervisedStage(SequenceStage):
    name = "self_supervised"
    keeps_last = True

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        model, name = context.towers.history_model, context.towers.model_name
        if not isinstance(model, SelfSupervised):
            raise InputError(f"{name} has no self-supervised pretraining; leave the stage out", "stages")
        needs_whole_weights(cls.name, context)
        data, config = context.data[0], context.config
        return cls(data.dataset, data.tokens, config.self_supervised, config.seed, context.encoding)

    def prepared(self, model: SequenceModel, histories: list[TokenizedHistory], generator: torch.Generator) -> Batch:
        assert isinstance(model, SelfSupervised)
        return model.prepare_pretraining(histories, generator)

    def loss_of(self, model: SequenceModel, batch: Batch) -> Tensor:
        assert isinstance(model, SelfSupervised)
        return model.pretraining_loss(batch)
