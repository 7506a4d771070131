"""IVF and HNSW: the contract of every index, what is written and read again, and what a build asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from index.build.cli import index as index_command
from index.build.reindex import Request, make_snapshot
from index.snapshot.manifest import Manifest, record_digest
from index.snapshot.snapshot import SnapshotStore, open_snapshot
from index.vectors import approximate
from index.vectors.approximate import LEAST_VECTORS, ApproximateIndex, build_approximate, open_approximate
from index.vectors.base import VectorIndex
from index.vectors.factory import EXACT_UP_TO, INDEX_FILE, Choice, choose_factory
from index.vectors.recall import RecallSample
from seqrec.data.items import Item
from seqrec.errors import InputError, SnapshotError
from seqrec.metric import Metric
from tests.contracts.vector_index_contract import VectorIndexContract, vectors
from tests.index.conftest import Build

MANY = 1_200
WORDS = ("oak", "pine", "ash", "desk", "lamp", "mug", "tea", "red", "blue", "brass", "floor", "wall")


@pytest.fixture
def many_items() -> list[Item]:
    rng = np.random.default_rng(0)
    return [Item(f"i{row:04}", {"title": " ".join(rng.choice(WORDS, 4)) + f" {row}"}) for row in range(MANY)]


class _Made(VectorIndexContract):
    """With all effort an approximate index finds what exact search finds."""

    factory: str
    effort: str

    def make(self, base: npt.NDArray[np.float32], metric: Metric) -> VectorIndex:
        made = approximate.new_index(self.factory, base.shape[1], metric)
        if len(base) >= 4:
            made.train(base)
            made.add(base)
            index = ApproximateIndex(made, base, metric)
            index.set_search_params(self.effort)
            return index
        return ApproximateIndex(made, base, metric)  # nothing is in it: exact search answers


class TestIvf(_Made):
    factory, effort = "IVF4,Flat", "nprobe=4"


class TestHnsw(_Made):
    factory, effort = "HNSW16", "efSearch=512"


class TestCodesThatLoseSomething(_Made):
    factory, effort = "IVF4,SQfp16", "nprobe=4"


class TestMasksOfMany(TestIvf):
    """Lists are searched with the mask, which with few rows they are not."""

    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(approximate, "MASKED_EXACTLY", 0)


@pytest.fixture(params=["IVF32,Flat", "IVF32,SQ8", "HNSW16"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, npt.NDArray[np.float32], str]:
    base = vectors(3_000, dim=32)
    path = tmp_path / INDEX_FILE
    sample = RecallSample(base, Metric.COSINE)
    effort, recall = build_approximate(path, base, Metric.COSINE, request.param, sample, target=0.7)
    assert recall >= 0.7
    return path, base, effort


def test_it_is_tuned_written_and_read_again(written: tuple[Path, npt.NDArray[np.float32], str]) -> None:
    path, base, effort = written
    name, _, value = effort.partition("=")
    assert name in ("nprobe", "efSearch")
    assert int(value) > 1
    opened = open_approximate(path, base, Metric.COSINE, effort)
    assert RecallSample(base, Metric.COSINE).recall_of(opened) >= 0.7
    rows, scores = opened.search(base[:5], 10)
    np.testing.assert_allclose(scores[0], base[rows[0]] @ base[0], atol=1e-6)  # exact, whatever the codes lose
    assert (np.diff(scores, axis=1) <= 0).all()
    masks = [np.arange(len(base)) % 7 == 3] * 5
    rows, scores = opened.search(base[:5], 10, masks)
    expected = np.sort((base[:5] @ base.T)[:, masks[0]], axis=1)[:, :-11:-1]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_more_lists_are_searched_where_few_rows_are_allowed(
    written: tuple[Path, npt.NDArray[np.float32], str], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "MASKED_EXACTLY", 0)
    path, base, effort = written
    index = open_approximate(path, base, Metric.COSINE, effort)
    queries, mask = base[:200], np.random.default_rng(1).random(len(base)) < share
    masks = [mask] * len(queries)
    expected = np.sort((queries @ base.T)[:, mask], axis=1)[:, -10]
    rows, scores = index.search(queries, 10, masks)
    assert mask[rows].all()
    assert np.mean(scores >= expected[:, None] - 1e-5) >= 0.7, "the recall that the index was built for"
    candidates = index.candidates(queries[0], 50, mask)
    assert mask[candidates].all()
    assert len(set(candidates.tolist()) & set(rows[0].tolist())) >= 7


def test_rows_of_a_mask_that_lie_far_away_are_found(
    written: tuple[Path, npt.NDArray[np.float32], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is in the lists that a search without a mask reads."""
    monkeypatch.setattr(approximate, "MASKED_EXACTLY", 0)
    path, base, effort = written
    index = open_approximate(path, base, Metric.COSINE, effort)
    recalls = []
    for query in base[:50]:
        away = np.argsort(base @ query)[:1_000]
        mask = np.zeros(len(base), np.bool_)
        mask[away] = True
        _, scores = index.search(query[None], 10, [mask])
        recalls.append(np.mean(scores[0] >= np.sort(base[away] @ query)[-10] - 1e-5))
    assert np.mean(recalls) >= 0.7, "the recall that the index was built for"


