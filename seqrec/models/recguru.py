"""RecGURU (Li et al., WSDM 2022, "RecGURU: Adversarial Learning of Generalized User Representations for Cross-Domain
Recommendation").

An encoder that all domains share reads a user's items and learned positions in both directions; its state at an [eos],
here the first column, is the user's representation g. A decoder per domain reads the items causally, and g in each of
its layers: its cross-attention has g as the only key, so it adds a linear map of g. The decoder's state q at an item
predicts the next one; the score of item i is q . e_i, where e is also the input table.

Alignment (stage `adversarial`) trains an autoencoder, since g has read the items that the decoder predicts, each by
cross entropy against `alignment_negatives` random items of its domain. A discriminator predicts a user's domain from g,
and the encoder is trained so that it cannot. If a user is in two domains, the mean squared difference of the two
representations is minimised. Then (stage `sequence`) the decoder of the run's own domain is trained to recommend, by
BPR or by cross entropy over all items.

Differences from the paper: In the stage `sequence`, g reads the first part of a sequence, cut at random, and the loss
counts the items after it, since a bidirectional encoder would have read the targets. One decoder reconstructs and
recommends, as in the authors' settings. The encoder is trained towards a uniform output of the discriminator (Tzeng et
al., ICCV 2015), in the same step as the discriminator; with swapped labels or a reversed gradient the two oscillated.
There is no gradient penalty. Negatives are drawn once per sequence and shared by its positions. The input is
normalised, as in BERT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from seqrec.models.base.ids import (
    IdModel,
    RowBatch,
    VocabSizes,
    check_at_least,
    check_choice,
    check_fraction,
    check_heads,
    newest,
    next_items,
)
from seqrec.models.base.layers import Block, Stack, drop, initialise, position_table
from seqrec.models.base.model import BuildConfig, TrainingSet
from seqrec.text.item_text import KNOWN, ItemText, TokenizedHistory, TokenizedItem

LOSSES = ("bpr", "ce")
DISCRIMINATOR_DROPOUT = 0.2


@dataclass(frozen=True)
class RecGURUSettings:
    dim: int = 64
    layers: int = 2  # of the encoder and of each decoder
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    loss: str = "bpr"
    negatives: int = 5  # of bpr
    alignment_negatives: int = 30  # of the reconstruction loss, per sequence
    discriminator: int = 0  # width of its layers; 0: five times `dim`, as published

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, max_length=2)
        check_at_least(self, negatives=1, alignment_negatives=1, discriminator=0)
        check_fraction(self, "dropout")
        check_choice(self.loss, LOSSES, "loss")
        check_heads(self)


@dataclass(frozen=True)
class KnownDomains(VocabSizes):
    others: Sequence[int] = ()  # the number of items of each other domain


@dataclass(frozen=True, kw_only=True)
class TrainingBatch(RowBatch):
    read: Tensor  # int64 [b], how many items of each sequence the encoder reads
    negatives: Tensor  # int64 [b, k], items of the sequence's domain


@dataclass(frozen=True, kw_only=True)
class AlignmentBatch(RowBatch):
    """The same number of sequences of each domain, domain after domain: b = domains x each."""

    negatives: Tensor  # int64 [b, k], items of the sequence's domain
    twins: Tensor  # bool [domains - 1, each]: whether it is of the same user as the own domain's sequence at that place


class DecoderBlock(Block):
    """Causal self-attention, the user's representation and a feed-forward network; norms after the sums."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__(dim, heads, inner, dropout, norm_first=False, activation=nn.ReLU())
        self.user, self.user_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, allowed: Tensor | None = None, users: Tensor | None = None) -> Tensor:
        """x [b, n, d], users [b, d] -> [b, n, d]"""
        assert users is not None
        b, n, d = x.shape
        x = x.reshape(b * n, d)
        x = self.attention_norm(x + self._attention(x, b, n, allowed))
        user = self._dropped(self.user(users)).repeat_interleave(n, dim=0)  # [b * n, d]
        x = self.user_norm(x + user)
        out: Tensor = self.feed_forward_norm(x + self._feed_forward(x)).view(b, n, d)
        return out


