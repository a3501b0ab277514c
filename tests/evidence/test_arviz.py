"""Estimates as objects of ArviZ: weighted draws that say how many they are worth."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import LogNormalizer
from ais_jax.evidence.draws import read_draws

pytestmark = [
    pytest.mark.skipif(find_spec("arviz_base") is None, reason="the extra arviz"),
    pytest.mark.filterwarnings(r"ignore:\s*ArviZ is undergoing:FutureWarning"),
]
NUM = 40


def estimate(log_w):
    """A result of chains that end at 0, 1, ..., with these log weights."""
    numbers = dict.fromkeys(LogNormalizer._fields, 0.0)
    z = {"a": np.arange(1.0 * NUM), "b": np.ones((NUM, 2))}
    changes = {"log_w": log_w, "z": z, "log_z": -3.0, "standard_error": 0.1}
    changes["log_target"] = -2.0 * z["a"]
    changes["ess"] = 7.0 if np.any(np.isfinite(log_w)) else 0.0
    return LogNormalizer(**numbers | changes)


def test_draws_are_as_many_as_the_weights_say():
    log_w = np.where(np.arange(NUM) == 3, np.log(0.75 * (NUM - 1) / 0.25), 0.0)
    data = estimate(log_w).to_arviz(jax.random.key(0), 4000)
    a = np.asarray(data.posterior["a"])
    assert a.shape == (1, 4000) and data.posterior["b"].shape == (1, 4000, 2)
    assert abs(np.mean(a == 3) - 0.75) < 4.0 * np.sqrt(0.75 * 0.25 / 4000)
    assert 6.9 < data.posterior.attrs["ess"] < 7.0
    stats = data.sample_stats
    assert np.all(np.asarray(stats["log_marginal_likelihood"]) == -3.0)
    assert np.all(np.asarray(stats["log_marginal_likelihood_error"]) == 0.1)
    np.testing.assert_allclose(stats["log_weight"], log_w[a.astype(int)], rtol=1e-6)
    np.testing.assert_array_equal(stats["lp"], -2.0 * a)


def test_its_draws_are_read_again():
    data = estimate(np.zeros(NUM)).to_arviz(jax.random.key(0), 50)
    draws = read_draws(data, {"b": jnp.zeros(2)})
    assert set(draws) == {"b"} and draws["b"].shape == (1, 50, 2)


@pytest.mark.parametrize(
    ("z", "names"),
    [
        (np.ones((NUM, 2)), {"z"}),
        ({"a": {"b": np.ones(NUM)}, "c": (np.ones(NUM),)}, {"a.b", "c.0"}),
    ],
)
def test_variables_are_named_by_their_place(z, names):
    result = estimate(np.zeros(NUM))._replace(z=z)
    assert set(result.to_arviz(jax.random.key(0), 9).posterior.data_vars) == names


def test_chains_of_no_weight_give_no_draws():
    with pytest.raises(ValueError, match="no chain has a positive weight"):
        estimate(np.full(NUM, -np.inf)).to_arviz(jax.random.key(0))
