"""Nested records as rows: names of inner fields with dots, and a row for each element of a list."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Record = Mapping[str, Any]


def flatten(record: Record, prefix: str = "", keep: Collection[str] | None = None) -> dict[str, Any]:
    """Values by name; fields of inner objects have names with dots. Of a list of objects it has their names. Fields of
    an object `attributes`, as seqrec's own items have, are those of the record. `keep`: as of `kept`.

    >>> flatten({"id": 7, "customer": {"id": 3}, "tags": [{"name": "new"}]})
    {'id': 7, 'customer.id': 3, 'tags': ['new']}
    """
    flat: dict[str, Any] = {}
    for name, value in record.items():
        own = name == "attributes" and not prefix and isinstance(value, dict)
        if keep is not None and prefix + name not in keep and not own:
            continue
        if own:
            flat |= {key if key not in record else f"{name}.{key}": one for key, one in flatten(value).items()}
        elif isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.", keep)
        elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
            flat[prefix + name] = [_name_of(part) for part in value]
        else:
            flat[prefix + name] = value
    return flat


def kept(names: Iterable[str]) -> set[str]:
    """The names and those of all that they are in: what has to be looked at to find them."""
    return {name[:end] for name in names for end in (*(at for at, sign in enumerate(name) if sign == "."), len(name))}


def list_names(record: Record, prefix: str = "") -> Iterator[str]:
    """The names of the lists of a record that can make rows, also of those within their objects."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from list_names(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and not isinstance(value[0], list):
            yield prefix + name
            if isinstance(value[0], dict):
                yield from list_names(value[0], f"{prefix}{name}.")


def rows_of(record: Record, rows: str | None, keep: Collection[str] | None = None) -> list[dict[str, Any]]:
    """A flat row for each element of the list `rows` (a name with dots), with the record's other fields. A record
    whose list is missing or empty is one row, without fields of it."""
    if rows is None:
        return [flatten(record, "", keep)]
    return _expand(record, rows.split("."), "", keep)


def _expand(record: Record, path: Sequence[str], prefix: str, keep: Collection[str] | None) -> list[dict[str, Any]]:
    """Follows `path` through objects and lists."""
    for length in range(len(path), 0, -1):  # a name may have dots itself
        name = ".".join(path[:length])
        if name not in record:
            continue
        value, rest = record[name], path[length:]
        own = flatten({key: one for key, one in record.items() if key != name}, prefix, keep)
        inner = f"{prefix}{name}."
        if isinstance(value, dict):
            if not rest:
                return [own | flatten(value, inner, keep)]
            return [own | row for row in _expand(value, rest, inner, keep)]
        parts = value if isinstance(value, list) else [] if value is None else [value]
        found = [row for part in parts for row in _part(part, rest, inner, keep)]
        return [own | row for row in found] or [own]
    return [flatten(record, prefix, keep)]


def _part(part: Any, rest: Sequence[str], inner: str, keep: Collection[str] | None) -> list[dict[str, Any]]:
    if isinstance(part, dict):
        return _expand(part, rest, inner, keep) if rest else [flatten(part, inner, keep)]
    return [{inner[:-1]: part}]


def _name_of(part: Any) -> str:
    """Of an object in a list, such as {"id": 3, "name": "Toys"}: its name, or all of it."""
    if isinstance(part, dict):
        for name in ("name", "title", "label", "value", "src", "url"):
            if isinstance(part.get(name), str):
                return str(part[name])
        return json.dumps(part, ensure_ascii=False, default=str)
    return str(part)


def flat_table(table: pa.Table, rows: str | None) -> pa.Table:
    """The same for Arrow tables, whose structs and lists have types."""
    table = _without_structs(table)
    done = ""
    while rows is not None and done != rows:
        name = max(
            (one for one in table.column_names if rows == one or rows.startswith(f"{one}.")), key=len, default=""
        )
        if not name or not _is_list(table.schema.field(name).type):
            break
        table, done = _without_structs(_explode(table, name)), name
    for place, field in enumerate(table.schema):
        if _is_list(field.type) and pa.types.is_struct(field.type.value_type):
            names = [None if parts is None else [_name_of(one) for one in parts] for parts in table[place].to_pylist()]
            table = table.set_column(place, field.name, pa.chunked_array([pa.array(names, pa.list_(pa.string()))]))
    return table


def arrow_lists(schema: pa.Schema) -> list[str]:
    """As `list_names`."""
    found = []
    for name, kind in _typed_names(schema, ""):
        if _is_list(kind):
            found.append(name)
            if pa.types.is_struct(kind.value_type):
                found += [f"{name}.{inner}" for inner in arrow_lists(pa.schema(list(kind.value_type)))]
    return found


def _typed_names(fields: Any, prefix: str) -> Iterator[tuple[str, pa.DataType]]:
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _typed_names(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _without_structs(table: pa.Table) -> pa.Table:
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table


def _explode(table: pa.Table, name: str) -> pa.Table:
    """A row for each element, and one for a list without elements."""
    column = table[name].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    # Without elements the parent stands alone: its element is null.
    empty = pc.indices_nonzero(pc.equal(lengths, 0))
    parents = pa.concat_arrays([pc.list_parent_indices(column).cast(pa.int64()), empty.cast(pa.int64())])
    order = pc.sort_indices(pa.table({"parent": parents}), [("parent", "ascending")])
    values = pc.list_flatten(column)
    element = pa.concat_arrays([pa.array(range(len(values)), pa.int64()), pa.nulls(len(empty), pa.int64())])
    place = table.column_names.index(name)
    return table.take(parents.take(order)).set_column(place, name, values.take(element.take(order)))
