"""The search engine of a snapshot in this process: its vector index, its postings and its columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.snapshot.snapshot import Snapshot
from service.live.engines.base import EngineQuery, Found, TermRow
from service.live.filters import SnapshotFilters


class InProcessEngine:
    def __init__(self, snapshot: Snapshot, filters: SnapshotFilters) -> None:
        self._snapshot, self._filters = snapshot, filters

    def search(self, queries: Sequence[EngineQuery]) -> list[Found]:
        return [self._search(query) for query in queries]

    def has_attribute(self, name: str) -> bool:
        self._filters.read_names()
        return not self._filters.unknown([name])

    def _search(self, query: EngineQuery) -> Found:
        allowed = np.array(self._snapshot.available)
        if query.filter is not None:
            allowed &= self._filters.mask(query.filter)
        allowed[list(query.excluded)] = False
        k = min(query.k, int(np.count_nonzero(allowed)))
        if not k:
            return Found(np.zeros(0, np.int64), np.zeros(0, np.float32))
        if query.vector is not None:
            rows, scores = self._snapshot.index.search(query.vector[None], k, [allowed])
            return Found(rows[0][rows[0] >= 0], scores[0][rows[0] >= 0])
        assert query.terms is not None
        sums = self._term_scores(query.terms)
        sums[~allowed] = 0
        found = np.flatnonzero(sums)
        best = found[np.argsort(-sums[found], kind="stable")[:k]]
        return Found(best, sums[best])

    def _term_scores(self, terms: TermRow) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        sums = np.zeros(len(self._snapshot.item_ids), np.float32)
        assert self._snapshot.terms is not None
        for term, weight in zip(*map(np.ndarray.tolist, terms), strict=True):
            rows, own = self._snapshot.terms.postings.row(term)
            sums[rows] += own * np.float32(weight)
        return sums
