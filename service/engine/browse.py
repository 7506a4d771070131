"""Browsing a view, for the console: which attributes there are, items by attribute, the catalogue as a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from index.catalogue.base import Catalogue
from index.catalogue.histories import Event, HistoryStore
from seqrec.data.items import AttributeValue, Item
from service.deadline import Deadline
from service.live.filter_language import Filter
from service.live.search import SearchSpec, answerable, best_hits
from service.live.state import View

MOST_READ = 20_000
"""Items whose attributes are read for a summary or a map: some 200 ms. Of more items, evenly spaced ones are read."""
MOST_FOUND = 1_000
"""Items found by words among which a filter chooses."""
_CHECK_ROWS = 256
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


def read_found(catalogue: Catalogue, words: str, limit: int) -> list[Item]:
    """Items with all the words, searchable or not; it needs no model."""
    return read_items(catalogue, catalogue.find(words, limit))


def read_items(catalogue: Catalogue, item_ids: Sequence[str]) -> list[Item]:
    """Those of the ids that are in the catalogue, in their order."""
    found = catalogue.get_many(list(dict.fromkeys(item_ids)))
    return [found[item_id][1].item for item_id in dict.fromkeys(item_ids) if item_id in found]


def sample_users(histories: HistoryStore, limit: int, events: int) -> list[tuple[str, list[Event]]]:
    """Some users, each with the newest events, oldest first."""
    return [(user_id, histories.recent(user_id, events)) for user_id in histories.sample(limit)]


def project(view: View, attribute: str | None, limit: int, deadline: Deadline) -> CatalogueMap:
    """The items that answers may contain as points, evenly spaced ones if there are more than `limit`.

    The principal components of mean-free vectors; of lengths that differ (metric dot) the direction alone counts.
    """
    positions = _passing(view, None, deadline)
    shown = _spaced(positions, limit)
    vectors = view.vectors(shown.tolist())  # [n, dim]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors -= vectors.mean(axis=0) if len(vectors) else 0
    deadline.check()
    variances, directions = np.linalg.eigh(vectors.T @ vectors)  # rising
    places = vectors @ directions[:, -2:][:, ::-1]
    places /= max(float(np.abs(places).max(initial=0.0)), 1e-12)
    total = max(float(variances.sum()), 1e-12)
    first, second = (float(max(variances[-at], 0.0)) / total for at in (1, 2))
    values: list[str | float | None] = []
    if attribute is not None:
        for item in _items(view, shown.tolist(), deadline):
            value = item.attributes.get(attribute)
            values.append(next(iter(value), None) if isinstance(value, tuple) else value)
    item_ids = [view.item_id(position) for position in shown.tolist()]
    return CatalogueMap(item_ids, places.astype(np.float32), (first, second), values, len(positions))


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
