"""Stated precisions: their errors, and a coarse force that leaves HMC exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing.hmc import hmc_step, leapfrog
from ais_jax.annealing.path import evaluate
from ais_jax.evidence import log_z as evaluation
from ais_jax.evidence.plan import Plan
from ais_jax.models import precision
from ais_jax.models.latent import posterior_path
from ais_jax.models.networks import bernoulli_model
from tests import targets

WORST = {  # relative error of a product, and at least how coarse it must be
    "float32": (5e-6, 0.0),
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


FORCES = {
    "float32": {},
    "tf32": {"force_precision": "tf32"},
    "bf16": {"force_precision": "bf16"},
}
COARSEST = {"tf32": (1e-6, 5e-3), "bf16": (1e-4, 5e-2)}


@pytest.fixture(scope="module")
def paths():
    """Paths to one image's posterior by the same model with each of the forces."""
    make = partial(bernoulli_model, 40, latent_sizes=(2,), widths=((32, 32),))
    theta, phi = make().init(jax.random.key(1))
    theta = jax.tree.map(lambda a: 2.0 * a, theta)  # far from linear
    x = make().simulate(jax.random.key(2), theta)[0]
    return {
        name: posterior_path(make(**settings), theta, phi, x)
        for name, settings in FORCES.items()
    }


@pytest.fixture(scope="module")
def log_z(paths):
    """Log p(x) by the trapezoidal rule on a square that holds the posterior."""
    side = jnp.linspace(-7.0, 7.0, 701)
    z = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    log_p = jax.lax.map(paths["float32"].log_target, z, batch_size=20_000)
    log_p = np.asarray(log_p, np.float64)
    return np.log(np.sum(np.exp(log_p - np.max(log_p)))) + np.max(log_p) - np.log(2500)


@pytest.mark.parametrize("name", COARSEST)
def test_a_coarse_force_leaves_the_density_as_it_is(name, paths):
    plain, coarse = (evaluate(paths[n], jnp.ones(2)) for n in ("float32", name))
    np.testing.assert_allclose(coarse.log_target, plain.log_target, rtol=1e-6)
    error = np.max(np.abs(coarse.grad_target - plain.grad_target))
    least, most = COARSEST[name]
    assert least < error / np.max(np.abs(plain.grad_target)) < most


@pytest.mark.parametrize("name", targets.slow_but(FORCES, "tf32", "bf16"))
def test_leapfrog_reverses_to_rounding_with_any_force(name, paths):
    @jax.jit
    @jax.vmap
    def there_and_back(z, momentum):
        move = partial(leapfrog, paths[name], beta=0.7, step_size=0.1, num_leapfrog=10)
        end, turned = move(evaluate(paths[name], z), momentum)
        back, again = move(end, -turned)
        return end.z, back.z, -again

    z, momentum = jax.random.normal(jax.random.key(5), (2, 64, 2))
    end, back, again = there_and_back(z, momentum)
    assert np.median(np.abs(end - z)) > 0.5
    np.testing.assert_allclose(back, z, atol=5e-4)
    np.testing.assert_allclose(again, momentum, atol=5e-4)


@pytest.mark.parametrize("name", targets.slow_but(FORCES, "bf16"))
def test_the_mean_weight_is_the_exact_one_with_any_force(
    name, paths, log_z, record_property
):
    plan = Plan(jnp.linspace(0.0, 1.0, 13), jnp.full((11,), 0.2))
    run = jax.jit(
        lambda key: evaluation.log_normalizer(key, paths[name], plan, 20_000, hmc_move)
    )
    result = run(jax.random.key(3))
    ratio, error = targets.ratio_and_error(result.log_w, log_z)
    record_property("E[w] / Z", f"{ratio:.4f} +- {error:.4f}")
    record_property("acceptance", np.round(result.accept_prob, 3).tolist())
    assert error < 0.02 and abs(ratio - 1.0) < 4.0 * error
    assert 0.5 < np.min(result.accept_prob) < np.max(result.accept_prob) < 1.0


def test_a_rounded_force_on_a_known_target_keeps_the_mean_weight():
    target = targets.skewed(20)
    rounded = lambda z: jax.lax.reduce_precision(z, 8, 7)
    straight = lambda z: z + jax.lax.stop_gradient(rounded(z) - z)
    path = targets.driven_by(
        target.path._replace(scale=0.8), lambda z: target.path.log_target(straight(z))
    )
    plan = Plan(jnp.linspace(0.0, 1.0, 12), jnp.full((10,), 0.5))
    result = jax.jit(
        lambda key: evaluation.log_normalizer(key, path, plan, 40_000, hmc_move)
    )(jax.random.key(5))
    ratio, error = targets.ratio_and_error(result.log_w, target.log_z)
    assert error < 0.01 and abs(ratio - 1.0) < 4.0 * error
    assert np.min(result.accept_prob) > 0.5


hmc_move = partial(hmc_step, num_leapfrog=5)
