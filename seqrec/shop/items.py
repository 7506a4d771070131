"""Items of any table: rows become checked items, as the models read and the service stores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.items import AttributeValue, Item, make_item
from seqrec.data.sources.base import fit
from seqrec.data.tables.base import Rejects, Table
from seqrec.errors import InputError
from seqrec.shop.project import ColumnConfig, ItemsConfig
from seqrec.shop.values import (
    EMPTY_ROWS,
    TOTALS_ROWS,
    id_texts,
    is_available,
    is_total,
    parse_amount,
    plain_text,
    split_list,
)

Convert = Callable[[Any], AttributeValue | None]


@dataclass
class ItemCounts:
    """What happened to the rows."""

    read: int = 0
    kept: int = 0
    duplicates: int = 0
    without_text: int = 0
    unavailable: int = 0
    cut: int = 0
    not_numbers: Counter[str] = field(default_factory=Counter)


def read_shop_items(
    table: Table, config: ItemsConfig, rejects: Rejects, counts: ItemCounts, progress: Callable[[int], object]
) -> Iterator[Item]:
    """The items in the order of the table, each id once: at the place of the first row, or of the last one with
    duplicates = "last" or "merge". Raises FileFormatError with "raise" in `rejects`."""
    last = None if config.duplicates == "first" else _last_rows(table, config)
    wanted = [name for name, column in config.columns.items() if column.kind != "drop"]
    converters = {name: _converter(config.columns[name], config.html) for name in wanted if name != config.id}
    stocks = [name for name in converters if config.columns[name].kind == "available"]
    without_stock = all(is_available(None, config.columns[name].yes) for name in stocks)
    texts, attributes_of = set(config.texts), [name for name in converters if name not in stocks]
    seen: set[str] = set()
    begun: dict[str, tuple[dict[str, AttributeValue], bool | None]] = {}  # with "merge": of the rows so far
    row = -1
    for batch in table.batches(wanted, rejects):
        ids = id_texts(batch.column(wanted.index(config.id))).to_pylist()
        columns = {
            name: _converted(name, batch.column(place), converters[name], config.columns[name], counts)
            for place, name in enumerate(wanted)
            if name != config.id
        }
        for place, item_id in enumerate(ids):
            row += 1
            counts.read += 1
            if no_item := _no_item(item_id, [column[place] for column in columns.values()]):
                rejects.pass_over(no_item, 1)
                continue
            further = item_id is not None and (item_id in seen or (last is not None and last.get(item_id, row) != row))
            counts.duplicates += further
            if further and config.duplicates != "merge":
                continue
            attributes = {name: value for name in attributes_of if (value := columns[name][place]) is not None}
            known = [columns[name][place] for name in stocks if columns[name][place] is not None]
            shown = all(known) if known else None
            if config.duplicates == "merge" and item_id is not None:
                attributes, shown = _merged(begun.pop(item_id, None), attributes, shown, attributes_of)
                if further:
                    begun[item_id] = attributes, shown
                    continue
            try:
                if item_id is None:
                    raise InputError(f"{config.id} is empty")
                item = make_item(item_id, attributes, without_stock if shown is None else shown)
            except InputError as error:
                reason = "no id" if item_id is None else "values that cannot be stored"
                way_out = 'on_error = "skip" in [items] leaves such rows out'
                rejects.add(reason, table.error(row, f"{error}; {way_out}") if rejects.wants_example(reason) else None)
                continue
            seen.add(item_id)
            counts.kept += 1
            counts.without_text += texts.isdisjoint(attributes)
            counts.unavailable += not item.available
            yield item
        progress(len(batch))


def _no_item(item_id: str | None, values: Sequence[AttributeValue | None]) -> str | None:
    """Why a row is none of the catalogue: its sums, or an empty one, as reports have at their end."""
    if item_id is not None:
        return TOTALS_ROWS if is_total(item_id) else None
    filled = [value for value in values if value is not None]
    if not filled:
        return EMPTY_ROWS
    return TOTALS_ROWS if any(isinstance(value, str) and is_total(value) for value in filled) else None


def _merged(
    before: tuple[dict[str, AttributeValue], bool | None] | None,
    attributes: dict[str, AttributeValue],
    shown: bool | None,
    order: Sequence[str],
) -> tuple[dict[str, AttributeValue], bool | None]:
    """Of two rows of an item: the values of the earlier one, and what it lacks."""
    if before is None:
        return attributes, shown
    both = {**attributes, **before[0]}
    known = [one for one in (before[1], shown) if one is not None]
    return {name: both[name] for name in order if name in both}, any(known) if known else None


def _last_rows(table: Table, config: ItemsConfig) -> dict[str, int] | None:
    """The last row of ids that occur several times; None if none does."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    row = -1
    for batch in table.batches([config.id], Rejects("skip")):
        for item_id in id_texts(batch.column(0)).to_pylist():
            row += 1
            if item_id is None:
                continue
            if item_id in seen:
                last[item_id] = row
            seen.add(item_id)
    return last or None


def _converted(
    name: str, column: pa.Array, convert: Convert, config: ColumnConfig, counts: ItemCounts
) -> list[AttributeValue | None]:
    """A column's attributes, None where there is none; of texts each distinct one is converted once."""
    values, places = _distinct(column)
    converted: list[AttributeValue | None]
    if config.kind == "available":
        converted = [is_available(value, config.yes) for value in values] + [None]
    else:
        converted = [_fitted(name, convert(value), counts) for value in values] + [None]
    if config.kind == "number":
        counts.not_numbers[name] += sum(place >= 0 and converted[place] is None for place in places)
    return [converted[place] for place in places]


def _distinct(column: pa.Array) -> tuple[list[Any], list[int]]:
    """Values, and the place of each row's value in them; -1 for none."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        encoded = column.dictionary_encode()
        return encoded.dictionary.to_pylist(), pc.fill_null(encoded.indices, -1).to_pylist()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    rows = column.to_pylist()
    values = [value for value in rows if value is not None]
    place = iter(range(len(values)))
    return values, [-1 if value is None else next(place) for value in rows]


def _fitted(name: str, value: AttributeValue | None, counts: ItemCounts) -> AttributeValue | None:
    """Within the size of an attribute."""
    if isinstance(value, tuple):
        parts = fit(name, list(value))
        assert isinstance(parts, list)
        counts.cut += len(parts) < len(value)
        return tuple(parts)
    if isinstance(value, str):
        text = str(fit(name, value))
        counts.cut += len(text) < len(value)
        return text
    return value


def _converter(column: ColumnConfig, html: bool) -> Convert:
    """From a value of the table to an attribute; None where there is none."""

    def clean(text: str) -> str:
        return plain_text(text) if html else text.strip()

    def text(value: Any) -> AttributeValue | None:
        if isinstance(value, list):
            return tuple(part for one in value if one is not None and (part := clean(str(one)))) or None
        return clean(_written(value)) or None

    def parts(value: Any) -> AttributeValue | None:
        if isinstance(value, list):
            return text(value)
        return tuple(part for one in split_list(_written(value), column.separator) if (part := clean(one))) or None

    def number(value: Any) -> AttributeValue | None:
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, int | float):
            return value if value == value and abs(value) != float("inf") else None
        return parse_amount(_written(value), column.decimal)

    def stored(value: Any) -> AttributeValue | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return number(value)
        return _written(value).strip() or None

    return {"text": text, "list": parts, "number": number}.get(column.kind, stored)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
