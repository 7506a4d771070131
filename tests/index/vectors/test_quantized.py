"""int8: the contract of every index, and the answers of exact search however the numbers lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.build.reindex import Request, make_snapshot
from index.snapshot.snapshot import SnapshotStore
from index.vectors import quantized
from index.vectors.base import VectorIndex
from index.vectors.exact import ExactSearch, as_tensor
from index.vectors.quantized import QuantizedIndex, build_quantized, open_quantized
from index.vectors.recall import RecallSample
from seqrec.data.items import Item
from seqrec.errors import SnapshotError
from seqrec.metric import Metric
from tests.contracts.vector_index_contract import METRICS, VectorIndexContract, vectors
from tests.index.conftest import Build


def made(path: Path, base: npt.NDArray[np.float32], metric: Metric) -> QuantizedIndex:
    params, _ = build_quantized(path, base, metric, RecallSample(base, metric))
    return open_quantized(path, base, metric, params)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.faiss"


class TestInt8(VectorIndexContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = tmp_path / "index.faiss"
        monkeypatch.setattr(quantized, "_MOST_SHARE", 1)  # few rows: else all would be compared exactly

    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        return made(self.path, base, metric)


def outliers() -> npt.NDArray[np.float32]:
    base = vectors(4_000, dim=24)
    base[7, 3] = 40.0  # one number decides how coarse all others are
    return base


def alike() -> npt.NDArray[np.float32]:
    """A hundred rows each that differ by less than the rounding does."""
    return np.repeat(vectors(40, dim=24), 100, axis=0) + np.float32(1e-3) * vectors(4_000, dim=24)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("world", [lambda: vectors(4_000, dim=24), outliers, alike], ids=["plain", "outliers", "alike"])
def test_its_scores_are_the_exact_ones(world: object, metric: Metric, path: Path) -> None:
    base = world()  # type: ignore[operator]
    if metric is Metric.COSINE:
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
    index, queries = made(path, base, metric), np.concatenate([base[:20] + np.float32(0.1), -base[20:30]])
    for k in (1, 10, 100):
        rows, scores = index.search(queries, k)
        _, exact = ExactSearch(as_tensor(base), metric).search(queries, k)
        # Both compute in float32; of a long row the squared distance loses digits.
        np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=2e-5 + 1e-6 * float((base**2).sum(axis=1).max()))
        assert all(len(set(row)) == k for row in rows.tolist())


def test_it_reads_the_rounded_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = vectors(20_000, dim=32)
    index = made(path, base, Metric.DOT)

    def never(*_: object) -> None:
        raise AssertionError("all rows were compared exactly")

    monkeypatch.setattr(ExactSearch, "search", never)
    index.search(base[:5], 10)
    assert path.stat().st_size < 1.1 * base.nbytes / 4


def test_a_file_of_other_vectors_is_refused(path: Path) -> None:
    base = vectors(100)
    params, _ = build_quantized(path, base, Metric.DOT, RecallSample(base, Metric.DOT))
    with pytest.raises(SnapshotError, match="it belongs to another snapshot"):
        open_quantized(path, base[1:], Metric.DOT, params)
    with pytest.raises(SnapshotError, match="error="):
        open_quantized(path, base, Metric.DOT, "nprobe=3")
    path.write_bytes(b"nonsense")
    with pytest.raises(SnapshotError, match="FAISS cannot read it"):
        open_quantized(path, base, Metric.DOT, params)


def test_a_snapshot_with_it(build: Build, home: Path) -> None:
    items = [Item(f"i{row:04}", {"title": f"oak desk {row} {row % 17}"}) for row in range(1_200)]
    manifest = build(items=items, index="int8").manifest
    assert (manifest.index, manifest.recall) == ("int8", 1.0)
    snapshot = SnapshotStore(home).open(manifest.snapshot_id)
    assert isinstance(snapshot.index, QuantizedIndex)
    rows, _ = snapshot.index.search(np.array(snapshot.vectors[:3]), 1)
    np.testing.assert_allclose((snapshot.vectors[rows[:, 0]] * snapshot.vectors[:3]).sum(1), 1, atol=1e-5)
    assert make_snapshot(home, Request()).manifest.index == "int8"
