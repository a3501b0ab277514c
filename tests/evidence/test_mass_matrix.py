"""Mass matrices from chains: correlations that are there, and those that are chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import AnnealingPath
from ais_jax.evidence.mass_matrix import estimate, moments, suited

NUM, SIZE = 100, 20
NORMAL = jax.random.normal(jax.random.key(0), (1, NUM, SIZE + 1))


def correlation(z, function=estimate, **settings):
    settings = settings or {"mass_matrix": "dense"}
    found = function(z=z, weight=jnp.ones(z.shape[:2]), **settings).correlation
    np.testing.assert_array_equal(np.diagonal(found), 1.0)
    return np.asarray(found)[~np.eye(z.shape[-1], dtype=bool)]


def test_correlations_that_are_there_stay():
    z = 0.1 * NORMAL[..., 1:] + NORMAL[..., :1]  # rho = 1 / 1.01
    np.testing.assert_allclose(correlation(z), 1.0 / 1.01, atol=0.03)


def funnel():
    return jnp.exp(1.5 * NORMAL[..., :1]) * NORMAL[..., 1:]


@pytest.mark.parametrize("z", [NORMAL, funnel()], ids=["normal", "heavy tails"])
def test_correlations_by_chance_are_taken_off(z):
    raw = correlation(z, moments, is_dense=True)
    assert np.mean(raw**2) > 0.9 / NUM
    assert np.mean(correlation(z) ** 2) < 0.1 * np.mean(raw**2)


@pytest.mark.parametrize(
    ("size", "num_chains", "asked", "name"),
    [
        (200, 100, None, "dense"),
        (200, 99, None, "diagonal"),
        (201, 1000, None, "diagonal"),
        (201, 100, "dense", "dense"),
        (2, 100, "unit", "unit"),
    ],
)
def test_the_default_follows_the_number_of_dimensions(size, num_chains, asked, name):
    def sample_base(key):
        return {"a": jax.random.normal(key, (size - 1,)), "b": jnp.zeros(())}

    path = AnnealingPath(sample_base, None, None)
    assert suited(asked, jax.random.key(0), path, num_chains) == name
