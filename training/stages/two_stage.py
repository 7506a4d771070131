"""Two-stage fine-tuning (Recformer, section 2.3.2 and Algorithm 1): softmax cross entropy against an item matrix I.

Stage 1 encodes the catalogue into I at the start of every epoch with the current model. Stage 2 starts with the best
model of stage 1 and its I, which stays fixed while the model is trained further. Items thus belong to the weights at
the end of stage 1: the run keeps these as the item tower, next to the history tower of stage 2. I has no gradient in
either stage, and one row per unique text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import TokenizedHistory
from training.config.schema import FineTuningConfig
from training.data.dataset import Rows
from training.data.unique_texts import UniqueTexts
from training.evaluation.metrics import Metrics
from training.stages.augmentation import history_before
from training.stages.base import Stage, StageContext, Towers
from training.stages.joint import compare


@dataclass(frozen=True, eq=False)
class SoftmaxBatch:
    """b histories; targets: [b] text numbers; negatives: [b, k] sampled texts, or None: softmax over all texts."""

    histories: list[TokenizedHistory]
    targets: Rows
    negatives: Rows | None


class StageOne(Stage):
    name = "stage1"

    def __init__(self, context: StageContext, config: FineTuningConfig) -> None:
        """Raises InputError if no user has a training event, and for settings that the model does not support."""
        self.context, self.config = context, config
        self.seed = context.config.seed
        self.dataset = context.data[0].dataset
        self.tokens = list(context.data[0].tokens)
        self.texts = UniqueTexts.of(context.data[0].tokens)
        self.users = np.flatnonzero(self.dataset.cuts.train_end > 0)
        if not len(self.users):
            raise InputError("no user has a training event", "interactions")
        if config.negatives and len(self.texts) < 2:
            raise InputError("there is only one item text, so there are no negatives", f"{self.name}.negatives")
        self.items: Tensor | None = None  # [texts, dim]
        for tower in (context.towers.history_model, context.towers.item_model):
            tower.drop_language_model_head()
        if not context.towers.history_model.freeze_word_embeddings(config.freeze_words) and config.freeze_words:
            name = context.towers.model_name
            raise InputError(f"{name} has no word embeddings to freeze", f"{self.name}.freeze_words")

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        return cls(context, getattr(context.config, cls.name))

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.users) // self.config.batch_size)

    def begin_epoch(self, number: int, model: SequenceModel, device: torch.device) -> None:
        self.items = item_matrix(self.context.towers, [self.tokens[row] for row in self.texts.rows], device)

    def epoch(self, number: int) -> Iterator[SoftmaxBatch]:
        """One example per user, cut anywhere in the training part, so histories may be empty."""
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(self.users)
        for begin in range(0, len(order), self.config.batch_size):
            yield self._batch(order[begin : begin + self.config.batch_size], rng)

    def loss(self, model: SequenceModel, batch: SoftmaxBatch, device: torch.device) -> tuple[Tensor, int]:
        assert self.items is not None
        queries, tokens = self.context.encoding.histories(model, batch.histories, device)
        return softmax_loss(model, queries, self.items, batch, self.config.temperature), tokens

    def state(self) -> dict[str, Tensor]:
        return {} if self.items is None else {"items": self.items}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if "items" in state:
            self.items = state["items"].to(self.context.device)

    def _batch(self, users: Rows, rng: np.random.Generator) -> SoftmaxBatch:
        histories, targets = [], []
        for user in users:
            part = self.dataset.training_part(user)
            place = int(rng.integers(len(part)))
            history = [self.tokens[row] for row in history_before(part, place, self.config.crop, rng)]
            histories.append(TokenizedHistory(history, self.dataset.user_ids[user]))
            targets.append(self.texts.text_of[part[place]])
        wanted = np.array(targets, dtype=np.int64)
        if not self.config.negatives:
            return SoftmaxBatch(histories, wanted, None)
        drawn = rng.integers(len(self.texts) - 1, size=(len(users), self.config.negatives))
        return SoftmaxBatch(histories, wanted, drawn + (drawn >= wanted[:, None]))  # any but the target


class StageTwo(StageOne):
    name = "stage2"
    freezes_items = True

    def begin_epoch(self, number: int, model: SequenceModel, device: torch.device) -> None:
        if self.items is None:
            super().begin_epoch(number, model, device)

    def validate(self, encoder: Encoder) -> tuple[Metrics, Mapping[str, Any]] | None:
        """The validation of both towers, and the NDCG@10 of the history tower alone."""
        towers = self.context.towers
        one = Towers(towers.model_name, towers.history_model).encoder(encoder.device)
        return self.context.validate(encoder), {"one_tower_ndcg": self.context.validate(one).ndcg_expected}


def item_matrix(towers: Towers, items: list[Any], device: torch.device) -> Tensor:
    """The vectors of tokenized items [n] from the current item tower, without gradients: [n, dim]."""
    return torch.from_numpy(towers.encoder(device).encode_item_tokens(items)).to(device)


def softmax_loss(
    model: SequenceModel, queries: Tensor, items: Tensor, examples: SoftmaxBatch, temperature: float
) -> Tensor:
    """queries [b, dim] against item texts [t, dim]: all texts, or the target and negatives of each example. -> []"""
    targets = torch.from_numpy(examples.targets).to(queries.device)
    if examples.negatives is None:
        return F.cross_entropy(compare(model.metric, queries, items) / temperature, targets)
    drawn = np.concatenate([examples.targets[:, None], examples.negatives], axis=1)  # [b, 1 + k]
    rows, places = np.unique(drawn, return_inverse=True)
    logits = compare(model.metric, queries, items[torch.from_numpy(rows).to(items.device)])
    logits = logits.gather(1, torch.from_numpy(places.reshape(drawn.shape)).to(logits.device))
    return F.cross_entropy(logits / temperature, torch.zeros_like(targets))
