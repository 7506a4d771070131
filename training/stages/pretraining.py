"""Pretraining on several data sets: in-batch contrastive loss and masked words (Recformer, section 2.3.1).

An example is a user of any of the data sets, cut in the later half of the training part: the history and the item at
the cut. Each history is contrasted against the items of all histories of the batch, over all processes; an item with
the same text is never a negative. Words of both texts are masked and predicted. With `sequence_weight` each history is
also contrasted with an augmentation of itself, without some items or words (UniSRec, section 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.metric import Metric
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import ItemTokens, TokenizedHistory, TokenizedItem
from training.config.schema import PretrainConfig
from training.data.dataset import Rows
from training.data.unique_texts import UniqueTexts
from training.distributed import all_reduce_sum, processes, share
from training.evaluation.evaluation_set import EvaluationSet, read_folder
from training.evaluation.metrics import Metrics
from training.stages.augmentation import augment, history_before
from training.stages.base import Stage, StageContext, TrainingData
from training.stages.encoding import Encoding
from training.stages.joint import compare
from training.stages.masking import Vocabulary, mask_sequences

IGNORE_INDEX = -100
"""The label of tokens that are not predicted; cross_entropy ignores it."""


class TokenBatch(Protocol):
    """What masking reads of a batch of texts; int64 [t] each, and [b] for `cls`."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def token_types(self) -> Tensor: ...
    @property
    def item_positions(self) -> Tensor: ...
    @property
    def cls(self) -> Tensor:
        """The position of the first token of each sequence."""
        ...

    def with_input_ids(self, input_ids: Tensor) -> Self: ...
    def to(self, device: torch.device | str) -> Self: ...


@runtime_checkable
class PredictsMaskedWords(Protocol):
    """What a model defines for `mlm_weight`. `SequenceModel.drop_language_model_head` removes the head."""

    def add_language_model_head(self) -> int:
        """Adds a head, if there is none. -> the id of the mask token."""
        ...

    def masked_words_loss(self, batch: Any, labels: Tensor) -> Tensor:
        """The summed loss of the masked tokens; 0, with a graph, if there are none. labels [t] -> []"""
        ...


@dataclass(frozen=True, eq=False)
class Pairs:
    """b histories and their next items. texts [b]: equal for items of equal text; seeds [b]: of the masks;
    augmented: the augmented histories, if the loss uses them."""

    histories: list[TokenizedHistory]
    targets: list[TokenizedItem]
    texts: Rows
    seeds: Rows
    augmented: Sequence[TokenizedHistory] = ()


Masked = TypeVar("Masked", bound=TokenBatch)


