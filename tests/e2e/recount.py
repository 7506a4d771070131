"""The hybrid score in plain Python: every event is counted again for each answer, pair by pair.

Term vectors and dense vectors of single items come from the encoder; counts, weights and sums are computed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.settings import HybridSettings

NEWEST = 8
"""Items of a history whose words are read."""
Terms = Mapping[int, float]


@dataclass
class Recount:
    """What a model reads: events of items, and pairs (earlier or later item, other one)."""

    events: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pairs: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))


def recount(settings: CooccurrenceSettings | None, users: Iterable[Sequence[tuple[str, float]]]) -> Recount:
    """Of all users' items and times, oldest first. Without settings events are counted, each as 1."""
    found, total = Recount(), 0.0
    settings = settings or CooccurrenceSettings(window=1)
    for events in users:
        for place, (later, time) in enumerate(events):
            weight = 1.0
            if settings.half_life:
                weight = _rounded(2.0 ** ((time - settings.origin) / settings.half_life))
            found.events[later] += weight
            total += weight
            for distance in range(1, min(settings.window, place) + 1):
                earlier = events[place - distance][0]
                if earlier != later:
                    value = _rounded(_rounded(distance**-settings.distance_power) * weight)
                    found.pairs[earlier, later] += value
                    found.pairs[later, earlier] += settings.backward * value
    if settings.half_life and settings.mass and total:
        scale = settings.mass / total
        found.events = defaultdict(float, {item: scale * value for item, value in found.events.items()})
        found.pairs = defaultdict(float, {pair: scale * value for pair, value in found.pairs.items()})
    return found


@dataclass(frozen=True)
class Entry:
    """An item of a history: its id (None for plain attributes) and its terms."""

    item_id: str | None
    terms: Terms


def pair_score(settings: HybridSettings, counts: Recount, history: Sequence[Entry], item_id: str) -> float:
    pairs = settings.cooccurrence
    newest = list(reversed(history))[: pairs.last]
    weights = [float(place) ** -pairs.recency_power for place in range(1, len(newest) + 1)]
    score = 0.0
    for entry, weight in zip(newest, weights, strict=True):
        if entry.item_id is not None:
            own = counts.pairs.get((entry.item_id, item_id), 0.0)
            score += (
                weight / sum(weights) * max(counts.events.get(entry.item_id, 0.0), 1.0) ** -pairs.source_power * own
            )
    return settings.pairs * score * max(counts.events.get(item_id, 0.0), 1.0) ** -pairs.target_power


def word_score(settings: HybridSettings, history: Sequence[Entry], terms: Terms) -> float:
    if not history:
        return 0.0
    recent: dict[int, float] = defaultdict(float)
    for place, entry in enumerate(reversed(history[-NEWEST:]), start=1):
        for term, value in entry.terms.items():
            recent[term] += value / place
    length = sum(value**2 for value in recent.values()) ** 0.5
    score = settings.last_text * _product(history[-1].terms, terms)
    return score + (settings.recent_text * _product(recent, terms) / length if length else 0.0)


def own_score(settings: HybridSettings, history: Sequence[Entry], item_id: str) -> float:
    own = [entry.item_id for entry in history if entry.item_id is not None]
    if settings.exclude_seen or item_id not in own:
        return 0.0
    return settings.seen + (settings.last_item if item_id == own[-1] else 0.0)


def gate(settings: HybridSettings, counts: Recount, item_id: str) -> float:
    return 1 + settings.cold_boost / (1 + counts.events.get(item_id, 0.0))


def _product(one: Terms, other: Terms) -> float:
    return sum(value * other.get(term, 0.0) for term, value in one.items())


def _rounded(value: float) -> float:
    return round(value * 2**20) / 2**20
