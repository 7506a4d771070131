"""Rules of a shop over a ranking: boosts, pins, diversity, exploration, a least score, and fallbacks.

They work on the scores of the whole catalogue, so their result is exact on every kind of index. In this order:

1. Boosts change scores: `score * multiply + add`. (A negative score is divided by `multiply`: above 1 always raises.)
   What was shown to the user and not chosen is multiplied once for each time (`service.rules.rotation`); this applies
   to the scores of fallbacks, too.
2. Items below `min_score` are dropped.
3. The answer is filled place by place. A pinned place gets its item, an explored one the item with the highest upper
   confidence bound among those with few events, or one drawn among the best, any other the next best of the ranking: by
   score, or with `diversity` by maximal marginal relevance (Carbonell and Goldstein, 1998) over the best `POOL` items.
   `at_most` skips items with a value that enough earlier ones have.
4. Where the ranking ends, the next source of `fallback` continues.

A rule moves only items that may answer: those that are available, pass the filter, and are not excluded.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from index.snapshot.attribute_columns import Mask
from seqrec.data.items import AttributeValue
from seqrec.metric import TIE, ranked
from service.live.columns import Check
from service.live.filter_language import Condition, Filter
from service.live.search import Hit, Source
from service.live.state import View
from service.rules.rotation import NOTHING_SHOWN, Rotate, Rotation, Showings, prepare_rotation

Scores = npt.NDArray[np.float32]
POOL = 200
"""Items among which diversity chooses; five times `k` where that is more."""
_FIRST_BLOCK = 256
_UCB = 1.0
"""Width of the confidence bound, in standard deviations of the best scores."""


@dataclass(frozen=True)
class Boost:
    """Raises (or, with `multiply` < 1 or `add` < 0, lowers) what passes the filter."""

    filter: Filter
    add: float = 0.0
    multiply: float = 1.0


@dataclass(frozen=True)
class Pin:
    """Gives a place, or every `every`-th one, to the first free one of these items, or the best that pass a filter."""

    position: int | None = None  # 1 is the first
    every: int | None = None
    item_ids: tuple[str, ...] = ()
    filter: Filter | None = None

    def takes(self, place: int) -> bool:
        return place == self.position if self.every is None else place % self.every == 0


@dataclass(frozen=True)
class Explore:
    """Gives `share` of the places to items with fewer than `below_events` events.

    With `random`, each place gets instead, with the probability `share`, one of the `random` best remaining items, all
    equally likely, while there are so many.
    """

    share: float
    below_events: float = 10.0
    random: int | None = None

    def takes(self, place: int) -> bool:
        return math.floor(place * self.share) > math.floor((place - 1) * self.share)


@dataclass(frozen=True)
class Rules:
    """What changes a ranking. The default changes nothing."""

    boosts: tuple[Boost, ...] = ()
    pins: tuple[Pin, ...] = ()
    diversity: float = 0.0  # 0: by score alone, 1: by difference alone
    at_most: tuple[tuple[str, int], ...] = ()  # (attribute, items with the same value)
    explore: Explore | None = None
    min_score: float | None = None
    fallback: tuple[Source, ...] = ()
    rotate: Rotate | None = None

    @property
    def change_anything(self) -> bool:
        return self != Rules()

    @property
    def filters(self) -> Iterator[Filter]:
        yield from (boost.filter for boost in self.boosts)
        yield from (pin.filter for pin in self.pins if pin.filter is not None)


@dataclass(frozen=True, eq=False)
class Ruled:
    """Rules that are ready for one view: masks are made, columns are read. `shown`: positions on earlier pages."""

    view: View
    rules: Rules
    boosts: Sequence[tuple[Mask, Boost]]
    pins: Sequence[tuple[Mask | None, Sequence[int], Pin]]
    unknown: Sequence[str]  # attributes of the rules that no item has
    shown: Sequence[int] = ()
    rotation: Rotation | None = None

    def boosted(self, scores: Scores) -> Scores:
        """[size]"""
        for mask, boost in self.boosts:
            own = scores[mask]
            with np.errstate(invalid="ignore"):  # -inf stays -inf
                scaled = np.where(own >= 0, own * boost.multiply, own / boost.multiply if boost.multiply else -np.inf)
            scores = scores.copy()
            scores[mask] = scaled + boost.add
        return scores

    def fill(self, k: int, allowed: Mask, sources: Sequence[tuple[Source, Callable[[], Scores]]]) -> list[Hit]:
        """The answer's next `k` items. allowed: [size]; each source gives scores [size], and is asked if needed."""
        answer = _Answer(self, allowed, k)
        for source, scores in sources:
            if len(answer.hits) >= k:
                break
            found = scores()
            cut = allowed
            if source == "model":
                found = self.boosted(found)
            if self.rotation is not None:
                found = self.rotation.applied(found)
            if source == "model":
                if self.rules.min_score is not None:
                    cut = allowed & (found >= self.rules.min_score)
            elif source == "similar":
                cut = allowed & (found > 0)
            answer.fill(_Ranking(self.view, found, cut), source)
        return answer.finish()


