"""Adversarial alignment of users of several data sets, for models such as RecGURU.

A batch has equally many users of each data set. An epoch has each user of the run's own data set once, and as many of
each other data set, which is used up before a user repeats. A user id that is in both data sets is paired with itself:
its two representations are to be equal. Encoder and discriminator are trained in the same step with losses that do not
change each other (they are the model's), so the loop keeps no state between steps. In the first epochs the encoder only
learns to reconstruct, as in the paper, while the discriminator learns. Validation does not measure this stage, so the
weights of the last check are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqrec.data.items import OnError
from seqrec.errors import InputError
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import TokenizedHistory, TokenizedItem
from training.config.schema import AdversarialConfig, RunConfig
from training.data.dataset import Dataset, Rows
from training.distributed import all_reduce_sum, rank, share
from training.evaluation.evaluation_set import read_folder
from training.stages.base import Stage, StageContext
from training.stages.encoding import PLAIN, Encoding
from training.stages.sequence import needs_whole_weights

log = logging.getLogger(__name__)


@runtime_checkable
class AlignsDomains(Protocol):
    """What a model defines for this stage. Domain 0 is the run's own data set.

    Items of other domains are known only by number, so that equal ids of two data sets are different items.
    `SequenceModel.drop_source_domains` removes them after the stage.
    """

    def other_items(self, domain: int) -> Sequence[TokenizedItem]:
        """The training items of another domain, in its order."""
        ...

    def prepare_alignment(
        self, domains: Sequence[Sequence[TokenizedHistory]], twins: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> Batch:
        """CPU. b sequences of at least two items of each domain. twins [domains - 1, b]: whether a sequence is of the
        same user as the one of domain 0 at its place. All random numbers come from `generator`."""
        ...

    def alignment_losses(self, batch: Any) -> Mapping[str, Tensor]:
        """Means, [] each: `reconstruction`, and with several domains `discriminator`, `confusion` and `overlap`."""
        ...


@dataclass(frozen=True, eq=False)
class AlignedUsers:
    """A batch: b sequences of each domain. twins [domains - 1, b]: whether a sequence is of the same user as that of
    the own domain at its position; `chance` seeds its random numbers; `confused`: whether the adversarial loss is
    on."""

    domains: list[list[TokenizedHistory]]
    twins: npt.NDArray[np.bool_]
    chance: tuple[int, ...]
    confused: bool


class AdversarialStage(Stage):
    name = "adversarial"
    keeps_last = True

    def __init__(
        self,
        domains: Sequence[Sequence[TokenizedHistory]],
        config: AdversarialConfig,
        seed: int,
        encoding: Encoding = PLAIN,
    ) -> None:
        """`domains`: sequences of two or more items, the run's own data set first. Raises InputError for a data set
        without sequences."""
        self.domains, self.config, self.seed, self.encoding = domains, config, seed, encoding
        for number, sequences in enumerate(domains):
            if not sequences:
                which = config.data[number - 1] if 0 < number <= len(config.data) else "the data"
                raise InputError(f"no user of {which} has two events that can be trained on", "adversarial")
        own, *others = domains
        self.twin_of = [_twins(own, other if config.overlap_weight else []) for other in others]
        if len(domains) == 1:
            log.warning(
                "adversarial.data names no other data set, so there is no adversary: the stage %s only learns to "
                "reconstruct sequences",
                self.name,
            )

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        model, name = context.towers.history_model, context.towers.model_name
        if not isinstance(model, AlignsDomains):
            raise InputError(f"{name} does not align data sets; leave the stage out", "stages")
        needs_whole_weights(cls.name, context)
        own, *others = context.data
        digests = [data.dataset.digest for data in context.data]
        if len(set(digests)) < len(digests):
            raise InputError("a data set is listed twice, or is the one to train for", "adversarial.data")
        domains = [_sequences(own.dataset, list(own.tokens))]
        for number, other in enumerate(others, 1):
            known = iter(model.other_items(number))
            items = [next(known) if seen else None for seen in other.dataset.trained_rows]
            domains.append(_sequences(other.dataset, items))
        return cls(domains, context.config.adversarial, context.config.seed, context.encoding)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.domains[0]) // self.config.batch_size)

    def epoch(self, number: int) -> Iterator[AlignedUsers]:
        rng = np.random.default_rng([self.seed, number])
        own, *others = self.domains
        order = rng.permutation(len(own))
        drawn = [_endless(rng.spawn(1)[0], len(other)) for other in others]
        for batch, begin in enumerate(range(0, len(order), self.config.batch_size)):
            chosen = order[begin : begin + self.config.batch_size]
            domains, twins = [[own[place] for place in chosen]], np.zeros((len(others), len(chosen)), np.bool_)
            for at, (other, users, twin_of) in enumerate(zip(others, drawn, self.twin_of, strict=True)):
                twins[at] = twin_of[chosen] >= 0
                domains.append([other[place if place >= 0 else next(users)] for place in twin_of[chosen]])
            confused = number >= self.config.warmup_epochs
            yield AlignedUsers(domains, twins, (self.seed, number, batch), confused)

    def loss(self, model: SequenceModel, batch: AlignedUsers, device: torch.device) -> tuple[Tensor, int]:
        """-> the loss [] with its graph: with several processes, the average over their users."""
        assert isinstance(model, AlignsDomains)
        own = share(batch.twins.shape[1])
        seed = np.random.SeedSequence([*batch.chance, rank()]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        # A process without a share computes a discarded loss, since the others wait for its gradients.
        read = own if own.stop > own.start else slice(0, 1)
        domains = [sequences[read] for sequences in batch.domains]
        prepared = model.prepare_alignment(domains, batch.twins[:, read], generator).to(device)
        with self.encoding.autocast(device):
            losses = model.alignment_losses(prepared)
        part = (own.stop - own.start) / batch.twins.shape[1]
        parts = {name: all_reduce_sum(loss.float() * part) for name, loss in losses.items()}
        self.parts = {name: loss.detach() for name, loss in parts.items()}
        loss = parts["reconstruction"]
        if len(parts) > 1:
            loss = loss + parts["discriminator"]
            if batch.confused:
                loss = loss + self.config.confusion_weight * parts["confusion"]
                loss = loss + self.config.overlap_weight * parts["overlap"]
        return loss, prepared.tokens

    def post_optimizer_step(self, model: SequenceModel) -> None:
        model.post_optimizer_step()


def other_datasets(config: RunConfig, on_error: OnError) -> list[Dataset]:
    """The other data sets of a run with this stage, with the same split. Raises InputError, FileFormatError."""
    folders = config.adversarial.data if AdversarialStage.name in config.stages else ()
    return [read_folder(folder, None, on_error, config.data) for folder in folders]


def _sequences(dataset: Dataset, items: Sequence[TokenizedItem | None]) -> list[TokenizedHistory]:
    """The training parts with two or more items that the model knows."""
    found = []
    for user, user_id in enumerate(dataset.user_ids):
        part = [items[row] for row in dataset.training_part(user)]
        known = [item for item in part if item is not None and len(item.ids)]
        if len(known) > 1:
            found.append(TokenizedHistory(known, user_id))
    return found


def _twins(own: Sequence[TokenizedHistory], other: Sequence[TokenizedHistory]) -> Rows:
    """[own] The position of the same user in the other domain, -1 if there is none."""
    places = {sequence.user_id: place for place, sequence in enumerate(other)}
    return np.array([places.get(sequence.user_id, -1) for sequence in own], dtype=np.int64)


def _endless(rng: np.random.Generator, users: int) -> Iterator[int]:
    """Random permutations, one after the other."""
    return chain.from_iterable(rng.permutation(users).tolist() for _ in count())
