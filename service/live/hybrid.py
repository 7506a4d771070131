"""Exact hybrid search over a view: dense vectors, words and co-occurrence in one sum (`seqrec.hybrid.settings`).

The sum is taken over all rows where the index is flat. With an approximate index it is taken over candidates: the best
by dense vectors, by words, and everything that was counted after an item of the history; the sum itself is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from index.vectors.factory import FLAT
from seqrec.hybrid.cooccurrence import Floats
from seqrec.hybrid.event_counts import HistoryCounts
from seqrec.hybrid.lexical import LAST
from seqrec.hybrid.scoring import term_contributions
from seqrec.hybrid.settings import HybridSettings
from seqrec.text.item_text import TokenizedItem
from service.live.search import Hit, SearchSpec, answerable, best_hits
from service.live.state import View

Scores = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

DENSE_CANDIDATES = 300
"""Rows that an approximate index is asked for; HYBRID: with 300, 99 to 100 % of the exact NDCG@10 is kept."""
TERM_CANDIDATES = 1000


@dataclass(frozen=True, eq=False)
class SparseQuery:
    """What a history searches with in addition to its dense vector.

    words: float32 [m, v], what each of its newest items adds to the term vector; read: their positions, None for plain
    attributes. numbers: its counted items, newest first, as the counts number them; counted: their positions; recency:
    their weights; counts: of one moment. own: positions of all its items, oldest first.
    """

    words: csr_array
    read: Sequence[int | None]
    numbers: Sequence[int]
    counted: Sequence[int]
    recency: Floats
    counts: HistoryCounts
    own: Sequence[int]

    @cached_property
    def terms(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """[t] places in the vocabulary, and their weights."""
        total = csr_array(csr_array(np.ones((1, self.words.shape[0]), np.float32)) @ self.words)
        return total.indices.astype(np.int32), total.data.astype(np.float32)


def sparse_query(
    view: View, items: Sequence[tuple[TokenizedItem, int | None]], pairs: bool = True
) -> SparseQuery | None:
    """Of a history, oldest first: each entry's tokens, and its position (None for plain attributes).

    `pairs` False leaves co-occurrence out: what is similar, not what comes next. None where the model is no hybrid.
    """
    encoder = view.towers.encoder
    settings = encoder.hybrid
    if settings is None:
        return None
    newest = items[-LAST:]
    words = term_contributions(settings, encoder.term_vectors([tokens for tokens, _ in newest]))
    recency = settings.cooccurrence.recency_weights(len(items))
    counted = [
        (number, position, float(weight))
        for (_, position), weight in zip(reversed(items), recency, strict=False)
        if pairs and position is not None and (number := view.counts.id_of(view.item_id(position))) is not None
    ]
    numbers = [number for number, _, _ in counted]
    return SparseQuery(
        words,
        [position for _, position in newest],
        numbers,
        [position for _, position, _ in counted],
        np.array([weight for _, _, weight in counted]),
        view.counts.read(numbers),
        [position for _, position in items if position is not None],
    )


def empty_query(view: View) -> SparseQuery:
    """Of a history without items."""
    found = sparse_query(view, [])
    assert found is not None
    return found


@dataclass(frozen=True, eq=False)
class HybridSearch:
    """One query against one view: its parts by position."""

    view: View
    settings: HybridSettings
    vector: npt.NDArray[np.float32]  # [dim], weighted
    sparse: SparseQuery

    def search(self, spec: SearchSpec) -> list[Hit]:
        """The k best that are shown, equal scores by item id."""
        rows = answerable(self.view, spec)
        if spec.candidates is None and self.view.snapshot.manifest.index != FLAT:
            rows = self._few(spec, rows)
        return best_hits(self.view, rows, self.scores(rows), spec.k)

    def scores(self, rows: Positions) -> Scores:
        """[len(rows)] of these positions."""
        text = self.dense(rows) + self.words(rows)
        gates = self.view.gates(self.settings, self.sparse.counts.events)
        out = text * gates[rows] + self.pairs()[rows] + self._repeat(rows)
        return np.asarray(out, dtype=np.float32)

    def score_all(self) -> Scores:
        """[size] of everything, shown or not."""
        return self.scores(np.arange(self.view.size))

    def dense(self, rows: Positions) -> Scores:
        """[len(rows)]"""
        view, n = self.view, len(self.view.snapshot.item_ids)
        if not self.vector.any():
            return np.zeros(len(rows), np.float32)
        if len(rows) * 4 > view.size:  # most of them: read the matrix as it lies
            both = np.concatenate([view.snapshot.vectors @ self.vector, view.delta_vectors @ self.vector])
            return np.asarray(both[rows], dtype=np.float32)
        out = np.empty(len(rows), np.float32)
        late = rows >= n
        out[late] = view.delta_vectors[rows[late] - n] @ self.vector
        out[~late] = view.snapshot.vectors[rows[~late]] @ self.vector
        return out

    def words(self, rows: Positions) -> Scores:
        """[len(rows)]"""
        return self._all_words()[rows]

    def _all_words(self) -> Scores:
        """[size] of all positions, from the postings of the query's terms."""
        view = self.view
        out = np.zeros(view.size, np.float32)
        postings = view.snapshot.terms
        terms, term_weights = self.sparse.terms
        if postings is None or not len(terms):
            return out
        found = [postings.postings.row(int(term)) for term in terms]
        n = len(view.snapshot.item_ids)
        pairs = zip(found, term_weights, strict=True)
        weights = np.concatenate([own * weight for (_, own), weight in pairs])
        places = np.concatenate([own for own, _ in found])
        out[:n] = np.bincount(places, weights, n)
        out[n:] = view.delta_words(terms, term_weights)
        return out

    def pairs(self) -> Scores:
        """[size] The co-occurrence score of all positions, weighted."""
        places, values = self.pair_scores()
        return np.bincount(places, values, self.view.size).astype(np.float32)

    def pair_scores(self) -> tuple[Positions, Floats]:
        """Positions, and what each item of the history adds to K there, end to end; positions may repeat."""
        places: list[Positions] = [np.zeros(0, np.int64)]
        values: list[Floats] = [np.zeros(0)]
        sparse = self.sparse
        for number, weight, row in zip(sparse.numbers, sparse.recency, sparse.counts.rows, strict=True):
            where, own = self._row_scores(number, float(weight), row)
            places.append(where)
            values.append(own)
        return np.concatenate(places), np.concatenate(values)

    def _row_scores(
        self, number: int, weight: float, row: tuple[npt.NDArray[np.int32], Floats]
    ) -> tuple[Positions, Floats]:
        settings, events = self.settings.cooccurrence, self.sparse.counts.events
        columns, counted = row
        where = self.view.places(columns)
        there = where >= 0
        own = counted[there] * (
            self.settings.pairs * weight * max(float(events[number]), 1.0) ** -settings.source_power
        )
        if settings.target_power:
            own *= np.maximum(events[columns[there]], 1.0) ** -settings.target_power
        return where[there], own

    def explain(self, position: int) -> tuple[dict[str, float], list[tuple[int, str, float]]]:
        """The score of what lies at a position as a sum: of its parts, and of what single items of the history add.

        -> part: score; (position of the history's item, part, score). What is not an item's own is in the parts alone.
        """
        here = np.array([position])
        gates = float(self.view.gates(self.settings, self.sparse.counts.events)[position])
        own = self.view.towers.encoder.term_vectors([self.view.tokens(position)])
        by_word = gates * (self.sparse.words @ own.T).toarray()[:, 0]
        shares = [
            (where, "words", float(value))
            for where, value in zip(self.sparse.read, by_word, strict=True)
            if where is not None and value
        ]
        by_pair = []
        for number, where, weight, row in zip(
            self.sparse.numbers, self.sparse.counted, self.sparse.recency, self.sparse.counts.rows, strict=True
        ):
            places, values = self._row_scores(number, float(weight), row)
            if value := float(values[places == position].sum()):
                by_pair.append((where, "co-occurrence", value))
        parts = {
            "co-occurrence": sum(value for _, _, value in by_pair),
            "words": float(by_word.sum()),
            "dense": gates * float(self.dense(here)[0]),
            "repeat": float(self._repeat(here)[0]),
        }
        return {part: value for part, value in parts.items() if value}, by_pair + shares

    def _repeat(self, rows: Positions) -> Floats:
        """[len(rows)] What the history's own items get, where they may be answers."""
        out = np.zeros(len(rows))
        if not self.settings.exclude_seen and self.sparse.own:
            out[np.isin(rows, np.array(self.sparse.own))] += self.settings.seen
            out[rows == self.sparse.own[-1]] += self.settings.last_item
        return out

    def _few(self, spec: SearchSpec, answerable: Positions) -> Positions:
        """Candidates among those that may answer; all of them where there are hardly any."""
        view, n = self.view, len(self.view.snapshot.item_ids)
        allowed = np.zeros(view.size, np.bool_)
        allowed[answerable] = True
        wanted = min(n, DENSE_CANDIDATES + spec.k)
        masked = None if allowed[:n].all() else [allowed[:n]]
        dense, _ = view.snapshot.index.search(self.vector[None], wanted, masked)
        words = self._all_words()
        words[~allowed] = 0
        top = min(len(words), TERM_CANDIDATES + spec.k)
        best = np.argpartition(words, len(words) - top)[len(words) - top :]
        counted, _ = self.pair_scores()
        late = np.arange(n, view.size)
        rows = np.unique(np.concatenate([dense[0][dense[0] >= 0], best[words[best] > 0], counted, late]))
        rows = rows[allowed[rows]]
        return rows if len(rows) >= spec.k else answerable