class PretrainStage(Stage):
    name = "pretrain"

    def __init__(
        self,
        domains: Sequence[TrainingData],
        config: PretrainConfig,
        seed: int,
        encoding: Encoding | None = None,
        vocabulary: Vocabulary | None = None,
        held_out: Sequence[EvaluationSet] = (),
        zero_shot: Sequence[EvaluationSet] = (),
    ) -> None:
        """`vocabulary`: for masking, if words are masked.

        Raises InputError if there are fewer than two users with training events.
        """
        self.config, self.seed = config, seed
        self.encoding, self.vocabulary = encoding or Encoding(), vocabulary
        self.held_out, self.zero_shot = held_out, zero_shot
        self.datasets = [domain.dataset for domain in domains]
        self.tokens = [list(domain.tokens) for domain in domains]
        together = UniqueTexts.of(ItemTokens.concatenate(item for tokens in self.tokens for item in tokens))
        ends = np.cumsum([len(tokens) for tokens in self.tokens])
        self.text_of = np.split(together.text_of, ends[:-1])
        examples = []  # [n, 2] of each domain: its number, and a user with something to train on
        for number, dataset in enumerate(self.datasets):
            users = np.flatnonzero(dataset.cuts.train_end > 0)
            examples.append(np.stack([np.full(len(users), number), users], axis=1))
        self.parts_of_data = examples if config.single_domain_batches else [np.concatenate(examples)]
        if min(len(part) for part in self.parts_of_data) < 2:
            raise InputError("fewer than two users have training events, so there are no negatives")

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        """Adds a head for masked words if needed, and reads the zero-shot data sets."""
        config, seed, model = context.config.pretrain, context.config.seed, context.towers.history_model
        vocabulary = None
        if config.mlm_weight:
            vocabulary = add_language_model_head(model)
        names = _names(config.data) or ["data"]
        users = context.config.validation_of(cls.name).users
        held_out = [
            EvaluationSet.of(name, domain.dataset, domain.tokens, "valid", users, config.held_out_items, seed)
            for name, domain in zip(names, context.data, strict=True)
        ]
        zero_shot = []
        recipe = None if model.item_text is None else model.item_text.recipe
        for name, folder in zip(_names(config.zero_shot), config.zero_shot, strict=True):
            dataset = read_folder(folder, recipe, "skip")
            tokens = model.tokenize_items(dataset.items)
            zero_shot.append(EvaluationSet.of(name, dataset, tokens, "test", config.zero_shot_users, 0, seed))
        return cls(context.data, config, seed, context.encoding, vocabulary, held_out, zero_shot)

    @property
    def steps_per_epoch(self) -> int:
        return sum(self._batches(part) for part in self.parts_of_data)

    def epoch(self, number: int) -> Iterator[Pairs]:
        """The full batches of one pass over the users. The remainder, different users in each epoch, is left out."""
        rng = np.random.default_rng([self.seed, number])
        batches: list[Rows] = []
        for part in self.parts_of_data:
            order = rng.permutation(part)
            batches += np.split(order, np.arange(1, self._batches(part) + 1) * self.config.batch_size)[:-1]
        for place in rng.permutation(len(batches)):
            yield self._pairs(batches[place], rng)

    def loss(self, model: SequenceModel, batch: Pairs, device: torch.device) -> tuple[Tensor, int]:
        """-> contrastive + sequence_weight x (histories against their augmentations) + mlm_weight x (masked words of
        histories + of items) [], and the number of tokens"""
        queries, query_tokens = self.encoding.histories(model, batch.histories, device)
        vectors, item_tokens = self.encoding.items(model, batch.targets, device)
        contrastive = contrastive_loss(model.metric, queries, vectors, batch.texts, self.config.temperature)
        self.parts = {"contrastive": contrastive.detach()}
        tokens = query_tokens + item_tokens
        if batch.augmented:
            augmented, view_tokens = self.encoding.histories(model, batch.augmented, device)
            sequences = contrastive_loss(model.metric, queries, augmented, batch.texts, self.config.temperature)
            self.parts |= {"sequences": sequences.detach()}
            contrastive, tokens = contrastive + self.config.sequence_weight * sequences, tokens + view_tokens
        if not self.config.mlm_weight:
            return contrastive, tokens
        histories = self._masked_words(model, batch.histories, model.prepare_histories, batch.seeds, device)
        items = self._masked_words(model, batch.targets, model.prepare_items, batch.seeds + 1, device)
        self.parts |= {"mlm_histories": histories.detach(), "mlm_items": items.detach()}
        return contrastive + self.config.mlm_weight * (histories + items), 2 * tokens

    def validate(self, encoder: Encoder) -> tuple[Metrics, Mapping[str, Any]] | None:
        """The mean over the domains (`users`: the sum), and the NDCG@10 of each domain and each zero-shot data set."""
        own = {held_out.name: held_out.metrics(encoder) for held_out in self.held_out}
        others = {held_out.name: held_out.metrics(encoder) for held_out in self.zero_shot}
        means = {
            entry.name: float(np.mean([getattr(metrics, entry.name) for metrics in own.values()]))
            for entry in fields(Metrics)
            if entry.name != "users"
        }
        groups = {"domains": own, "zero_shot": others}
        ndcgs = {kind: {name: metrics.ndcg_expected for name, metrics in sets.items()} for kind, sets in groups.items()}
        return Metrics(users=sum(metrics.users for metrics in own.values()), **means), ndcgs

    def mask(self, batch: Masked, seeds: Rows) -> tuple[Masked, Tensor]:
        """-> the batch with masked words, and the labels of its tokens [t], IGNORE_INDEX where nothing is predicted"""
        assert self.vocabulary is not None
        ids = batch.input_ids.numpy()
        hidden, chosen = mask_sequences(
            ids,
            batch.token_types.numpy(),
            batch.item_positions.numpy(),
            batch.cls.numpy(),
            seeds,
            self.vocabulary,
            self.config.whole_words_cross_attributes,
        )
        labels = torch.from_numpy(np.where(chosen, ids, IGNORE_INDEX))
        return batch.with_input_ids(torch.from_numpy(hidden)), labels

    def _masked_words(
        self,
        model: SequenceModel,
        sequences: Sequence[Any],
        prepare: Callable[[Sequence[Any]], Any],
        seeds: Rows,
        device: torch.device,
    ) -> Tensor:
        """The mean loss of the masked tokens of all processes; each computes its share, in chunks if configured."""
        assert isinstance(model, PredictsMaskedWords)
        own = share(len(sequences))
        most = -(-len(sequences) // processes())
        size = self.encoding.chunk or most
        losses, predicted = [], 0
        for at in range(own.start, own.start + most, size):
            # Equally many chunks on every process, if need be of a sequence without labels (see Encoding).
            rows = slice(at, min(at + size, own.stop)) if at < own.stop else slice(0, 1)
            hidden, labels = self.mask(prepare(sequences[rows]), seeds[rows])
            if at >= own.stop:
                labels.fill_(IGNORE_INDEX)
            predicted += int((labels != IGNORE_INDEX).sum())
            arguments = (hidden.to(device), labels.to(device))
            with self.encoding.autocast(device):
                if self.encoding.chunk and torch.is_grad_enabled():
                    losses.append(checkpoint(model.masked_words_loss, *arguments, use_reentrant=False))
                else:
                    losses.append(model.masked_words_loss(*arguments))
        count = all_reduce_sum(torch.tensor(float(predicted), device=device)).clamp(min=1)
        return all_reduce_sum(torch.stack(losses).sum()) / count

    def _batches(self, part: Rows) -> int:
        return max(1, len(part) // self.config.batch_size)

    def _pairs(self, examples: Rows, rng: np.random.Generator) -> Pairs:
        histories, targets, texts = [], [], []
        for domain, user in examples.tolist():
            dataset, tokens = self.datasets[domain], self.tokens[domain]
            part = dataset.training_part(user)
            last = len(part) - 1
            place = int(rng.integers(last // 2, last, endpoint=True))
            history = [tokens[row] for row in history_before(part, place, self.config.crop, rng)]
            histories.append(TokenizedHistory(history, dataset.user_ids[user]))
            targets.append(tokens[part[place]])
            texts.append(self.text_of[domain][part[place]])
        # The two texts of an example use consecutive seeds.
        seeds = 2 * rng.integers(2**62, size=len(examples))
        config, augmented = self.config, []
        if config.sequence_weight:
            augmented = [augment(history, config.drop, config.drop_words, rng) for history in histories]
        return Pairs(histories, targets, np.array(texts, dtype=np.int64), seeds, augmented)


def _names(folders: Sequence[str]) -> list[str]:
    """The last part of each path, or the whole path if that would be ambiguous."""
    names = [Path(folder).resolve().name for folder in folders]
    return list(folders) if len(set(names)) < len(names) else names


def contrastive_loss(metric: Metric, queries: Tensor, vectors: Tensor, texts: Rows, temperature: float) -> Tensor:
    """Each history against the next items of the batch: queries, vectors [b, dim], texts [b] -> [].

    One-directional, as in the authors' code.
    """
    logits = compare(metric, queries, vectors) / temperature  # [b, b]
    same = torch.from_numpy(texts[:, None] == texts).to(logits.device)
    same.fill_diagonal_(False)
    labels = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits.masked_fill(same, -torch.inf), labels)


def add_language_model_head(model: SequenceModel) -> Vocabulary:
    """-> the vocabulary for masking. Raises InputError for a model that cannot predict words."""
    if not isinstance(model, PredictsMaskedWords) or model.item_text is None:
        name = type(model).__name__
        raise InputError(f"{name} does not predict masked words; set it to 0", "pretrain.mlm_weight")
    return Vocabulary.of(model.item_text, model.add_language_model_head())
