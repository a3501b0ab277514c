"""Paths other than from prior to posterior, on a normal mean; log Z on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

from ais_jax import (
    AnnealingPath,
    between,
    bounded,
    estimate_log_z,
    log_normalizer,
    prequential,
    tempered,
)
from ais_jax.evidence import stepping

KEY = jax.random.key(0)
Y = np.array([1.2, 0.3, 2.2, -0.4])
SETTINGS = {"num_chains": 100, "num_temperatures": 32, "fit_base": False}


def log_likelihoods(z):
    return norm.logpdf(Y, z["mean"])


def posterior(scale):
    """Of the mean of Y, under a normal prior of this scale."""

    def log_prior(z):
        return norm.logpdf(z["mean"], 0.0, scale)

    return AnnealingPath(
        lambda key: {"mean": scale * jax.random.normal(key)},
        log_prior,
        lambda z: log_prior(z) + jnp.sum(log_likelihoods(z)),
    )


def evidence(scale, num=4, power=1.0):
    """Of the first data, with the likelihood to a power."""
    y = Y[:num]
    covariance = np.eye(num) / power + scale**2
    found = stats.multivariate_normal(np.zeros(num), covariance).logpdf(y)
    constant = -0.5 * power * np.log(2.0 * np.pi)
    return found + num * (constant + 0.5 * np.log(2.0 * np.pi / power))


def is_right(result, exact):
    return abs(result.log_z - exact) < 4.0 * result.standard_error < 0.3


def test_data_are_taken_in_one_after_another():
    path = prequential(posterior(2.0), log_likelihoods)
    for num in (1, 3, 4):
        result = estimate_log_z(KEY, path, jnp.array(num), **SETTINGS)
        assert is_right(result, evidence(2.0, num))


def test_a_likelihood_to_a_power():
    def path(power):
        return tempered(posterior(2.0), power)

    for power in (0.3, 2.0):
        result = estimate_log_z(KEY, path, jnp.array(power), **SETTINGS)
        assert is_right(result, evidence(2.0, power=power))


@pytest.fixture(scope="module")
def first():
    """An estimate under the wide prior."""
    return estimate_log_z(KEY, posterior(2.0), **SETTINGS)


def test_the_path_between_posteriors_gives_their_bayes_factor(first):
    precision = 4.0 + 1.0 / 2.0**2
    noise = np.random.default_rng(0).normal(size=2000) / np.sqrt(precision)
    draws = {"mean": jnp.asarray(Y.sum() / precision + noise, jnp.float32)}
    path = between(draws, posterior(2.0), posterior(0.5))
    result = estimate_log_z(KEY, path, **SETTINGS)
    assert is_right(result, evidence(0.5) - evidence(2.0))
    assert result.standard_error < 0.5 * first.standard_error


def test_no_base_is_fitted_in_place_of_a_posterior():
    """However long the path is."""
    draws = {"mean": jnp.zeros(100)}
    path = between(draws, posterior(2.0), posterior(1e-3))
    settings = SETTINGS | {"fit_base": True}
    assert estimate_log_z(KEY, path, **settings).plan.base is None


def test_draws_of_bounded_parameters_begin_the_path():
    class Exp:
        def __call__(self, x):
            return jnp.exp(x)

        @property
        def inv(self):
            return jnp.log

        def log_abs_det_jacobian(self, x, y):
            return x

    path = bounded(
        posterior(1.0)._replace(
            sample_base=lambda key: {"mean": jnp.exp(jax.random.normal(key))}
        ),
        {"mean": Exp()},
    )
    start = between({"mean": jnp.full((3,), 2.0)}, path, path).sample_base(KEY)
    np.testing.assert_allclose(start["mean"], np.log(2.0), rtol=1e-6)


def test_paths_of_other_parameters_are_refused():
    other = AnnealingPath(lambda key: jnp.zeros(2), jnp.sum, jnp.sum)
    with pytest.raises(ValueError, match=r"\{'mean': \(\)\} and second \(2,\): give"):
        between({"mean": jnp.zeros(9)}, posterior(1.0), other)


def test_log_z_on_the_way_is_that_of_the_tempered_posterior(first):
    assert len(first.log_z_at) == len(first.plan.betas) - 1
    for i in (8, 16, 24, 31):
        exact = evidence(2.0, power=float(first.plan.betas[i + 1]))
        off = abs(first.log_z_at[i] - exact)
        assert off < 4.0 * first.error_at[i] + 1e-4 < 0.3
    np.testing.assert_allclose(first.log_z_at[-1], first.log_z, atol=1e-4)
    again = log_normalizer(KEY, posterior(2.0), first.plan, 100)
    np.testing.assert_allclose(again.log_z_at[-1], again.log_z, atol=1e-4)
    resampled = log_normalizer(KEY, posterior(2.0), first.plan, 100, resample_below=0.5)
    with pytest.raises(ValueError, match="not resampled"):
        resampled.plot()


def test_chains_of_no_weight_count_on_the_way():
    increments = np.array([[0.0, -np.inf, 1.0], [0.5, np.inf, -np.inf]])
    found = stepping.log_z_at(increments)[0]
    np.testing.assert_allclose(found, np.log([(1.0 + np.e) / 3, np.exp(0.5) / 3]))
    assert stepping.log_z_at(np.full((2, 3), -np.inf))[1].tolist() == [np.inf] * 2


def test_the_picture_goes_from_zero_to_log_z(first):
    (line,) = first.plot().get_lines()
    x, y = line.get_data()
    assert x[0] == y[0] == 0.0 and x[-1] == 1.0
    assert y[-1] == pytest.approx(float(first.log_z), abs=1e-4)
    line.figure.clear()


def test_powers_and_likelihoods_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"power=-1.0: use a positive number"):
        tempered(posterior(1.0), -1.0)
    path = prequential(posterior(1.0), lambda z: jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"log_likelihoods returned the shape \(2, 2"):
        estimate_log_z(KEY, path, 1, **SETTINGS)
    with pytest.raises(ValueError, match=r"draws have the shapes \{'mean': \(9,\)\}"):
        between({"mean": jnp.zeros((9, 9))}, posterior(1.0), posterior(2.0))
