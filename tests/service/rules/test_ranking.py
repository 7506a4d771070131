"""Rules against a plain reading of their definition, item by item, on every kind of index; and single rules by hand."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.catalogue.base import CatalogueItem, Change
from seqrec.data.items import Item, make_item
from seqrec.encoder import Vectors, load_model
from seqrec.metric import TIE, ranked
from service.live.filter_language import Filter, parse_filter
from service.live.search import Hit, SearchSpec, answerable, score_all
from service.live.state import LiveState, Towers, View
from service.rules.ranking import Boost, Explore, Pin, Rules, prepare
from service.rules.rotation import NOTHING_SHOWN, Rotate, Showings
from tests.service.live.test_filters import KINDS, N, attributes, conditions, meets, snapshot_items, state_of

pytestmark = pytest.mark.slow

BRANDS = ["Acme", "Lumen", "3"]


@pytest.fixture(scope="module")
def towers(bag_of_words_checkpoint: Path) -> Towers:
    return Towers(load_model(bag_of_words_checkpoint, device="cpu"))


@dataclass(frozen=True)
class Asked:
    """Rules as a client sends them: filters are still plain objects."""

    boosts: Sequence[tuple[dict[str, Any], float, float]]  # filter, add, multiply
    pins: Sequence[tuple[int | None, int | None, list[str], dict[str, Any] | None]]  # position, every, ids, filter
    diversity: float
    at_most: Sequence[tuple[str, int]]
    explore: tuple[float, float, int | None] | None
    min_score: float | None
    fallback: bool
    rotate: tuple[float, dict[str, int]] | None  # multiply, how often each item was shown

    def rules(self) -> Rules:
        def parsed(one: dict[str, Any]) -> Filter:
            return parse_filter(one, "filter", 100)

        return Rules(
            tuple(Boost(parsed(wanted), add, multiply) for wanted, add, multiply in self.boosts),
            tuple(
                Pin(at, every, tuple(ids), None if wanted is None else parsed(wanted))
                for at, every, ids, wanted in self.pins
            ),
            self.diversity,
            tuple(self.at_most),
            None if self.explore is None else Explore(*self.explore),
            self.min_score,
            ("popular",) if self.fallback else (),
            None if self.rotate is None else Rotate(self.rotate[0]),
        )

    def showings(self) -> Showings:
        times = {} if self.rotate is None else self.rotate[1]
        shown = [item_id for item_id, n in times.items() for _ in range(n)]
        return Showings(shown, [time.time()] * len(shown))


ids = st.sampled_from([f"i{row:02}" for row in range(0, N, 3)] + ["new-1", "nobody"])
asked = st.builds(
    Asked,
    boosts=st.lists(
        st.tuples(conditions, st.sampled_from([0.0, 0.3, -0.2]), st.sampled_from([1.0, 2.0, 0.5, 0.0])), max_size=2
    ),
    pins=st.lists(
        st.tuples(
            st.sampled_from([1, 2, 4, 9]),
            st.booleans(),
            st.lists(ids, max_size=2, unique=True),
            st.none() | conditions,
        ).map(lambda drawn: (None if drawn[1] else drawn[0], drawn[0] if drawn[1] else None, drawn[2], drawn[3])),
        max_size=2,
    ),
    diversity=st.sampled_from([0.0, 0.0, 0.3, 0.7]),
    at_most=st.lists(st.tuples(st.sampled_from(["brand", "tags"]), st.integers(1, 3)), max_size=1),
    explore=st.none()
    | st.tuples(st.sampled_from([0.2, 0.5]), st.sampled_from([5.0, 30.0]), st.none() | st.sampled_from([2, 5])),
    min_score=st.sampled_from([None, None, 0.2]),
    fallback=st.booleans(),
    rotate=st.none()
    | st.tuples(st.sampled_from([0.3, 0.8]), st.dictionaries(ids, st.sampled_from([1, 2, 40]), max_size=9)),
)


def by_definition(
    asked: Asked,
    items: Sequence[Item],
    scores: dict[str, float],
    events: dict[str, float],
    everywhere: float,
    vectors: dict[str, Vectors],
    shown: Sequence[Item],
    k: int,
) -> list[tuple[str, bool, bool, str, float | None]]:
    """(item id, pinned, explored, source, propensity) of each place. items: those that may be answered.

    Draws from `random` as the service does, so that both draw the same with the same seed.
    """
    by_id = {item.item_id: item for item in items}
    boosted = {}
    for item_id, item in by_id.items():
        score = scores[item_id]
        for wanted, add, multiply in asked.boosts:
            if meets(item.attributes, wanted):
                if score < 0:
                    score = score / multiply if multiply else -math.inf
                else:
                    score = score * multiply
                score = float(np.float32(score + add))
        boosted[item_id] = score

    def sunk(of: dict[str, float]) -> dict[str, float]:
        multiply, times = asked.rotate or (1.0, {})
        factors = {item_id: max(multiply ** times.get(item_id, 0), 1e-6) for item_id in of}
        return {i: float(np.float32(s * factors[i] if s >= 0 else s / factors[i])) for i, s in of.items()}

    free = dict(by_id)
    values: Counter[Any] = Counter()
    answer: list[tuple[str, bool, bool, str, float | None]] = []

    def best_first(ids: Sequence[str], of: dict[str, float]) -> list[str]:
        alive = [item_id for item_id in ids if of[item_id] > -math.inf]
        return [alive[row] for row in ranked(alive, [of[item_id] for item_id in alive])]

    def count(item: Item) -> None:
        for name, most in asked.at_most:
            value = item.attributes.get(name, ())
            for one in value if isinstance(value, tuple) else (value,):
                values[name, one] += 1
                if values[name, one] >= most:
                    for item_id, other in list(free.items()):
                        theirs = other.attributes.get(name, ())
                        if one in (theirs if isinstance(theirs, tuple) else (theirs,)):
                            del free[item_id]

    for item in shown:
        count(item)
    reserved: list[str] = []
    for at, _, pinned_ids, _ in sorted(asked.pins, key=lambda pin: pin[0] or 0):
        if at is not None and len(shown) < at <= len(shown) + k:
            reserved += [one for one in pinned_ids if one in free and one not in reserved][:1]

    def open_(item_id: str) -> bool:
        return item_id in free and item_id not in reserved

    def put(
        item_id: str, of: str, pinned: bool = False, explored: bool = False, propensity: float | None = None
    ) -> None:
        item = free.pop(item_id)
        answer.append((item_id, pinned, explored, of, propensity))
        count(item)

    def pin_of(place: int, of: dict[str, float]) -> str | None:
        for at, every, pinned_ids, wanted in asked.pins:
            if place == at or (every is not None and place % every == 0):
                for item_id in pinned_ids:
                    if item_id in free and (at is not None or item_id not in reserved):
                        return item_id
                if wanted is not None:
                    passing = [i for i in free if meets(free[i].attributes, wanted)]
                    found = [i for i in best_first(passing, of) if i not in reserved]
                    if found:
                        return found[0]
        return None

    def natural(of: dict[str, float], allowed: set[str], diverse: bool) -> Iterator[str]:
        order = best_first([item_id for item_id in by_id if item_id in allowed], of)
        if not diverse:
            while True:
                yield from [item_id for item_id in order if open_(item_id)][:1]
                if not any(map(open_, order)):
                    return
        pool = [item_id for item_id in order if item_id in free]
        own = {item_id: float(of[item_id]) for item_id in pool}
        low, high = (min(own.values()), max(own.values())) if own else (0.0, 0.0)
        left = list(pool)
        while left:
            taken = [item_id for item_id, *_ in answer if item_id in own]

            def value(item_id: str, taken: Sequence[str] = taken) -> float:
                relevance = (own[item_id] - low) / (high - low) if high > low else 1.0
                near = max([0.0] + [float(vectors[item_id].astype(float) @ vectors[one]) for one in taken])
                return (1 - asked.diversity) * relevance - asked.diversity * near

            top = max(map(value, left))
            choice = next(item_id for item_id in left if value(item_id) >= top - TIE)
            left.remove(choice)
            yield choice
            if open_(choice):
                left.append(choice)
                left.sort(key=pool.index)

    def few_events(of: dict[str, float]) -> Iterator[str]:
        assert asked.explore is not None
        best = sorted((of[i] for i in free if of[i] > -math.inf), reverse=True)[:200]
        spread = float(np.array(best, np.float32).std()) if best else 0.0
        bound = {
            i: float(np.float32(of[i] + spread * math.sqrt(math.log1p(everywhere) / (1 + events[i])))) for i in free
        }
        yield from best_first([i for i in free if events[i] < asked.explore[1]], bound)

    popular = [("popular", sunk({i: float(events[i]) for i in by_id}))] if asked.fallback else []
    sources = [("model", sunk(boosted)), *popular]
    for source, of in sources:
        allowed = {i for i in by_id if source != "model" or asked.min_score is None or of[i] >= asked.min_score}
        order = natural(of, allowed, asked.diversity > 0)
        exploring = asked.explore if source == "model" else None
        new = few_events(of) if exploring is not None else iter(())
        while len(answer) < k:
            place = len(shown) + len(answer) + 1
            pinned = pin_of(place, of)
            if pinned is not None:
                put(pinned, source, pinned=True)
                continue
            explored = propensity = None
            share, _, among = exploring or (0.0, 0.0, None)
            if among is not None:
                following = next((one for one in order if open_(one)), None)
                best = best_first([i for i in free if i in allowed and open_(i)], of)[:among]
                if following is not None and len(best) == among:
                    chosen = best[random.randrange(among)] if random.random() < share else following
                    propensity = share / among * (chosen in best) + (1 - share) * (chosen == following)
                    explored = None if chosen == following else chosen
            elif exploring and math.floor(place * share) > math.floor((place - 1) * share):
                explored = next((one for one in new if open_(one)), None)
            found = next((one for one in order if open_(one)), None) if explored is None else explored
            if found is None:
                break
            put(found, source, explored=explored is not None, propensity=propensity)
    for item_id in reserved:
        if len(answer) < k and item_id in free:
            answer.append((item_id, True, False, "model", None))
            del free[item_id]
    return answer


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rules_are_exact_on_every_kind_of_index(towers: Towers, kind: str, data: st.DataObject) -> None:
    state = state_of(towers, kind)
    held = {item.item_id: item for item in snapshot_items()}
    changes: list[Change] = []
    for item_id in data.draw(st.lists(ids, max_size=4), label="changed"):
        item = make_item(item_id, data.draw(attributes), data.draw(st.booleans()))
        held[item_id] = item
        changes.append(Change(len(changes) + 1, "put", item_id, CatalogueItem(item)))
    state.apply(changes, len(changes))
    view = state.view
    wanted = data.draw(asked, label="rules")
    condition = data.draw(st.none() | conditions, label="filter")
    excluded = data.draw(st.lists(ids, max_size=3, unique=True), label="excluded")
    shown = data.draw(st.lists(ids, max_size=2, unique=True), label="shown")
    k = data.draw(st.sampled_from([1, 4, 12, 100]), label="k")
    [query] = towers.encoder.encode_items([{"title": "oak desk 3"}])

    seed = data.draw(st.integers(0, 2**32), label="seed")
    random.seed(seed)
    hits = answer_of(view, wanted.rules(), query, k, condition, excluded, shown, wanted.showings())

    among = [
        item
        for item_id, item in held.items()
        if item.available
        and item_id not in excluded
        and item_id not in shown
        and (condition is None or meets(item.attributes, condition))
    ]
    every = score_all(view, query)
    counted = view.popularity
    place = {item.item_id: view.position_of(item.item_id) for item in held.values()}
    random.seed(seed)
    expected = by_definition(
        wanted,
        among,
        {item.item_id: float(every[place[item.item_id]]) for item in among},
        {item.item_id: float(counted[place[item.item_id]]) for item in among},
        float(counted.sum()),
        {item.item_id: view.vectors([place[item.item_id] or 0])[0] for item in among},
        [held[item_id] for item_id in shown if item_id in held],
        k,
    )
    found = [(view.item_id(hit.position), hit.pinned, hit.explored, hit.source, hit.propensity) for hit in hits]
    assert [one[:4] for one in found] == [one[:4] for one in expected]
    assert [one[4] for one in found] == [pytest.approx(one[4]) for one in expected]


def answer_of(
    view: View,
    rules: Rules,
    query: Vectors,
    k: int,
    condition: dict[str, Any] | None = None,
    excluded: Sequence[str] = (),
    shown: Sequence[str] = (),
    showings: Showings = NOTHING_SHOWN,
) -> list[Hit]:
    def positions(item_ids: Sequence[str]) -> list[int]:
        return [position for item_id in item_ids if (position := view.position_of(item_id)) is not None]

    passed = view.passed(parse_filter(condition, "filter", 100)) if condition else None
    spec = SearchSpec(k, frozenset(positions([*excluded, *shown])), passed=passed)
    ruled = prepare(view, rules, positions(shown), {}, lambda: None, showings)
    popular: Callable[[], Any] = lambda: view.popularity.astype(np.float32)  # noqa: E731
    sources: list[Any] = [("model", partial(score_all, view, query))]
    sources += [("popular", popular)] if rules.fallback else []
    allowed = np.zeros(view.size, np.bool_)
    allowed[answerable(view, spec)] = True
    return ruled.fill(k, allowed, sources)


@pytest.fixture
def state(towers: Towers) -> LiveState:
    return state_of(towers, "flat")


def query(towers: Towers) -> Vectors:
    return np.asarray(towers.encoder.encode_items([{"title": "oak desk 3"}])[0])


def test_pages_show_every_item_once_while_items_come_and_go(towers: Towers, state: LiveState) -> None:
    """What stays in the catalogue is on exactly one page; what comes meanwhile may be on a later one."""
    shown: list[str] = []
    for page in range(20):
        hits = answer_of(state.view, Rules(), query(towers), 7, shown=shown)
        found = [state.view.item_id(hit.position) for hit in hits]
        assert not set(found) & set(shown)
        shown += found
        if page < 5:
            new = make_item(f"page-{page}", {"title": f"oak desk {page}"})
            state.apply([Change(page + 1, "put", new.item_id, CatalogueItem(new))], page + 1)
        if not found:
            break
    stayed = {item.item_id for item in snapshot_items() if item.available}
    assert stayed | {f"page-{page}" for page in range(5)} == set(shown)
    assert len(shown) == len(set(shown))


paged = asked.map(
    lambda one: replace(
        one,
        boosts=[(wanted, add, multiply or 1.0) for wanted, add, multiply in one.boosts],
        at_most=[],
        min_score=None,
    )
)
"""Rules that leave nothing out."""


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pages_repeat_and_leave_out_nothing_under_any_rules(towers: Towers, kind: str, data: st.DataObject) -> None:
    """Items come, change, hide and go between pages: each is on at most one, and each that stays as it is on one."""
    state, rules = state_of(towers, kind), data.draw(paged, label="rules")
    stays = {item.item_id for item in snapshot_items() if item.available}
    shown: list[str] = []
    seq = 0
    while True:
        hits = answer_of(
            state.view,
            rules.rules(),
            query(towers),
            data.draw(st.sampled_from([1, 3, 8, 20]), label="k"),
            shown=shown,
            showings=rules.showings(),
        )
        if not hits:
            break
        shown += [state.view.item_id(hit.position) for hit in hits]
        changes = []
        for item_id, gone in data.draw(st.lists(st.tuples(ids, st.booleans()), max_size=3), label="changed"):
            seq += 1
            item = make_item(item_id, data.draw(attributes), data.draw(st.booleans()))
            changes.append(Change(seq, "delete", item_id) if gone else Change(seq, "put", item_id, CatalogueItem(item)))
            stays -= {item_id}
        state.apply(changes, seq)
    assert len(shown) == len(set(shown))
    assert stays <= set(shown)


def test_a_pin_waits_for_its_place(towers: Towers, state: LiveState) -> None:
    best = [state.view.item_id(hit.position) for hit in answer_of(state.view, Rules(), query(towers), 5)]
    rules = Rules(pins=(Pin(position=3, item_ids=(best[0],)),))
    moved = [state.view.item_id(hit.position) for hit in answer_of(state.view, rules, query(towers), 5)]
    assert moved == [best[1], best[2], best[0], best[3], best[4]]


def test_an_explanation_names_what_a_rule_cannot_read(state: LiveState) -> None:
    rules = Rules(boosts=(Boost(parse_filter({"brnad": "Acme"}, "boost", 10), 1.0),), at_most=(("colour", 1),))
    assert prepare(state.view, rules, (), {}, lambda: None).unknown == ["brnad", "colour"]


def test_a_rule_of_the_newest_item_has_no_effect_without_one(towers: Towers, state: LiveState) -> None:
    same = parse_filter({"brand": {"same_as": "last"}}, "boost", 10)
    boosted = prepare(state.view, Rules(boosts=(Boost(same, 1.0),)), (), {"brand": "Acme"}, lambda: None)
    assert boosted.boosts[0][0].any()
    without = prepare(state.view, Rules(boosts=(Boost(same, 1.0),)), (), {}, lambda: None)
    assert not without.boosts[0][0].any()


def test_random_places_are_filled_as_often_as_their_propensities_say(towers: Towers, state: LiveState) -> None:
    """The first three places of many answers: each item with the share that the answers say themselves."""
    rules, m, rounds = Rules(explore=Explore(0.4, random=5)), 5, 2000
    random.seed(11)
    answers = [answer_of(state.view, rules, query(towers), 3) for _ in range(rounds)]
    first = Counter(hits[0].position for hits in answers)
    assert len(first) == m
    propensity = {hit.position: hit.propensity for hits in answers for hit in hits[:1]}
    assert sum(filter(None, propensity.values())) == pytest.approx(1.0)
    for position, n in first.items():
        expected = propensity[position] or 0.0
        assert abs(n / rounds - expected) < 5 * math.sqrt(expected * (1 - expected) / rounds)
    best = answer_of(state.view, Rules(), query(towers), 1)[0].position
    assert {position for position, one in propensity.items() if one == pytest.approx(0.4 / 5)} == set(first) - {best}
    assert all(hits[0].explored == (hits[0].position != best) for hits in answers)
    # 1 / propensity counts each item of a place once, whatever the earlier places got
    assert sum(1 / (hits[2].propensity or math.nan) for hits in answers) / rounds == pytest.approx(m, rel=0.1)


def test_a_place_is_not_random_where_too_few_items_are_left(towers: Towers, state: LiveState) -> None:
    everything = len(answer_of(state.view, Rules(), query(towers), 1000))
    hits = answer_of(state.view, Rules(explore=Explore(0.5, random=10)), query(towers), 1000)
    assert len({hit.position for hit in hits}) == everything
    assert [hit.propensity is None for hit in hits] == [place > everything - 10 for place in range(everything)]
