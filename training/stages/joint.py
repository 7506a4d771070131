"""The joint stage: histories and items are encoded by the same model, both with gradients.

An example is a user cut at a random position of the training part: the items before it are the history, the item there
is the target. The candidates of all examples of a batch are its targets and random negatives; the loss is the softmax
cross entropy of score / temperature, as in Recformer's contrastive pretraining (section 2.3.1). Candidates are unique
texts, so an item with the same text as the target is never its negative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import ItemTokens, TokenizedHistory
from training.config.schema import JointConfig
from training.data.dataset import Dataset, Rows
from training.data.unique_texts import UniqueTexts
from training.stages.augmentation import history_before
from training.stages.base import Stage, StageContext
from training.stages.encoding import PLAIN, Encoding


@dataclass(frozen=True, eq=False)
class JointBatch:
    """A batch. histories: b; candidates: [c] item rows of unique texts; labels: [b] positions in candidates."""

    histories: list[TokenizedHistory]
    candidates: Rows
    labels: Rows


class JointStage(Stage):
    name = "joint"

    def __init__(
        self,
        dataset: Dataset,
        tokens: ItemTokens,
        config: JointConfig,
        seed: int,
        encoding: Encoding = PLAIN,
    ) -> None:
        """`tokens`: the items of `dataset`, tokenized. Raises InputError if no user has an example."""
        self.config = config
        self.seed = seed
        self.encoding = encoding
        self.dataset = dataset
        self.tokens = list(tokens)
        self.texts = UniqueTexts.of(tokens)
        lengths = np.array([len(dataset.training_part(user)) for user in range(dataset.users)])
        users = np.flatnonzero(lengths > config.min_history)
        if not len(users):
            raise InputError(f"no user has more than min_history = {config.min_history} events to train on")
        self.examples = np.repeat(users, config.examples_per_user)

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        data, config = context.data[0], context.config
        return cls(data.dataset, data.tokens, config.joint, config.seed, context.encoding)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch_size)

    def epoch(self, number: int) -> Iterator[JointBatch]:
        """The batches of one pass over the users."""
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(self.examples)
        for begin in range(0, len(order), self.config.batch_size):
            yield self._batch(order[begin : begin + self.config.batch_size], rng)

    def loss(self, model: SequenceModel, batch: JointBatch, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] with its graph, and the number of tokens"""
        candidate_items = [self.tokens[row] for row in batch.candidates]
        queries, history_tokens = self.encoding.histories(model, batch.histories, device)  # [b, dim]
        vectors, item_tokens = self.encoding.items(model, candidate_items, device)  # [c, dim]
        logits = compare(model.metric, queries, vectors)  # [b, c]
        labels = torch.from_numpy(batch.labels).to(device)
        loss = F.cross_entropy(logits / self.config.temperature, labels)
        return loss, history_tokens + item_tokens

    def _batch(self, users: Rows, rng: np.random.Generator) -> JointBatch:
        histories, targets = [], []
        for user in users:
            part = self.dataset.training_part(user)
            last = len(part) - 1
            first = last // 2 if self.config.targets == "later_half" else 0
            place = int(rng.integers(max(first, self.config.min_history), last, endpoint=True))
            history = [self.tokens[row] for row in history_before(part, place, self.config.crop, rng)]
            histories.append(TokenizedHistory(history, self.dataset.user_ids[user]))
            targets.append(part[place])
        wanted = self.texts.text_of[np.array(targets)]
        drawn = rng.choice(len(self.texts), min(self.config.negatives, len(self.texts)), replace=False)
        candidates = np.unique(np.concatenate([wanted, drawn]))
        return JointBatch(histories, self.texts.rows[candidates], np.searchsorted(candidates, wanted))


def compare(metric: Metric, queries: Tensor, items: Tensor) -> Tensor:
    """Scores as in `Metric.scores`, with gradients: queries [b, dim], items [n, dim] -> [b, n]."""
    if metric is Metric.COSINE:
        queries, items = F.normalize(queries, dim=1), F.normalize(items, dim=1)
    products = queries @ items.T
    if metric is Metric.L2:
        products = 2 * products - queries.square().sum(1)[:, None] - items.square().sum(1)
    return products
