"""The residual stage: id vectors for the items in training, learned on top of a text model (seqrec.models.residual).

The text model is frozen, so text vectors are computed once and an epoch is a few matrix products: softmax cross entropy
over all items in training. Every logit includes the score of the text model, so the residual only learns what that
lacks. Items bought together have no order, so reversed sequences are trained on too (`reverse`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.models.base.id_table import ItemIds
from seqrec.models.base.model import SequenceModel
from seqrec.models.residual import Residual, newest_first
from seqrec.runtime.progress import StageBars
from seqrec.text.item_text import TokenizedHistory
from training.config.schema import ResidualConfig
from training.data.dataset import Dataset, Rows
from training.data.unique_texts import UniqueTexts
from training.evaluation.evaluate import ProgressCounter
from training.evaluation.metrics import Metrics
from training.evaluation.ranking import CANDIDATE_MODES, case_ranks
from training.stages.base import Stage, StageContext

HISTORIES_AT_ONCE = 4096
"""Histories encoded at a time, which bounds memory."""


class ResidualStage(Stage):
    name = "residual"

    def __init__(self, context: StageContext) -> None:
        """Replaces the text model in `context.towers` by a `Residual`.

        Raises InputError for a model without text, and for sharded weights: centering before each check needs whole
        weights.
        """
        if context.config.sharding == "full":
            raise InputError("the residual stage needs whole weights; set sharding = 'none'", "sharding")
        self.config, self.seed = context.config.residual, context.config.seed
        [self.data] = context.data[:1]
        dataset = self.data.dataset
        self.known = np.flatnonzero(dataset.trained_rows)  # row of the residual -> row of the catalogue
        self.unknown = len(self.known)
        self.row_of = np.full(len(dataset.items), self.unknown)  # the other way
        self.row_of[self.known] = np.arange(len(self.known))
        self.histories, self.targets = _examples(dataset, self.config, self.seed)
        self.cases = dataset.cases("valid").sample(context.config.validation_of(self.name).users, context.config.seed)
        self.text_encoder = context.towers.encoder(context.device)
        self.encoded = False
        self._wrap(context)

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        return cls(context)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.histories) / self.config.batch_size)

    def begin_epoch(self, number: int, model: SequenceModel, device: torch.device) -> None:
        """Computes all text vectors the first time; the text model does not change."""
        if self.encoded:
            return
        histories = self.histories
        whole = np.random.default_rng(self.seed).permutation(len(histories))[: self.config.encoded]
        with StageBars(prefix="encoding ") as bars:
            self.vectors = self._item_vectors(bars).to(device)
            encoded = self._history_vectors([histories[number] for number in whole], "histories", bars).to(device)
            self.validation_vectors = self._history_vectors(self.cases.histories, "validation histories", bars).to(
                device
            )
        # The vector of the last item costs nothing and is close to that of the history.
        text = np.array([history[-1] for history in histories])
        text[whole] = len(self.vectors) + np.arange(len(whole))
        self.texts = torch.cat([self.vectors, encoded])  # [n + encoded, dim]
        self.text_of = torch.from_numpy(text).to(device)  # [m], rows of `texts`
        self.rows = self._rows(histories).to(device)  # [m, history]
        self.validation_rows = self._rows(self.cases.histories).to(device)
        self.labels = torch.from_numpy(self.row_of[self.targets]).to(device)  # [m]
        self.known_vectors = self.vectors[torch.from_numpy(self.known).to(device)]  # [known, dim]
        self.all_rows = torch.arange(len(self.known), device=device)
        self.encoded = True

    def _item_vectors(self, bars: StageBars) -> Tensor:
        """Text vectors of all items, [n, dim]; equal texts have equal vectors."""
        texts = UniqueTexts.of(self.data.tokens)
        distinct = [self.data.tokens[row] for row in texts.rows]
        done = ProgressCounter(bars, "items", len(distinct))
        return torch.from_numpy(self.text_encoder.encode_item_tokens(distinct, done)[texts.text_of])

    def _history_vectors(self, histories: Sequence[Rows], what: str, bars: StageBars) -> Tensor:
        """Text vectors [len(histories), dim]."""
        items = list(self.data.tokens)
        text = np.empty((len(histories), self.text_encoder.dim), dtype=np.float32)
        for begin in range(0, len(histories), HISTORIES_AT_ONCE):
            some = histories[begin : begin + HISTORIES_AT_ONCE]
            tokenized = [TokenizedHistory([items[row] for row in history]) for history in some]
            text[begin : begin + len(some)] = self.text_encoder.encode_history_tokens(tokenized)
            bars(what, begin + len(some), len(histories))
        return torch.from_numpy(text)

    def _rows(self, histories: Sequence[Rows]) -> Tensor:
        """Rows of the residual [len(histories), history], newest first."""
        size = self.config.history
        return newest_first([self.row_of[history[-size:]].tolist() for history in histories], size, self.unknown)

    def _wrap(self, context: StageContext) -> None:
        """Wraps each tower in a `Residual`; both share the learned part."""
        towers, dataset = context.towers, self.data.dataset
        ids = ItemIds.of([dataset.items[int(row)].item_id for row in self.known])
        models = []
        for text in (towers.history_model, towers.item_model):
            c = self.config
            model = Residual.over(towers.model_name, text, ids, self.unknown, c.dim, c.history, c.temperature)
            model.text.requires_grad_(False)
            models.append(model)
        model, item_model = models
        item_model.share_residual(model)
        towers.history_model, towers.item_model = model, item_model if towers.split else model
        towers.model_name = "residual"

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Numbers of examples, [b] each."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.histories))
        for begin in range(0, len(order), self.config.batch_size):
            yield torch.from_numpy(order[begin : begin + self.config.batch_size])

    def loss(self, model: SequenceModel, batch: Tensor, device: torch.device) -> tuple[Tensor, int]:
        assert isinstance(model, Residual)
        assert self.vectors is not None
        batch = batch.to(device)
        rows = self.rows[batch]
        if self.config.dropout:
            # Random items of the history are left out, so that the model relies on no single one.
            rows = rows.masked_fill(torch.rand(rows.shape, device=device) < self.config.dropout, model.unknown)
        logits = self.texts[self.text_of[batch]] @ self.known_vectors.T  # [b, known]
        logits = logits + model.history_part(rows) @ model.item_part(self.all_rows).T
        loss = F.cross_entropy(logits * model.sharpness, self.labels[batch])
        return loss, len(batch) + int((rows != model.unknown).sum().item())

    def validate(self, encoder: Encoder) -> tuple[Metrics, Mapping[str, Any]]:
        """Ranks all items with the text vectors computed before."""
        model = encoder.checkpoint.history_model
        assert isinstance(model, Residual)
        model.center()
        with torch.inference_mode():
            rows = torch.from_numpy(self.row_of).to(encoder.device)
            items = torch.cat([self.vectors, model.item_part(rows)], dim=1).cpu().numpy()
            queries = (
                torch.cat([self.validation_vectors, model.history_part(self.validation_rows)], dim=1).cpu().numpy()
            )
        ranked = case_ranks(
            lambda numbers: model.metric.scores(queries[numbers], items), self.cases, len(items), CANDIDATE_MODES[:1]
        )
        return ranked["all items"].metrics(), {}


def _examples(dataset: Dataset, config: ResidualConfig, seed: int) -> tuple[list[Rows], Rows]:
    """Histories [m] and next items [m]: every training event with an event before it, with `reverse` also those of the
    reversed sequences, or a random sample of `examples`.

    Raises InputError if there are none.
    """
    parts = [dataset.training_part(user) for user in range(dataset.users)]
    if config.reverse:
        parts += [part[::-1] for part in parts]
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    numbers = np.repeat(np.arange(len(parts)), np.maximum(sizes - 1, 0))
    if not len(numbers):
        raise InputError("no user has two training events", "residual")
    places = np.concatenate([np.arange(1, size) for size in sizes])
    chosen = np.sort(np.random.default_rng(seed).permutation(len(numbers))[: config.examples])
    pairs = [(parts[number], place) for number, place in zip(numbers[chosen], places[chosen], strict=True)]
    return [part[:place] for part, place in pairs], np.array([part[place] for part, place in pairs], dtype=np.int64)