def test_a_file_that_was_altered_is_refused(written: tuple[Path, npt.NDArray[np.float32], str]) -> None:
    path, base, effort = written
    with pytest.raises(SnapshotError, match=r"contains 3000 x 32, not \[2999, 32\]"):
        open_approximate(path, base[1:], Metric.COSINE, effort)
    content = path.read_bytes()
    path.write_bytes(b"nonsense" + content[8:])
    with pytest.raises(SnapshotError, match="was altered, or FAISS cannot read it"):
        open_approximate(path, base, Metric.COSINE, effort)


def test_more_effort_finds_more() -> None:
    base = vectors(3_000, dim=32)
    made = approximate.new_index("IVF64,Flat", 32, Metric.COSINE)
    made.train(base)
    made.add(base)
    index, sample = ApproximateIndex(made, base, Metric.COSINE), RecallSample(base, Metric.COSINE)
    recalls = []
    for effort in approximate.search_params(made):
        index.set_search_params(effort)
        recalls.append(sample.recall_of(index))
    assert recalls[0] < 0.5
    assert recalls[-1] == 1.0
    assert recalls == sorted(recalls)


@pytest.mark.slow
def test_a_target_that_is_not_reached_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = vectors(2_000, dim=32)
    sample = RecallSample(base, Metric.COSINE)
    effort, recall = build_approximate(tmp_path / "x", base, Metric.COSINE, "IVF8,PQ4x4", sample)
    assert effort == "nprobe=8"
    assert recall < 0.95
    assert "IVF8,PQ4x4 reaches recall" in caplog.text


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("annoy", "unknown index 'annoy'; there are flat, auto, and FAISS factory strings"),
        ("Flat", "unknown index 'Flat'"),
        ("IVFmany", "FAISS cannot build 'IVFmany' for 32 dimensions"),
        ("HNSW16,PQ7", "FAISS cannot build 'HNSW16,PQ7' for 32 dimensions: The dimension of the vector"),
    ],
)
def test_a_kind_that_there_is_not_is_refused_before_anything_is_done(
    build: Build, home: Path, kind: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"index: {reason}"):
        build(index=kind)
    assert SnapshotStore(home).list() == []


def test_too_few_vectors_for_the_lists_are_reported(build: Build, many_items: list[Item]) -> None:
    with pytest.raises(InputError, match="'IVF5000,Flat' cannot be built from 1200 vectors: Number of training points"):
        build(items=many_items, index="IVF5000,Flat")


