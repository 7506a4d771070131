"""Which variant a user gets."""

from __future__ import annotations

from collections import Counter

import pytest

from service.rules.experiments import Experiment, Variant

USERS = [f"user-{n}" for n in range(20_000)]


def assigned(holdout: float = 0.0, name: str = "prices", **weights: float) -> dict[str, str]:
    experiment = Experiment(name, [Variant(variant, weight, {}) for variant, weight in weights.items()], holdout)
    found = {user: experiment.variant_of(user) for user in USERS}
    return {user: "holdout" if variant is None else variant.name for user, variant in found.items()}


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 8, "b": 1, "c": 1}, {"a": 0.3, "b": 0.0, "c": 0.7}])
def test_shares_are_those_of_the_weights(weights: dict[str, float]) -> None:
    counted = Counter(assigned(**weights).values())
    for name, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(counted[name] / len(USERS) - expected) < 4 * (expected * (1 - expected) / len(USERS)) ** 0.5 + 1e-9


def test_a_change_of_weights_moves_as_few_users_as_possible() -> None:
    before, after = assigned(a=1, b=1), assigned(a=1, b=3)
    moved = Counter((before[user], after[user]) for user in USERS if before[user] != after[user])
    assert set(moved) == {("a", "b")}
    assert abs(moved["a", "b"] / len(USERS) - 0.25) < 0.02  # from a half to a quarter
    with_third = assigned(a=1, b=1, c=1)
    assert {with_third[user] for user in USERS if before[user] != with_third[user]} == {"c"}


def test_a_larger_holdout_lets_nobody_go() -> None:
    small, large = assigned(0.05, a=1, b=1), assigned(0.2, a=1, b=1)
    assert abs(Counter(large.values())["holdout"] / len(USERS) - 0.2) < 0.012
    assert all(large[user] == "holdout" for user in USERS if small[user] == "holdout")
    assert all(large[user] == small[user] for user in USERS if large[user] != "holdout")


def test_another_experiment_divides_anew() -> None:
    one, other = assigned(a=1, b=1), assigned(name="colours", a=1, b=1)
    same = sum(one[user] == other[user] for user in USERS)
    assert abs(same / len(USERS) - 0.5) < 0.02
