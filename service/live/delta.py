"""The rows of a delta in columns: what changed since a snapshot, appended to and never altered.

Texts and token ids lie end to end in three byte strings: a hundred thousand items of Python objects would take many
times the memory, and much of it would stay behind in pieces when they go.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from index.catalogue.item_json import attributes_from_json, attributes_to_json
from seqrec.data.items import AttributeValue, Item
from seqrec.text.item_text import TokenizedItem
from service.live.columns import Columns

NEVER = np.iinfo(np.int64).max
_NONE = -1
_COLUMNS = ("vectors", "popularity", "available", "deleted", "ended", "text_end", "token_end")


@dataclass(eq=False)
class Delta:
    """Rows [:length] of a view are final but for `ended`, which distinguishes views."""

    vectors: npt.NDArray[np.float32]  # [capacity, dim]; zero for a delete
    popularity: npt.NDArray[np.float64]  # [capacity], of the item in the snapshot; 0 for a new one
    available: npt.NDArray[np.bool_]  # [capacity]; false for a delete
    deleted: npt.NDArray[np.bool_]  # [capacity]
    ended: npt.NDArray[np.int64]  # [capacity], the row that replaced this one, or NEVER
    text_end: npt.NDArray[np.int64]  # [capacity], where the attributes of each row end
    token_end: npt.NDArray[np.int64]  # [capacity], where its tokens end
    # Grown in place: all that grew out of one another share these.
    earlier: array[int] = field(default_factory=lambda: array("q"))  # the row of the same item before this one, or -1
    item_ids: list[str] = field(default_factory=list)
    last_row: dict[str, int] = field(default_factory=dict)
    texts: bytearray = field(default_factory=bytearray)  # JSON
    token_ids: bytearray = field(default_factory=bytearray)  # int32
    token_types: bytearray = field(default_factory=bytearray)  # uint8
    columns: Columns = field(default_factory=Columns)  # what filters read

    @classmethod
    def empty(cls, capacity: int, dim: int) -> Delta:
        return cls(
            vectors=_column(np.float32, capacity, dim),
            popularity=_column(np.float64, capacity),
            available=_column(np.bool_, capacity),
            deleted=_column(np.bool_, capacity),
            ended=_column(np.int64, capacity),
            text_end=_column(np.int64, capacity),
            token_end=_column(np.int64, capacity),
        )

    @property
    def full(self) -> bool:
        return len(self.item_ids) == len(self.ended)

    def grown(self) -> Delta:
        """Twice the room. Views made before keep the old arrays, in which nothing they see changes any more."""
        more = Delta.empty(2 * len(self.ended), self.vectors.shape[1])
        for name in _COLUMNS:
            old = getattr(self, name)
            getattr(more, name)[: len(old)] = old
        for name in ("earlier", "item_ids", "last_row", "texts", "token_ids", "token_types", "columns"):
            setattr(more, name, getattr(self, name))
        return more

    def append(
        self,
        item_id: str,
        item: Item | None = None,
        tokens: TokenizedItem | None = None,
        vector: npt.NDArray[np.float32] | None = None,
        popularity: float = 0.0,
    ) -> int | None:
        """Add a row, which says that the item was deleted where it has none; the item's row before, if it has one."""
        row = len(self.item_ids)
        self.ended[row] = NEVER
        if item is None:
            self.deleted[row] = True
        else:
            assert tokens is not None
            self.vectors[row] = vector
            self.available[row] = item.available
            self.popularity[row] = popularity
            self.texts += attributes_to_json(item.attributes).encode()
            self.token_ids += np.asarray(tokens.ids, np.int32).tobytes()
            self.token_types += np.asarray(tokens.types, np.uint8).tobytes()
        self.text_end[row], self.token_end[row] = len(self.texts), len(self.token_types)
        before = self.last_row.get(item_id)
        self.earlier.append(_NONE if before is None else before)
        if before is not None:
            self.ended[before] = row
        self.item_ids.append(item_id)
        self.last_row[item_id] = row
        return before

    def row_of(self, item_id: str, length: int) -> int | None:
        """The item's last row among the first `length`, which may say that it was deleted."""
        row = self.last_row.get(item_id, _NONE)
        while row >= length:
            row = self.earlier[row]
        return None if row == _NONE else row

    def item(self, row: int) -> Item:
        return Item(self.item_ids[row], self.attributes(row), bool(self.available[row]))

    def attributes(self, row: int) -> Mapping[str, AttributeValue]:
        """None for a delete."""
        begin, end = self._span(self.text_end, row)
        return attributes_from_json(bytes(self.texts[begin:end])) if end > begin else {}

    def tokens(self, row: int) -> TokenizedItem:
        begin, end = self._span(self.token_end, row)
        ids, types = bytes(self.token_ids[4 * begin : 4 * end]), bytes(self.token_types[begin:end])
        return TokenizedItem(np.frombuffer(ids, np.int32), np.frombuffer(types, np.uint8))

    def living(self) -> list[int]:
        """Rows that the newest view shows, or could show."""
        n = len(self.item_ids)
        rows: list[int] = np.flatnonzero(~self.deleted[:n] & (self.ended[:n] == NEVER)).tolist()
        return rows

    def size_of(self, row: int) -> int:
        """Bytes that a row takes."""
        begin, end = self._span(self.text_end, row)
        first, last = self._span(self.token_end, row)
        return end - begin + 5 * (last - first) + self.vectors.itemsize * int(self.vectors.shape[1])

    @staticmethod
    def _span(ends: npt.NDArray[np.int64], row: int) -> tuple[int, int]:
        return int(ends[row - 1]) if row else 0, int(ends[row])


def _column(dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
    """Zeros in memory of their own, which goes back to the system with them; what is not written yet costs none."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS), dtype).reshape(shape)
