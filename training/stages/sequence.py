"""Training of models with their own loss on whole sequences of users.

An epoch has the training part of every user once, in random order. The model decides how to use a sequence: which part
it reads, what it masks and which negatives it draws. Its random numbers depend on the seed, the epoch and the batch
number only, so an epoch does not depend on those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from seqrec.errors import InputError
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import ItemTokens, TokenizedHistory
from training.config.schema import SelfSupervisedConfig, SequenceConfig
from training.data.dataset import Dataset
from training.distributed import all_reduce_sum, rank, share
from training.stages.base import Stage, StageContext
from training.stages.encoding import PLAIN, Encoding


@dataclass(frozen=True, eq=False)
class Sequences:
    """A batch; `chance` seeds its random numbers."""

    histories: list[TokenizedHistory]
    chance: tuple[int, ...]


class SequenceStage(Stage):
    name = "sequence"

    def __init__(
        self,
        dataset: Dataset,
        tokens: ItemTokens,
        config: SequenceConfig | SelfSupervisedConfig,
        seed: int,
        encoding: Encoding = PLAIN,
    ) -> None:
        """`tokens`: the items of `dataset`, tokenized; items without tokens are left out of the sequences.

        Raises InputError if no sequence has two items.
        """
        self.config, self.seed, self.encoding = config, seed, encoding
        items = list(tokens)
        read = tokens.lengths > 0
        parts = [dataset.training_part(user) for user in range(dataset.users)]
        parts = [part[read[part]] for part in parts]
        self.sequences = [
            TokenizedHistory([items[row] for row in part], dataset.user_ids[user])
            for user, part in enumerate(parts)
            if len(part) > 1
        ]
        if not self.sequences:
            raise InputError("no user has two events that this model can train on", "sequence")

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        model, name = context.towers.history_model, context.towers.model_name
        if not model.has_training_loss:
            raise InputError(f"{name} has no loss of its own; use the stages joint, stage1 and stage2", "stages")
        needs_whole_weights(cls.name, context)
        data, config = context.data[0], context.config
        model.set_training_items([data.tokens[int(row)] for row in np.flatnonzero(data.dataset.trained_rows)])
        return cls(data.dataset, data.tokens, config.sequence, config.seed, context.encoding)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.sequences) // self.config.batch_size)

    def epoch(self, number: int) -> Iterator[Sequences]:
        order = np.random.default_rng([self.seed, number]).permutation(len(self.sequences))
        for batch, begin in enumerate(range(0, len(order), self.config.batch_size)):
            chosen = order[begin : begin + self.config.batch_size]
            yield Sequences([self.sequences[place] for place in chosen], (self.seed, number, batch))

    def loss(self, model: SequenceModel, batch: Sequences, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] with its graph: with several processes, the average over their sequences."""
        own = batch.histories[share(len(batch.histories))]
        seed = np.random.SeedSequence([*batch.chance, rank()]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        # A process without a share computes a discarded loss, since the others wait for its gradients.
        prepared = self.prepared(model, own or batch.histories[:1], generator).to(device)
        with self.encoding.autocast(device):
            loss = self.loss_of(model, prepared)
        return all_reduce_sum(loss.float() * (len(own) / len(batch.histories))), prepared.tokens

    def prepared(self, model: SequenceModel, histories: list[TokenizedHistory], generator: torch.Generator) -> Batch:
        return model.prepare_training(histories, generator)

    def loss_of(self, model: SequenceModel, batch: Batch) -> Tensor:
        """-> []"""
        return model.training_loss(batch)

    def post_optimizer_step(self, model: SequenceModel) -> None:
        model.post_optimizer_step()


def needs_whole_weights(stage: str, context: StageContext) -> None:
    """Raises InputError if weights are sharded over processes."""
    if context.config.sharding == "full":
        raise InputError(f"the stage {stage} needs whole weights; set sharding = 'none'", "sharding")
