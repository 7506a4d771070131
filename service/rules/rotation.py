"""Items that were shown to a user without an outcome sink: their score is multiplied once for each time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.catalogue.event_types import EventTypes
from index.catalogue.histories import HistoryStore
from index.catalogue.outcomes import DAY, OUTCOMES

MAX_EVENTS = 1000
"""Of a user, of any type: the newest ones, which are read."""
LEAST = 1e-6
"""What remains of a score at least, so that items that were shown very often keep their order."""


@dataclass(frozen=True)
class Rotate:
    """Multiplies a score once for each time the item was shown in the last `days`, since the user last chose it."""

    multiply: float
    days: float = 7.0


@dataclass(frozen=True)
class Showings:
    """What was shown to a user and not chosen since: item ids, and Unix seconds. `degraded`: why it cannot be read."""

    item_ids: Sequence[str] = ()
    times: Sequence[float] = ()
    degraded: Sequence[str] = ()

    def since(self, time: float) -> Counter[str]:
        """How often each item was shown from then on."""
        return Counter(one for one, when in zip(self.item_ids, self.times, strict=True) if when >= time)


NOTHING_SHOWN = Showings()


def load_showings(histories: HistoryStore, user_id: str) -> Showings:
    """Of a user's newest `MAX_EVENTS` events. Raises CatalogueError.

    Events of the type shown count, and those of a type of this kind. Any other event of the item, such as a click or a
    purchase, cancels what was shown up to its time.
    """
    types = histories.types()
    events = [stored.event for stored in histories.stored(user_id, MAX_EVENTS)]  # newest first
    chosen: dict[str, float] = {}
    for event in events:
        if not _is_shown(event.type, types):
            chosen.setdefault(event.item_id, event.timestamp)
    shown = [
        event
        for event in events
        if _is_shown(event.type, types) and event.timestamp > chosen.get(event.item_id, float("-inf"))
    ]
    return Showings([event.item_id for event in shown], [event.timestamp for event in shown])


def _is_shown(type: str, types: EventTypes) -> bool:
    return type == "shown" or (type not in OUTCOMES and types.of(type).kind == "shown")


@dataclass(frozen=True, eq=False)
class Rotation:
    """Ready for one view: what the scores of these positions are multiplied by."""

    positions: npt.NDArray[np.int64]  # [n]
    factors: npt.NDArray[np.float64]  # [n], from LEAST to 1

    def applied(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[size] A negative score is divided, so that it sinks, too."""
        own = scores[self.positions]
        scores = scores.copy()
        scores[self.positions] = np.where(own >= 0, own * self.factors, own / self.factors)
        return scores

    def before(self, position: int, score: float) -> float:
        """What the score at a position was before."""
        for factor in self.factors[self.positions == position].tolist():
            return float(score / factor if score >= 0 else score * factor)
        return score


def prepare_rotation(
    rotate: Rotate | None, showings: Showings, position_of: Callable[[str], int | None], now: float | None = None
) -> Rotation | None:
    """None where it changes nothing."""
    if rotate is None:
        return None
    counts = showings.since((time.time() if now is None else now) - rotate.days * DAY)
    at = {position: n for item_id, n in counts.items() if (position := position_of(item_id)) is not None}
    if not at:
        return None
    factors = np.maximum(rotate.multiply ** np.array(list(at.values()), np.float64), LEAST)
    return Rotation(np.array(list(at), np.int64), factors)
