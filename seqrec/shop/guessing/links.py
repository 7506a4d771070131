"""The column of the events that has ids of the items, and of nested files the list that makes their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.tables.base import Rejects, Table, TableOptions
from seqrec.data.tables.open import open_table
from seqrec.errors import InputError
from seqrec.shop.guessing.hints import has_hint
from seqrec.shop.guessing.profile import SAMPLE_ROWS, ColumnProfile, profile_table, values_of
from seqrec.shop.values import id_texts, number_of

_MAX_LISTS = 20
_FIRST_ROWS = 5_000
"""Rows by which lists are compared."""


@dataclass(frozen=True)
class Input:
    """A table as the command line names it."""

    path: str
    options: TableOptions = field(default_factory=TableOptions)


@dataclass(frozen=True)
class Link:
    """The column of the items and that of the events that name the same things. `known`: share of the events' values
    that items have. `numbers`: they are the same as numbers, not as texts. `others`: columns of the events that have
    the item where that one is empty."""

    item_id: str
    event_item: str
    known: float
    numbers: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two tables, with what its columns look like."""

    source: Input
    table: Table
    columns: Sequence[ColumnProfile]

    @property
    def rows(self) -> str | None:
        """The list that makes the rows."""
        return self.source.options.rows

    def own(self, name: str) -> bool:
        """Whether a column is one of the record, not of the list that makes the rows."""
        return self.rows is None or (name != self.rows and not name.startswith(f"{self.rows}."))


@dataclass(frozen=True, eq=False)
class _Ids:
    """Columns of the items that may be their ids, with all their values."""

    side: Side
    columns: Sequence[ColumnProfile]
    values: dict[str, set[str]]


def find_sides(items: Input, events: Input) -> tuple[Side, Side, Link]:
    """Opens both tables, each with the list that makes the rows, if any, which links them best.

    Raises InputError for files without rows, and if no column of the events has values of a column of the items.
    """
    plain = open_side(items, "items"), open_side(events, "events")
    candidates = [ids for side in _with_lists(plain[0], "items") if (ids := _ids_of(side)) is not None]
    if not candidates:
        names = ", ".join(column.name for column in plain[0].columns)
        raise InputError(
            f"no column has a different value in every row, as an id has; there are {names}", plain[0].table.name
        )
    best: tuple[float, _Ids, Side, Link] | None = None
    for side in _with_lists(plain[1], "events"):
        for ids in candidates:
            found = _best_link(ids, side)
            if found is None:
                continue
            # A list must be clearly better than none: the products of an order are, its deliveries are not.
            score = found[0] - 0.05 * (ids.side.rows is not None)
            if side.rows is not None:
                score += 0.1 if _adds(side, found[1].event_item) else -0.1
                score -= 0.02 * side.rows.count(".")
            if best is None or score > best[0]:
                best = score, ids, side, found[1]
    if best is None:
        raise _unlinked(candidates[0], plain[1])
    _, ids, chosen, link = best
    _check_not_swapped(ids, chosen, link)
    if chosen.rows is not None:
        chosen = open_side(chosen.source, "events")
        link = replace(link, others=_others(ids, chosen, link))
    return _items_side(ids.side), chosen, link


def open_side(source: Input, what: Literal["items", "events"], rows: int = SAMPLE_ROWS) -> Side:
    table = open_table(source.path, source.options, what)
    columns = profile_table(table, rows)
    if not columns or not columns[0].rows:
        raise InputError("there is no row in it", table.name)
    return Side(source, table, columns)


def _with_lists(plain: Side, what: Literal["items", "events"]) -> Iterator[Side]:
    """The table as it is, and with each of its lists as rows; of items only lists of objects."""
    yield plain
    if plain.rows is not None:
        return
    for name in plain.table.lists[:_MAX_LISTS]:
        records = plain.table.notes.get("records")
        options = replace(plain.source.options, records=records, rows=name)
        side = open_side(replace(plain.source, options=options), what, _FIRST_ROWS)
        if what == "events" or any(column.name.startswith(f"{name}.") for column in side.columns):
            yield side


def _items_side(side: Side) -> Side:
    """With the rows of the variants of a product, if they have what it lacks: a price or a stock."""
    if side.rows is not None:
        return open_side(side.source, "items")
    for other in _with_lists(side, "items"):
        inner = [column.name for column in other.columns if not other.own(column.name) and column.filled]
        if all(any(has_hint(name, role) for name in inner) for role in ("price", "code")):
            return open_side(other.source, "items")
    return side


def _adds(side: Side, name: str) -> bool:
    """Whether a list's column has items where no column of the record itself names one."""
    own = [column for column in side.columns if side.own(column.name) and has_hint(column.name, "item")]
    column = next(column for column in side.columns if column.name == name)
    return any(
        pc.any(pc.and_(values.is_valid(), _all_null([c.values[n] for c in own], len(values)))).as_py()
        for n, values in enumerate(column.values)
    )


