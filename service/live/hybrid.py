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

from index.vectors.approximate import ApproximateIndex
from index.vectors.factory import FLAT
from index.vectors.flat import inner_products
from seqrec.hybrid.cooccurrence import Floats
from seqrec.hybrid.event_counts import HistoryCounts
from seqrec.hybrid.lexical import LAST
from seqrec.hybrid.scoring import term_weights
from seqrec.hybrid.settings import HybridSettings
from seqrec.text.item_text import TokenizedItem
from service.live.engines.base import EngineQuery, SearchEngine
from service.live.engines.merge import engine_rows
from service.live.search import Hit, SearchSpec, answerable, best_hits, leave_out
from service.live.state import View

Scores = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_NO_TERMS = np.zeros(0, np.int32)

DENSE_CANDIDATES = 300
"""Candidates requested from an approximate index; 300 keep 99 to 100 % of the exact NDCG@10."""
TERM_CANDIDATES = 500
PAIR_CANDIDATES = 1000
MOST_POSTINGS = 20_000
"""Postings that are read for candidates; rare terms have few, and weigh most."""

PARTS = ("co-occurrence", "words", "dense", "repeat")
"""Of a score."""

TermRow = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""Terms of an item, as places in the vocabulary, and their weights."""


@dataclass(frozen=True, eq=False)
class SparseQuery:
    """What a history searches with in addition to its dense vector.

    words: what each of its newest items adds to the term query, oldest first; read: their positions, None for plain
    attributes. numbers: its counted items, newest first, as the counts number them; counted: their positions; recency:
    their weights; counts: of one moment. own: positions of all its items, oldest first.
    """

    words: Sequence[TermRow]
    read: Sequence[int | None]
    numbers: Sequence[int]
    counted: Sequence[int]
    recency: Floats
    counts: HistoryCounts
    own: Sequence[int]

    @cached_property
    def terms(self) -> TermRow:
        """The term query: each term once."""
        ids = np.concatenate([_NO_TERMS, *(ids for ids, _ in self.words)])
        terms, places = np.unique(ids, return_inverse=True)
        values = np.concatenate([np.zeros(0, np.float32), *(values for _, values in self.words)])
        return terms, np.bincount(places, values, len(terms)).astype(np.float32)


def sparse_query(
    view: View,
    items: Sequence[tuple[TokenizedItem, int | None]],
    earlier: Sequence[int | None] = (),
    pairs: bool = True,
) -> SparseQuery | None:
    """Of a history, oldest first: each entry's tokens, and its position (None for plain attributes).

    `earlier`: positions of entries before these, whose words are not read, if these are `LAST`. `pairs` False leaves
    co-occurrence out: what is similar, not what comes next. None where the model is no hybrid.
    """
    settings = view.towers.encoder.hybrid
    if settings is None:
        return None
    newest = items[-LAST:]
    places = [*earlier, *(position for _, position in items)]
    recency = settings.cooccurrence.recency_weights(len(places))
    counted = [
        (number, position, float(weight))
        for position, weight in zip(reversed(places), recency, strict=False)
        if pairs and position is not None and (number := view.counts.id_of(view.item_id(position))) is not None
    ]
    numbers = [number for number, _, _ in counted]
    return SparseQuery(
        _word_parts(settings, [view.term_row(tokens, position) for tokens, position in newest]),
        [position for _, position in newest],
        numbers,
        [position for _, position, _ in counted],
        np.array([weight for _, _, weight in counted]),
        view.counts.read(numbers),
        [position for position in places if position is not None],
    )


def _word_parts(settings: HybridSettings, rows: Sequence[TermRow]) -> list[TermRow]:
    offsets = np.cumsum([0, *(len(ids) for ids, _ in rows)])
    ids = np.concatenate([_NO_TERMS, *(ids for ids, _ in rows)])
    values = np.concatenate([np.zeros(0, np.float32), *(values for _, values in rows)])
    weights = term_weights(settings, offsets, ids, values).astype(np.float32)
    return [(ids, values * weight) for (ids, values), weight in zip(rows, weights, strict=True)]


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
        view = self.view
        rows = answerable(view, spec) if spec.candidates is not None else None
        if rows is None and view.engine is not None:
            rows = self._by_engine(view.engine, spec)
        if rows is None and view.snapshot.manifest.index != FLAT:
            found = self._few(spec)
            rows = found if len(found) >= spec.k else None
        if rows is not None:
            return best_hits(view, self.scores(rows), spec.k, rows)
        scores = self.all_scores()
        leave_out(view, spec, scores)
        return best_hits(view, scores, spec.k)

    def all_scores(self) -> Scores:
        """[size] of all positions; one pass over the dense vectors, all else by what the query has."""
        view, out = self.view, self._all_dense()
        places, values = self.word_scores()
        if self.settings.cold_boost:
            gates = view.gates(self.sparse.counts.events)
            out *= gates
            values = values * gates[places]
        np.add.at(out, places, values)
        places, counted = self.pair_scores
        np.add.at(out, places, counted.astype(np.float32))
        own = np.unique(np.array(self.sparse.own, dtype=np.int64))
        out[own] += self._repeat(own).astype(np.float32)
        return out

    def scores(self, rows: Positions) -> Scores:
        """[len(rows)] of these positions."""
        text = self.dense(rows) + self.words(rows)
        if self.settings.cold_boost:
            text *= self.view.gates(self.sparse.counts.events)[rows]
        pairs = self._summed(*self.pair_scores)[rows]
        return np.asarray(text + pairs + self._repeat(rows), dtype=np.float32)

    def dense(self, rows: Positions) -> Scores:
        """[len(rows)]"""
        if not self.vector.any():
            return np.zeros(len(rows), np.float32)
        if len(rows) * 4 > self.view.size:  # most of them: read the matrix as it lies
            return self._all_dense()[rows]
        return np.asarray(self.view.vectors(rows.tolist()) @ self.vector, dtype=np.float32)

    def _all_dense(self) -> Scores:
        """[size]"""
        view, n = self.view, len(self.view.snapshot.item_ids)
        out = np.zeros(view.size, np.float32)
        if self.vector.any():
            inner_products(view.snapshot.vectors, np.ascontiguousarray(self.vector, np.float32), out[:n])
            np.matmul(view.delta_vectors, self.vector, out=out[n:])
        return out

    def words(self, rows: Positions) -> Scores:
        """[len(rows)] From the terms of each: an exact sum over a few rows needs no long postings."""
        view, n = self.view, len(self.view.snapshot.item_ids)
        out = np.zeros(len(rows), np.float32)
        if view.snapshot.terms is None:
            return out
        terms, weights = self.sparse.terms
        early = np.flatnonzero(rows < n)
        own, values, ends = view.snapshot.terms.items.rows(rows[early])
        query = np.zeros(view.snapshot.terms.width, np.float32)
        query[terms] = weights
        sums = np.concatenate([[0.0], np.cumsum(values * query[own], dtype=np.float64)])
        out[early] = np.diff(sums[ends])
        if len(early) < len(rows):
            late = rows >= n
            out[late] = self._delta_words[rows[late] - n]
        return out

    def word_scores(self, most: int | None = None) -> tuple[Positions, Scores]:
        """Positions, and what each term of the query adds there, end to end; positions may repeat.

        `most`: of the rarest terms only, which together have no more positions than that.
        """
        view, (terms, weights) = self.view, self.sparse.terms
        if view.snapshot.terms is None or not len(terms):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        postings = view.snapshot.terms.postings
        if most is not None:
            lengths = postings.offsets[terms + 1] - postings.offsets[terms]
            rarest = np.argsort(lengths, kind="stable")
            rarest = np.sort(rarest[np.cumsum(lengths[rarest]) <= most])
            terms, weights = terms[rarest], weights[rarest]
        bounds = zip(postings.offsets[terms].tolist(), postings.offsets[terms + 1].tolist(), strict=True)
        rows = [slice(*of) for of in bounds]  # what adds to one place keeps the order of the terms
        late = self._delta_words if most is None else view.delta_words(terms, weights)
        there = np.flatnonzero(late)
        places = np.concatenate([*(postings.ids[row] for row in rows), len(view.snapshot.item_ids) + there])
        values = np.concatenate([postings.weights[row] for row in rows])
        values *= np.repeat(weights, [row.stop - row.start for row in rows])
        return places.astype(np.int64, copy=False), np.concatenate([values, late[there]])

    @cached_property
    def _delta_words(self) -> Scores:
        """[length]"""
        return self.view.delta_words(*self.sparse.terms)

    def _summed(self, places: Positions, values: npt.NDArray[np.floating]) -> Scores:
        """[size] At each position the sum of its values. Memory that is not written to costs nothing."""
        out = np.zeros(self.view.size, np.float32)
        np.add.at(out, places, values.astype(np.float32))
        return out

    @cached_property
    def pair_scores(self) -> tuple[Positions, Floats]:
        """Positions, and what each item of the history adds to K there, end to end; positions may repeat."""
        places, values, _ = self._pairs
        return places, values

    @cached_property
    def _pairs(self) -> tuple[Positions, Floats, Positions]:
        """As `pair_scores`, and which of the history's counted items adds it: places in `numbers`."""
        settings, sparse = self.settings.cooccurrence, self.sparse
        events, rows = sparse.counts.events, sparse.counts.rows
        factors = [
            self.settings.pairs * weight * max(float(events[number]), 1.0) ** -settings.source_power
            for number, weight in zip(sparse.numbers, sparse.recency.tolist(), strict=True)
        ]
        columns = np.concatenate([_NO_TERMS, *(columns for columns, _ in rows)])
        values = np.concatenate([np.zeros(0), *(counted for _, counted in rows)])
        by = np.repeat(np.arange(len(rows)), [len(columns) for columns, _ in rows])
        values = values * np.array(factors)[by]
        if settings.target_power:
            values *= np.maximum(events[columns], 1.0) ** -settings.target_power
        places = self.view.places(columns)
        there = places >= 0
        return (places, values, by) if there.all() else (places[there], values[there], by[there])

    def explain(self, position: int) -> tuple[dict[str, float], list[tuple[int, str, float]]]:
        """The score of what lies at a position as a sum: of its parts, and of what single items of the history add.

        -> part: score; (position of the history's item, part, score). What is not an item's own is in the parts alone.
        """
        here = np.array([position])
        gates = float(self.view.gates(self.sparse.counts.events)[position]) if self.settings.cold_boost else 1.0
        own_ids, weights = self.view.term_row(self.view.tokens(position), position)
        of_term = dict(zip(own_ids.tolist(), weights.tolist(), strict=True))
        by_word = [
            gates
            * sum(value * of_term.get(term, 0.0) for term, value in zip(*map(np.ndarray.tolist, row), strict=True))
            for row in self.sparse.words
        ]
        shares = [
            (where, "words", value)
            for where, value in zip(self.sparse.read, by_word, strict=True)
            if where is not None and value
        ]
        places, values, by = self._pairs
        sums = np.bincount(by[places == position], values[places == position], len(self.sparse.numbers)).tolist()
        by_pair = [
            (where, "co-occurrence", value) for where, value in zip(self.sparse.counted, sums, strict=True) if value
        ]
        parts = {
            "co-occurrence": sum(value for _, _, value in by_pair),
            "words": sum(by_word),
            "dense": gates * float(self.dense(here)[0]),
            "repeat": float(self._repeat(here)[0]),
        }
        return {part: value for part, value in parts.items() if value}, by_pair + shares

    def main_parts(self, rows: Positions) -> list[str]:
        """The part that adds most to the score of each of these positions; "" where none adds anything."""
        text = np.stack([self.words(rows), self.dense(rows)])
        if self.settings.cold_boost:
            text *= self.view.gates(self.sparse.counts.events)[rows]
        parts = np.vstack([self._summed(*self.pair_scores)[rows], text, self._repeat(rows)])
        names = (*PARTS, "")
        return [names[part] for part in np.where(parts.max(axis=0) > 0, parts.argmax(axis=0), len(PARTS))]

    def _repeat(self, rows: Positions) -> Floats:
        """[len(rows)] What the history's own items get, where they may be answers."""
        out = np.zeros(len(rows))
        if not self.settings.exclude_seen and self.sparse.own:
            out[np.isin(rows, np.array(self.sparse.own))] += self.settings.seen
            out[rows == self.sparse.own[-1]] += self.settings.last_item
        return out

    def _few(self, spec: SearchSpec) -> Positions:
        """Candidates that may answer: the best by dense vectors, by rare words and by co-occurrence, and the delta."""
        view, n = self.view, len(self.view.snapshot.item_ids)
        allowed, masked = view.shown, None
        more = min(len(spec.excluded), DENSE_CANDIDATES)
        if spec.passed is not None:
            allowed = allowed & spec.passed.by_position
            masked = allowed[:n]
        index, wanted = view.snapshot.index, min(n, DENSE_CANDIDATES + spec.k + more)
        if isinstance(index, ApproximateIndex):
            dense = index.candidates(self.vector, wanted, masked)
        else:
            dense = index.search(self.vector[None], wanted, None if masked is None else [masked])[0][0]
        words = self._best(*self.word_scores(MOST_POSTINGS), TERM_CANDIDATES + more)
        counted = self._best(*self.pair_scores, PAIR_CANDIDATES + more)
        rows = _distinct(np.concatenate([dense[dense >= 0], words, counted, np.arange(n, view.size)]))
        rows = rows[allowed[rows]]
        kept: Positions = rows[~np.isin(rows, list(spec.excluded))] if spec.excluded else rows
        return kept

    def _by_engine(self, engine: SearchEngine, spec: SearchSpec) -> Positions:
        """The same candidates, of which the engine finds those by dense vectors and by words."""
        view, n = self.view, len(self.view.snapshot.item_ids)
        only = None if spec.passed is None else spec.passed.filter
        excluded = [position for position in spec.excluded if position < n]
        more = spec.k + min(len(excluded), DENSE_CANDIDATES)
        terms, weights = self.sparse.terms
        by_parts = {
            "dense": EngineQuery(DENSE_CANDIDATES + more, self.vector, None, only, excluded),
            "words": EngineQuery(TERM_CANDIDATES + more, None, (terms, weights), only, excluded),
        }
        if view.snapshot.terms is None or not (weights > 0).any():
            del by_parts["words"]
        asked = list(by_parts.values())
        found = engine_rows(engine, asked, view.is_shown, lambda i, pairs, lowest: len(pairs) >= asked[i].k // 2)
        counted = self._best(*self.pair_scores, PAIR_CANDIDATES + more)
        named = [np.array([row for row, _ in pairs], np.int64) for pairs in found]
        own = np.unique(np.array(self.sparse.own, dtype=np.int64))
        rows = _distinct(np.concatenate([*named, counted, own, np.arange(n, view.size)]))
        rows = rows[view.shown[rows]]
        rows = rows[~np.isin(rows, list(spec.excluded))] if spec.excluded else rows
        return rows if spec.passed is None else np.asarray(rows[spec.passed.of(rows)])

    def _best(self, places: Positions, values: npt.NDArray[np.floating], most: int) -> Positions:
        """The positions with the largest sums of values, in no order."""
        rows = _distinct(places)
        if len(rows) <= most:
            return rows
        sums = self._summed(places, values)[rows]
        best: Positions = rows[np.argpartition(sums, len(sums) - most)[len(sums) - most :]]
        return best


def _distinct(places: Positions) -> Positions:
    """Each once, ascending. np.unique hashes, which takes ten times as long as sorting tens of thousands of numbers."""
    ordered = np.sort(places)
    kept: Positions = ordered[np.concatenate([np.ones(min(1, len(ordered)), np.bool_), ordered[1:] != ordered[:-1]])]
    return kept