def prepare(
    view: View,
    rules: Rules,
    shown: Sequence[int],
    last: Mapping[str, AttributeValue],
    check: Check,
    showings: Showings = NOTHING_SHOWN,
) -> Ruled:
    """Evaluate the filters of rules. `last`: attributes of the history's newest item; `showings`: for `rotate`."""
    unknown: dict[str, None] = {}

    def mask(wanted: Filter) -> Mask:
        missing: list[str] = []
        passed = view.passed(wanted.resolved(last, missing), check)
        unknown.update(dict.fromkeys(passed.unknown))
        return np.zeros_like(passed.by_position) if missing else passed.by_position

    boosts = [(mask(boost.filter), boost) for boost in rules.boosts]
    pins = []
    for pin in rules.pins:
        positions = [place for item_id in pin.item_ids if (place := view.position_of(item_id)) is not None]
        pins.append((None if pin.filter is None else mask(pin.filter), positions, pin))
    for name, _ in rules.at_most:  # reads the column here, not on a compute thread
        unknown.update(dict.fromkeys(view.passed(Filter((Condition(name, "exists", (1,)),)), check).unknown))
    rotation = prepare_rotation(rules.rotate, showings, view.position_of)
    return Ruled(view, rules, boosts, pins, list(unknown), shown, rotation)


class _Ranking:
    """Positions best first, equal scores by item id; sorted in blocks, as far as they are asked for."""

    def __init__(self, view: View, scores: Scores, allowed: Mask) -> None:
        self.view = view
        self.scores = scores
        self._left = allowed & np.isfinite(scores)

    def blocks(self, first: int = _FIRST_BLOCK) -> Iterator[list[int]]:
        size = first
        while True:
            rows = np.flatnonzero(self._left)
            if not len(rows):
                return
            own = self.scores[rows]
            if len(rows) > size:
                border = np.partition(own, len(own) - size)[len(own) - size]
                near = own >= border - 2 * TIE
                rows, own = rows[near], own[near]
            order = ranked([self.view.item_id(int(row)) for row in rows], own)[:size]
            block = [int(rows[place]) for place in order]
            self._left[block] = False
            yield block
            size *= 4

    def __iter__(self) -> Iterator[int]:
        for block in self.blocks():
            yield from block

    def drop(self, mask: Mask) -> None:
        self._left &= ~mask

    def copy(self) -> _Ranking:
        return _Ranking(self.view, self.scores, self._left)


