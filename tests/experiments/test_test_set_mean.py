"""The mean over a whole test set, told from a random part."""

import numpy as np
import pytest

from experiments.evaluate.test_set_mean import predicted_mean


def test_the_mean_of_all_is_covered_and_its_error_is_smaller_than_that_of_a_part():
    rng, scores = np.random.default_rng(0), []
    for _ in range(1000):
        elbo = rng.normal(-120.0, 30.0, 400)
        log_p = 0.9 * elbo + 5.0 + rng.normal(0.0, 3.0, 400)
        known = rng.permutation(400)[:80]
        mean, error = predicted_mean(log_p[known], elbo, known)
        scores.append((mean - log_p.mean()) / error)
        assert error < 0.25 * np.std(log_p[known]) / 80**0.5
    assert abs(np.mean(scores)) < 4 / 1000**0.5
    assert abs(np.std(scores) - 1.0) < 4 / 2000**0.5 + 0.02  # Student's t of 78


def test_a_line_that_holds_gives_the_mean_exactly():
    elbo, known = np.array([-3.0, 5.0, -1.0, -2.0, 8.0]), np.array([3, 0, 2])
    mean, error = predicted_mean(2.0 * elbo[known] + 1.0, elbo, known)
    assert mean == pytest.approx(np.mean(2.0 * elbo + 1.0))
    assert error == pytest.approx(0.0, abs=1e-9)


def test_without_any_spread_of_the_covariate_it_is_the_mean_of_the_known():
    mean, error = predicted_mean(np.array([1.0, 2.0, 6.0]), np.ones(6), [0, 4, 5])
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(0.5 * np.sqrt(14.0 * (1 / 3 + 1 / 3)))
