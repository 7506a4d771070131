"""Request bodies from Python data: lists of dicts, and tables of pandas, which is not imported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqrec.data.items import Item
from seqrec.errors import InputError


def records(rows: Any, field: str) -> list[Any]:
    """The rows of a list, of another iterable, or of a DataFrame (as dicts); the values of a Series or an array.

    Raises InputError for what is neither, such as one string.
    """
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        return [plain(row) for row in rows.to_dict("records")]
    if hasattr(rows, "tolist"):
        return [plain(value) for value in rows.tolist()]
    if isinstance(rows, str | bytes | Mapping | Path) or not isinstance(rows, Iterable):
        raise InputError(f"a list or a table is needed, not {type(rows).__name__}", field)
    return [plain(row) for row in rows]


def plain(value: Any) -> Any:
    """With Python's own numbers and lists for those of numpy and pandas; None for missing values."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if hasattr(value, "isoformat"):  # dates; that of a missing one is NaT
        written = value.isoformat()
        return None if written == "NaT" else written
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def item_body(row: Any, place: str) -> dict[str, Any]:
    """An item as POST /items reads it. Without `attributes` all other columns of the row are attributes.

    Raises InputError, which names the place of the row.
    """
    if isinstance(row, Item):
        row = {"item_id": row.item_id, "attributes": dict(row.attributes), "available": row.available}
    if not isinstance(row, Mapping) or "item_id" not in row:
        raise InputError('an item is a dict such as {"item_id": "desk-1", "title": "Oak desk"}', place)
    body = dict(row)
    if not isinstance(body.get("attributes"), Mapping):
        body = {name: body[name] for name in ("item_id", "available") if name in body}
        body["attributes"] = {str(name): value for name, value in row.items() if name not in ("item_id", "available")}
    body["attributes"] = {name: value for name, value in body["attributes"].items() if value is not None}
    if isinstance(body["item_id"], int):
        body["item_id"] = str(body["item_id"])  # a column of numbers in a table of ids
    return body


def history_entries(history: Any) -> list[Any]:
    """The entries of a history as POST /recommend reads them: ids, and attributes of items in no catalogue.

    A table with the column `item_id` is a list of these ids. Raises InputError.
    """
    entries: list[Any] = []
    for row, entry in enumerate(records(history, "history")):
        if isinstance(entry, Item):
            entries.append(entry.item_id)
        elif isinstance(entry, Mapping) and "item_id" in entry:
            entries.append(str(entry["item_id"]))
        elif isinstance(entry, Mapping):
            attributes = entry["attributes"] if set(entry) == {"attributes"} else entry
            entries.append({"attributes": {name: value for name, value in attributes.items() if value is not None}})
        elif isinstance(entry, bool) or not isinstance(entry, str | int):
            raise InputError(f"an item id or a dict of attributes, not {type(entry).__name__}", f"history[{row}]")
        else:
            entries.append(str(entry))
    return entries
