"""Estimates for candidates that never answered, against what they truly bring in a simulation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.catalogue.outcomes import Slot
from seqrec.encoder import load_model
from seqrec.errors import InputError
from service.live.state import Towers
from service.reports.off_policy import snips
from service.reports.receipts import Listed, make_receipt, read_receipt
from service.rules.ranking import Explore, Rules
from tests.service.live.test_filters import state_of
from tests.service.rules.test_ranking import answer_of, query

ARMS = 6


def policy(scores: Any, share: float) -> Any:
    """[n, ARMS] Probabilities: the best arm, or with `share` any."""
    made = np.full(scores.shape, share / ARMS)
    made[np.arange(len(scores)), scores.argmax(1)] += 1 - share
    return made


@pytest.fixture(scope="module")
def truth() -> float:
    """What the candidate brings, over very many contexts."""
    contexts = np.random.default_rng(1).normal(size=(1_000_000, ARMS))
    return float((policy(contexts, 0.1) / (1 + np.exp(2 - contexts))).sum(1).mean())


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_interval_contains_the_truth_as_often_as_it_says(truth: float, share: float) -> None:
    """500 logs of 2,000 answers; the logging policy prefers arms by another score than the candidate."""
    chance = np.random.default_rng(7)
    inside, errors, naive, supports = 0, [], [], []
    for _ in range(500):
        contexts = chance.normal(size=(2000, ARMS))
        click = 1 / (1 + np.exp(2 - contexts))  # of each arm
        logging = policy(chance.normal(size=contexts.shape), share)
        candidate = policy(contexts, 0.1)
        arm = (logging.cumsum(1) > chance.random((len(logging), 1))).argmax(1)
        rows = np.arange(len(arm))
        reward = (chance.random(len(arm)) < click[rows, arm]).astype(float)
        found = snips(reward, logging[rows, arm], candidate[rows, arm])
        assert found.interval is not None
        supports.append(found.support)
        inside += found.interval.low <= truth <= found.interval.high
        errors.append(found.estimate - truth)
        naive.append(reward.mean() - truth)
    assert 0.92 <= inside / 500 <= 0.98
    assert abs(np.mean(errors)) < 0.004
    assert np.mean(supports) == pytest.approx(1.0, abs=0.02)
    assert np.mean(naive) < -0.1  # what the log itself brought is no estimate of the candidate


def test_users_widen_the_interval() -> None:
    """Users who click always or never: places of one user say the same."""
    chance = np.random.default_rng(3)
    inside = {False: 0, True: 0}
    for _ in range(300):
        clicks = chance.random(200) < 0.3
        users = np.repeat(np.arange(200), 10)
        ones = np.full(len(users), 0.5)
        for of in (False, True):
            found = snips(clicks[users].astype(float), ones, ones, users.tolist() if of else None)
            assert found.interval is not None
            inside[of] += found.interval.low <= 0.3 <= found.interval.high
    assert inside[True] > 0.9 * 300 > 0.7 * 300 > inside[False]


def test_what_the_log_cannot_contain_shows_as_missing_support() -> None:
    """Half of the candidate's places are in no log."""
    found = snips([1.0, 0.0] * 100, [0.5] * 200, [0.5, 0.0] * 100)
    assert (found.estimate, found.support, found.effective) == (1.0, 0.5, 100.0)
    few = snips([1.0, 0.0], [0.5, 0.5], [0.5, 0.5])
    assert (few.estimate, few.interval) == (0.5, None)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (([1.0], [0.0], [0.5]), "propensities"),
        (([1.0], [1.5], [0.5]), "propensities"),
        (([1.0], [0.5], [1.5]), "candidate_probabilities"),
        (([1.0], [0.5], [0.0]), "candidate_probabilities"),
        (([], [], []), "candidate_probabilities"),
        (([float("nan")], [0.5], [0.5]), "rewards"),
        (([1.0, 1.0], [0.5], [0.5]), "rewards"),
        (([1.0], [0.5], [0.5], ["u", "v"]), "users"),
    ],
)
def test_what_is_no_log_is_refused(arguments: Any, field: str) -> None:
    with pytest.raises(InputError) as raised:
        snips(*arguments)
    assert raised.value.field == field


@pytest.mark.slow
def test_answers_and_their_ids_are_enough_to_estimate_a_candidate(bag_of_words_checkpoint: Path) -> None:
    """Answers with random places are logged by their ids; the candidate prefers what the log's best item is not."""
    towers = Towers(load_model(bag_of_words_checkpoint, device="cpu"))
    view = state_of(towers, "flat").view
    rules, m, slot = Rules(explore=Explore(0.5, random=4)), 4, Slot("home", 1, "", "", "model", "snapshot")
    ranking = [hit.position for hit in answer_of(view, Rules(), query(towers), 50)]
    click = dict(zip(ranking, np.linspace(0.1, 0.9, len(ranking)), strict=True))
    random.seed(5)
    rewards, propensities, candidate, worth = [], [], [], []
    for _ in range(3000):
        hits = answer_of(view, rules, query(towers), 2)
        listed = [Listed(view.item_id(hit.position), "model", False, hit.propensity) for hit in hits]
        receipt = read_receipt(b"secret", make_receipt(b"secret", slot, 0, listed), 60, "f")
        left = list(ranking)
        for hit in hits:
            propensities.append(receipt.propensity(view.item_id(hit.position)))
            candidate.append(float(hit.position == left[m - 1]))  # the last of the best m
            rewards.append(float(random.random() < click[hit.position]))
            worth.append(click[left[m - 1]])
            left.remove(hit.position)
    found = snips(rewards, [one or 0.0 for one in propensities], candidate)
    assert found.interval is not None
    assert found.interval.low < np.mean(worth) < found.interval.high
    assert found.interval.high - found.interval.low < 0.1
    assert found.support == pytest.approx(1.0, abs=0.15)
    assert np.mean(rewards) < found.interval.low
