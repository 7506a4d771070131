"""Requests to the engine: which items an answer may contain, the rules of their order, and the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from seqrec.errors import InputError, PlacementNotFound
from service.deadline import Deadline
from service.live.filter_language import Filter
from service.live.search import Source
from service.live.state import View
from service.live.views import Views
from service.rules.body import placement_rules
from service.rules.experiments import HOLDOUT, Shadow
from service.rules.ranking import Boost, Explore, Pin, Rules
from service.rules.rotation import NOTHING_SHOWN, Rotate, Showings
from service.settings import Settings

S = TypeVar("S", bound="Selection")
DEFAULT_K = 10


@dataclass(frozen=True)
class PopularQuery:
    """Rank by how many events items have: all, or those from `since` on (Unix seconds)."""

    since: float | None = None


@dataclass(frozen=True)
class Exposure:
    """What shaped an answer: a placement and its version, and the variant of its experiment; "": none."""

    placement: str = ""
    version: int = 0
    experiment: str = ""
    variant: str = ""


NO_EXPOSURE = Exposure()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which items an answer may have, and the rules of their order. Common to all questions.

    `field` is prepended to the names of fields in errors, such as `requests[3].`. `given` are the names of the fields
    that the request has itself: the others come from its placement. `unit` is who gets a variant of an experiment: a
    user or a session. With `holdout` the most popular items answer.
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
    rotate: Rotate | None = None
    placement: str | None = None
    snapshot: str | None = None  # which one answers; None: the published one
    given: frozenset[str] = frozenset()
    shown: Sequence[str] = ()  # item ids on earlier pages
    fields: Sequence[str] | None = None  # attributes of the answer; None: all
    field: str = ""
    unit: str | None = None
    showings: Showings = NOTHING_SHOWN  # to the unit; read where `may_rotate`
    degraded: Sequence[str] = ()  # what cannot be as it is wanted
    shadow: Shadow | None = None
    holdout: bool = False
    exposure: Exposure = NO_EXPOSURE

    @property
    def rules(self) -> Rules:
        ordered = (self.boosts, self.pins, self.diversity, self.at_most, self.explore, self.min_score)
        return Rules(*ordered, self.fallback, self.rotate)

    def may_rotate(self, view: View) -> bool:
        """Whether its rules may ask what was shown to its `unit`. Those of a placement are not read for this."""
        if self.unit is None:
            return False
        stored = None if self.placement is None else view.placements.get(self.placement)
        return self.rotate is not None or (stored is not None and '"rotate"' in stored.rules)

    def may_name_snapshot(self, view: View) -> bool:
        """Whether a snapshot other than the published one may have to answer."""
        stored = None if self.placement is None else view.placements.get(self.placement)
        return self.snapshot is not None or (stored is not None and '"snapshot"' in stored.rules)

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


def check_request(request: Selection, settings: Settings) -> None:
    """Raises InputError for more than the settings allow."""
    if not 1 <= request.k <= settings.max_k:
        raise InputError(f"from 1 to {settings.max_k}, not {request.k}", f"{request.field}k")
    for name, ids in (("exclude", request.exclude), ("candidates", request.candidates)):
        if ids is not None and len(ids) > settings.max_ids:
            raise InputError(f"at most {settings.max_ids} ids, not {len(ids)}", f"{request.field}{name}")
    if isinstance(request, RecommendRequest) and len(request.history) > settings.max_history:
        message = f"at most {settings.max_history} entries, not {len(request.history)}; send the newest"
        raise InputError(message, f"{request.field}history")


async def own_views(
    views: Views, requests: Sequence[S], published: View, min_seq: int, deadline: Deadline
) -> tuple[Sequence[S], list[View]]:
    """The view that answers each request; where a variant's snapshot cannot, that of the published one.

    Where that matters the requests come back with the rules of their placements. Raises InputError where the snapshot
    that a request itself names cannot answer, PlacementNotFound, NotReady.
    """
    if not any(request.may_name_snapshot(published) for request in requests):
        return requests, [published] * len(requests)
    resolved, own = [], []
    found: dict[str, View | str] = {}
    for request in (with_placement(published, request) for request in requests):
        name, view = request.snapshot, published
        if name is not None:
            if name not in found:
                found[name] = await views.named(name, published, min_seq, deadline)
            answering = found[name]
            if isinstance(answering, str) and "snapshot" in request.given:
                raise views.refusal(name, answering, published, f"{request.field}snapshot")
            if isinstance(answering, str):
                why = f"snapshot {name} of the variant does not answer: {answering}; {published.snapshot.id} answered"
                request = replace(request, degraded=[why])
            else:
                view = answering
        resolved.append(request)
        own.append(view)
    return resolved, own


def with_placement(view: View, request: S) -> S:
    """The request with what its placement has and itself does not give. Raises PlacementNotFound, InputError.

    A request without a `unit` takes part in no experiment. What is returned names no placement.
    """
    if request.placement is None:
        return request
    stored = view.placements.get(request.placement)
    if stored is None:
        raise PlacementNotFound(request.placement)
    known = {one.name for one in fields(request)}
    values, experiment = placement_rules(stored.rules)
    exposure = Exposure(request.placement, stored.seq)
    holdout = False
    if experiment is not None and request.unit is not None:
        variant = experiment.variant_of(request.unit)
        holdout = variant is None
        exposure = replace(exposure, experiment=experiment.name, variant=HOLDOUT if variant is None else variant.name)
        values = values if variant is None else {**values, **variant.values}
    own = {name: value for name, value in values.items() if name in known and name not in request.given}
    request = replace(request, **own, exposure=exposure, placement=None)
    return replace(request, **_UNORDERED, holdout=True) if holdout else request


# What is popular is not reordered for the holdout; only what may be answered is as for all others.
_UNORDERED: Mapping[str, Any] = {
    "boosts": (),
    "pins": (),
    "diversity": 0.0,
    "at_most": (),
    "explore": None,
    "min_score": None,
    "fallback": (),
    "rotate": None,
}
