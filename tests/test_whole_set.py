"""The mean over a whole test set, told from a part that is not random."""

import numpy as np
import pytest

from experiments.run.whole_set import predicted_mean


def sorted_population(rng, num=400):
    """Log p(x) and ELBOs whose first images are the worst, as classes in turn are."""
    elbo = np.sort(rng.normal(-120.0, 30.0, num))
    return 0.9 * elbo + 5.0 + rng.normal(0.0, 3.0, num), elbo


def test_the_mean_of_all_is_covered_where_the_mean_of_a_part_is_far_off():
    rng, scores = np.random.default_rng(0), []
    for _ in range(1000):
        log_p, elbo = sorted_population(rng)
        mean, error = predicted_mean(log_p[:80], elbo)
        scores.append((mean - log_p.mean()) / error)
        part = log_p[:80]
        assert part.mean() + 10.0 * part.std() / 80**0.5 < log_p.mean()
    assert abs(np.mean(scores)) < 4 / 1000**0.5
    assert abs(np.std(scores) - 1.0) < 4 / 2000**0.5 + 0.02  # Student's t of 78


def test_a_line_that_holds_gives_the_mean_exactly():
    elbo = np.array([-3.0, -1.0, -2.0, 5.0, 8.0])
    mean, error = predicted_mean(2.0 * elbo[:3] + 1.0, elbo)
    assert mean == pytest.approx(np.mean(2.0 * elbo + 1.0))
    assert error == pytest.approx(0.0, abs=1e-9)


def test_without_any_spread_of_the_covariate_it_is_the_mean_of_the_known():
    mean, error = predicted_mean(np.array([1.0, 2.0, 6.0]), np.ones(6))
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(0.5 * np.sqrt(14.0 * (1 / 3 + 1 / 3)))
