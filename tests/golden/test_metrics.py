"""Our metrics compared with those of an independent library (metrics/ranx.json), user by user, to 1e-9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.dataset import Cases
from training.evaluation.metrics import ndcg, ranks, recall, reciprocal_rank
from training.evaluation.ranking import PESSIMISTIC, case_ranks

GOLDEN = json.loads((Path(__file__).parent / "metrics" / "ranx.json").read_text())
KS = GOLDEN["ks"]
WORDS = {"ndcg": "NDCG", "recall": "Recall", "mrr": "MRR"}


def read(case: str) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    record = GOLDEN["cases"][case]
    scores = np.array(record["scores_times_64"], dtype=np.float32) / 64
    return scores, [np.array(rows) for rows in record["relevant"]]


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_every_figure_of_every_user_is_that_of_ranx(case: str) -> None:
    scores, relevant = read(case)
    cases = Cases(np.arange(len(scores)), [np.array([0])] * len(scores), relevant)
    found = case_ranks(lambda numbers: scores[numbers].copy(), cases, scores.shape[1])["all items"].figures(KS)
    for ending, end in (("", "favourable"), (PESSIMISTIC, "pessimistic")):
        expected = GOLDEN["cases"][case][end]
        assert len(expected) == 3 * len(KS) + 1
        for name, values in expected.items():
            word, at, k = name.partition("@")
            np.testing.assert_allclose(found[f"{WORDS[word]}{at}{k}{ending}"], values, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("case", ["one", "one_tied"])
def test_the_short_forms_for_one_relevant_item_are_too(case: str) -> None:
    scores, relevant = read(case)
    both = ranks(scores, np.array([rows[0] for rows in relevant]))
    for rank, end in zip(both, ("favourable", "pessimistic"), strict=True):
        expected = GOLDEN["cases"][case][end]
        for k in KS:
            np.testing.assert_allclose(ndcg(rank, k), expected[f"ndcg@{k}"], rtol=0, atol=1e-9)
            np.testing.assert_allclose(recall(rank, k), expected[f"recall@{k}"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(reciprocal_rank(rank), expected["mrr"], rtol=0, atol=1e-9)


def test_the_ends_of_a_tie_differ_where_there_are_ties() -> None:
    same = {case: record["favourable"] == record["pessimistic"] for case, record in GOLDEN["cases"].items()}
    assert same == {"one": True, "one_tied": False, "several": True, "several_tied": False, "all_equal": False}