class _Answer:
    """The places filled so far."""

    def __init__(self, ruled: Ruled, allowed: Mask, k: int) -> None:
        self._ruled = ruled
        self._view = ruled.view
        self._allowed = allowed.copy()
        self._k = k
        self._offset = len(ruled.shown)
        self._counts: Counter[tuple[str, AttributeValue]] = Counter()
        self.hits: list[Hit] = []
        for position in ruled.shown:
            self._count(position)
        self._reserved = self._pinned_later()

    def fill(self, ranking: _Ranking, source: Source) -> None:
        """Go on with a ranking until `k` places are filled, or it ends."""
        order = self._order(ranking)
        explore = self._ruled.rules.explore if source == "model" else None
        explored = self._explored(ranking) if explore is not None and explore.random is None else iter(())
        best = _Best(ranking.copy(), self._open) if explore is not None and explore.random is not None else None
        while len(self.hits) < self._k:
            place = self._offset + len(self.hits) + 1
            pinned = self._pinned(place, ranking.scores)
            if pinned is not None:
                self._put(pinned, ranking, source, pinned=True)
                continue
            new = propensity = None
            if explore is not None and best is not None:
                new, propensity = self._drawn(order, best, explore)
            elif explore is not None and explore.takes(place):
                new = self._next(explored)
            found = self._next(order) if new is None else new
            if found is None:
                return
            self._put(found, ranking, source, explored=new is not None, propensity=propensity)

    def finish(self) -> list[Hit]:
        """The answer; where it is too short to reach a pinned place, the item of that place is its last."""
        for position, hit in self._reserved.items():
            if len(self.hits) < self._k and self._free(position):
                self._allowed[position] = False
                self.hits.append(hit)
        return self.hits

    def _put(
        self,
        position: int,
        ranking: _Ranking,
        source: Source,
        pinned: bool = False,
        explored: bool = False,
        propensity: float | None = None,
    ) -> None:
        self._allowed[position] = False
        self.hits.append(Hit(position, float(ranking.scores[position]), source, pinned, explored, propensity))
        for full in self._count(position):
            ranking.drop(full)

    def _count(self, position: int) -> list[Mask]:
        """Counts the item's values, and takes out what has a value that enough items have now: -> its masks."""
        full = []
        for name, most in self._ruled.rules.at_most:
            value = self._view.item(position).attributes.get(name, ())
            for one in value if isinstance(value, tuple) else (value,):
                self._counts[name, one] += 1
                if self._counts[name, one] == most:
                    full.append(self._view.passed(Filter((Condition(name, "any", (one,)),))).by_position)
        for mask in full:
            self._allowed &= ~mask
        return full

    def _free(self, position: int) -> bool:
        return bool(self._allowed[position])

    def _next(self, order: Iterator[int]) -> int | None:
        """The next that may have a place. The natural order gives it again if it is not put into one."""
        return next((one for one in order if self._open(one)), None)

    def _open(self, position: int) -> bool:
        return self._free(position) and position not in self._reserved

    def _pinned_later(self) -> dict[int, Hit]:
        """Items with a place of their own in this answer: no other place takes them."""
        places = range(self._offset + 1, self._offset + self._k + 1)
        found: dict[int, Hit] = {}
        for _, positions, pin in sorted(self._ruled.pins, key=lambda one: one[2].position or 0):
            if pin.position in places:
                position = next((one for one in positions if self._free(one) and one not in found), None)
                if position is not None:
                    found[position] = Hit(position, 0.0, "model", pinned=True)
        return found

    def _pinned(self, place: int, scores: Scores) -> int | None:
        for mask, positions, pin in self._ruled.pins:
            if not pin.takes(place):
                continue
            fixed = pin.position is not None
            found = next((one for one in positions if self._free(one) and (fixed or one not in self._reserved)), None)
            if found is None and mask is not None:
                found = self._next(iter(_Ranking(self._view, scores, self._allowed & mask)))
            if found is not None:
                return found
        return None

    def _explored(self, ranking: _Ranking) -> Iterator[int]:
        """Items with few events by their upper confidence bound."""
        explore = self._ruled.rules.explore
        if explore is None:
            return
        events = self._view.popularity
        scores = ranking.scores
        finite = scores[self._allowed & np.isfinite(scores)]
        top = np.partition(finite, len(finite) - POOL)[-POOL:] if len(finite) > POOL else finite
        spread = float(top.std()) if len(top) else 0.0
        bound = scores + _UCB * spread * np.sqrt(np.log1p(events.sum()) / (1.0 + events))
        few = self._allowed & (events < explore.below_events)
        yield from _Ranking(self._view, bound.astype(np.float32), few)

    def _drawn(self, order: Iterator[int], best: _Best, explore: Explore) -> tuple[int | None, float | None]:
        """What a random place gets if not the next of the order, and how likely it was to get what it gets."""
        assert explore.random is not None
        among, following = best.first(explore.random), self._next(order)
        if following is None or len(among) < explore.random:
            return None, None
        drawn = random.random() < explore.share
        chosen = among[random.randrange(len(among))] if drawn else following
        propensity = explore.share / len(among) if chosen in among else 0.0
        if chosen == following:
            return None, propensity + 1 - explore.share
        return chosen, propensity

    def _order(self, ranking: _Ranking) -> Iterator[int]:
        blocks = ranking.blocks(max(POOL, 5 * self._k))
        if self._ruled.rules.diversity:
            yield from self._diverse(
                [position for position in next(blocks, ()) if self._free(position)], ranking.scores
            )
        for block in blocks:
            for position in block:
                yield position
                while self._open(position):
                    yield position

    def _diverse(self, pool: Sequence[int], scores: Scores) -> Iterator[int]:
        """By maximal marginal relevance; relevance is the score, scaled to 0 to 1 over the pool."""
        if not pool:
            return
        weight = self._ruled.rules.diversity
        own = scores[list(pool)].astype(np.float64)
        spread = float(own.max() - own.min())
        relevance = (own - own.min()) / spread if spread else np.ones(len(own))
        likeness = item_similarity(self._view, pool)
        place_of = {position: place for place, position in enumerate(pool)}
        nearest = np.zeros(len(pool))
        left = np.ones(len(pool), np.bool_)
        known = 0
        while left.any():
            for hit in self.hits[known:]:
                if hit.position in place_of:
                    nearest = np.maximum(nearest, likeness[place_of[hit.position]])
            known = len(self.hits)
            value = np.where(left, (1 - weight) * relevance - weight * nearest, -np.inf)
            best = int(np.flatnonzero(value >= value.max() - TIE)[0])
            left[best] = False  # of equal ones the better ranked comes first
            if self._free(pool[best]):
                yield pool[best]
                left[best] = self._open(pool[best])


class _Best:
    """The best of a ranking that may still have a place."""

    def __init__(self, ranking: _Ranking, is_open: Callable[[int], bool]) -> None:
        self._rest = iter(ranking)
        self._found: list[int] = []
        self._is_open = is_open

    def first(self, n: int) -> list[int]:
        """At most n, fewer only where there are no more."""
        self._found = [position for position in self._found if self._is_open(position)]
        rest = (position for position in self._rest if self._is_open(position))
        self._found += islice(rest, n - len(self._found))
        return self._found


def item_similarity(view: View, positions: Sequence[int]) -> npt.NDArray[np.float64]:
    """[m, m] Cosine of item vectors; of a hybrid, of its term vectors and dense vectors, on average."""
    dense = view.vectors(positions).astype(np.float64)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    likeness = dense @ dense.T
    encoder = view.towers.encoder
    if encoder.hybrid is None:
        return np.asarray(likeness)
    terms = encoder.term_vectors([view.tokens(position) for position in positions])
    words = (terms @ terms.T).toarray().astype(np.float64)
    length = np.sqrt(np.maximum(np.diag(words), 1e-12))
    words /= length[:, None] * length[None, :]
    return np.asarray((words + likeness) / 2 if dense.any() else words)
