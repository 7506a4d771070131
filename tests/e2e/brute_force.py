"""The whole service again in a few lines of plain Python: a dict of items, and a ranking of all of them.

What a property test compares the real one with. It shares the encoder with it, since vectors are not what is tested,
and nothing else: no index, no delta, no log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from seqrec.encoder import Encoder
from tests.e2e.recount import Entry, Recount, Terms, gate, own_score, pair_score, recount, word_score

Attributes = Mapping[str, str | int]
TIE = 1e-6


@dataclass(frozen=True)
class Stored:
    attributes: Attributes
    available: bool


@dataclass
class Model:
    """One checkpoint, of bag_of_words or a hybrid on it, which reads the attributes `names`."""

    encoder: Encoder
    names: Sequence[str]
    _vectors: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        return self.encoder.checkpoint.digest

    def text(self, attributes: Attributes) -> str:
        return " ".join(str(attributes[name]) for name in self.names if attributes.get(name))

    def vector(self, attributes: Attributes) -> npt.NDArray[np.float64]:
        text = self.text(attributes)
        if text not in self._vectors:
            self._vectors[text] = self.encoder.encode_items([attributes])[0].astype(np.float64)
        return self._vectors[text]

    def terms(self, attributes: Attributes) -> Terms:
        """Of a hybrid."""
        found = self.encoder.term_vectors(list(self.encoder.tokenize_items([attributes])))
        return dict(zip(found.indices.tolist(), found.data.tolist(), strict=True))

    def counts(self, shop: Shop) -> Recount:
        """All events counted again, as this model counts them."""
        settings = None if self.encoder.hybrid is None else self.encoder.hybrid.cooccurrence
        return recount(settings, [[(e.item_id, e.timestamp) for e in shop.events_of(user)] for user in shop.users])

    def history_vector(self, history: Sequence[Attributes]) -> npt.NDArray[np.float64]:
        return self.encoder.encode_histories([history])[0].astype(np.float64)


@dataclass(frozen=True)
class Had:
    """A user had an item."""

    item_id: str
    timestamp: int
    event_id: str | None


@dataclass
class Shop:
    """All that is stored."""

    items: dict[str, Stored] = field(default_factory=dict)
    users: dict[str, list[Had]] = field(default_factory=dict)  # in the order in which they came

    def has_model_input(self, model: Model) -> list[str]:
        return [item_id for item_id, stored in self.items.items() if model.text(stored.attributes)]

    def shown(self, model: Model) -> set[str]:
        return {item_id for item_id in self.has_model_input(model) if self.items[item_id].available}

    def add_events(self, user_id: str, events: Sequence[Had]) -> int:
        """Returns how many were new."""
        stored = self.users.setdefault(user_id, [])
        before = len(stored)
        for event in events:
            if event.event_id is None or event.event_id not in {one.event_id for one in stored}:
                stored.append(event)
        return len(stored) - before

    def events_of(self, user_id: str) -> list[Had]:
        """Oldest first; those of one time in the order in which they came."""
        return sorted(self.users.get(user_id, []), key=lambda event: event.timestamp)

    def history_of(self, user_id: str) -> list[str]:
        return [event.item_id for event in self.events_of(user_id)]

    def recommend(
        self,
        model: Model,
        history: Sequence[str | Attributes],
        k: int,
        exclude_seen: bool = True,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
    ) -> tuple[list[tuple[str, float]], list[str], bool]:
        """Ids with scores, best first; ids of the history that are unknown; whether the model answers."""
        known = set(self.has_model_input(model))
        unknown = dict.fromkeys(entry for entry in history if isinstance(entry, str) and entry not in known)
        seen = {entry for entry in history if isinstance(entry, str) and entry in known}
        among = self._among(model, set(exclude) | (seen if exclude_seen else set()), candidates)
        read = [entry for entry in history if not isinstance(entry, str) or entry in known]
        texts = [self.items[entry].attributes if isinstance(entry, str) else entry for entry in read]
        if not any(model.text(attributes) for attributes in texts):
            counts = model.counts(self).events
            popular = sorted(among, key=lambda item_id: (-counts.get(item_id, 0.0), item_id))
            return [(item_id, counts.get(item_id, 0.0)) for item_id in popular[:k]], list(unknown), False
        ids = [entry if isinstance(entry, str) else None for entry in read]
        return _ranked(self._scores(model, ids, texts, among))[:k], list(unknown), True

    def popular(
        self,
        model: Model,
        since: float | None,
        k: int,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
    ) -> list[tuple[str, float]]:
        """Ids with their events from `since` on, most first. Without it as the model counts them."""
        counts = model.counts(self).events
        if since is not None:
            had = [event.item_id for user in self.users.values() for event in user if event.timestamp >= since]
            counts = {item_id: float(had.count(item_id)) for item_id in had}
        among = [item_id for item_id in self._among(model, exclude, candidates) if counts.get(item_id, 0.0) > 0]
        return [(i, counts[i]) for i in sorted(among, key=lambda item_id: (-counts[item_id], item_id))[:k]]

    def similar(self, model: Model, item_id: str, k: int) -> list[tuple[str, float]]:
        among = self.shown(model) - {item_id}
        of = self.items[item_id].attributes
        if model.encoder.hybrid is not None:
            return _ranked(self._scores(model, [item_id], [of], among, pairs=False))[:k]
        return _ranked({i: float(model.vector(of) @ model.vector(self.items[i].attributes)) for i in among})[:k]

    def _among(self, model: Model, exclude: Collection[str], candidates: Collection[str] | None) -> set[str]:
        among = self.shown(model) - set(exclude)
        return among if candidates is None else among & set(candidates)

    def _scores(
        self,
        model: Model,
        ids: Sequence[str | None],
        texts: Sequence[Attributes],
        among: Collection[str],
        pairs: bool = True,
    ) -> dict[str, float]:
        query = model.history_vector(texts)
        dense = {item_id: float(query @ model.vector(self.items[item_id].attributes)) for item_id in among}
        settings = model.encoder.hybrid
        if settings is None:
            return dense
        counts = model.counts(self)
        history = [Entry(item_id, model.terms(text)) for item_id, text in zip(ids, texts, strict=True)]
        scores = {}
        for item_id in among:
            text = dense[item_id] + word_score(settings, history, model.terms(self.items[item_id].attributes))
            scores[item_id] = gate(settings, counts, item_id) * text + own_score(settings, history, item_id)
            if pairs:
                scores[item_id] += pair_score(settings, counts, history, item_id)
        return scores


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Equal scores by item id. Scores here are equal or differ by far more than rounding does."""
    rounded: dict[str, float] = {}
    last = np.inf
    for item_id, score in sorted(scores.items(), key=lambda pair: -pair[1]):
        last = last if last - score < TIE else score
        rounded[item_id] = last
    return sorted(scores.items(), key=lambda pair: (-rounded[pair[0]], pair[0]))