@pytest.mark.slow
def test_a_snapshot_with_an_index_of_its_own(build: Build, home: Path, many_items: list[Item]) -> None:
    manifest = build(items=many_items, index="IVF16,Flat").manifest
    assert (manifest.index, manifest.index_requested, manifest.index_why) == (
        "IVF16,Flat",
        "IVF16,Flat",
        "as requested",
    )
    assert manifest.search_params.startswith("nprobe=")
    assert manifest.recall >= 0.95
    assert manifest.files[INDEX_FILE].size > 1_000
    snapshot = SnapshotStore(home).open(manifest.snapshot_id)
    assert isinstance(snapshot.index, ApproximateIndex)
    inverted = faiss.downcast_InvertedLists(snapshot.index.faiss_index.invlists)
    assert isinstance(inverted, faiss.OnDiskInvertedLists)  # mapped, not read
    rows, _ = snapshot.index.search(np.array(snapshot.vectors[:3]), 1)
    np.testing.assert_allclose((snapshot.vectors[rows[:, 0]] * snapshot.vectors[:3]).sum(1), 1, atol=1e-5)
    # A reindex requests the same again by default.
    assert make_snapshot(home, Request()).manifest.index == "IVF16,Flat"
    assert make_snapshot(home, Request(index="flat")).manifest.index == "flat"
    assert make_snapshot(home, Request()).manifest.index == "flat"


def test_every_byte_of_the_index_is_hashed(build: Build, home: Path, many_items: list[Item]) -> None:
    manifest = build(items=many_items, index="HNSW8").manifest
    path = SnapshotStore(home).path_of(manifest.snapshot_id)
    content = bytearray((path / INDEX_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (path / INDEX_FILE).write_bytes(content)
    with pytest.raises(SnapshotError, match=r"index\.faiss was altered: its sha256"):
        SnapshotStore(home).verify(manifest.snapshot_id)
    (path / INDEX_FILE).unlink()
    with pytest.raises(SnapshotError, match=r"index\.faiss is missing"):
        open_snapshot(path)


def test_auto_picks_by_size_and_says_why() -> None:
    assert choose_factory("auto", 20_000, 384) == Choice("flat", "20,000 x 384 are compared exactly up to 1,000,000")
    many = choose_factory("auto", 3_000_000, 384)
    assert many == Choice("IVF8192,SQ8", "3,000,000 x 384 are more than the 1,000,000 compared exactly")
    assert choose_factory("auto", EXACT_UP_TO // 64 + 1, 64).factory.startswith("IVF")
    few = choose_factory("IVF16,Flat", LEAST_VECTORS - 1, 384)
    assert few == Choice("flat", "999 vectors are too few for IVF16,Flat, which needs 1,000")


@pytest.mark.slow
def test_auto_is_asked_again_at_each_reindex(
    build: Build, home: Path, many_items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(items=many_items, index="auto").manifest
    assert (first.index, first.index_requested) == ("flat", "auto")
    monkeypatch.setattr("index.vectors.factory.EXACT_UP_TO", 32 * 1_000)
    second = make_snapshot(home, Request()).manifest
    assert (second.index, second.index_requested) == ("IVF128,SQ8", "auto")


def test_a_manifest_from_before_there_were_kinds_is_read(build: Build) -> None:
    manifest = build().manifest
    record = json.loads(manifest.to_json())
    for name in ("index_requested", "index_why", "search_params", "digest"):
        record.pop(name)
    old = Manifest.from_json(json.dumps(record | {"digest": record_digest(record)}))
    assert old == replace(manifest, index_why="")


def test_a_manifest_of_format_1_is_read(build: Build) -> None:
    manifest = replace(build().manifest, index="IVF16,Flat", index_requested="auto", search_params="nprobe=4")
    record = json.loads(manifest.to_json())
    record |= {"format": 1, "index_asked": record.pop("index_requested"), "index_effort": record.pop("search_params")}
    del record["digest"]
    assert Manifest.from_json(json.dumps(record | {"digest": record_digest(record)})) == manifest
    record["format"] = 3
    with pytest.raises(SnapshotError, match="format 3; this version reads formats 1 to 2"):
        Manifest.from_json(json.dumps(record | {"digest": record_digest(record)}))


def test_the_command_says_what_it_chose(
    home: Path,
    items_file: Path,
    bag_of_words_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    data = ["--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file)]
    index_command(["build", *data, "--index", "auto"])
    assert "index flat: 8 x 32 are compared exactly up to 12,000,000\n" in capsys.readouterr().out
    index_command(["build", *data, "--index", "auto", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["index"], printed["search_params"]) == ("flat", "")
    assert printed["index_why"].startswith("8 x 32 are compared exactly")
