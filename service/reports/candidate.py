"""What a candidate snapshot would bring, estimated from the answers whose places were filled at random.

For each such place the candidate is asked what it would have put there: for the user's history as of the answer, by the
rules of the placement, after the items that the answer has before. An estimate needs that the histories of requests
are the stored ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import groupby

from index.catalogue.base import Catalogue
from index.catalogue.batches import batches
from index.catalogue.event_types import EventTypes
from index.catalogue.histories import Event, HistoryStore
from index.catalogue.outcomes import DAY
from seqrec.errors import PlacementNotFound
from service.deadline import Deadline
from service.engine.attributes import AttributeBudget
from service.engine.execution import answers, execute
from service.engine.plan import Plan, plan_recommendations
from service.engine.requests import PopularQuery, RecommendRequest
from service.engine.user_history import UserHistory
from service.engine.vector_cache import VectorCache
from service.live.loader import Loader
from service.live.state import LiveState, View
from service.reports.off_policy import MIN_EFFECTIVE, OffPolicy, snips
from service.reports.report import date_of
from service.reports.statistics import Interval, rate_interval
from service.rules.body import placement_rules
from service.settings import Settings

_AT_ONCE = 64
"""Answers that are computed together."""
_CHANGES = 1000
_LONG = 1e9
_KEPT = ("filter", "exclude", "candidates", "boosts", "min_score", "exclude_seen")
"""Rules of the placement that apply to the candidate. Others depend on the whole answer, or on what was shown then."""
LEAST_SUPPORT = 0.5


@dataclass(frozen=True, slots=True)
class Estimated:
    """Per place: what users did in the log, and what they would have done with the candidate (None: no overlap)."""

    metric: str
    logged: float
    logged_interval: Interval
    candidate: OffPolicy | None


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """`places`: those that were filled at random, in `answers` to `users`. `warnings`: why not to trust it."""

    snapshot: str
    placement: str
    since: str
    until: str
    answers: int
    places: int
    users: int
    metrics: list[Estimated]
    warnings: list[str]


@dataclass
class _Place:
    item_id: str
    propensity: float | None
    types: set[str] = field(default_factory=set)


@dataclass
class _Answer:
    user_id: str
    time: int
    history: UserHistory
    places: dict[int, _Place] = field(default_factory=dict)  # by position, from 1

    @property
    def random(self) -> list[int]:
        """Positions."""
        return [position for position, place in self.places.items() if place.propensity is not None]


def estimate_candidate(
    settings: Settings,
    catalogue: Catalogue,
    histories: HistoryStore,
    snapshot_id: str,
    placement: str,
    days: int = 30,
    now: float | None = None,
) -> CandidateReport:
    """From answers of the last `days` days, today included. Raises SnapshotError, PlacementNotFound, CatalogueError."""
    stored = catalogue.placements().get(placement)
    if stored is None:
        raise PlacementNotFound(placement)
    rules = {name: value for name, value in placement_rules(stored.rules).values.items() if name in _KEPT}
    state = Loader(settings, catalogue)(snapshot_id, None)
    _catch_up(state, catalogue)
    today = int((time.time() if now is None else now) // DAY)
    since = max(0, today - days + 1)
    logged = _logged(histories, placement, since * DAY)
    reward: dict[str, list[float]] = {"click-through": [], "conversion": []}
    propensities, probabilities, users = [], [], []
    found = late = unknown = gaps = 0
    created = datetime.fromisoformat(state.snapshot.manifest.created).timestamp()
    for some in batches(logged, _AT_ONCE):
        for answer, ranking in zip(some, _rankings(state.view, some, rules, settings), strict=True):
            found += 1
            late += answer.time < created
            unknown += not answer.history.recent
            for position in answer.random:
                place = answer.places[position]
                before = {one.item_id for at, one in answer.places.items() if at < position}
                gaps += len(before) < position - 1
                choice = next((item_id for item_id in ranking if item_id not in before), None)
                propensities.append(place.propensity or 1.0)
                probabilities.append(float(choice == place.item_id))
                users.append(answer.user_id)
                reward["click-through"].append(float("clicked" in place.types))
                reward["conversion"].append(float("purchase" in place.types))
    metrics = [_estimated(name, rewards, propensities, probabilities, users) for name, rewards in reward.items()]
    warnings = list(_warnings(metrics, len(users), found, late, unknown, gaps))
    return CandidateReport(
        snapshot_id,
        placement,
        date_of(since),
        date_of(today),
        found,
        len(users),
        len(set(users)),
        metrics if users else [],
        warnings,
    )


def _estimated(
    name: str, rewards: Sequence[float], logged: Sequence[float], candidate: Sequence[float], users: Sequence[str]
) -> Estimated:
    total, n = sum(rewards), len(rewards)
    found = snips(rewards, logged, candidate, users) if any(candidate) else None
    return Estimated(name, total / max(n, 1), rate_interval(total, n), found)


def _warnings(
    metrics: Sequence[Estimated], places: int, answers: int, late: int, unknown: int, gaps: int
) -> Iterator[str]:
    if not places:
        yield (
            'no place was filled at random: give the placement "explore": {"share": 0.1, "random": 20}, and post '
            "events of the type shown with the recommendation_id of the answer"
        )
        return
    found = metrics[0].candidate
    effective = 0.0 if found is None else found.effective
    if effective < MIN_EFFECTIVE:
        yield (
            f"the log is too small to tell: its {places:,} random places are worth {effective:.1f} of this "
            f"candidate's, and {MIN_EFFECTIVE:.0f} are the least; go on logging"
        )
    if found is not None and found.support < LEAST_SUPPORT:
        yield (
            f"the log contains about {found.support:.0%} of what the candidate would show; the estimate says nothing "
            "of the rest: explore with a larger `random`"
        )
    if late:
        yield (
            f"{late:,} of {answers:,} answers are older than the snapshot: what users did then may be in its training "
            "or its counts, which flatters it"
        )
    if 2 * unknown > answers:
        yield (
            f"of {unknown:,} of {answers:,} answers no earlier event of the user is stored: if requests sent histories "
            "themselves, the estimate is not of those"
        )
    if gaps:
        yield f"before {gaps:,} of {places:,} places it is not known what was shown: post shown for every item"


def _rankings(view: View, some: Sequence[_Answer], rules: dict[str, object], settings: Settings) -> list[list[str]]:
    """Item ids for each answer, as many as its last random place needs."""
    known = {one.name for one in fields(RecommendRequest)}
    own = {name: value for name, value in rules.items() if name in known}
    cache, deadline = VectorCache(0), Deadline(_LONG)
    plans: list[Plan] = []
    for answer in some:
        request = RecommendRequest(history=(), user_id=answer.user_id, fields=[], **{**own, "k": max(answer.random)})  # type: ignore[arg-type]
        users = {answer.user_id: answer.history}
        plans += plan_recommendations(view, [request], users, settings.max_history, cache, deadline)
    results = iter(execute([plan for plan in plans if not isinstance(plan.query, PopularQuery)]))
    found = [None if isinstance(plan.query, PopularQuery) else next(results) for plan in plans]
    made = answers(plans, found, AttributeBudget(0), deadline)
    return [[item.item_id for item, _ in one.items] for one in made]


def _logged(histories: HistoryStore, placement: str, since: float) -> Iterator[_Answer]:
    """Answers from `since` on (Unix seconds) with a random place, by user."""
    types = histories.types()
    for user_id, events in groupby(histories.scan(), lambda event: event.user_id):
        yield from _of_user(user_id, list(events), types, placement, since)


def _of_user(
    user_id: str, events: Sequence[Event], types: EventTypes, placement: str, since: float
) -> Iterator[_Answer]:
    found: dict[bytes, _Answer] = {}
    for event in events:
        of = event.attribution
        if of is None or of.slot.placement != placement or of.time < since:
            continue
        if of.recommendation not in found:
            found[of.recommendation] = _Answer(user_id, of.time, _as_of(events, of.time, types))
        place = found[of.recommendation].places.setdefault(of.position, _Place(event.item_id, of.propensity))
        place.types.add(event.type)
    yield from (answer for answer in found.values() if answer.random)


def _as_of(events: Iterable[Event], time: float, types: EventTypes) -> UserHistory:
    """What was stored of a user then. An event of the same second counts as later."""
    before = [(types.of(event.type).kind, event.item_id) for event in events if event.timestamp < time]
    history = [item_id for kind, item_id in before if kind == "history"]
    return UserHistory(history, set(history), {item_id for kind, item_id in before if kind == "negative"})


def _catch_up(state: LiveState, catalogue: Catalogue) -> None:
    """Items as they are now: the candidate would find those that were posted since, too."""
    while changes := list(catalogue.changes(state.view.seq, _CHANGES)):
        for portion in state.portions(changes):
            state.apply(portion, portion[-1].seq)