class RecGURU(IdModel):
    settings_class = RecGURUSettings
    settings: RecGURUSettings
    known_class: ClassVar[type[VocabSizes]] = KnownDomains
    known: KnownDomains

    def __init__(self, settings: RecGURUSettings, known: KnownDomains) -> None:
        super().__init__(settings, known)
        self.dim = d = settings.dim
        blocks = (d, settings.heads, settings.inner, settings.dropout)
        self.items = self.item_table(d, extra=sum(known.others))
        self.position_vectors = position_table(settings.max_length, d)
        self.end = position_table(1, d)  # the input at [eos]
        self.norm = nn.LayerNorm(d)
        self.encoder = Stack(Block(*blocks, norm_first=False, activation=nn.ReLU()) for _ in range(settings.layers))
        self.decoders = nn.ModuleList(
            nn.ModuleList(DecoderBlock(*blocks) for _ in range(settings.layers)) for _ in range(1 + len(known.others))
        )
        initialise(self)
        self.discriminator: nn.Sequential | None = None
        if known.others:
            self.discriminator = _discriminator(d, settings.discriminator or 5 * d, 1 + len(known.others))

    @classmethod
    def build(cls, config: BuildConfig, datasets: Sequence[TrainingSet]) -> Self:
        """Source domains are known by numbers of items, so that equal ids of two data sets are different items."""
        own, *others = datasets
        items = [item.item_id for item in own.trained_items]
        return cls.from_ids(
            config.settings, items, own.trained_users, others=tuple(len(other.trained_items) for other in others)
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], item_text: ItemText | None) -> Self:
        settings = dict(config["settings"])
        if "told_from" in settings:  # the name in checkpoints of version 0.1.0
            settings["alignment_negatives"] = settings.pop("told_from")
        return super().from_config({**config, "settings": settings}, item_text)

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        return newest(self.decode(batch, self.represented(batch)), batch.lengths)

    def represented(self, batch: RowBatch) -> Tensor:
        """The representations g of users, [b, d]."""
        b = len(batch.rows)
        x = torch.cat([self.end.expand(b, 1, -1), self._read(batch)], dim=1)  # [b, 1 + n, d]
        x = drop(self.norm(x), self.settings.dropout, self.training)
        represented: Tensor = self.encoder(x, batch.lengths + 1, both_ways=True)[:, 0]
        return represented

    def decode(self, batch: RowBatch, users: Tensor, domain: int = 0) -> Tensor:
        """The query at each item, given g [b, d]: [b, n, d]. Padding comes last, so no item attends to it."""
        x = drop(self.norm(self._read(batch)), self.settings.dropout, self.training)
        for block in self.decoders[domain]:  # type: ignore[attr-defined]
            x = block(x, None, users)
        return x

    def _read(self, batch: RowBatch) -> Tensor:
        vectors: Tensor = self.items(batch.rows) + self.position_vectors[self.positions(batch)]
        return vectors

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> TrainingBatch:
        """The newest `max_length` items of each, one more as the last target, a cut and negatives."""
        batch = super().prepare_training(sequences, generator)
        cuts = torch.rand(len(sequences), generator=generator)
        return TrainingBatch(
            rows=batch.rows,
            lengths=batch.lengths,
            users=batch.users,
            tokens=batch.tokens,
            read=(1 + (cuts * (batch.lengths - 1)).long()).minimum(batch.lengths),  # from 1 to all but the last
            negatives=self._draw(0, len(sequences), self.settings.negatives, generator),
        )

    def training_loss(self, batch: TrainingBatch) -> Tensor:
        """-> []"""
        users = self.represented(replace(batch, lengths=batch.read))
        states = self.decode(batch.inputs(), users)
        targets, real = next_items(batch)  # [b, n - 1]
        places = torch.arange(1, batch.rows.shape[1], device=targets.device)  # of the targets
        predicted = real & (places >= batch.read[:, None])
        if self.settings.loss == "ce":
            return self.cross_entropy(states[predicted], targets[predicted])
        right, wrong, counted = self._scores(states, targets, batch.negatives)
        counted = counted & predicted[:, :, None]
        loss: Tensor = -F.logsigmoid(right[:, :, None] - wrong)[counted].sum() / counted.sum().clamp(min=1)
        return loss

    def other_items(self, domain: int) -> list[TokenizedItem]:
        """The training items of another domain, from 1, as tokens, in its order."""
        begin, end = self._rows_of(domain)
        return [TokenizedItem(np.array([row], np.int32), np.array([KNOWN], np.uint8)) for row in range(begin, end)]

    def prepare_alignment(
        self, domains: Sequence[Sequence[TokenizedHistory]], twins: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> AlignmentBatch:
        """The same number of sequences of each domain, the own one first, none empty; `twins`: see `AlignmentBatch`."""
        batch = self.batch([self.rows_of(sequence) for sequences in domains for sequence in sequences])
        negatives = [
            self._draw(domain, len(sequences), self.settings.alignment_negatives, generator)
            for domain, sequences in enumerate(domains)
        ]
        return AlignmentBatch(
            rows=batch.rows,
            lengths=batch.lengths,
            users=batch.users,
            tokens=2 * batch.tokens,
            negatives=torch.cat(negatives),
            twins=torch.from_numpy(twins),
        )

    def alignment_losses(self, batch: AlignmentBatch) -> dict[str, Tensor]:
        """`reconstruction`, the mean over domains, and with several domains also `discriminator`, which trains only the
        discriminator, `confusion`, which trains everything else, and `overlap`, 0 without twins. Each []."""
        count = len(self.decoders)
        each = len(batch.rows) // count
        users = self.represented(batch)  # [b, d]
        inputs, (targets, real) = batch.inputs(), next_items(batch)
        losses = []
        for domain in range(count):
            own = slice(domain * each, (domain + 1) * each)
            read = RowBatch(rows=inputs.rows[own], lengths=inputs.lengths[own], users=inputs.users[own], tokens=0)
            states = self.decode(read, users[own], domain)
            right, wrong, counted = self._scores(states, targets[own], batch.negatives[own])
            wrong = wrong.masked_fill(~counted, -torch.inf)
            others = torch.cat([right[:, :, None], wrong], dim=2).logsumexp(dim=2)  # [each, n - 1]
            losses.append((others - right)[real[own]].mean())
        found = {"reconstruction": torch.stack(losses).mean()}
        if self.discriminator is None:
            return found
        labels = torch.arange(count, device=users.device).repeat_interleave(each)
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        guesses = functional_call(self.discriminator, weights, (users,)).float()  # [b, domains]
        own_users, others = users[:each], users[each:].view(count - 1, each, -1)
        apart = (others - own_users).float().square().mean(dim=2)  # [domains - 1, each]
        return found | {
            "discriminator": F.cross_entropy(self.discriminator(users.detach()).float(), labels),
            "confusion": -guesses.log_softmax(dim=1).mean(),
            "overlap": (apart * batch.twins).sum() / batch.twins.sum().clamp(min=1),
        }

    def drop_source_domains(self) -> None:
        """Keep the items and the decoder of the own domain. A second call changes nothing."""
        self.known = replace(self.known, others=())
        kept = self.item_table(self.dim).to(self.items.weight.device)
        with torch.no_grad():
            kept.weight.copy_(self.items.weight[: self.padding + 1])
        self.items, self.decoders, self.discriminator = kept, self.decoders[:1], None

    def _rows_of(self, domain: int) -> tuple[int, int]:
        """The first row of a domain's items in the table, and the row after the last."""
        if domain == 0:
            return 0, self.known.items
        begin = self.padding + 1 + sum(self.known.others[: domain - 1])
        return begin, begin + self.known.others[domain - 1]

    def _draw(self, domain: int, sequences: int, count: int, generator: torch.Generator) -> Tensor:
        """Uniformly random items of a domain, [sequences, count]."""
        return torch.randint(*self._rows_of(domain), (sequences, count), generator=generator)

    def _scores(self, states: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> scores of targets [b, m] and negatives [b, m, k]; bool [b, m, k]: negatives that are not the target."""
        right = (states * self.items(targets)).sum(dim=2)
        wrong = states @ self.items(negatives).transpose(1, 2)
        return right.float(), wrong.float(), negatives[:, None, :] != targets[:, :, None]


def _discriminator(dim: int, width: int, domains: int) -> nn.Sequential:
    """[b, dim] -> [b, domains], with three hidden layers of `width`, 2 `width` and `width`."""
    layers: list[nn.Module] = []
    for wide, narrow in ((dim, width), (width, 2 * width), (2 * width, width)):
        layers += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(DISCRIMINATOR_DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(width, domains))
