"""What every search engine holds to, against brute force. Subclass it and say how one is made of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.snapshot.snapshot import Snapshot
from seqrec.metric import Metric
from service.live.engines.base import EngineQuery, Found, SearchEngine
from service.live.filter_language import parse_filter
from tests.service.live.test_filters import conditions, meets

LIST_ITEM = {"title": "pine", "tags": [f"{i}" for i in range(1200)], "brand": "Acme"}
"""More values than an engine takes of one item."""
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]  # each subclass runs the test


class SearchEngineContract:
    def make(self, snapshot: Snapshot) -> SearchEngine:
        raise AssertionError("a subclass says how an engine is made")

    @pytest.fixture
    def engine(self, snapshot: Snapshot) -> SearchEngine:
        return self.make(snapshot)

    @pytest.fixture
    def hybrid_engine(self, hybrid_snapshot: Snapshot) -> SearchEngine:
        return self.make(hybrid_snapshot)

    @settings(max_examples=60, deadline=None, suppress_health_check=SUPPRESSED)
    @given(data=st.data())
    def test_dense_with_filter_and_exclusions(
        self, snapshot: Snapshot, engine: SearchEngine, data: st.DataObject
    ) -> None:
        n, rng = len(snapshot.item_ids), np.random.default_rng(data.draw(st.integers(0, 5)))
        queries, wanted = [], []
        for _ in range(data.draw(st.integers(1, 3), label="queries")):
            vector = rng.standard_normal(snapshot.manifest.dim).astype(np.float32)
            one = data.draw(st.none() | conditions, label="filter")
            excluded = data.draw(st.lists(st.integers(0, n - 1), max_size=5, unique=True), label="excluded")
            k = data.draw(st.sampled_from([1, 3, 10, 100]), label="k")
            only = None if one is None else parse_filter(one, "filter", 100)
            queries.append(EngineQuery(k, vector, None, only, excluded))
            wanted.append(one)
        for query, one, found in zip(queries, wanted, engine.search(queries), strict=True):
            check(snapshot, query, one, found)

    def test_terms(self, hybrid_snapshot: Snapshot, hybrid_engine: SearchEngine) -> None:
        snapshot, terms = hybrid_snapshot, hybrid_snapshot.terms
        assert terms is not None
        for row in (0, 3, 8):
            query = terms.items.row(row)
            scores = np.zeros(len(snapshot.item_ids), np.float32)
            for other in range(len(scores)):
                own = dict(zip(*map(np.ndarray.tolist, terms.items.row(other)), strict=True))
                scores[other] = sum(w * own.get(t, 0.0) for t, w in zip(*map(np.ndarray.tolist, query), strict=True))
            excluded = [row]
            scores[[other for other in range(len(scores)) if other == row or not snapshot.available[other]]] = 0
            with_zero = (
                np.append(query[0], np.setdiff1d(np.arange(terms.width), query[0])[:1]),
                np.append(query[1], 0),
            )
            asked = EngineQuery(
                5, None, (with_zero[0].astype(np.int32), with_zero[1].astype(np.float32)), None, excluded
            )
            [found] = hybrid_engine.search([asked])
            expected = np.sort(scores[scores > 0])[::-1][:5]
            np.testing.assert_allclose(found.scores, expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(scores[found.rows], found.scores, rtol=0, atol=1e-5)

    def test_nothing_to_find(self, snapshot: Snapshot, engine: SearchEngine) -> None:
        vector = np.ones(snapshot.manifest.dim, np.float32)
        everything = range(len(snapshot.item_ids))
        nobody = parse_filter({"brand": "nobody"}, "filter", 10)
        for query in (EngineQuery(3, vector, None, None, everything), EngineQuery(3, vector, None, nobody)):
            [found] = engine.search([query])
            assert len(found.rows) == len(found.scores) == 0
        assert engine.search([]) == []

    def test_known_attributes(self, engine: SearchEngine) -> None:
        assert engine.has_attribute("brand")
        assert not engine.has_attribute("br\"and' or true")
        assert not engine.has_attribute("br\"and' or true")


def check(snapshot: Snapshot, query: EngineQuery, wanted: Mapping[str, Any] | None, found: Found) -> None:
    assert query.vector is not None
    scores = Metric(snapshot.manifest.metric).scores(query.vector[None], np.asarray(snapshot.vectors))[0]
    allowed = [
        row
        for row in range(len(snapshot.item_ids))
        if snapshot.available[row]
        and row not in set(query.excluded)
        and (wanted is None or meets(snapshot.item(row).attributes, wanted))
    ]
    expected = np.sort(scores[allowed])[::-1][: query.k]
    assert set(found.rows.tolist()) <= set(allowed)
    assert len(set(found.rows.tolist())) == len(found.rows)
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(scores[found.rows], found.scores, rtol=0, atol=1e-4)
