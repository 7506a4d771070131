"""The authors' ranking metrics (recformer/ranker.*), number by number, and the one place where we differ on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from training.evaluation.metrics import Metrics, ndcg, ranks, recall, reciprocal_rank

FOLDER = Path(__file__).parent / "recformer"
GOLDEN = json.loads((FOLDER / "ranker.json").read_text())
TENSORS = load_file(FOLDER / "ranker.safetensors")
MATRICES = ["no_ties", "ties", "all_equal", "with_excluded"]


def ranks_of(case: str) -> npt.NDArray[np.int64]:
    return ranks(TENSORS[f"{case}.scores"], TENSORS[f"{case}.labels"][:, 0])[0]


def averages(rank: npt.NDArray[np.int64]) -> dict[str, float]:
    return {
        "NDCG@10": float(ndcg(rank, 10).mean()),
        "Recall@10": float(recall(rank, 10).mean()),
        "NDCG@50": float(ndcg(rank, 50).mean()),
        "Recall@50": float(recall(rank, 50).mean()),
        "MRR": float(reciprocal_rank(rank).mean()),
    }


@pytest.mark.parametrize("case", MATRICES)
def test_ranks_are_the_authors(case: str) -> None:
    assert (ranks_of(case) - 1).tolist() == GOLDEN["cases"][case]["rank_from_zero"]


@pytest.mark.parametrize("case", MATRICES)
def test_metrics_are_the_authors(case: str) -> None:
    expected = GOLDEN["cases"][case]["metrics"]
    ours = averages(ranks_of(case))
    assert ours == pytest.approx({name: expected[name] for name in ours}, abs=1e-6)


def test_a_row_alone_is_the_authors() -> None:
    expected = GOLDEN["cases"]["single_row_of_no_ties"]["metrics"]
    ours = averages(ranks_of("no_ties")[:1])
    assert ours == pytest.approx({name: expected[name] for name in ours}, abs=1e-6)


def test_we_average_over_users_where_the_authors_average_over_batches() -> None:
    rank = ranks_of("no_ties")
    expected = GOLDEN["cases"]["no_ties_eval_in_batches_of_7"]["metrics"]
    batches = [averages(rank[begin : begin + 7]) for begin in (0, 7, 14)]
    theirs = {name: sum(batch[name] for batch in batches) / 3 for name in batches[0]}
    assert theirs == pytest.approx({name: expected[name] for name in theirs}, abs=1e-6)
    assert Metrics.of(rank, rank).ndcg == pytest.approx(GOLDEN["cases"]["no_ties"]["metrics"]["NDCG@10"], abs=1e-6)
    assert Metrics.of(rank, rank).ndcg < theirs["NDCG@10"] - 0.1


def test_all_scores_equal_is_perfect_for_the_authors_and_last_for_the_pessimist() -> None:
    favourable, pessimistic = ranks(TENSORS["all_equal.scores"], TENSORS["all_equal.labels"][:, 0])
    metrics = Metrics.of(favourable, pessimistic)
    assert (metrics.ndcg, metrics.ndcg_pessimistic) == (1.0, 0.0)
    assert pessimistic.tolist() == [60] * 16
    assert metrics.ties_matter
