"""What kinds of events there are: which make a user's history and count, with which weight, and which do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from seqrec.data.durations import parse_duration
from seqrec.data.items import check_event_type
from seqrec.errors import InputError

Kind = Literal["history", "negative", "shown"]
MAX_WEIGHT = 64.0
RESOLUTION = 1024.0
"""Weights are multiples of 1 / 1024, so that sums of counts stay exact: what is taken back leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class EventType:
    """history: it is part of the user's history, and adds `weight` times to popularity and co-occurrence.

    negative: the item is never recommended to the user again. shown: it is stored, and nothing else.
    """

    kind: Kind = "history"
    weight: float = 1.0


@dataclass(frozen=True)
class EventTypes:
    """By name. A type without an entry, and no type at all, make history and count 1.

    session_gap: seconds. With one, an item counts once in a session, which is a user's events that make history without
    a longer pause (`seqrec.data.sessions`). Infinite: once a user. None: every event counts.
    """

    by_name: Mapping[str, EventType] = field(
        default_factory=lambda: {"impression": EventType("shown"), "shown": EventType("shown")}
    )
    session_gap: float | None = None

    def of(self, name: str) -> EventType:
        return self.by_name.get(name, _PLAIN)

    def with_types(self, changed: Mapping[str, EventType]) -> EventTypes:
        return replace(self, by_name=dict(sorted((dict(self.by_name) | dict(changed)).items())))

    def with_gap(self, session_gap: float | None) -> EventTypes:
        return replace(self, session_gap=session_gap)

    @property
    def negative(self) -> frozenset[str]:
        return frozenset(name for name, one in self.by_name.items() if one.kind == "negative")


_PLAIN = EventType()


def parse_type(text: str) -> tuple[str, EventType]:
    """`view=0.25`, `dislike=negative`, `shown=shown`, `purchase=history`. Raises InputError."""
    name, equals, value = text.rpartition("=")
    if not equals:
        raise InputError(f"{text!r} is not TYPE=WEIGHT or TYPE=KIND, such as view=0.25 or dislike=negative", "types")
    check_event_type(name, "types")
    for kind in get_args(Kind):
        if value == kind:
            return name, EventType(kind)
    try:
        weight = round(float(value) * RESOLUTION) / RESOLUTION
    except (ValueError, OverflowError):
        weight = 0.0
    if not 0 < weight <= MAX_WEIGHT:
        kinds = ", ".join(get_args(Kind))
        raise InputError(f"{value!r} is neither a weight from 0.001 to {MAX_WEIGHT:.0f} nor one of {kinds}", name)
    return name, EventType("history", weight)


def parse_session_gap(text: str) -> float | None:
    """`30min`; `user`: all of a user is one session; `none`: there are no sessions. Raises InputError."""
    if text == "none":
        return None
    gap = math.inf if text == "user" else parse_duration(text)
    if gap is None:
        raise InputError(f"{text!r} is neither a duration, such as 30min, nor user or none", "session-gap")
    return gap


def format_session_gap(gap: float | None) -> str:
    """What `parse_session_gap` reads."""
    if gap is None:
        return "none"
    return "user" if math.isinf(gap) else f"{gap!r}s"
