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

Attributes = Mapping[str, str | int]
TIE = 1e-6


@dataclass(frozen=True)
class Stored:
    attributes: Attributes
    available: bool


@dataclass
class Model:
    """One checkpoint of bag_of_words, which reads the attributes `names`."""

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
    """All that is stored. `popularity` of each snapshot: how often its items were had."""

    items: dict[str, Stored] = field(default_factory=dict)
    users: dict[str, list[Had]] = field(default_factory=dict)  # in the order in which they came
    popularity: dict[str, dict[str, float]] = field(default_factory=dict)

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

    def history_of(self, user_id: str) -> list[str]:
        """Oldest first; those of one time in the order in which they came."""
        return [event.item_id for event in sorted(self.users.get(user_id, []), key=lambda event: event.timestamp)]

    def snapshot(self, snapshot_id: str, previous: str | None, model: Model) -> None:
        """A snapshot of what there is now was made by `model`; it takes popularity over from `previous`."""
        before = {} if previous is None else self.popularity[previous]
        self.popularity[snapshot_id] = {item_id: before.get(item_id, 0.0) for item_id in self.has_model_input(model)}

    def recommend(
        self,
        model: Model,
        snapshot_id: str,
        history: Sequence[str | Attributes],
        k: int,
        exclude_seen: bool = True,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
    ) -> tuple[list[tuple[str, float]], list[str]]:
        """Ids with scores, best first; and the ids of the history that are unknown."""
        known = set(self.has_model_input(model))
        unknown = dict.fromkeys(entry for entry in history if isinstance(entry, str) and entry not in known)
        seen = {entry for entry in history if isinstance(entry, str) and entry in known}
        among = self.shown(model) - set(exclude) - (seen if exclude_seen else set())
        if candidates is not None:
            among &= set(candidates)
        read = [
            self.items[e].attributes if isinstance(e, str) else e
            for e in history
            if not isinstance(e, str) or e in known
        ]
        if not any(model.text(attributes) for attributes in read):
            counts = self.popularity[snapshot_id]
            popular = sorted(among, key=lambda item_id: (-counts.get(item_id, 0.0), item_id))
            return [(item_id, counts.get(item_id, 0.0)) for item_id in popular[:k]], list(unknown)
        return self._ranked(model, model.history_vector(read), among)[:k], list(unknown)

    def similar(self, model: Model, item_id: str, k: int) -> list[tuple[str, float]]:
        query = model.vector(self.items[item_id].attributes)
        return self._ranked(model, query, self.shown(model) - {item_id})[:k]

    def _ranked(self, model: Model, query: npt.NDArray[np.float64], among: Collection[str]) -> list[tuple[str, float]]:
        """Equal scores by item id. Texts here are equal or differ by far more than rounding does."""
        scores = {item_id: float(query @ model.vector(self.items[item_id].attributes)) for item_id in among}
        rounded: dict[str, float] = {}
        last = np.inf
        for item_id, score in sorted(scores.items(), key=lambda pair: -pair[1]):
            last = last if last - score < TIE else score
            rounded[item_id] = last
        return sorted(((i, scores[i]) for i in among), key=lambda pair: (-rounded[pair[0]], pair[0]))
