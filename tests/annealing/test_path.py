"""The cached ends of the path mix to every density between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing import path as paths
from tests.targets import driven_by, mixture, skewed


def direct(path, beta, z):
    return (1.0 - beta) * path.log_base(z) + beta * path.log_target(z)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("target", [skewed(4), mixture()], ids=["skewed", "mixture"])
def test_cached_values_and_gradients_are_the_densitys_own(target, beta):
    path, z = target.path, jnp.linspace(-1.0, 2.0, target.size)
    point = paths.evaluate(path, z)
    value, grad = jax.value_and_grad(lambda z: direct(path, beta, z))(z)
    close = dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(paths.log_density(point, beta), value, **close)
    np.testing.assert_allclose(paths.grad_log_density(point, beta), grad, **close)
    np.testing.assert_allclose(paths.force_at(path, beta, z), grad, **close)


def test_log_ratio_is_target_over_base():
    path, z = skewed(2).path, jnp.array([0.2, 0.5])
    expected = path.log_target(z) - path.log_base(z)
    np.testing.assert_allclose(paths.log_ratio(paths.evaluate(path, z)), expected)


def test_an_end_of_weight_zero_brings_no_infinity():
    none, two = jnp.array(-jnp.inf), jnp.array(2.0)
    assert paths.mix(0.0, two, none) == 2.0
    assert paths.mix(1.0, none, two) == 2.0
    assert paths.mix(0.5, two, none) == -jnp.inf


def test_a_force_replaces_the_gradient_and_not_the_density():
    path = driven_by(skewed(2).path, lambda z: -2.0 * jnp.sum(z**2))
    z = jnp.array([0.4, -0.1])
    point = paths.evaluate(path, z)
    assert point.log_target == path.log_target(z)
    np.testing.assert_allclose(point.grad_target, -4.0 * z)
    mixed = 0.5 * jax.grad(path.log_base)(z) - 2.0 * z
    np.testing.assert_allclose(paths.force_at(path, 0.5, z), mixed, rtol=1e-6)
    np.testing.assert_allclose(paths.grad_log_density(point, 0.5), mixed, rtol=1e-6)


def test_a_gradient_comes_into_units_of_a_matrix_by_its_transpose():
    """Z = 0.7 S u: a function of u has 0.7 S' times the gradient in z."""
    scale = jnp.array([[2.0, 0.5], [-1.0, 3.0]])
    log_target, u = skewed(2).path.log_target, jnp.array([0.3, -0.2])
    of_u = jax.grad(lambda u: log_target(paths.scaled(scale, u, 0.7)))(u)
    in_z = jax.grad(log_target)(0.7 * scale @ u)
    np.testing.assert_allclose(paths.scaled_back(scale, in_z, 0.7), of_u, rtol=1e-5)


def test_points_keep_residuals_where_the_path_gives_them():
    plain, z = skewed(2).path, jnp.array([0.4, -0.1])

    def target(z):
        return *jax.value_and_grad(plain.log_target)(z), {"square": z**2}

    path = plain._replace(target_with_residuals=target)
    point, bare = (
        paths.evaluate(each, z) for each in (path, paths.without_residuals(path))
    )
    np.testing.assert_array_equal(point.residuals["square"], z**2)
    assert bare.residuals is None
    for each in (point, bare):
        each = each._replace(residuals=None)
        jax.tree.map(np.testing.assert_array_equal, each, paths.evaluate(plain, z))
