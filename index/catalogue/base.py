"""The catalogue: the source of truth for items, a log of changes that are durable before they are acknowledged.

Sequence numbers increase and are never used twice. A snapshot at S and `changes(after=S)` together are the catalogue.
Nothing is encoded again for that: a record has the item's token ids and vector, and the digest of the item tower that
made them.
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
from seqrec.errors import CatalogueError, InputError
from seqrec.text.item_text import TokenizedItem


@dataclass(frozen=True, slots=True, eq=False)
class CatalogueItem:
    """An item and its encoding. `vector` float32 [dim], or None if no item tower has encoded it yet."""

    item: Item
    tokens: TokenizedItem | None = None
    vector: npt.NDArray[np.float32] | None = None
    item_tower: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One record of the log.

    `put` has `entry`, `delete` only `item_id`, `publish` has `snapshot_id`, `place` has `placement`, and `rules` unless
    the placement was deleted.
    """

    seq: int
    op: Literal["put", "delete", "publish", "place"]
    item_id: str | None = None
    entry: CatalogueItem | None = None
    snapshot_id: str | None = None
    time: float = 0.0  # Unix seconds
    placement: str | None = None
    rules: str | None = None


def unknown_change(seq: int, op: str) -> CatalogueError:
    return CatalogueError(
        f"change {seq} of the log is {op!r}, which this version does not know: a later one wrote it. Run the same "
        "version on all hosts"
    )


class Placement(NamedTuple):
    """A named set of rules. `seq`: the change that set it, its version; `rules`: a JSON object."""

    seq: int
    rules: str


class PutResult(NamedTuple):
    seq: int  # of the last change of the batch
    created: int
    updated: int


class Catalogue(Protocol):
    """Safe for concurrent use by threads and processes.

    Methods raise CatalogueError if it cannot be read or written, OutcomeUnknown if a write may or may not have happened
    (repeating it is safe), and CatalogueReplaced if it is a different one than before, or an older state of it.
    """

    catalogue_id: str
    """Random, created with the log: an emptied or replaced catalogue has a different one."""
    durability_warnings: Sequence[str]
    """Guarantees of this contract that the store does not give, as sentences; normally empty."""

    def head(self) -> int:
        """The largest sequence number so far; 0 before the first. Cheap, since every request calls it."""
        ...

    def put(self, entries: Sequence[CatalogueItem], expected: Sequence[int] | None = None) -> PutResult:
        """Upsert as one atomic batch, durable on return. Raises InputError if an id occurs twice.

        `expected`: the number of each item's last change, as it was read, 0 for none. If one has another by now, raises
        ItemChanged, and nothing is written.
        """
        ...

    def delete(self, item_ids: Sequence[str]) -> int:
        """Delete as one atomic batch, durable on return; returns the sequence number after it.

        Raises ItemNotFound for the first id that is not present; then nothing is deleted.
        """
        ...

    def publish(self, snapshot_id: str, lease: Lease | None = None) -> int:
        """Make the service serve this snapshot. A rollback publishes an earlier one.

        Raises SnapshotError, and publishes nothing, if `lease` is no longer held.
        """
        ...

    def lease(self, name: str, wait: bool = False) -> AbstractContextManager[Lease]:
        """Hold the lease `name` ("reindex", "publish"), which has one holder among all processes on all hosts.

        If its process dies, it is released: immediately on one host, within seconds on several. Without `wait`, raises
        SnapshotError if another process holds it.
        """
        ...

    def publications(self) -> list[Change]:
        """All publications, newest first; the first is the served snapshot. Compaction keeps them."""
        ...

    def set_placement(self, name: str, rules: str | None) -> int:
        """Store the rules of a placement, or with None delete it; durable on return. Returns the change's number.

        Raises PlacementNotFound where there is none to delete.
        """
        ...

    def placements(self) -> dict[str, Placement]:
        """All placements by name."""
        ...

    def changes(self, after: int, limit: int) -> Iterator[Change]:
        """Changes with seq > after, in order. Raises LogTruncated if compaction dropped one of them."""
        ...

    def scan(self, through: int | None = None) -> Iterator[tuple[int, CatalogueItem]]:
        """The items with the seq of their last change, as one consistent view, in the order of their ids.

        A snapshot at S takes the rows with seq <= S (`through`); the others follow in the log.
        """
        ...

    def get(self, item_id: str) -> tuple[int, CatalogueItem] | None:
        """The item and the seq of its last change; None if it is not present."""
        ...

    def get_many(self, item_ids: Sequence[str]) -> dict[str, tuple[int, CatalogueItem]]:
        """As `get` for many ids, in few round trips; without those that are not present."""
        ...

    def ids(self) -> set[str]:
        """The ids of all items, as one consistent view; much cheaper than `scan`."""
        ...

    def count(self) -> int:
        """Number of items."""
        ...

    def find(self, words: str, limit: int) -> list[str]:
        """Ids of items whose attributes contain all the words; the last one may be a prefix.

        Bounded in time: if very many items match, only some of them are considered.
        """
        ...

    def compact(self, through: int) -> int:
        """Drop superseded log records with seq <= through, including deletes; returns how many.

        `changes` from before a dropped record then raises LogTruncated. Publications stay.
        """
        ...

    def superseded(self) -> int:
        """Log records that are neither the last change of an item nor a publication: what compaction could drop.

        Those of placements are among them: the current rules are stored apart from the log.
        """
        ...

    def check(self) -> None:
        """Raises CatalogueError if a process that starts now could not read, or if writes would be refused. Cheap."""
        ...

    def close(self) -> None:
        """Release files and connections; the catalogue cannot be used afterwards."""
        ...


def check_repeated(entries: Sequence[CatalogueItem]) -> None:
    """Raises InputError for an id that occurs twice in a batch."""
    seen: set[str] = set()
    for row, entry in enumerate(entries):
        if entry.item.item_id in seen:
            raise InputError(f"{entry.item.item_id!r} occurs twice in this batch", f"items[{row}].item_id")
        seen.add(entry.item.item_id)