def _all_null(columns: Sequence[pa.Array], rows: int) -> pa.Array:
    empty = pa.array(np.ones(rows, dtype=np.bool_))
    for column in columns:
        empty = pc.and_(empty, column.is_null())
    return empty


def _others(ids: _Ids, side: Side, link: Link) -> tuple[str, ...]:
    """Columns of the record that have items where the list has none, as in a log of views and of orders with lines."""
    known = ids.values[link.item_id]
    primary = next(column for column in side.columns if column.name == link.event_item)
    found = []
    for column in side.columns:
        if not side.own(column.name) or not has_hint(column.name, "item") or not (values := values_of(column)):
            continue
        alone = any(
            pc.any(pc.and_(own.is_valid(), of.is_null())).as_py()
            for own, of in zip(column.values, primary.values, strict=True)
        )
        if alone and len(values & known) > 0.5 * len(values):
            found.append(column.name)
    return tuple(found)


def _ids_of(side: Side) -> _Ids | None:
    columns = [column for column in side.columns if _may_be_id(column)]
    columns = sorted(columns, key=lambda column: -_id_score(column))[:4]
    if not columns:
        return None
    names = [column.name for column in columns]
    values: dict[str, set[str]] = {name: set() for name in names}
    for batch in side.table.batches(names, Rejects("skip")):
        for place, name in enumerate(names):
            values[name].update(id_texts(batch.column(place)).drop_null().to_pylist())
    return _Ids(side, columns, values)


def _best_link(ids: _Ids, events: Side) -> tuple[float, Link] | None:
    """The best pair of columns, and how well it fits: 1 if all items of the events are known, more by their names."""
    best: tuple[float, Link] | None = None
    for other in events.columns:
        if events.rows is not None and events.own(other.name):
            continue
        values = values_of(other)
        if not values or other.distinct < 2:
            continue
        for column in ids.columns:
            whole = ids.values[column.name]
            known = len(values & whole) / len(values)
            alike = _known_as_numbers(values, whole) if known < 1 else 0.0
            numbers = alike > known + 0.05
            known = alike if numbers else known
            score = (
                known
                + 0.2 * has_hint(other.name, "item")
                + 0.1 * _id_score(column)
                - 0.5 * has_hint(other.name, "user")
                - 0.3 * has_hint(other.name, "value")
                - 0.3 * (other.filled > 100 and other.unique > 0.99)  # a number of the line
            )
            if known > 0 and (best is None or score > best[0]):
                best = score, Link(column.name, other.name, known, numbers)
    return best


def _unlinked(ids: _Ids, events: Side) -> InputError:
    examples = "; ".join(f"{c.name}: {', '.join(c.examples[:2])}" for c in (*ids.columns[:2], *events.columns[:4]))
    lists = [column.name for column in events.columns if column.is_list]
    rows = f"; nor has its list {lists[0]}" if lists else ""
    return InputError(
        f"no column of the events has ids of the items ({examples}); are these files of one shop?{rows}",
        ids.side.table.name,
    )


def _check_not_swapped(ids: _Ids, events: Side, link: Link) -> None:
    """Raises InputError if the items repeat what the events have once, and only they say who acted."""
    item_id = next(column for column in ids.columns if column.name == link.item_id)
    event_item = next(column for column in events.columns if column.name == link.event_item)
    if item_id.unique > 0.5 or event_item.unique < 1 or event_item.filled < 2:
        return
    names_user = any(has_hint(column.name, "user") for column in ids.side.columns)
    if names_user and not any(has_hint(column.name, "user") for column in events.columns):
        raise InputError(
            f"each {link.item_id} occurs {item_id.filled / max(1, item_id.distinct):.0f} times in it, and once in the "
            "events: the files seem swapped. --items names the products, --events what people did",
            ids.side.table.name,
        )


def _known_as_numbers(values: set[str], ids: set[str]) -> float:
    """The share of the values that are the same number as one id; 0 if most ids are no numbers of their own."""
    numbers = {number for one in ids if (number := number_of(one)) is not None}
    if len(numbers) < 0.9 * len(ids):
        return 0.0
    return sum(number_of(one) in numbers for one in values) / len(values)


def _may_be_id(column: ColumnProfile) -> bool:
    if pa.types.is_nested(column.type) or pa.types.is_temporal(column.type) or pa.types.is_boolean(column.type):
        return False
    # Where a product has a row for each variant, its id repeats.
    unique = column.unique > 0.5 or (column.unique > 0.05 and has_hint(column.name, "item"))
    return column.filled >= 0.9 * column.rows and unique and column.words < 4 and column.urls < 0.5


def _id_score(column: ColumnProfile) -> float:
    return (
        column.unique + 0.5 * has_hint(column.name, "item") + 0.5 * has_hint(column.name, "code") - 0.3 * column.blanks
    )
