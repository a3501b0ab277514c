"""Figure 1's pieces: the best independent Gaussian, the path, the discrepancy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import schedules
from ais_jax.annealing import proposals
from ais_jax.annealing.hmc import hmc_step
from experiments.paper import toy

COVARIANCE = np.array([[1.0, 0.6, 0.2], [0.6, 1.5, -0.3], [0.2, -0.3, 0.8]])
BANDWIDTH = 0.7


def kl_from_independent(log_scales, correlation):
    """KL(q, p) from the path's own target, by Gauss-Hermite quadrature of E_q."""
    path = toy.gaussian_path(toy.correlated(correlation))
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)  # exact for quadratics
    e = jnp.asarray(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2))
    weights = jnp.asarray(np.outer(weights, weights).ravel() / 2.0 / np.pi)
    log_p = jax.vmap(path.log_target)(jnp.exp(log_scales) * e)
    entropy = jnp.sum(log_scales) + 1.0 + jnp.log(2.0 * jnp.pi)
    return -jnp.dot(weights, log_p) - entropy


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.95])
def test_q_minimises_the_kl_divergence(correlation):
    kl = jax.jit(partial(kl_from_independent, correlation=correlation))
    variances = toy.best_independent_variances(toy.correlated(correlation))
    np.testing.assert_allclose(variances, 1.0 - correlation**2)
    best = 0.5 * jnp.log(variances)
    np.testing.assert_allclose(kl(best), -0.5 * np.log(variances[0]), atol=1e-5)
    np.testing.assert_allclose(jax.grad(kl)(best), 0.0, atol=1e-4)
    for change in ([0.1, 0.0], [-0.1, 0.0], [0.1, 0.1], [-0.1, 0.1]):
        assert kl(best + jnp.array(change)) > kl(best) + 0.005


def test_the_path_goes_from_q_to_the_normalised_target():
    path = toy.gaussian_path(COVARIANCE)
    z = jax.random.normal(jax.random.key(0), (20, 3))
    log_pdf = jax.scipy.stats.multivariate_normal.logpdf
    variances = np.diag(toy.best_independent_variances(COVARIANCE))
    np.testing.assert_allclose(
        jax.vmap(path.log_target)(z), log_pdf(z, jnp.zeros(3), COVARIANCE), rtol=1e-5
    )
    np.testing.assert_allclose(
        jax.vmap(path.log_base)(z), log_pdf(z, jnp.zeros(3), variances), rtol=1e-5
    )


@pytest.mark.parametrize("end", ["base", "target"])
def test_exact_draws_have_their_covariance(end):
    key, num = jax.random.key(1), 20_000
    if end == "target":
        z, covariance = toy.sample(key, COVARIANCE, num), COVARIANCE
    else:
        sample = toy.gaussian_path(COVARIANCE).sample_base
        z = jax.vmap(sample)(jax.random.split(key, num))
        covariance = np.diag(toy.best_independent_variances(COVARIANCE))
    z, variances = np.asarray(z, np.float64), np.diag(covariance)
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / num)
    assert np.all(np.abs(z.T @ z / num - covariance) < 5.0 * error)


def brute_force_mmd2(a, b):
    """Two-sample U-statistic in float64, from every pair."""
    kernel = lambda a, b: np.exp(
        -0.5 * np.sum((a[:, None] - b) ** 2, axis=-1) / BANDWIDTH**2
    )
    within = lambda a: (np.sum(kernel(a, a)) - len(a)) / len(a) / (len(a) - 1)
    return within(a) + within(b) - 2.0 * np.mean(kernel(a, b))


def test_mmd2_agrees_with_two_samples_and_with_the_exact_value():
    covariance = np.diag(toy.best_independent_variances(COVARIANCE))
    a = toy.sample(jax.random.key(2), covariance, 4000)
    found = toy.mmd2_to_gaussian(a, COVARIANCE, BANDWIDTH)
    exact = toy.gaussian_mmd2(covariance, COVARIANCE, BANDWIDTH)
    assert abs(found.mmd2 - exact) < 5.0 * found.standard_error < exact
    rng = np.random.default_rng(0)
    a = np.asarray(a, np.float64)
    pairs = [
        brute_force_mmd2(part, rng.multivariate_normal(np.zeros(3), COVARIANCE, 400))
        for part in np.split(a, 10)
    ]
    error = np.std(pairs, ddof=1) / np.sqrt(10)
    assert abs(np.mean(pairs) - found.mmd2) < 5.0 * error < exact


