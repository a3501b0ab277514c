"""Log Z and log p(x): right within the stated errors, bounded, reproducible."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import schedules
from ais_jax.annealing.ais import anneal
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.path import AnnealingPath, evaluate, log_ratio
from ais_jax.evidence import log_z as evaluation
from ais_jax.evidence import plan as tuning
from ais_jax.evidence.plan import Plan
from ais_jax.models.latent import posterior_path, prior_path
from ais_jax.numerics import log_mean_exp
from tests import targets

MOVE = partial(hmc_step, num_leapfrog=5)


def many_well(wells=4):
    """Independent double wells in two dimensions, each with two unequal modes."""

    def target(z):
        a, b = z[::2], z[1::2]
        return jnp.sum(-(a**4) + 6.0 * a**2 + 0.5 * a - 0.5 * b**2)

    log_z = wells * (math.log(11784.50927) + 0.5 * math.log(2.0 * math.pi))
    return AnnealingPath(*targets.normal_base(2 * wells, 2.0), target), log_z


def normal_mixture():
    target = targets.mixture()
    return target.path, target.log_z


@pytest.mark.parametrize(
    "make", targets.slow_but([targets.log_gamma, many_well, normal_mixture], many_well)
)
def test_log_z_is_right_within_its_standard_error(make):
    path, log_z = make()
    estimate = jax.jit(
        lambda key: evaluation.estimate_log_z(
            key, path, num_temperatures=200, num_chains=2000
        )
    )
    result = estimate(jax.random.key(0))
    assert result.standard_error < 0.1
    assert abs(result.log_z - log_z) < 4.0 * result.standard_error


@pytest.fixture(scope="module")
def pairs():
    """Pairs (x, z) simulated from the linear-Gaussian model, and its parameters."""
    model = targets.linear_gaussian()
    theta, phi = model.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 512)
    x, z = jax.vmap(lambda key: model.simulate(key, theta))(keys)
    return model, theta, phi, x, z


@pytest.mark.parametrize(
    "start", targets.slow_but([posterior_path, prior_path], posterior_path)
)
def test_linear_gaussian_log_p_is_within_three_errors_at_a_hundredth(pairs, start):
    model, theta, phi, x, _ = pairs
    path = lambda x: start(model, theta, phi, x)

    def log_p(key, x):
        pilot_key, settings = jax.random.fold_in(key, 0), {"transition": MOVE}
        plan = tuning.tune_examples(
            pilot_key, path, x[None], num_temperatures=50, **settings
        )
        key = jax.random.fold_in(key, 1)
        return evaluation.log_normalizer(key, path(x), plan, 1200, MOVE)

    result = jax.jit(log_p)(jax.random.key(2), x[0])
    assert result.standard_error <= 0.01
    exact = targets.exact_log_p(theta, x[0])
    assert abs(result.log_z - exact) < 3.0 * result.standard_error


@pytest.fixture(scope="module")
def bounds(pairs):
    """Bounds of each pair by its number of temperatures."""
    model, theta, phi, x, z = pairs
    keys = jax.random.split(jax.random.key(3), len(x))

    def of(num):
        plan = Plan(jnp.asarray(schedules.linear(num)), jnp.full((num - 1,), 0.4))

        def one(key, x, z):
            path = prior_path(model, theta, phi, x)
            return evaluation.bidirectional_bounds(key, path, z, plan, 4, MOVE)

        return jax.jit(jax.vmap(one))(keys, x, z)

    return {num: of(num) for num in (2, 8, 32)}


def test_bidirectional_bounds_bracket_the_truth_and_the_gap_falls(pairs, bounds):
    _, theta, _, x, _ = pairs
    exact = jax.vmap(targets.exact_log_p, (None, 0))(theta, x)
    gaps = []
    for each in bounds.values():
        assert targets.errors_off(each.lower - exact, 0.0) < 3.0
        assert targets.errors_off(each.upper - exact, 0.0) > -3.0
        gaps.append(float(np.mean(each.upper - each.lower)))
    assert gaps[0] > 2.0 * gaps[1] > 3.0 * gaps[2] > 0.0


def test_a_dropped_sign_of_the_reverse_weight_breaks_the_sandwich(pairs, bounds):
    _, theta, _, x, _ = pairs
    exact = jax.vmap(targets.exact_log_p, (None, 0))(theta, x)
    assert targets.errors_off(-bounds[8].upper - exact, 0.0) > 5.0


def test_adding_chains_leaves_the_others_as_they_are(pairs):
    model, theta, phi, x, _ = pairs
    path = posterior_path(model, theta, phi, x[0])
    plan = Plan(jnp.asarray(schedules.linear(5)), jnp.full((4,), 0.3))
    run = lambda num: evaluation.log_normalizer(
        jax.random.key(0), path, plan, num, MOVE
    )
    np.testing.assert_allclose(run(3).log_w, run(8).log_w[:3], rtol=1e-5)
    few = evaluation.importance_log_weights(jax.random.key(0), path, 30, 7)
    more = evaluation.importance_log_weights(jax.random.key(0), path, 50, 50)
    np.testing.assert_allclose(few, more[:30], rtol=1e-5)


def test_importance_weights_give_the_exact_bounds(pairs):
    model, theta, phi, x, _ = pairs
    path = posterior_path(model, theta, phi, x[0])
    log_w = evaluation.importance_log_weights(jax.random.key(4), path, 20_000)
    elbo = targets.exact_bound(theta, phi, x[0], 1)
    assert abs(targets.errors_off(log_w, elbo)) < 4.0
    exact = targets.exact_log_p(theta, x[0])
    assert elbo < exact
    np.testing.assert_allclose(log_mean_exp(log_w), exact, atol=0.02)


def test_weights_keep_their_precision_over_ten_thousand_temperatures(pairs):
    """Against float64 sums of the same increments; a float32 sum is visibly worse."""
    model, theta, phi, x, _ = pairs
    offset = 500.0  # as large as log p(x) of an image
    path = prior_path(model, theta, phi, x[0])
    path = path._replace(log_target=lambda z: model.log_joint(theta, x[0], z) - offset)
    betas = jnp.asarray(schedules.linear(10_000))
    steps = jnp.full((9_999,), 0.3)
    one = partial(hmc_step, num_leapfrog=1)
    result = jax.jit(
        lambda key: anneal(key, path, path.sample_base(key), betas, steps, one)
    )(jax.random.key(0))
    increments = np.asarray(result.increments)
    exact = np.sum(increments, dtype=np.float64)
    naive = np.float32(0.0)
    for increment in increments:
        naive += increment
    assert abs(result.log_w - exact) <= np.spacing(np.float32(abs(exact)))
    assert abs(naive - exact) > 10.0 * abs(result.log_w - exact)


def adapting(key, path, betas, first_step):
    """The mutant: every chain adapts its step size by its own acceptance."""

    def body(carry, xs):
        point, log_w, step = carry
        t, delta, beta = xs
        log_w = log_w + delta * log_ratio(point)
        point, info = MOVE(jax.random.fold_in(key, t), path, point, beta, step)
        step = step * jnp.where(info.is_accepted, 3.0, 0.2)
        return (point, log_w, step), None

    base_key, key = jax.random.split(key)
    point = evaluate(path, path.sample_base(base_key))
    xs = (jnp.arange(len(betas) - 1), jnp.diff(betas), betas[1:])
    (_, log_w, _), _ = jax.lax.scan(body, (point, 0.0, first_step), xs)
    return log_w


def test_step_sizes_that_adapt_while_chains_are_weighed_are_caught():
    target = targets.skewed(4)
    path = AnnealingPath(*targets.normal_base(4, 2.5), target.path.log_target)
    betas = jnp.asarray(schedules.linear(12))
    keys = jax.random.split(jax.random.key(0), 200_000)
    frozen = jax.jit(
        jax.vmap(
            lambda key: (
                evaluation.log_normalizer(
                    key, path, Plan(betas, jnp.full((11,), 0.5)), 1, MOVE
                ).log_z
            )
        )
    )(keys)
    mutant = jax.jit(jax.vmap(lambda key: adapting(key, path, betas, 0.5)))(keys)
    ratio, error = targets.ratio_and_error(frozen, target.log_z)
    assert error < 0.02 and abs(ratio - 1.0) < 4.0 * error
    ratio, error = targets.ratio_and_error(mutant, target.log_z)
    assert abs(ratio - 1.0) > 5.0 * error
