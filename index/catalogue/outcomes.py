"""What became of recommendations: events that carry an attribution, counted as they are stored.

An item of an answer has an outcome once an event names the two: it was shown, and perhaps clicked, put into the cart or
purchased. Each of these counts once for a user, an answer and an item, however often it is reported. An item that was
clicked, put into the cart or purchased counts as shown, even if no `shown` event arrives.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from operator import add, sub
from typing import Any, Literal, NamedTuple

from seqrec.errors import InputError

OUTCOMES = ("shown", "clicked", "cart", "purchase")
"""Types of events that may carry an attribution."""
Dimension = Literal["placement", "version", "variant", "model", "snapshot", "position", "source", "cold"]
MAX_POSITION = 100
"""Later places count as this one."""
DAY = 86_400
_SLOT = ("placement", "version", "experiment", "variant", "model", "snapshot")
_RECOMMENDATION = re.compile(r"[0-9a-f]{24}")
_NAME = re.compile(r"[^\s|]{0,256}")  # what stores can keep as a name


@dataclass(frozen=True, slots=True)
class Slot:
    """What made an answer. Few different ones exist, so stores keep each once. "" or 0: none."""

    placement: str
    version: int = 0  # of the placement
    experiment: str = ""
    variant: str = ""
    model: str = ""
    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class Attribution:
    """Of an event: the answer that it belongs to, and how its item came there.

    `recommendation`: 12 bytes that name the answer, of which the first four are its time (Unix seconds, big-endian).
    `propensity`: of a place that was filled at random, how likely it was to get this item, above 0.
    """

    recommendation: bytes
    slot: Slot
    position: int  # from 1
    source: str
    cold: bool  # the item had no events
    propensity: float | None = None

    @property
    def time(self) -> int:
        """Unix seconds of the answer."""
        return int.from_bytes(self.recommendation[:4])

    @property
    def day(self) -> int:
        """Days since 1970, UTC: an outcome counts on the day of its answer."""
        return self.time // DAY


def attribution_record(of: Attribution) -> dict[str, Any]:
    """As JSON, without empty fields. `attribution_of` reads it."""
    slot = {name: value for name in _SLOT if (value := getattr(of.slot, name))}
    record = {"recommendation": of.recommendation.hex(), **slot, "position": of.position, "source": of.source}
    record |= {"cold": True} if of.cold else {}
    return record | ({} if of.propensity is None else {"propensity": of.propensity})


def attribution_of(record: object) -> Attribution:
    """Raises InputError for what `attribution_record` does not make."""
    if not isinstance(record, dict):
        raise InputError("an attribution is a JSON object", "attribution")
    given: dict[str, Any] = {
        "version": 0,
        "experiment": "",
        "variant": "",
        "model": "",
        "snapshot": "",
        "cold": False,
        "propensity": None,
    } | record
    for name in ("recommendation", "placement", "experiment", "variant", "model", "snapshot", "source"):
        pattern = _RECOMMENDATION if name == "recommendation" else _NAME
        if not isinstance(given.get(name), str) or not pattern.fullmatch(given[name]):
            raise InputError(f"not a {name}: {given.get(name)!r}", f"attribution.{name}")
    for name, least in (("version", 0), ("position", 1)):
        if type(given.get(name)) is not int or not least <= given[name] < 2**53:
            raise InputError(f"a whole number from {least}, not {given.get(name)!r}", f"attribution.{name}")
    propensity = given["propensity"]
    if propensity is not None and not (type(propensity) in (int, float) and 0 < propensity <= 1):
        raise InputError(f"a number above 0 and at most 1, not {propensity!r}", "attribution.propensity")
    slot = Slot(*(given[name] for name in _SLOT))
    recommendation = bytes.fromhex(given["recommendation"])
    return Attribution(recommendation, slot, given["position"], given["source"], given["cold"] is True, propensity)


class Counts(NamedTuple):
    """Of items in answers: how many were shown and so on; the sum of the purchases' values, and of their squares."""

    shown: float = 0
    clicked: float = 0
    cart: float = 0
    purchase: float = 0
    value: float = 0
    value2: float = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*map(add, self, other))

    def minus(self, other: Counts) -> Counts:
        return Counts(*map(sub, self, other))


class CountsRow(NamedTuple):
    """Counts of a placement and one value of a dimension; `experiment`: "", or which one, where it is the variant."""

    placement: str
    experiment: str
    key: str | int
    counts: Counts


class Moments(NamedTuple):
    """Sums over the users of a variant: of each number, of its square, and of its product with `shown`."""

    users: float = 0
    shown: float = 0
    clicked: float = 0
    cart: float = 0
    purchase: float = 0
    value: float = 0
    shown_shown: float = 0
    clicked_clicked: float = 0
    purchase_purchase: float = 0
    value_value: float = 0
    shown_clicked: float = 0
    shown_purchase: float = 0
    shown_value: float = 0

    def changed(self, before: Counts, after: Counts) -> Moments:
        """The sums after one user's counts changed."""
        return Moments(*map(add, self, map(sub, _of_user(after), _of_user(before))))


class Trial(NamedTuple):
    """The outcomes of one variant of an experiment."""

    placement: str
    experiment: str
    variant: str
    moments: Moments


MOMENTS = Moments._fields


def added(others: Collection[str], type: str, value: float | None) -> Counts:
    """What an event adds, where `others` are the types of the other events of its user, answer and item."""
    worth = (value or 0.0) if type == "purchase" else 0.0
    shown, clicked, cart, purchase = not others, type == "clicked", type == "cart", type == "purchase"
    return Counts(shown, clicked, cart, purchase, worth, worth * worth)


def _of_user(counts: Counts) -> Iterator[float]:
    shown, clicked, cart, purchase, value, _ = counts
    yield float(any((shown, clicked, cart, purchase)))
    yield from (shown, clicked, cart, purchase, value)
    yield from (shown * shown, clicked * clicked, purchase * purchase, value * value)
    yield from (shown * clicked, shown * purchase, shown * value)
