"""Paths are checked and made flat where they come in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence import log_z, positions
from ais_jax.evidence.plan import Plan
from ais_jax.numerics import standard_normal_log_prob
from tests import targets

KEY = jax.random.key(0)
PLAN = Plan(jnp.linspace(0.0, 1.0, 4), jnp.full((2,), 0.5))
PATH = AnnealingPath(*targets.normal_base(5, 1.0), lambda z: -jnp.sum((z - 1.0) ** 2))


def draw(*shape):
    return lambda key: jax.random.normal(key, shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_base": draw(100, 5)}, r"path.sample_base returned an array of shape"),
        ({"sample_base": lambda key: jnp.arange(5)}, "path.sample_base returned int32"),
        ({"log_base": lambda z: -(z**2)}, r"path.log_base returned float32\[5\]"),
        ({"log_target": lambda z: z[:1]}, r"path.log_target returned float32\[1\]"),
        ({"target_with_residuals": lambda z: (z, z, None)}, r"value of shape \(5,\)"),
        ({"target_with_residuals": lambda z: (z[0], z[1:], None)}, r"shape \(4,\)"),
        ({"scale": jnp.ones(4)}, r"path.scale has the shape \(4,\)"),
        ({"scale": jnp.ones((4, 5))}, r"path.scale has the shape \(4, 5\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        log_z.log_normalizer(KEY, PATH._replace(**change), PLAN, 3)


@pytest.mark.parametrize("shape", [(1,), (), (7, 5)])
def test_an_exact_draw_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="z_target has the shape"):
        log_z.bidirectional_bounds(KEY, PATH, jnp.ones(shape), PLAN, 3)


@pytest.mark.parametrize("scale", [[1.0] * 5, np.eye(5), 1, jnp.ones(1)], ids=repr)
def test_scales_may_be_lists_matrices_and_numbers(scale):
    flat = positions.flatten(KEY, PATH._replace(scale=scale))[0]
    result = log_z.log_normalizer(KEY, flat, PLAN, 3)
    plain = log_z.log_normalizer(KEY, PATH, PLAN, 3)
    np.testing.assert_allclose(result.log_w, plain.log_w, rtol=1e-5)


def test_positions_are_any_pytree_and_come_back_in_its_shape():
    def split(z):
        return {"a": z[:4].reshape(2, 2), "b": z[4]}

    def join(tree):
        return jnp.append(tree["a"].ravel(), tree["b"])

    tree = AnnealingPath(
        lambda key: split(PATH.sample_base(key)),
        lambda z: PATH.log_base(join(z)),
        lambda z: PATH.log_target(join(z)),
        scale={"a": 0.5 * jnp.ones((2, 2)), "b": 0.5},
    )
    result = log_z.log_normalizer(KEY, tree, PLAN, 3)
    plain = log_z.log_normalizer(KEY, PATH._replace(scale=0.5), PLAN, 3)
    np.testing.assert_allclose(result.log_w, plain.log_w, rtol=1e-5)
    assert result.z["a"].shape == (3, 2, 2) and result.z["b"].shape == (3,)
    np.testing.assert_allclose(jax.vmap(join)(result.z), plain.z, rtol=1e-5)
    bounds = log_z.bidirectional_bounds(KEY, tree, split(jnp.ones(5)), PLAN, 3)
    assert jnp.isfinite(bounds.lower) and jnp.isfinite(bounds.upper)


def test_half_precision_draws_are_moved_in_single_precision():
    half = PATH._replace(
        sample_base=lambda key: PATH.sample_base(key).astype(jnp.bfloat16)
    )
    result = log_z.log_normalizer(KEY, half, PLAN, 50)
    assert result.z.dtype == result.log_z.dtype == jnp.float32
    exact = 2.5 * np.log(np.pi)
    assert abs(result.log_z - exact) < 4.0 * result.standard_error


def test_double_precision_takes_draws_of_single_precision():
    with jax.enable_x64(True):
        path = AnnealingPath(
            lambda key: jax.random.normal(key, (2,), jnp.float32),
            standard_normal_log_prob,
            lambda z: 1e8 - 0.5 * jnp.sum(z**2),
        )
        plan = Plan(jnp.linspace(0.0, 1.0, 4), jnp.full((2,), 0.5))
        result = log_z.log_normalizer(jax.random.key(0), path, plan, 20)
        assert result.log_z.dtype == jnp.float64
        assert abs(result.log_z - 1e8 - np.log(2.0 * np.pi)) < 1e-4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_debug_nans", True),
        ("jax_numpy_rank_promotion", "raise"),
    ],
)
def test_strict_modes_take_a_density_with_walls(name, value):
    before = getattr(jax.config, name)
    path = PATH._replace(
        log_target=lambda z: jnp.where(z[0] > 0.0, -jnp.sum(z**2), -jnp.inf)
    )
    jax.config.update(name, value)
    try:
        result = log_z.estimate_log_z(KEY, path, num_temperatures=8, num_chains=30)
    finally:
        jax.config.update(name, before)
    assert jnp.isfinite(result.log_z)
