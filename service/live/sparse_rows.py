"""Where counted items lie in a view, and term vectors of the delta: what the sparse part of a score reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from index.snapshot.snapshot import Snapshot
from seqrec.hybrid.event_counts import EventCounts
from seqrec.text.item_text import TokenizedItem

Positions = npt.NDArray[np.int64]
NOWHERE = -1


class CountedPlaces:
    """Number of an item in the counts -> its position in the newest view, NOWHERE for one that is not in it.

    One writer; readers may see a position that their view does not have yet, and then look the item up by its id.
    """

    def __init__(self, counts: EventCounts, snapshot: Snapshot) -> None:
        self._counts = counts
        self._places = np.full(len(counts), NOWHERE)
        # Both rise, so they are merged: a dict of ten million ids would be 1.5 GB.
        rows = iter(enumerate(snapshot.item_ids))
        row, there = next(rows, (0, None))
        for number, item_id in enumerate(counts.known_ids):
            while there is not None and there < item_id:
                row, there = next(rows, (0, None))
            if there == item_id:
                self._places[number] = row
        for number in range(len(counts.known_ids), len(counts)):
            found = snapshot.row_of(counts.item_id(number))
            self._places[number] = NOWHERE if found is None else found

    def __len__(self) -> int:
        return len(self._places)

    def of(self, numbers: npt.NDArray[np.integer]) -> Positions:
        places: Positions = self._places
        known = numbers < len(places)
        if known.all():
            return np.asarray(places[numbers])
        out = np.full(len(numbers), NOWHERE)
        out[known] = places[numbers[known]]
        return out

    def put(self, item_id: str, position: int) -> None:
        number = self._counts.id_of(item_id)
        if number is not None and number < len(self._places):
            self._places[number] = position

    def extend(self, item_ids: Sequence[str], position_of: Callable[[str], int | None]) -> None:
        """Items that are new in the counts, in the order of their numbers."""
        found = [position_of(item_id) for item_id in item_ids]
        more = np.array([NOWHERE if position is None else position for position in found], dtype=np.int64)
        if len(more):
            self._places = np.concatenate([self._places, more])


class DeltaTerms:
    """Term vectors of the rows of one delta, made when they are first searched."""

    def __init__(self, vectors: Callable[[Sequence[TokenizedItem]], csr_array]) -> None:
        self._vectors = vectors
        self._lock = threading.Lock()
        self._rows = np.zeros(0, np.int64)
        self._ids = np.zeros(0, np.int32)
        self._weights = np.zeros(0, np.float32)
        self._length = self._width = 0

    def scores(
        self,
        length: int,
        tokens: Callable[[int], TokenizedItem],
        terms: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """[length] Inner products of the first rows with a query of these terms."""
        if not length:
            return np.zeros(0, np.float32)
        with self._lock:
            if length > self._length:
                self._extend(length, tokens)
            rows, ids, own = self._rows, self._ids, self._weights
        query = np.zeros(self._width, np.float32)
        query[terms] = weights
        return np.bincount(rows, own * query[ids], max(length, self._length))[:length].astype(np.float32)

    def _extend(self, length: int, tokens: Callable[[int], TokenizedItem]) -> None:
        matrix = self._vectors([tokens(row) for row in range(self._length, length)])
        rows = np.repeat(np.arange(self._length, length), np.diff(matrix.indptr))
        self._rows = np.concatenate([self._rows, rows])
        self._ids = np.concatenate([self._ids, matrix.indices.astype(np.int32)])
        self._weights = np.concatenate([self._weights, matrix.data.astype(np.float32)])
        self._length, self._width = length, matrix.shape[1]
