"""Puts snapshots into the external vector engine, where SEQREC_MILVUS_URL names one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from index.engines.attributes import engine_attributes
from index.engines.milvus import Milvus
from index.snapshot.snapshot import Snapshot
from index.vectors.base import Allowed, Rows, Vectors, nothing
from index.vectors.factory import FLAT
from index.vectors.recall import RecallSample
from seqrec.metric import Metric

_BATCH_BYTES = 16 * 1024 * 1024
"""Of vectors, in one insert; Milvus takes 64 MiB."""


def fill(engine: Milvus, snapshot: Snapshot) -> None:
    """Make the snapshot's collection, unless it is there. Raises EngineUnavailable."""
    manifest = snapshot.manifest
    exact, metric = manifest.index == FLAT, Metric(manifest.metric)
    engine.fill(snapshot.id, manifest.dim, metric, exact, snapshot.terms is not None, _batches(snapshot))


def engine_recall(engine: Milvus, snapshot: Snapshot) -> float:
    """Recall@10 against exact search, with items as queries. Raises SnapshotError if it lacks the snapshot."""
    metric = Metric(snapshot.manifest.metric)
    return RecallSample(snapshot.vectors, metric).recall_of(_EngineIndex(engine, snapshot.id))


class _EngineIndex:
    """A collection as an index, to measure it; its scores are not used."""

    def __init__(self, engine: Milvus, snapshot_id: str) -> None:
        self._engine, self._snapshot_id = engine, snapshot_id

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        rows, scores = nothing(len(queries), k)
        for at, (found, own) in enumerate(self._engine.search(self._snapshot_id, "dense", list(queries), k, "")):
            rows[at, : len(found)], scores[at, : len(found)] = found, own
        return rows, scores


def _batches(snapshot: Snapshot) -> Iterator[list[dict[str, Any]]]:
    n = len(snapshot.item_ids)
    size = max(1, min(2000, _BATCH_BYTES // (4 * snapshot.manifest.dim)))
    for begin in range(0, n, size):
        yield [_record(snapshot, row) for row in range(begin, min(n, begin + size))]


def _record(snapshot: Snapshot, row: int) -> dict[str, Any]:
    own = engine_attributes(snapshot.item(row).attributes)
    record: dict[str, Any] = {
        "row": row,
        "dense": np.array(snapshot.vectors[row]),
        "available": bool(snapshot.available[row]),
        "wide": own.wide,
        "tokens": own.tokens,
        "numbers": own.numbers,
    }
    if snapshot.terms is not None:
        terms, weights = snapshot.terms.items.row(row)
        record["terms"] = dict(zip(terms.tolist(), weights.tolist(), strict=True))
    return record
