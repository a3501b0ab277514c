"""Moves that diverge in a neck, whose mass chains may miss, are warned of."""

import jax
import jax.numpy as jnp
import pytest
from jax.scipy.stats import norm

from ais_jax import AnnealingPath, log_normalizer, tune

DATA = jnp.linspace(-1.0, 1.0, 12)


def effects(centred):
    """Effects of groups and the log of their scale: centred (1.0) or in units (0.0)."""

    def scale(z):
        return jnp.exp(centred * z[0])

    def log_base(z):
        of_effects = jnp.sum(norm.logpdf(z[1:], 0.0, scale(z)))
        return norm.logpdf(z[0], 0.0, 2.0) + of_effects

    def sample_base(key):
        z = jax.random.normal(key, (1 + len(DATA),))
        z = z.at[0].multiply(2.0)
        return z.at[1:].multiply(scale(z))

    def log_target(z):
        return log_base(z) + jnp.sum(
            norm.logpdf(DATA, jnp.exp(z[0]) / scale(z) * z[1:])
        )

    return AnnealingPath(sample_base, log_base, log_target)


@pytest.fixture(scope="module")
def results():
    def run(centred):
        path = effects(centred)
        plan = tune(jax.random.key(0), path, num_temperatures=40)
        return log_normalizer(jax.random.key(1), path, plan, num_chains=100)

    both = jax.jit(jax.vmap(run))(jnp.array([1.0, 0.0]))
    return [jax.tree.map(lambda a, i=i: a[i], both) for i in (0, 1)]


@pytest.mark.parametrize("i, is_warned", [(0, True), (1, False)])
def test_moves_that_diverge_are_warned_of(results, i, is_warned):
    assert any("diverge" in text for text in results[i].warnings) == is_warned
