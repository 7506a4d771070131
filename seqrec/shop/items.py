"""Items of any table: rows become checked items, as the models read and the service stores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from seqrec.data.items import AttributeValue, Item, make_item
from seqrec.data.sources.base import fit
from seqrec.data.tables.base import Rejects, Table
from seqrec.errors import InputError
from seqrec.shop.project import ColumnConfig, ItemsConfig
from seqrec.shop.values import id_texts, is_available, parse_amount, plain_text, split_list

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
    """The items in the order of the table, each id once. With duplicates = "last" the values are those of the last row,
    at the place of the first. Raises FileFormatError with "raise" in `rejects`."""
    last = _last_rows(table, config) if config.duplicates == "last" else None
    wanted = [name for name, column in config.columns.items() if column.kind != "drop"]
    converters = {name: _converter(config.columns[name], config.html) for name in wanted if name != config.id}
    available = next((name for name, column in config.columns.items() if column.kind == "available"), None)
    seen: set[str] = set()
    row = -1
    for batch in table.batches(wanted, rejects):
        ids = id_texts(batch.column(wanted.index(config.id))).to_pylist()
        columns = {name: _python(batch.column(place)) for place, name in enumerate(wanted) if name != config.id}
        for place, item_id in enumerate(ids):
            row += 1
            counts.read += 1
            if item_id is not None and (item_id in seen or (last is not None and last.get(item_id, row) != row)):
                counts.duplicates += 1
                continue
            try:
                if item_id is None:
                    raise InputError(f"{config.id} is empty")
                values = {name: columns[name][place] for name in converters}
                item = _item(item_id, values, converters, available, config, counts)
            except InputError as error:
                reason = "no id" if item_id is None else "values that cannot be stored"
                way_out = 'on_error = "skip" in [items] leaves such rows out'
                rejects.add(reason, table.error(row, f"{error}; {way_out}") if rejects.wants_example(reason) else None)
                continue
            seen.add(item_id)
            counts.kept += 1
            counts.without_text += not any(item.attributes.get(name) for name in config.texts)
            counts.unavailable += not item.available
            yield item
        progress(len(batch))


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


def _item(
    item_id: str,
    values: dict[str, Any],
    converters: dict[str, Convert],
    available: str | None,
    config: ItemsConfig,
    counts: ItemCounts,
) -> Item:
    attributes: dict[str, object] = {}
    for name, value in values.items():
        if name == available or value is None:
            continue
        converted = converters[name](value)
        if converted is None:
            counts.not_numbers[name] += config.columns[name].kind == "number"
            continue
        fitted = fit(name, list(converted) if isinstance(converted, tuple) else converted)
        counts.cut += fitted != (list(converted) if isinstance(converted, tuple) else converted)
        attributes[name] = fitted
    open_for_sale = available is None or is_available(values[available], config.columns[available].yes)
    return make_item(item_id, attributes, open_for_sale)


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


def _python(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values: list[Any] = column.to_pylist()
    return values
