"""Stated precisions: their errors, and a coarse force that leaves HMC exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import evaluation, precision
from ais_jax.evaluation import Plan
from ais_jax.hmc import hmc_step, leapfrog
from ais_jax.models import bernoulli_model, posterior_path
from ais_jax.path import evaluate
from tests import targets

WORST = {  # relative error of a product, and at least how coarse it must be
    "float32": (5e-6, 0.0),
    "tf32_x3": (5e-6, 0.0),
    "bf16_x6": (5e-6, 0.0),
    "tf32": (5e-3, 5e-4),
    "bf16": (4e-2, 4e-3),
}


@pytest.fixture(scope="module")
def matrices():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(64, 200), (200, 784), (64, 784)]
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes)]


def relative_error(found, exact):
    return np.max(np.abs(np.asarray(found, np.float64) - exact)) / np.std(exact)


@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_products_and_their_gradients_have_the_stated_error(name, matrices):
    lhs, rhs, cotangent = matrices
    product = precision.dot_general(name)
    out, vjp = jax.vjp(jax.jit(product), lhs, rhs)
    found = [out, *vjp(cotangent)]
    a, b, g = (np.asarray(m, np.float64) for m in matrices)
    most, least = WORST[name]
    for value, exact in zip(found, [a @ b, g @ b.T, a.T @ g]):
        assert least <= relative_error(value, exact) <= most


@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_one_example_under_vmap_is_the_batched_product(name, matrices):
    lhs, rhs, _ = matrices
    product = precision.dot_general(name)
    rows = jax.vmap(lambda row: product(row, rhs))(lhs)
    np.testing.assert_allclose(rows, product(lhs, rhs), rtol=1e-4, atol=1e-4)


def test_unknown_precisions_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'bf16'"):
        precision.dot_general("bf1")


@pytest.fixture(scope="module")
def forces():
    """The same model with a float32 and with a bfloat16 force, and an image."""
    make = partial(bernoulli_model, 40, latent_sizes=(4,), widths=((32, 32),))
    plain, coarse = make(), make(force_precision="bf16")
    theta, phi = plain.init(jax.random.key(1))
    theta = jax.tree.map(lambda a: 2.0 * a, theta)  # far from linear
    x = plain.simulate(jax.random.key(2), theta)[0]
    return [posterior_path(model, theta, phi, x) for model in (plain, coarse)]


def test_the_coarse_force_leaves_the_density_as_it_is(forces):
    plain, coarse = (evaluate(path, jnp.ones(4)) for path in forces)
    np.testing.assert_allclose(coarse.log_target, plain.log_target, rtol=1e-6)
    error = np.max(np.abs(coarse.grad_target - plain.grad_target))
    assert 1e-4 < error / np.max(np.abs(plain.grad_target)) < 0.1


def test_leapfrog_with_a_bfloat16_force_reverses(forces):
    path = forces[1]
    start, momentum = evaluate(path, 0.3 * jnp.ones(4)), jnp.arange(1.0, 5.0)
    end, turned = leapfrog(path, start, momentum, 0.7, 0.05, 20)
    assert jnp.max(jnp.abs(end.z - start.z)) > 0.5
    back, again = leapfrog(path, end, -turned, 0.7, 0.05, 20)
    np.testing.assert_allclose(back.z, start.z, atol=2e-2)
    np.testing.assert_allclose(again, -momentum, atol=5e-2)


def test_ais_with_a_bfloat16_force_stays_unbiased(forces):
    plan = Plan(jnp.linspace(0.0, 1.0, 41), jnp.full((39,), 0.2))
    exact = evaluation.log_normalizer(
        jax.random.key(3), forces[0], plan, 10_000, hmc_move
    )
    coarse = evaluation.log_normalizer(
        jax.random.key(4), forces[1], plan, 10_000, hmc_move
    )
    both = np.hypot(exact.standard_error, coarse.standard_error)
    assert both < 0.02
    assert abs(exact.log_z - coarse.log_z) < 4.0 * both
    np.testing.assert_allclose(coarse.accept_prob, exact.accept_prob, atol=0.1)


def test_a_rounded_force_on_a_known_target_keeps_the_mean_weight():
    target = targets.skewed(20)
    rounded = lambda z: jax.lax.reduce_precision(z, 8, 7)
    straight = lambda z: z + jax.lax.stop_gradient(rounded(z) - z)
    path = target.path._replace(
        force=lambda z: target.path.log_target(straight(z)), scale=0.8
    )
    plan = Plan(jnp.linspace(0.0, 1.0, 12), jnp.full((10,), 0.5))
    result = jax.jit(
        lambda key: evaluation.log_normalizer(key, path, plan, 60_000, hmc_move)
    )(jax.random.key(5))
    ratio, error = targets.ratio_and_error(result.log_w, target.log_z)
    assert error < 0.01 and abs(ratio - 1.0) < 4.0 * error
    assert np.min(result.accept_prob) > 0.5


hmc_move = partial(hmc_step, num_leapfrog=5)
