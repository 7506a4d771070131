"""The joint stage: histories and items encoded by the same model, both with gradients (MODELS.md).

An example is one user cut at one position of the training part: the items before it, and the item there as the
target. The targets of a batch and random negatives are the candidates of all its examples; the loss is the softmax
cross entropy of score / temperature, as in the contrastive objective of Recformer's pretraining (section 2.3.1).
Candidates are distinct texts: an item that reads like the target is never its negative.

With `bank` the other items of the catalogue are negatives as well, by vectors without gradient: each as it was when the
item was last encoded, and all of them afresh at the start of an epoch. The loss is then a softmax over the whole
catalogue, for the price of the few items that get gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.item_text import ItemTokens, TokenizedHistory
from seqrec.metric import Metric
from seqrec.model import SequenceModel
from training.config import JointConfig
from training.data import Dataset, Rows
from training.encoding import PLAIN, Encoding
from training.evaluation import encoder_of
from training.stage import Stage, StageContext
from training.texts import DistinctTexts


@dataclass(frozen=True, eq=False)
class Examples:
    """A training batch. histories: b; candidates: [c] item rows of distinct texts; labels: [b] into candidates."""

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
        """`tokens` are the items of `dataset` as the model reads them. Raises InputError if no user has an example."""
        self.config = config
        self.seed = seed
        self.encoding = encoding
        self.dataset = dataset
        self.tokens = list(tokens)
        self.texts = DistinctTexts.of(tokens)
        lengths = np.array([len(dataset.training_part(user)) for user in range(dataset.users)])
        users = np.flatnonzero(lengths > config.min_history)
        if not len(users):
            raise InputError(f"no user has more than min_history = {config.min_history} events to train on")
        self.examples = np.repeat(users, config.examples_per_user)
        self.bank: Tensor | None = None

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        data, config = context.data[0], context.config
        return cls(data.dataset, data.tokens, config.joint, config.seed, context.encoding)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch_size)

    def begin_epoch(self, number: int, model: SequenceModel, device: torch.device) -> None:
        """Encode the whole catalogue into the bank, where one is kept."""
        if self.config.bank:
            items = [self.tokens[row] for row in self.texts.rows]
            encoded = encoder_of(model, "", str(device)).encode_item_tokens(items)
            self.bank = torch.from_numpy(encoded).to(device)  # [texts, dim]

    def epoch(self, number: int) -> Iterator[Examples]:
        """The batches of one pass over the users; the same for the same seed and number."""
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(self.examples)
        for begin in range(0, len(order), self.config.batch_size):
            yield self._examples(order[begin : begin + self.config.batch_size], rng)

    def state(self) -> dict[str, Tensor]:
        return {} if self.bank is None else {"bank": self.bank}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.bank = state.get("bank")

    def loss(self, model: SequenceModel, batch: Examples, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] with its graph, and how many tokens were read for it."""
        candidate_items = [self.tokens[row] for row in batch.candidates]
        queries, history_tokens = self.encoding.histories(model, batch.histories, device)  # [b, dim]
        vectors, item_tokens = self.encoding.items(model, candidate_items, device)  # [c, dim]
        logits = compare(model.metric, queries, vectors)  # [b, c]
        labels = torch.from_numpy(batch.labels).to(device)
        if self.bank is not None:
            candidates = torch.from_numpy(self.texts.text_of[batch.candidates]).to(device)
            self.bank[candidates] = vectors.detach()
            others = compare(model.metric, queries, self.bank).index_fill(1, candidates, -torch.inf)  # [b, texts]
            logits = torch.cat([logits, others], dim=1)
        loss = F.cross_entropy(logits / self.config.temperature, labels)
        return loss, history_tokens + item_tokens

    def _examples(self, users: Rows, rng: np.random.Generator) -> Examples:
        histories, targets = [], []
        for user in users:
            part = self.dataset.training_part(user)
            last = len(part) - 1
            first = last // 2 if self.config.targets == "later_half" else 0
            place = int(rng.integers(max(first, self.config.min_history), last, endpoint=True))
            history = [self.tokens[row] for row in part[:place]]
            histories.append(TokenizedHistory(history, self.dataset.user_ids[user]))
            targets.append(part[place])
        wanted = self.texts.text_of[np.array(targets)]
        drawn = rng.choice(len(self.texts), min(self.config.negatives, len(self.texts)), replace=False)
        candidates = np.unique(np.concatenate([wanted, drawn]))
        return Examples(histories, self.texts.rows[candidates], np.searchsorted(candidates, wanted))


def compare(metric: Metric, queries: Tensor, items: Tensor) -> Tensor:
    """Scores as `Metric.scores` defines them, with gradients: queries [b, dim], items [n, dim] -> [b, n]."""
    if metric is Metric.COSINE:
        queries, items = F.normalize(queries, dim=1), F.normalize(items, dim=1)
    products = queries @ items.T
    if metric is Metric.L2:
        products = 2 * products - queries.square().sum(1)[:, None] - items.square().sum(1)
    return products
