"""Browsing a view, for the console: which attributes there are, items by attribute, the catalogue as a map."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import time as unix_time
from typing import Literal

import numpy as np
import numpy.typing as npt

from index.catalogue.base import Catalogue
from index.catalogue.histories import Event, HistoryStore
from index.vectors.base import Allowed, Rows, Vectors, nothing
from index.vectors.recall import K, RecallSample
from seqrec.data.items import AttributeValue, Item
from service.deadline import Deadline
from service.live.filter_language import Filter
from service.live.filters import FilterMask
from service.live.search import SearchSpec, answerable, best_hits, search
from service.live.state import View

MOST_READ = 20_000
"""Items whose attributes are read for a summary: some 200 ms. Of more items, evenly spaced ones are read."""
MOST_POINTS = 100_000
"""Of the map; of more items, evenly spaced ones are drawn. A browser redraws as many without a pause."""
MOST_FOUND = 1_000
"""Items found by words among which a filter chooses."""
_CHECK_ROWS = 256
_SEARCHED_AT_ONCE = 10
_PROJECTED_AT_ONCE = 8_192
_DISTINCT = 10_000
"""Values of one attribute that are counted apart; more are text, of which none is frequent."""

Type = Literal["text", "number", "list"]


@dataclass(eq=False)
class AttributeSummary:
    """One attribute of the items that were read."""

    name: str
    count: int = 0  # items that have it
    types: Counter[Type] = field(default_factory=Counter)
    low: float | None = None
    high: float | None = None
    values: Counter[str | float] = field(default_factory=Counter)
    many: bool = False  # more different values than are counted

    def add(self, value: AttributeValue) -> None:
        self.count += 1
        if isinstance(value, int | float):
            self.types["number"] += 1
            self.low = value if self.low is None else min(self.low, value)
            self.high = value if self.high is None else max(self.high, value)
        else:
            self.types["list" if isinstance(value, tuple) else "text"] += 1
        if not self.many:
            self.values.update(set(value) if isinstance(value, tuple) else (value,))
            if len(self.values) > _DISTINCT:
                self.many = True
                self.values.clear()

    @property
    def type(self) -> Type:
        """The most frequent one."""
        return self.types.most_common(1)[0][0]


@dataclass(frozen=True, eq=False)
class CatalogueSummary:
    """`items` pass the filter, and the attributes of `read` of them were counted."""

    items: int
    read: int
    attributes: list[AttributeSummary]


@dataclass(frozen=True, eq=False)
class CatalogueMap:
    """Items in two dimensions: the first two principal components of their vectors, scaled to -1..1."""

    item_ids: list[str]
    places: npt.NDArray[np.float32]  # [n, 2]
    explained: tuple[float, float]  # share of the variance that each dimension shows
    values: list[str | float | None]  # of the attribute that was asked for; of a list the first one
    items: int  # how many could be shown


def summarize(view: View, wanted: Filter | None, deadline: Deadline) -> CatalogueSummary:
    """Attributes of the items that answers may contain and that pass the filter, the most common attribute first."""
    positions = _passing(view, wanted, deadline)
    found: dict[str, AttributeSummary] = {}
    read = _spaced(positions)
    for item in _items(view, read.tolist(), deadline):
        for name, value in item.attributes.items():
            if name not in found:
                found[name] = AttributeSummary(name)
            found[name].add(value)
    ordered = sorted(found.values(), key=lambda one: -one.count)
    return CatalogueSummary(len(positions), len(read), ordered)


def find_items(
    view: View, catalogue: Catalogue, words: str, wanted: Filter | None, limit: int, deadline: Deadline
) -> list[Item]:
    """Items with all the words that pass the filter, best match first; without words the most popular first."""
    if not words:
        rows = _passing(view, wanted, deadline)
        popular = [hit.position for hit in best_hits(view, view.popularity[rows], limit, rows)]
        return list(_items(view, popular, deadline))
    item_ids = catalogue.find(words, MOST_FOUND if wanted is not None else limit)
    mask = None if wanted is None else view.passed(wanted, deadline.check)
    places = (view.position_of(item_id) for item_id in item_ids)
    met = (place for place in places if place is not None and (mask is None or place in mask))
    return list(_items(view, list(islice(met, limit)), deadline))


@dataclass(frozen=True)
class Place:
    """Where a page of items ended: its last item, and how many events that had before `time`, when the first page
    was asked for."""

    time: float  # Unix seconds
    events: float
    item_id: str


def find_page(
    view: View,
    catalogue: Catalogue,
    words: str,
    wanted: Filter | None,
    limit: int,
    after: Place | None,
    deadline: Deadline,
) -> tuple[list[Item], Place | None]:
    """The items after a place, and the next place, or None at the end. By events before the first page, then by id.

    So items and events that come or go meanwhile move no other item: none is repeated, and none is left out. Events
    that come with a time before the first page can do both, as can the deletion of a user.
    """
    time = unix_time() if after is None else after.time
    events = _events_before(view, time)
    found: list[tuple[float, str]]  # minus its events, item id
    if words:
        positions = {item_id: view.position_of(item_id) for item_id in catalogue.find(words, MOST_FOUND)}
        if wanted is not None:
            mask = view.passed(wanted, deadline.check)
            positions = {one: at for one, at in positions.items() if at is not None and at in mask}
        found = sorted((0.0 if at is None else -float(events[at]), one) for one, at in positions.items())
        begin = 0 if after is None else bisect_right(found, (-after.events, after.item_id))
        found = found[begin : begin + limit]
        items = read_items(catalogue, [item_id for _, item_id in found])
    else:
        rows = _passing(view, wanted, deadline)
        counted = events[rows]
        if after is not None:
            counted = np.where(_comes_after(view, rows, counted, after), counted, -np.inf)
        hits = best_hits(view, counted, limit, rows)
        found = [(-hit.score, view.item_id(hit.position)) for hit in hits]
        items = list(_items(view, [hit.position for hit in hits], deadline))
    return items, Place(time, -found[-1][0], found[-1][1]) if len(found) == limit else None


def _events_before(view: View, time: float) -> npt.NDArray[np.float64]:
    """[size] Of what lies at each position."""
    counted = view.counts.before(time)
    places = view.places(np.arange(len(counted)))
    events = np.zeros(view.size)
    events[places[places >= 0]] = counted[places >= 0]
    return events


def _comes_after(
    view: View, rows: npt.NDArray[np.int64], events: npt.NDArray[np.float64], place: Place
) -> npt.NDArray[np.bool_]:
    """[rows] Whether each comes after the place. Rows of the snapshot are in the order of their ids."""
    n = len(view.snapshot.item_ids)
    later = rows >= bisect_right(view.snapshot.item_ids, place.item_id)
    in_delta = np.flatnonzero(rows >= n)
    later[in_delta] = [view.item_id(position) > place.item_id for position in rows[in_delta].tolist()]
    return np.asarray((events < place.events) | ((events == place.events) & later))


def read_found(catalogue: Catalogue, words: str, limit: int) -> list[Item]:
    """Items with all the words, searchable or not; it needs no model."""
    return read_items(catalogue, catalogue.find(words, limit))


def read_items(catalogue: Catalogue, item_ids: Sequence[str]) -> list[Item]:
    """Those of the ids that are in the catalogue, in their order."""
    found = catalogue.get_many(list(dict.fromkeys(item_ids)))
    return [found[item_id][1].item for item_id in dict.fromkeys(item_ids) if item_id in found]


def some_users(histories: HistoryStore, prefix: str, limit: int, events: int) -> list[tuple[str, list[Event]]]:
    """Users whose ids begin so, or a sample of all, each with the newest events, oldest first."""
    users = histories.beginning(prefix, limit) if prefix else histories.sample(limit)
    return [(user_id, histories.recent(user_id, events)) for user_id in users]


def project(view: View, attribute: str | None, limit: int, item_id: str | None, deadline: Deadline) -> CatalogueMap:
    """The items that answers may contain as points, evenly spaced ones if there are more than `limit`.

    The item `item_id` is always among them, if answers may contain it. The principal components are those of at most
    MOST_READ mean-free vectors; of lengths that differ (metric dot) the direction alone counts.
    """
    positions = _passing(view, None, deadline)
    shown = _spaced(positions, limit)
    asked = None if item_id is None else view.position_of(item_id)
    if asked is not None and asked in positions and asked not in shown:
        shown[-1] = asked  # the newest items are the last positions
        shown.sort()
    vectors = _directions_of(view, _spaced(shown))  # [n, dim]
    mean = vectors.mean(axis=0) if len(vectors) else np.float32(0)
    vectors -= mean
    deadline.check()
    variances, directions = np.linalg.eigh(vectors.T @ vectors)  # rising
    axes = directions[:, -2:][:, ::-1]  # [dim, 2]
    places = np.empty((len(shown), 2), np.float32)
    for begin in range(0, len(shown), _PROJECTED_AT_ONCE):  # all vectors of a large catalogue would be gigabytes
        deadline.check()
        some = slice(begin, begin + _PROJECTED_AT_ONCE)
        places[some] = (_directions_of(view, shown[some]) - mean) @ axes
    places /= max(float(np.abs(places).max(initial=0.0)), 1e-12)
    total = max(float(variances.sum()), 1e-12)
    first, second = (float(max(variances[-at], 0.0)) / total for at in (1, 2))
    values: list[str | float | None] = []
    if attribute is not None:
        for item in _items(view, shown.tolist(), deadline):
            value = item.attributes.get(attribute)
            values.append(next(iter(value), None) if isinstance(value, tuple) else value)
    item_ids = [view.item_id(position) for position in shown.tolist()]
    return CatalogueMap(item_ids, places, (first, second), values, len(positions))


def _directions_of(view: View, positions: npt.NDArray[np.int64]) -> Vectors:
    """-> [n, dim], of length 1"""
    vectors = view.vectors(positions.tolist())
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


@dataclass(frozen=True)
class ServedRecall:
    """Recall@10 of what answers requests against exact search. `queries`: 0 where nothing passes."""

    items: int  # that answers may contain
    passing: int  # of these, through the filter
    queries: int
    recall: float


def served_recall(view: View, wanted: Filter | None, deadline: Deadline) -> ServedRecall:
    """Measured with the vectors of up to 100 items that pass as queries, among all that pass.

    It costs 100 exact searches at most, and ends at the deadline.
    """
    passed = None if wanted is None else view.passed(wanted, deadline.check)
    positions = answerable(view, SearchSpec(K, passed=passed))
    sample = RecallSample(_Read(view, positions, deadline), view.towers.metric)
    recall = sample.recall_of(_Served(view, positions, passed, deadline))
    return ServedRecall(int(np.count_nonzero(view.shown)), len(positions), sample.queries, recall)


@dataclass(frozen=True, eq=False)
class _Read:
    """Vectors of positions, read as they are needed."""

    view: View
    positions: npt.NDArray[np.int64]
    deadline: Deadline

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: slice | Rows) -> Vectors:
        self.deadline.check()
        return self.view.vectors(self.positions[rows].tolist())


@dataclass(frozen=True, eq=False)
class _Served:
    """The search of requests, as an index whose rows are `positions`."""

    view: View
    positions: npt.NDArray[np.int64]
    passed: FilterMask | None
    deadline: Deadline

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        rows, scores = nothing(len(queries), k)
        for begin in range(0, len(queries), _SEARCHED_AT_ONCE):
            self.deadline.check()
            some = queries[begin : begin + _SEARCHED_AT_ONCE]
            for at, hits in enumerate(search(self.view, some, [SearchSpec(k, passed=self.passed)] * len(some)), begin):
                rows[at, : len(hits)] = np.searchsorted(self.positions, [hit.position for hit in hits])
                scores[at, : len(hits)] = [hit.score for hit in hits]
        return rows, scores


def _passing(view: View, wanted: Filter | None, deadline: Deadline) -> npt.NDArray[np.int64]:
    """Positions that answers may contain and that pass the filter, in rising order."""
    passed = None if wanted is None else view.passed(wanted, deadline.check)
    return answerable(view, SearchSpec(view.size, passed=passed))


def _spaced(positions: npt.NDArray[np.int64], most: int = MOST_READ) -> npt.NDArray[np.int64]:
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).astype(np.int64)]


def _items(view: View, positions: Iterable[int], deadline: Deadline) -> Iterator[Item]:
    for row, position in enumerate(positions):
        if row % _CHECK_ROWS == 0:
            deadline.check()
        yield view.item(position)
