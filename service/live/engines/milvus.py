"""The search engine of a snapshot whose vectors are in Milvus. What a filter passes is checked once more here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from index.engines.attributes import name_token
from index.engines.milvus import MOST_ROWS, Milvus
from index.snapshot.snapshot import Snapshot
from seqrec.metric import Metric
from service.live.engines.base import EngineQuery, Found
from service.live.engines.expressions import expression_of
from service.live.filters import SnapshotFilters


class MilvusEngine:
    def __init__(self, milvus: Milvus, snapshot: Snapshot) -> None:
        self._milvus, self._snapshot = milvus, snapshot
        self._filters = SnapshotFilters(snapshot)
        self._squared = Metric(snapshot.manifest.metric) is Metric.L2
        self._attributes: dict[str, bool] = {}

    def search(self, queries: Sequence[EngineQuery]) -> list[Found]:
        found: dict[int, Found] = {}
        texts = ["" if query.filter is None else expression_of(query.filter) for query in queries]
        keys = [(q.vector is None, text, sorted(q.excluded)) for q, text in zip(queries, texts, strict=True)]
        # Those that differ in their vectors only are one call, which Milvus computes together.
        for (sparse, text, excluded), group in groupby(
            sorted(range(len(queries)), key=keys.__getitem__), keys.__getitem__
        ):
            rows = list(group)
            k = max(queries[row].k for row in rows)
            pages = self._ask(sparse, [queries[row] for row in rows], k, text, excluded)
            for row, page in zip(rows, pages, strict=True):
                found[row] = self._filled(queries[row], text, page, min(k, MOST_ROWS))
        return [found[row] for row in range(len(queries))]

    def has_attribute(self, name: str) -> bool:
        known = self._attributes.get(name)
        if known is None:
            expression = f'array_contains(tokens, "{name_token(name)}")'
            known = self._milvus.any_row(self._snapshot.id, expression)
            if len(self._attributes) < 10_000:  # invented names fill no memory
                self._attributes[name] = known
        return known

    def _filled(self, query: EngineQuery, text: str, page: Found, asked: int) -> Found:
        """The first page, and the next ones until k rows are found: a filter may be pushed down in part only."""
        excluded = set(query.excluded)
        rows, scores = self._checked(page, query)
        while len(rows) < query.k and len(page.rows) == asked:
            excluded.update(page.rows.tolist())
            asked = min(2 * asked, MOST_ROWS)
            [page] = self._ask(query.vector is None, [query], asked, text, sorted(excluded))
            more = self._checked(page, query)
            rows, scores = np.concatenate([rows, more.rows]), np.concatenate([scores, more.scores])
        return Found(rows[: query.k], scores[: query.k])

    def _checked(self, found: Found, query: EngineQuery) -> Found:
        """Only what the filter passes."""
        if query.filter is None or not len(found.rows):
            return found
        kept = self._filters.passing(query.filter, found.rows)
        return Found(found.rows[kept], found.scores[kept])

    def _ask(
        self, sparse: bool, queries: Sequence[EngineQuery], k: int, text: str, excluded: Sequence[int]
    ) -> list[Found]:
        conditions = ["available == true", *([f"({text})"] if text else [])]
        if excluded:
            conditions.append(f"row not in {list(excluded)}")
        data = [_terms(query) if sparse else query.vector for query in queries]
        field = "terms" if sparse else "dense"
        answers = self._milvus.search(self._snapshot.id, field, data, k, " and ".join(conditions))
        if sparse:  # Milvus adds rows without any of the terms
            return [Found(rows[scores > 0], scores[scores > 0]) for rows, scores in answers]
        return [Found(rows, -scores if self._squared else scores) for rows, scores in answers]


def _terms(query: EngineQuery) -> dict[int, float]:
    assert query.terms is not None
    terms, weights = query.terms
    return dict(zip(terms[weights > 0].tolist(), weights[weights > 0].tolist(), strict=True))
