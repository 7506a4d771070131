"""Sparse files of a snapshot: term vectors of the items and their postings (hybrid models), and counts of events.

term_offsets.npy int64 [n + 1], term_ids.npy int32 [t], term_weights.npy float32 [t]          the terms of each item
posting_offsets.npy int64 [v + 1], posting_rows.npy int32 [t], posting_weights.npy float32 [t]    the items of each term
event_items.txt      sorted ids of all items with events, one a line; some may not be in the catalogue
event_counts.npy     float64 [m], number of events of each
event_times.npy float64 [e], event_time_items.npy int32 [e]    when each event was, rising, and its item's place above
pair_offsets.npy int64 [m + 1], pair_columns.npy int32 [p], pair_values.npy float64 [p]       co-occurrence

All arrays are memory-mapped: processes share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from index.snapshot.columns import NpyWriter, map_npy
from seqrec.hybrid.event_counts import BaseCounts
from seqrec.hybrid.event_times import EventTimes
from seqrec.text.item_text import TokenizedItem

TERM_FILES = (
    "term_offsets.npy",
    "term_ids.npy",
    "term_weights.npy",
    "posting_offsets.npy",
    "posting_rows.npy",
    "posting_weights.npy",
)
TIME_FILES = ("event_times.npy", "event_time_items.npy")
COUNT_FILES = ("event_items.txt", "event_counts.npy", "pair_offsets.npy", "pair_columns.npy", "pair_values.npy")

TermVectors = Callable[[Sequence[TokenizedItem]], csr_array]
"""Items -> float32 [n, v]"""
Read = Callable[[str, type[np.generic], tuple[int, ...]], npt.NDArray[Any]]
"""Reads a file of the snapshot by name, dtype and shape; -1: any length."""


@dataclass(frozen=True, eq=False)
class CompressedRows:
    """A sparse matrix by rows: row r has `ids[offsets[r]:offsets[r + 1]]`."""

    offsets: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def row(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        begin, end = self.offsets[number], self.offsets[number + 1]
        return self.ids[begin:end], self.weights[begin:end]

    def rows(
        self, numbers: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Several rows end to end: ids, weights, and [len(numbers) + 1] where each begins and the last one ends."""
        begins = self.offsets[numbers]
        lengths = self.offsets[numbers + 1] - begins
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(ends[-1]) + np.repeat(begins - ends[:-1], lengths)
        return self.ids[places], self.weights[places], ends


@dataclass(frozen=True, eq=False)
class Terms:
    """items: by row of the snapshot; postings: by term."""

    items: CompressedRows
    postings: CompressedRows

    @property
    def width(self) -> int:
        """Terms of the vocabulary."""
        return len(self.postings.offsets) - 1


class TermWriter:
    """Writes the term vectors of items batch by batch, then their postings."""

    def __init__(self, directory: Path, vectors: TermVectors) -> None:
        self._directory, self._vectors = directory, vectors
        self._offsets = NpyWriter(directory / "term_offsets.npy", np.int64, ())
        self._ids = NpyWriter(directory / "term_ids.npy", np.int32, ())
        self._weights = NpyWriter(directory / "term_weights.npy", np.float32, ())
        self._end = self._width = 0

    def __enter__(self) -> TermWriter:
        for writer in (self._offsets, self._ids, self._weights):
            writer.__enter__()
        self._offsets.append([0])
        return self

    def __exit__(self, *error: Any) -> None:
        for writer in (self._offsets, self._ids, self._weights):
            writer.__exit__(*error)

    def append(self, items: Sequence[TokenizedItem]) -> None:
        matrix = self._vectors(items)
        self._width = matrix.shape[1]
        self._offsets.append(self._end + matrix.indptr[1:].astype(np.int64))
        self._ids.append(matrix.indices.astype(np.int32))
        self._weights.append(matrix.data.astype(np.float32))
        self._end += int(matrix.indptr[-1])

    def write_postings(self) -> None:
        """Call it after the writer is closed. Needs about 24 bytes of memory per term of an item."""
        offsets = np.array(map_npy(self._directory / "term_offsets.npy"))
        ids, weights = map_npy(self._directory / "term_ids.npy"), map_npy(self._directory / "term_weights.npy")
        order = np.argsort(ids, kind="stable")
        rows = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
        counts = np.bincount(ids, minlength=self._width) if len(ids) else np.zeros(self._width, np.int64)
        np.save(self._directory / "posting_offsets.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        np.save(self._directory / "posting_rows.npy", rows[order])
        np.save(self._directory / "posting_weights.npy", np.asarray(weights)[order])


def write_counts(directory: Path, counts: BaseCounts) -> None:
    (directory / "event_items.txt").write_text("".join(f"{item_id}\n" for item_id in counts.item_ids), encoding="utf-8")
    np.save(directory / "event_counts.npy", counts.events.astype(np.float64))
    np.save(directory / "pair_offsets.npy", counts.offsets.astype(np.int64))
    np.save(directory / "pair_columns.npy", counts.columns.astype(np.int32))
    np.save(directory / "pair_values.npy", counts.values.astype(np.float64))
    if counts.times is not None:
        np.save(directory / "event_times.npy", counts.times.times.astype(np.float64))
        np.save(directory / "event_time_items.npy", counts.times.items.astype(np.int32))


def read_terms(read: Read, items: int) -> Terms:
    def rows(prefix: str, ids: str, count: int) -> CompressedRows:
        offsets = read(f"{prefix}_offsets.npy", np.int64, (count,))
        size = int(offsets[-1]) if len(offsets) else 0
        return CompressedRows(
            offsets,
            read(f"{prefix}_{ids}.npy", np.int32, (size,)),
            read(f"{prefix}_weights.npy", np.float32, (size,)),
        )

    return Terms(rows("term", "ids", items + 1), rows("posting", "rows", -1))


def read_counts(path: Path, read: Read, seq: int, log_id: str, times: bool = True) -> BaseCounts:
    """`times` False: a version before wrote them, without the times of events."""
    # In memory: a request looks up each item of its history here, by bisection.
    item_ids = (path / "event_items.txt").read_text(encoding="utf-8").split("\n")[:-1]
    offsets = read("pair_offsets.npy", np.int64, (len(item_ids) + 1,))
    size = int(offsets[-1])
    return BaseCounts(
        item_ids,
        read("event_counts.npy", np.float64, (len(item_ids),)),
        offsets,
        read("pair_columns.npy", np.int32, (size,)),
        read("pair_values.npy", np.float64, (size,)),
        seq,
        log_id,
        _read_times(read) if times else None,
    )


def _read_times(read: Read) -> EventTimes:
    times = read("event_times.npy", np.float64, (-1,))
    return EventTimes(times, read("event_time_items.npy", np.int32, (len(times),)))
