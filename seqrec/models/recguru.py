"""RecGURU (Li et al., WSDM 2022, "RecGURU: Adversarial Learning of Generalized User Representations for Cross-Domain
Recommendation").

An encoder that several domains share reads a user's items and learned positions in both directions; its state at an
[eos], here the first column, is the user's representation g. A decoder for each domain reads the items causally, and g
in each of its layers: its cross-attention has g as the only key, so what it reads is a linear map of g. From the
decoder's state q at an item the next one is told; the score of item i is q . e_i, e the table that items come in by.

In alignment (stage `adversarial`) g has read what the decoder tells, so this is an autoencoder; told is the right item
from `told_from` others of its domain. A discriminator tells from g which domain a user came from, and the encoder is
trained so that it cannot. Of a user of two domains both representations are drawn together, by their mean squared
difference. After that (stage `sequence`) the own domain's decoder learns to recommend, by BPR or by softmax cross
entropy over all items.

Otherwise than published: recommending, g is made of the first part of a sequence, cut at random, and what comes after
it is told, since an encoder that reads in both directions would have read the answers. One decoder reconstructs and
recommends, as in the authors' settings. The encoder is trained towards a discriminator that finds all domains alike
(Tzeng et al., ICCV 2015), not towards one that is wrong, in the same step as the discriminator: with labels swapped, or
the gradient reversed, the two drive each other round in circles. There is no gradient penalty. Negatives are drawn once
a sequence, for all of its places. What comes in is normalised, as BERT's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel, RowBatch, VocabSizes, check_at_least, choice, newest, next_items, share
from seqrec.models.base.layers import Block, Stack, drop, initialise, position_table
from seqrec.text.item_text import KNOWN, TokenizedHistory, TokenizedItem

LOSSES = ("bpr", "ce")
DISCRIMINATOR_DROPOUT = 0.2


@dataclass(frozen=True)
class RecGURUSettings:
    dim: int = 64
    layers: int = 2  # of the encoder, and of each decoder
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    loss: str = "bpr"
    negatives: int = 5  # of bpr
    told_from: int = 30  # items that one is told from in alignment
    discriminator: int = 0  # width of its layers; 0: five times `dim`, as published

    def __post_init__(self) -> None:
        check_at_least(self, dim=1, layers=1, heads=1, inner=1, max_length=2, negatives=1, told_from=1, discriminator=0)
        share(self, "dropout")
        choice(self.loss, LOSSES, "loss")
        if self.dim % self.heads:
            raise InputError(f"{self.dim} is not a multiple of {self.heads} heads", "model.settings.dim")


@dataclass(frozen=True)
class KnownDomains(VocabSizes):
    others: Sequence[int] = ()  # items of each other domain


@dataclass(frozen=True, kw_only=True)
class TrainingBatch(RowBatch):
    read: Tensor  # int64 [b], the items of each sequence that the encoder reads
    negatives: Tensor  # int64 [b, k], of the sequence's domain


@dataclass(frozen=True, kw_only=True)
class AlignmentBatch(RowBatch):
    """As many sequences of each domain, one domain after the other: b = domains x each."""

    negatives: Tensor  # int64 [b, k], of the sequence's domain
    twins: Tensor  # bool [domains - 1, each]: whether a sequence is of the same user as the own domain's in its place


class DecoderBlock(Block):
    """Of a decoder after which nothing is masked: self-attention, the user, a feed-forward network; sums normalised."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__(dim, heads, inner, dropout, norm_first=False, activation=nn.ReLU())
        self.user, self.user_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, allowed: Tensor | None = None, users: Tensor | None = None) -> Tensor:
        """x [b, n, d], users [b, d] -> [b, n, d]"""
        assert users is not None
        b, n, d = x.shape
        x = x.reshape(b * n, d)
        x = self.attention_norm(x + self._attention(x, b, n, allowed))
        told = self._dropped(self.user(users)).repeat_interleave(n, dim=0)  # [b * n, d]
        x = self.user_norm(x + told)
        out: Tensor = self.feed_forward_norm(x + self._feed_forward(x)).view(b, n, d)
        return out


