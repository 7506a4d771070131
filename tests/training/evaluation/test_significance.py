from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.significance import interval, randomization_p, resampled_means


def test_intervals_are_those_of_the_normal_approximation_where_it_holds() -> None:
    values = np.random.default_rng(0).random((2000, 2))
    means = resampled_means(values, [np.ones(2000, np.bool_)], 1000, seed=1)[0]
    low, high = interval(means)
    error = values.std(axis=0) / np.sqrt(2000)
    np.testing.assert_allclose(low, values.mean(axis=0) - 1.96 * error, atol=0.25 * error[0])
    np.testing.assert_allclose(high, values.mean(axis=0) + 1.96 * error, atol=0.25 * error[0])


def test_resamples_are_plain_draws_of_users_and_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(12.0).reshape(6, 2)
    group = np.array([True, False, True, True, False, False])
    drawn = np.random.default_rng(3).integers(6, size=(40, 6))
    whole = resampled_means(values, [np.ones(6, np.bool_), group], 40, seed=3)
    np.testing.assert_allclose(whole[0], values[drawn].mean(axis=1))
    for users, mean in zip(drawn, whole[1], strict=True):
        inside = users[group[users]]
        np.testing.assert_allclose(mean, values[inside].mean(axis=0) if len(inside) else np.nan)
    monkeypatch.setattr("training.evaluation.significance.NUMBERS_AT_ONCE", 6 * 7)  # draws do not depend on the chunks
    np.testing.assert_array_equal(resampled_means(values, [group], 40, seed=3)[0], whole[1])
    assert not np.array_equal(resampled_means(values, [group], 40, seed=4)[0], whole[1])


@pytest.mark.slow
def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        sample = rng.exponential(size=(150, 1))
        low, high = interval(resampled_means(sample, [np.ones(150, np.bool_)], 300, seed=trial)[0])
        inside += bool(low[0] <= 1 <= high[0])
    assert 180 <= inside <= 199


def test_of_nobody_nothing_is_known() -> None:
    means = resampled_means(np.zeros((0, 2)), [np.zeros(0, np.bool_)], 5, seed=0)
    assert np.isnan(means).all()
    assert np.isnan(interval(means[0])).all()


def test_p_is_that_of_all_sign_patterns() -> None:
    differences = np.array([[0.5], [0.25], [-0.125], [1.0], [0.75], [0.0], [0.5]])
    patterns = np.array(np.meshgrid(*[[-1.0, 1.0]] * 7)).reshape(7, -1).T
    exact = (np.abs(patterns @ differences) >= np.abs(differences.sum())).mean()
    assert randomization_p(differences, 20_000, seed=0)[0] == pytest.approx(exact, abs=0.01)


def test_p_is_never_0_is_1_without_a_difference_and_even_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    assert randomization_p(np.ones((50, 1)), 999, seed=0)[0] == 1 / 1000
    assert randomization_p(np.zeros((50, 1)), 99, seed=0)[0] == 1
    p = randomization_p(rng.normal(size=(80, 400)), 400, seed=0)
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert p.mean() == pytest.approx(0.5, abs=0.06)
