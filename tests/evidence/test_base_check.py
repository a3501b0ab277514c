"""Bases that are not what they say are refused; those that are sound are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import cauchy, norm

from ais_jax import AnnealingPath, estimate_log_z
from ais_jax.evidence.base_check import look, reason_against


def normal(size, width=1.0):
    """Draws of independent normal numbers."""
    return lambda key: width * jax.random.normal(key, (size,))


def log_normal(size, width=1.0):
    del size
    return lambda z: jnp.sum(norm.logpdf(z, scale=width))


def funnel(size):
    def sample(key):
        v_key, key = jax.random.split(key)
        v = 1.5 * jax.random.normal(v_key)
        rest = jnp.exp(v / 2) * jax.random.normal(key, (size - 1,))
        return jnp.append(rest, v)

    def log_prob(z):
        rest = jnp.sum(norm.logpdf(z[:-1], scale=jnp.exp(z[-1] / 2)))
        return norm.logpdf(z[-1], scale=1.5) + rest

    return sample, log_prob


def two(size, apart, width):
    """Two normal laws of equal shares, at -apart and at +apart, one of a width."""

    def sample(key):
        which_key, key = jax.random.split(key)
        is_second = jax.random.bernoulli(which_key)
        z = jnp.where(is_second, width, 1.0) * jax.random.normal(key, (size,))
        return z + jnp.where(is_second, apart, -apart)

    def log_prob(z):
        both = log_normal(size)(z + apart), log_normal(size, width)(z - apart)
        return jnp.logaddexp(*both) - jnp.log(2.0)

    return sample, log_prob


def heavy(size):
    return (
        lambda key: jax.random.cauchy(key, (size,)),
        lambda z: jnp.sum(cauchy.logpdf(z)),
    )


def box(size):
    def log_prob(z):
        return jnp.where(jnp.all((z > 0) & (z < 1)), 0.0, -jnp.inf)

    return lambda key: jax.random.uniform(key, (size,)), log_prob


def skewed(size):
    """Logarithms of exponential numbers."""
    return (
        lambda key: jnp.log(jax.random.exponential(key, (size,))),
        lambda z: jnp.sum(z - jnp.exp(z)),
    )


SOUND = {
    "normal": lambda size: (normal(size), log_normal(size)),
    "funnel": funnel,
    "modes": lambda size: two(size, 6.0, 1.0),
    "needle": lambda size: two(size, 0.0, 0.001),
    "heavy": heavy,
    "box": box,
    "skewed": skewed,
}


def reasons(sample, log_prob, num=5):
    path = AnnealingPath(sample, log_prob, log_prob)
    seen = jax.jit(jax.vmap(lambda key: look(key, path)))(
        jax.random.split(jax.random.key(0), num)
    )
    each = [jax.tree.map(lambda a, i=i: a[i], seen) for i in range(num)]
    return [reason_against(one) for one in each]


@pytest.mark.parametrize("size", [2, 20])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_base_is_never_refused(name, size):
    assert reasons(*SOUND[name](size)) == [None] * 5


@pytest.mark.parametrize("size", [1, 5, 20])
def test_a_missing_constant_is_told(size):
    said = reasons(normal(size), lambda z: -0.5 * jnp.sum(jnp.square(z)))
    exact = 0.5 * size * np.log(2.0 * np.pi)
    for text in said:
        number = float(text.split("exp(")[1].split(")")[0])
        assert abs(number - exact) < 0.1 + 0.03 * size


@pytest.mark.parametrize("width", [2.0, 0.5])
def test_draws_of_another_width_are_told(width):
    said = [text for text in reasons(normal(2, width), log_normal(2)) if text]
    assert len(said) >= 3  # with narrow draws the tails are not always seen
    for text in said:
        assert text.startswith("path.sample_base does not draw from path.log_base")


def test_a_call_refuses_a_base_without_its_constant():
    path = AnnealingPath(
        normal(2), lambda z: -0.5 * jnp.sum(jnp.square(z)), lambda z: -jnp.sum(z**4)
    )
    with pytest.raises(ValueError, match=r"integrates to about exp\(1\.8.\)"):
        estimate_log_z(jax.random.key(0), path)