class RecGURU(IdModel):
    settings_class = RecGURUSettings
    settings: RecGURUSettings
    known_class: ClassVar[type[VocabSizes]] = KnownDomains
    known: KnownDomains
    knows_domains = True

    def __init__(self, settings: RecGURUSettings, known: KnownDomains) -> None:
        super().__init__(settings, known)
        self.dim = d = settings.dim
        blocks = (d, settings.heads, settings.inner, settings.dropout)
        self.items = self.item_table(d, extra=sum(known.others))
        self.position_vectors = position_table(settings.max_length, d)
        self.end = position_table(1, d)  # what the [eos] comes in by
        self.norm = nn.LayerNorm(d)
        self.encoder = Stack(Block(*blocks, norm_first=False, activation=nn.ReLU()) for _ in range(settings.layers))
        self.decoders = nn.ModuleList(
            nn.ModuleList(DecoderBlock(*blocks) for _ in range(settings.layers)) for _ in range(1 + len(known.others))
        )
        initialise(self)
        self.discriminator: nn.Sequential | None = None
        if known.others:
            self.discriminator = _discriminator(d, settings.discriminator or 5 * d, 1 + len(known.others))

    def encode_histories(self, batch: RowBatch) -> Tensor:
        """-> [b, dim]"""
        return newest(self.states(batch, self.represented(batch)), batch.lengths)

    def represented(self, batch: RowBatch) -> Tensor:
        """The users' representations g, [b, d]."""
        b = len(batch.rows)
        x = torch.cat([self.end.expand(b, 1, -1), self._read(batch)], dim=1)  # [b, 1 + n, d]
        x = drop(self.norm(x), self.settings.dropout, self.training)
        represented: Tensor = self.encoder(x, batch.lengths + 1, both_ways=True)[:, 0]
        return represented

    def states(self, batch: RowBatch, users: Tensor, domain: int = 0) -> Tensor:
        """What each item predicts the next one by, [b, n, d]. Padding comes last, so no item attends to it."""
        x = drop(self.norm(self._read(batch)), self.settings.dropout, self.training)
        for block in self.decoders[domain]:  # type: ignore[attr-defined]
            x = block(x, None, users)
        return x

    def _read(self, batch: RowBatch) -> Tensor:
        vectors: Tensor = self.items(batch.rows) + self.position_vectors[self.positions(batch)]
        return vectors

    def prepare_training(self, sequences: Sequence[TokenizedHistory], generator: torch.Generator) -> TrainingBatch:
        """The newest `max_length` items of each, one of them more as the last target."""
        batch = self.batch([self.known_rows(sequence)[-self.read_items - 1 :] for sequence in sequences])
        cuts = torch.rand(len(sequences), generator=generator)
        return TrainingBatch(
            rows=batch.rows,
            lengths=batch.lengths,
            users=batch.users,
            tokens=batch.tokens,
            read=(1 + (cuts * (batch.lengths - 1)).long()).minimum(batch.lengths),  # 1 to all but the last
            negatives=self._drawn(0, len(sequences), self.settings.negatives, generator),
        )

    def training_loss(self, batch: TrainingBatch) -> Tensor:
        users = self.represented(replace(batch, lengths=batch.read))
        states = self.states(batch.inputs(), users)
        targets, real = next_items(batch)  # [b, n - 1]
        places = torch.arange(1, batch.rows.shape[1], device=targets.device)  # of the targets
        told = real & (places >= batch.read[:, None])
        if self.settings.loss == "ce":
            logits = states[told] @ self.items.weight[: self.known.items].T  # [places, items]
            return F.cross_entropy(logits.float(), targets[told])
        right, wrong, counted = self._scores(states, targets, batch.negatives)
        counted = counted & told[:, :, None]
        loss: Tensor = -F.logsigmoid(right[:, :, None] - wrong)[counted].sum() / counted.sum().clamp(min=1)
        return loss

    def other_items(self, domain: int) -> list[TokenizedItem]:
        """The items of another domain, from 1, as tokens."""
        begin, end = self._rows_of(domain)
        return [TokenizedItem(np.array([row], np.int32), np.array([KNOWN], np.uint8)) for row in range(begin, end)]

    def prepare_alignment(
        self, domains: Sequence[Sequence[TokenizedHistory]], twins: npt.NDArray[np.bool_], generator: torch.Generator
    ) -> AlignmentBatch:
        """As many sequences of each domain, the own one first, each of one item or more; `twins` as in the batch."""
        batch = self.batch([self.rows_of(sequence) for sequences in domains for sequence in sequences])
        negatives = [
            self._drawn(domain, len(sequences), self.settings.told_from, generator)
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
        """reconstruction, mean of the domains; and of several: discriminator, which changes the discriminator alone,
        confusion, which changes all but it, and overlap, 0 where the batch has no user twice. Each []."""
        count = len(self.decoders)
        each = len(batch.rows) // count
        users = self.represented(batch)  # [b, d]
        lasts, (targets, real) = batch.inputs(), next_items(batch)
        losses = []
        for domain in range(count):
            own = slice(domain * each, (domain + 1) * each)
            read = RowBatch(rows=lasts.rows[own], lengths=lasts.lengths[own], users=lasts.users[own], tokens=0)
            states = self.states(read, users[own], domain)
            right, wrong, counted = self._scores(states, targets[own], batch.negatives[own])
            wrong = wrong.masked_fill(~counted, -torch.inf)
            others = torch.cat([right[:, :, None], wrong], dim=2).logsumexp(dim=2)  # [each, n - 1]
            losses.append((others - right)[real[own]].mean())
        told = {"reconstruction": torch.stack(losses).mean()}
        if self.discriminator is None:
            return told
        labels = torch.arange(count, device=users.device).repeat_interleave(each)
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        guesses = functional_call(self.discriminator, weights, (users,)).float()  # [b, domains]
        own_users, others = users[:each], users[each:].view(count - 1, each, -1)
        apart = (others - own_users).float().square().mean(dim=2)  # [domains - 1, each]
        return told | {
            "discriminator": F.cross_entropy(self.discriminator(users.detach()).float(), labels),
            "confusion": -guesses.log_softmax(dim=1).mean(),
            "overlap": (apart * batch.twins).sum() / batch.twins.sum().clamp(min=1),
        }

    def drop_source_domains(self) -> None:
        """Keep what recommends in the own domain alone."""
        self.known = replace(self.known, others=())
        kept = self.item_table(self.dim).to(self.items.weight.device)
        with torch.no_grad():
            kept.weight.copy_(self.items.weight[: self.padding + 1])
        self.items, self.decoders, self.discriminator = kept, self.decoders[:1], None

    def _rows_of(self, domain: int) -> tuple[int, int]:
        """Where a domain's items begin in the table, and where they end."""
        if domain == 0:
            return 0, self.known.items
        begin = self.padding + 1 + sum(self.known.others[: domain - 1])
        return begin, begin + self.known.others[domain - 1]

    def _drawn(self, domain: int, sequences: int, most: int, generator: torch.Generator) -> Tensor:
        """Items of a domain, all alike, [sequences, most]."""
        return torch.randint(*self._rows_of(domain), (sequences, most), generator=generator)

    def _scores(self, states: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the targets [b, m] and the negatives [b, m, k]; bool [b, m, k] where those are not the target."""
        right = (states * self.items(targets)).sum(dim=2)
        wrong = states @ self.items(negatives).transpose(1, 2)
        return right.float(), wrong.float(), negatives[:, None, :] != targets[:, :, None]


def _discriminator(dim: int, width: int, domains: int) -> nn.Sequential:
    """[b, dim] -> [b, domains], by three layers of one, two and one times `width`."""
    layers: list[nn.Module] = []
    for wide, narrow in ((dim, width), (width, 2 * width), (2 * width, width)):
        layers += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(DISCRIMINATOR_DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(width, domains))
