"""Fast reading of clean Parquet events: each distinct id is checked once, not each row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seqrec.data.timestamps import Timestamps
from seqrec.errors import InputError

_COLUMNS = ["user_id", "item_id", "timestamp"]


def read_clean_events(
    path: Path, known_items: Collection[str] | None, check_user: Callable[[str], str], check_item: Callable[[str], str]
) -> tuple[list[str], list[str], Timestamps, npt.NDArray[np.float64] | None] | None:
    """Users, items, timestamps and weights (None: no such column) in file order, the same strings for the same id.

    None if any row needs a closer look: a null, an id that is not a valid text, an unknown item, a timestamp that is
    not a whole number, a weight below 0. The slow reader then names or skips the row.
    """
    try:
        more = [name for name in pq.read_schema(path).names if name == "weight"]
        table = pq.read_table(path, columns=[*_COLUMNS, *more], read_dictionary=_COLUMNS[:2])
    except (pa.ArrowException, OSError):
        return None
    users, items, times = (table.column(name).combine_chunks() for name in _COLUMNS)
    if any(column.null_count for column in (users, items, times)) or not pa.types.is_integer(times.type):
        return None
    try:
        user_ids = _names(users, check_user)
        item_ids = _names(items, check_item, known_items)
    except (InputError, TypeError):
        return None
    weights = None
    if more:
        column = table.column("weight").combine_chunks()
        if column.null_count or not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            return None
        weights = column.to_numpy(zero_copy_only=False).astype(np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            return None
    return user_ids, item_ids, times.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), weights


def _names(column: pa.Array, check: Callable[[str], str], known: Collection[str] | None = None) -> list[str]:
    """Raises InputError or TypeError for an id that is none."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array(column.chunks).unify_dictionaries().combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    if not pa.types.is_string(encoded.type.value_type):
        raise TypeError(encoded.type)
    used = np.unique(encoded.indices.to_numpy())
    names = encoded.dictionary.to_pylist()
    for place in used.tolist():
        names[place] = check(names[place])
        if known is not None and names[place] not in known:
            raise InputError(f"item {names[place]!r} is not in the items file")
    return [names[place] for place in encoded.indices.to_pylist()]
