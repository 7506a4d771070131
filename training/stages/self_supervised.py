"""The stage of models that learn from sequences alone before they learn what comes next, such as S3-Rec.

Batches are those of the stage `sequence`, the loss is the model's `pretraining_loss`. That does not learn what comes
next, so validation tells nothing of which weights are better: those of the last check are kept.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from seqrec.errors import InputError
from seqrec.models.base.model import Batch, PretrainsItself, SequenceModel
from seqrec.text.item_text import TokenizedHistory
from training.stages.base import StageContext
from training.stages.sequence import SequenceStage, needs_whole_weights


class SelfSupervisedStage(SequenceStage):
    name = "self_supervised"
    keeps_last = True

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        model, name = context.towers.history_model, context.towers.model_name
        if not isinstance(model, PretrainsItself):
            raise InputError(f"{name} has no pretraining of its own; leave the stage out", "stages")
        needs_whole_weights(cls.name, context)
        data, config = context.data[0], context.config
        return cls(data.dataset, data.tokens, config.self_supervised, config.seed, context.encoding)

    def prepared(self, model: SequenceModel, histories: list[TokenizedHistory], generator: torch.Generator) -> Batch:
        assert isinstance(model, PretrainsItself)
        return model.prepare_pretraining(histories, generator)

    def loss_of(self, model: SequenceModel, batch: Batch) -> Tensor:
        assert isinstance(model, PretrainsItself)
        return model.pretraining_loss(batch)
