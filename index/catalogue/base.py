"""The catalogue: the source of truth for items, an ordered log of changes that is durable before it is acknowledged.

Every change has a sequence number: it grows, and no number is ever used twice. Whoever follows the log from a
snapshot at S by `changes(after=S)` holds what the catalogue holds, without encoding anything again: a record carries
the item's token ids and vector, with the digest of the item tower that made them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from index.catalogue.locks import Lease
from seqrec.data.items import Item
from seqrec.errors import InputError
from seqrec.text.item_text import TokenizedItem


@dataclass(frozen=True, slots=True, eq=False)
class CatalogueItem:
    """An item with what an item tower made of it. `vector` float32 [dim], or None where no tower has encoded it yet."""

    item: Item
    tokens: TokenizedItem | None = None
    vector: npt.NDArray[np.float32] | None = None
    item_tower: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One record of the log. `put` has `entry`; `delete` has `item_id` alone; `publish` has `snapshot_id`."""

    seq: int
    op: Literal["put", "delete", "publish"]
    item_id: str | None = None
    entry: CatalogueItem | None = None
    snapshot_id: str | None = None
    time: float = 0.0  # Unix seconds


class PutResult(NamedTuple):
    seq: int  # of the last change of the batch
    created: int
    updated: int


class Catalogue(Protocol):
    """Safe to use from several threads and processes at once.

    Raises CatalogueError where it cannot be read or written, OutcomeUnknown where a write may or may not have been made
    (to make it again is safe), CatalogueReplaced where it is another one than before, or an older state of it.
    """

    catalogue_id: str
    """Random, made with the log: an emptied or replaced catalogue has another."""
    durability_warnings: Sequence[str]
    """What is promised less than here, in words; empty where all is."""

    def head(self) -> int:
        """The largest sequence number given out; 0 before the first. Cheap: every read of the service asks for it."""
        ...

    def put(self, entries: Sequence[CatalogueItem]) -> PutResult:
        """Upsert, one atomic batch, durable on return. The same id twice in a batch: InputError."""
        ...

    def delete(self, item_ids: Sequence[str]) -> int:
        """One atomic batch, durable on return; the sequence number after it.

        Raises ItemNotFound for the first id that is not present, and deletes nothing.
        """
        ...

    def publish(self, snapshot_id: str, lease: Lease | None = None) -> int:
        """From here on the service serves this snapshot. A rollback publishes an earlier one.

        Raises SnapshotError, and publishes nothing, where `lease` is no longer held.
        """
        ...

    def lease(self, name: str, wait: bool = False) -> AbstractContextManager[Lease]:
        """Hold `name` ("reindex", "publish"): one holder among all who use this catalogue, on any host.

        A process that dies loses it, at once on one host, within seconds elsewhere. Without `wait`, raises
        SnapshotError where another one holds it.
        """
        ...

    def publications(self) -> list[Change]:
        """All that were published, newest first; the first is what is served. Compaction keeps them."""
        ...

    def changes(self, after: int, limit: int) -> Iterator[Change]:
        """Changes with seq > after, in order. Raises LogTruncated if one of them was compacted away."""
        ...

    def scan(self, through: int | None = None) -> Iterator[tuple[int, CatalogueItem]]:
        """The present items with the seq of their last change, one consistent view, by item id.

        A snapshot at S takes the rows with seq <= S (`through`); the rest comes from the log.
        """
        ...

    def get(self, item_id: str) -> tuple[int, CatalogueItem] | None:
        """The item and the seq of its last change; None if it is not present."""
        ...

    def get_many(self, item_ids: Sequence[str]) -> dict[str, tuple[int, CatalogueItem]]:
        """As `get`, of many ids in few round trips; without those that are not present."""
        ...

    def ids(self) -> set[str]:
        """The ids of the present items, one consistent view; a fraction of what `scan` costs."""
        ...

    def count(self) -> int:
        """Items present."""
        ...

    def find(self, words: str, limit: int) -> list[str]:
        """Ids of items whose attributes hold all the words (the last as a prefix).

        Bounded in time: where very many items match, it looks at some of them only.
        """
        ...

    def compact(self, through: int) -> int:
        """Drop log records with seq <= through that are no item's last, deletes among them; returns how many.

        `changes` from before a dropped record then raises. Publications stay.
        """
        ...

    def close(self) -> None:
        """Give back files and connections. The catalogue is not used after it."""
        ...


def check_repeated(entries: Sequence[CatalogueItem]) -> None:
    """Raises InputError for an id that is twice in a batch."""
    seen: set[str] = set()
    for row, entry in enumerate(entries):
        if entry.item.item_id in seen:
            raise InputError(f"{entry.item.item_id!r} is in this batch already", f"items[{row}].item_id")
        seen.add(entry.item.item_id)
