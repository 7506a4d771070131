"""What the engine is asked: which items an answer may have, by which rules they are ordered, and for which history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from seqrec.errors import PlacementNotFound
from service.live.filter_language import Filter
from service.live.search import Source
from service.live.state import View
from service.rules.body import placement_values
from service.rules.ranking import Boost, Explore, Pin, Rules

S = TypeVar("S", bound="Selection")
DEFAULT_K = 10


@dataclass(frozen=True)
class PopularQuery:
    """Rank by how many events items have: all, or those from `since` on (Unix seconds)."""

    since: float | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which items an answer may have, and the rules of their order. Common to all questions.

    `field` is prepended to the names of fields in errors, such as `requests[3].`. `given` are the names of the fields
    that the request has itself: the others come from its placement.
    """

    k: int = DEFAULT_K
    exclude: Sequence[str] = ()
    candidates: Sequence[str] | None = None
    filter: Filter | None = None
    boosts: tuple[Boost, ...] = ()
    pins: tuple[Pin, ...] = ()
    diversity: float = 0.0
    at_most: tuple[tuple[str, int], ...] = ()
    explore: Explore | None = None
    min_score: float | None = None
    fallback: tuple[Source, ...] = ()
    placement: str | None = None
    given: frozenset[str] = frozenset()
    shown: Sequence[str] = ()  # item ids on earlier pages
    fields: Sequence[str] | None = None  # attributes of the answer; None: all
    field: str = ""

    @property
    def rules(self) -> Rules:
        return Rules(self.boosts, self.pins, self.diversity, self.at_most, self.explore, self.min_score, self.fallback)

    def is_heavy(self, view: View) -> bool:
        """Whether its plan may have to read attributes of all items."""
        ruled = bool(self.filter or self.placement or self.rules.change_anything)
        return ruled or bool(view.unseen_attributes(self.fields or ()))


@dataclass(frozen=True, kw_only=True)
class RecommendRequest(Selection):
    """One recommendation to make. `history` is oldest first: item ids, or attributes of items in no catalogue.

    With `popular` the answer is what is popular, whatever the history; items without events are left out.
    """

    history: Sequence[str | Mapping[str, Any]]
    exclude_seen: bool | None = None  # None: as the model's repeat rule says, or yes
    user_id: str | None = None
    explain: bool = False
    popular: PopularQuery | None = None


@dataclass(frozen=True, kw_only=True)
class SimilarRequest(Selection):
    """What is similar to an item of the catalogue, or to attributes: one of the two."""

    item_id: str | None = None
    attributes: Mapping[str, Any] | None = None


def with_placement(view: View, request: S) -> S:
    """The request with what its placement has and itself does not give. Raises PlacementNotFound, InputError."""
    if request.placement is None:
        return request
    stored = view.placements.get(request.placement)
    if stored is None:
        raise PlacementNotFound(request.placement)
    known = {one.name for one in fields(request)}
    values = placement_values(stored.rules)
    return replace(request, **{n: value for n, value in values.items() if n in known and n not in request.given})
