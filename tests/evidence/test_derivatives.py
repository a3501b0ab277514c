"""Derivatives of log Z: exact on conjugate models, and of nothing else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import betaln, digamma, gammaln
from jax.scipy.stats import multivariate_normal, norm

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.log_z import bidirectional_bounds, estimate_log_z, log_normalizer
from ais_jax.evidence.numpyro_models import from_numpyro
from ais_jax.evidence.plan import Plan
from tests.targets import errors_off

KEY = jax.random.key(0)
DATA = jnp.array([0.3, 1.5, -0.2, 2.2])
THETA = jnp.array([0.2, -0.3])  # logarithms of the prior's and the noise's scales
PLAN = Plan(jnp.array([0.0, 0.3, 1.0]), jnp.full((1,), 0.4))


def posterior(theta):
    """From the prior of a mean to its posterior, given four noisy values of it."""
    prior, noise = jnp.exp(theta)
    log_prior = lambda z: norm.logpdf(z["mean"], 0.0, prior)
    return AnnealingPath(
        lambda key: {"mean": prior * jax.random.normal(key)},
        log_prior,
        lambda z: log_prior(z) + jnp.sum(norm.logpdf(DATA, z["mean"], noise)),
    )


def evidence(theta):
    prior, noise = jnp.exp(theta)
    covariance = prior**2 + noise**2 * jnp.eye(len(DATA))
    return multivariate_normal.logpdf(DATA, jnp.zeros(len(DATA)), covariance)


def of_plan(key, theta, num_chains=200, name="log_z"):
    return getattr(log_normalizer(key, posterior(theta), PLAN, num_chains), name)


def test_the_gradient_is_that_of_the_evidence_though_weights_are_uneven():
    """The base depends on the prior's scale as the target does."""
    gradients = jax.jit(jax.vmap(jax.grad(of_plan, 1), (0, None)))
    found = gradients(jax.random.split(KEY, 200), THETA)
    exact = jax.grad(evidence)(THETA)
    assert np.all(np.abs(errors_off(found, exact)) < 4.0)
    assert np.all(np.std(found, axis=0) < 0.4)


def test_every_kind_of_derivative_leaves_the_value_as_it_is():
    of_theta = partial(of_plan, KEY)
    value, gradient = jax.value_and_grad(of_theta)(THETA)
    assert value == of_theta(THETA)

    @jax.jit
    def others(theta):
        tangent = jax.jvp(of_theta, (theta,), (jnp.array([0.0, 1.0]),))[1]
        return tangent, jax.vjp(jax.jit(of_theta), theta)[1](jnp.ones(()))[0]

    tangent, pulled = others(THETA)
    np.testing.assert_allclose(tangent, gradient[1], rtol=1e-4)
    np.testing.assert_allclose(pulled, gradient, rtol=1e-4)


def test_the_search_is_differentiated_in_its_data():
    def of_theta(theta):
        result = estimate_log_z(KEY, posterior, theta, error=0.01)
        return result.log_z, result

    (value, result), gradient = jax.value_and_grad(of_theta, has_aux=True)(THETA)
    assert abs(value - evidence(THETA)) < 4.0 * result.standard_error < 0.04
    weights = jax.nn.softmax(result.log_w)
    scores = jax.vmap(
        lambda z: jax.grad(lambda theta: posterior(theta).log_target(z))(THETA)
    )(result.z)
    errors = np.sqrt(np.square(weights) @ np.square(scores - gradient))
    off = (gradient - jax.grad(evidence)(THETA)) / errors
    assert np.all(np.abs(off) < 4.0) and np.all(errors < 0.3)


def test_what_path_closes_over_needs_temperatures_and_bounds_have_no_derivative():
    def estimate(theta, **settings):
        return estimate_log_z(KEY, posterior(theta), num_chains=20, **settings).log_z

    with pytest.raises(ValueError, match="or give these as data"):
        jax.grad(estimate)(THETA)
    assert np.all(np.isfinite(jax.grad(estimate)(THETA, num_temperatures=2)))
    assert not jax.grad(of_plan, 1)(KEY, THETA, 20, "standard_error").any()

    def upper(theta):
        z = {"mean": jnp.zeros(())}
        return bidirectional_bounds(KEY, posterior(theta), z, PLAN, 3).upper

    with pytest.raises(ValueError, match="bidirectional_bounds has no derivative"):
        jax.grad(upper)(THETA)


def test_ends_of_no_weight_leave_the_gradient_finite():
    """Half of them are where the logarithm, which is not asked for, is NaN."""

    def log_z(power):
        log_target = lambda z: power * jnp.log(z[0]) - z[0]
        path = AnnealingPath(
            lambda key: 3.0 * jax.random.normal(key, (1,)),
            lambda z: norm.logpdf(z[0], 0.0, 3.0),
            lambda z: jnp.where(z[0] > 0.0, log_target(z), -jnp.inf),
        )
        plan = Plan(jnp.array([0.0, 1.0]), jnp.zeros((0,)))
        return log_normalizer(KEY, path, plan, 5000).log_z

    value, gradient = jax.value_and_grad(log_z)(1.5)
    assert abs(value - gammaln(2.5)) < 0.1
    assert abs(gradient - digamma(2.5)) < 0.1


@pytest.mark.slow
def test_a_numpyro_model_is_differentiated_in_its_priors_parameters():
    def model(a):
        share = numpyro.sample("share", dist.Beta(a, 2.0))
        numpyro.sample("heads", dist.Binomial(5, share), obs=4)

    def log_z(a):
        path = partial(from_numpyro, model)
        return estimate_log_z(KEY, path, a, num_temperatures=9).log_z

    exact = jax.grad(lambda a: betaln(a + 4.0, 3.0) - betaln(a, 2.0))(1.5)
    assert abs(jax.grad(log_z)(1.5) - exact) < 0.1 * exact