def test_mmd2_and_its_error_are_the_jackknife_of_the_u_statistic():
    z = np.asarray(toy.sample(jax.random.key(3), COVARIANCE, 40), np.float64) + 0.3
    inverse = np.linalg.inv(COVARIANCE + BANDWIDTH**2 * np.eye(3))
    one = toy.gaussian_mean(COVARIANCE, BANDWIDTH)
    means = one * np.exp(-0.5 * np.sum(z @ inverse * z, axis=-1))

    def u_statistic(keep):
        kernel = np.exp(-0.5 * np.sum((z[:, None] - z) ** 2, -1) / BANDWIDTH**2)
        kernel = kernel[np.ix_(keep, keep)]
        pairs = np.sum(kernel) - np.trace(kernel)
        both = toy.gaussian_mean(2.0 * COVARIANCE, BANDWIDTH)
        return pairs / keep.size / (keep.size - 1) - 2 * means[keep].mean() + both

    everything = np.arange(40)
    without = [u_statistic(np.delete(everything, i)) for i in everything]
    found = toy.mmd2_to_gaussian(jnp.asarray(z), COVARIANCE, BANDWIDTH)
    np.testing.assert_allclose(found.mmd2, u_statistic(everything), rtol=1e-4)
    error = np.sqrt(39 * np.var(without))
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)


def test_mmd2_of_exact_draws_is_zero_within_errors():
    keys = jax.random.split(jax.random.key(4), 200)
    one = lambda key: toy.mmd2_to_gaussian(
        toy.sample(key, COVARIANCE, 200), COVARIANCE, BANDWIDTH
    )
    mmd2, error = (np.asarray(a, np.float64) for a in jax.jit(jax.vmap(one))(keys))
    assert abs(np.mean(mmd2)) < 5.0 * np.std(mmd2, ddof=1) / np.sqrt(200)
    assert np.std(mmd2) < np.mean(error) < 2.0 * np.std(mmd2)
    assert np.mean(np.abs(mmd2) > 5.0 * error) < 0.02


def test_gaussian_means_match_quadrature():
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    kernel = np.exp(-0.5 * 1.7 * nodes**2 / BANDWIDTH**2)
    expected = np.dot(weights, kernel) / np.sum(weights)
    found = toy.gaussian_mean(np.array([[1.7]]), BANDWIDTH)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert toy.gaussian_mmd2(COVARIANCE, COVARIANCE, BANDWIDTH) == 0.0


def test_draws_do_not_depend_on_the_blocks():
    path = toy.gaussian_path(toy.correlated(0.8))
    transition = partial(hmc_step, num_leapfrog=2)
    proposal = proposals.annealed(schedules.linear(3), transition, 4)
    draw = lambda key, block: toy.draw(key, path, proposal, jnp.ones(3), 10, block)
    draw = jax.jit(draw, static_argnums=1)
    whole, accept_prob = draw(jax.random.key(5), 10)
    parts, _ = draw(jax.random.key(5), 3)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert whole.shape == (10, 2)
    assert 0.0 < accept_prob <= 1.0


def test_one_importance_sample_is_a_draw_from_q():
    path = toy.gaussian_path(COVARIANCE)
    proposal = proposals.importance(1)
    z, _ = toy.draw(jax.random.key(6), path, proposal, jnp.zeros(0), 4000)
    variances = toy.best_independent_variances(COVARIANCE)
    found = toy.mmd2_to_gaussian(z, np.diag(variances), BANDWIDTH)
    assert abs(found.mmd2) < 5.0 * found.standard_error


@pytest.mark.parametrize("correlation", [-1.0, 1.0, 1.5, float("nan")])
def test_impossible_correlations_are_named(correlation):
    with pytest.raises(ValueError, match=f"correlation={correlation}: use a number"):
        toy.correlated(correlation)
