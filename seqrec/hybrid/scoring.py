"""The hybrid score of histories and items from counts, term vectors and dense scores (formula: `HybridSettings`).

Shared by training, evaluation and the service, which provide the counts and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from seqrec.hybrid.cooccurrence import Counts, Floats, Rows, history_matrix
from seqrec.hybrid.lexical import LAST
from seqrec.hybrid.settings import HybridSettings

Scores = npt.NDArray[np.float32]


def gate(settings: HybridSettings, events: Floats) -> Floats:
    """[n] The factor of the text score of items with these numbers of events."""
    return 1.0 + settings.cold_boost / (1.0 + events)


def term_weights(settings: HybridSettings, offsets: Rows, ids: npt.NDArray[Any], values: npt.NDArray[Any]) -> Floats:
    """[m] The weight of each item's term vector in the term query of a history, oldest item first.

    Item k of m has the terms ids[offsets[k]:offsets[k + 1]] with these values; all before the newest LAST weigh 0.
    """
    count = len(offsets) - 1
    weights = np.zeros(count)
    if not count:
        return weights
    first = max(0, count - LAST)
    begin, lengths = offsets[first], np.diff(offsets[first:])
    recency = 1.0 / np.arange(count - first, 0, -1.0)
    _, places = np.unique(ids[begin:], return_inverse=True)
    length = float(np.sqrt((np.bincount(places, values[begin:] * np.repeat(recency, lengths)) ** 2).sum()))
    if length:
        weights[first:] = settings.recent_text * recency / length
    weights[-1] += settings.last_text
    return weights


def term_query(settings: HybridSettings, items: csr_array) -> csr_array:
    """[1, v] from the term vectors [m, v] of a history's items, oldest first: the last item, and the recent ones."""
    weights = term_weights(settings, items.indptr, items.indices, items.data)
    return csr_array(csr_array(weights[None].astype(np.float32)) @ items)


def term_queries(settings: HybridSettings, histories: Sequence[Rows], items: csr_array) -> csr_array:
    """[b, v] `term_query` of each history; items: [n, v], histories: rows of it, oldest first."""
    empty = csr_array((0, items.shape[1]), dtype=np.float32)
    rows = [term_query(settings, items[history[-LAST:]] if len(history) else empty) for history in histories]
    return _stacked(rows, items.shape[1])


def own_items(settings: HybridSettings, history: Rows) -> tuple[Rows, Floats]:
    """Rows of the items of a history, each once, and what is added to their scores."""
    rows = np.unique(history)
    bonus = np.full(len(rows), settings.seen)
    if len(history):
        bonus[rows == history[-1]] += settings.last_item
    return rows, bonus


@dataclass(frozen=True, eq=False)
class HybridScorer:
    """All scores of b histories and n items at once: what offline evaluation ranks by.

    counts: over the n items; terms: float32 [n, v], rows of unit length.
    """

    settings: HybridSettings
    counts: Counts
    terms: csr_array
    postings: csr_array  # float32 [v, n]

    @classmethod
    def of(cls, settings: HybridSettings, counts: Counts, terms: csr_array) -> HybridScorer:
        return cls(settings, counts, terms, csr_array(terms.T.tocsr()))

    def cooccurrence(self, histories: Sequence[Rows]) -> Scores:
        """-> float32 [b, n], weighted"""
        settings = self.settings.cooccurrence
        read = history_matrix(settings, histories, self.counts.events).astype(self.counts.pairs.dtype)
        pairs = (read @ self.counts.pairs).toarray()
        if settings.target_power:
            pairs *= np.maximum(self.counts.events, 1.0) ** -settings.target_power
        scores: Scores = (self.settings.pairs * pairs).astype(np.float32)
        return scores

    def text(self, histories: Sequence[Rows], dense: Scores) -> Scores:
        """-> float32 [b, n]; dense: float32 [b, n], the dense vectors' inner products, weighted."""
        queries = term_queries(self.settings, histories, self.terms)
        return np.asarray(dense + (queries @ self.postings).toarray(), dtype=np.float32)

    def scores(self, histories: Sequence[Rows], dense: Scores) -> Scores:
        """-> float32 [b, n], including seen items; a caller that excludes them does so afterwards."""
        text = self.text(histories, dense)
        if self.settings.cold_boost:
            text *= gate(self.settings, self.counts.events).astype(np.float32)
        out = self.cooccurrence(histories) + text
        if not self.settings.exclude_seen:
            for row, history in zip(out, histories, strict=True):
                rows, bonus = own_items(self.settings, history)
                row[rows] += bonus.astype(np.float32)
        return out


def _stacked(rows: Sequence[csr_array], width: int) -> csr_array:
    if not rows:
        return csr_array((0, width), dtype=np.float32)
    indptr = np.concatenate([[0], np.cumsum([row.nnz for row in rows])])
    indices = np.concatenate([row.indices for row in rows])
    data = np.concatenate([row.data for row in rows]).astype(np.float32)
    return csr_array((data, indices, indptr), shape=(len(rows), width))
