"""Evidence from draws: right where the draws are, and told where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm as normal

from ais_jax import log_z_from_draws
from ais_jax.annealing.path import AnnealingPath, Coordinates
from ais_jax.evidence.bridge import bridge
from ais_jax.evidence.draws import split_r_hat

KEY = jax.random.key(0)
SETTINGS = {"num_chains": 100, "error": 0.05}
FACTOR = np.array([[1.0, 0.0, 0.0], [2.0, 0.5, 0.0], [-1.0, 0.3, 3.0]])
LOG_Z = 1.5 * np.log(2.0 * np.pi) + np.log(1.0 * 0.5 * 3.0)
PRECISION = jnp.asarray(np.linalg.inv(FACTOR @ FACTOR.T), jnp.float32)


def correlated(z):
    return -0.5 * z @ PRECISION @ z


def exact_draws(seed=0, num_chains=4, num_draws=400):
    noise = np.random.default_rng(seed).normal(size=(num_chains, num_draws, 3))
    return (noise @ FACTOR.T).astype(np.float32)


def bimodal(z):
    return jnp.logaddexp(*(-0.5 * jnp.sum(jnp.square(z - m)) for m in (-4.0, 4.0)))


def test_log_z_of_exact_draws_and_its_bounds():
    result = log_z_from_draws(KEY, correlated, exact_draws(), **SETTINGS)
    assert not result.warnings and result.standard_error <= SETTINGS["error"]
    assert abs(result.log_z - LOG_Z) < 4.0 * result.standard_error
    assert result.lower - 4.0 * result.lower_error < LOG_Z
    assert result.upper + 4.0 * result.upper_error > LOG_Z


SHIFT = {"by": 0.0}  # read by the density below


def shifted(z):
    return correlated(z) + SHIFT["by"]


def test_what_a_density_reads_may_change(monkeypatch):
    first = log_z_from_draws(KEY, shifted, exact_draws(), **SETTINGS)
    monkeypatch.setitem(SHIFT, "by", 5.0)
    second = log_z_from_draws(KEY, shifted, exact_draws(), **SETTINGS)
    assert second.log_z - first.log_z == pytest.approx(5.0, abs=1e-3)


@pytest.mark.parametrize(
    ("num", "most"),  # 0.1% of chi-squared
    [(8, 26.1), pytest.param(20, 45.3, marks=pytest.mark.slow)],
)
def test_errors_hold_over_other_draws_and_keys(num, most):
    results = [
        log_z_from_draws(jax.random.key(i), correlated, exact_draws(i), **SETTINGS)
        for i in range(num)
    ]
    scores = [(r.log_z - LOG_Z) / r.standard_error for r in results]
    assert np.sum(np.square(scores)) < most
    assert abs(np.mean([r.log_z for r in results]) - LOG_Z) < 0.05


def test_draws_of_bounded_parameters_come_in_the_units_of_the_user():
    """Rates of a Gamma: exp(x) of a position x."""
    shape = jnp.array([3.0, 5.0])
    path = AnnealingPath(
        lambda key: {"rate": jax.random.normal(key, (2,))},
        lambda x: jnp.sum(jax.scipy.stats.norm.logpdf(x["rate"])),
        lambda x: jnp.sum(shape * x["rate"] - jnp.exp(x["rate"])),
        coordinates=Coordinates(
            lambda x: {"rate": jnp.exp(x["rate"])},
            lambda y: {"rate": jnp.log(y["rate"])},
        ),
    )
    rates = np.random.default_rng(0).gamma(np.array([3.0, 5.0]), size=(4, 400, 2))
    draws = {"rate": rates.astype(np.float32), "other": np.zeros((4, 400))}
    result = log_z_from_draws(KEY, path, draws, **SETTINGS)
    assert not result.warnings
    assert abs(result.log_z - np.log(2.0 * 24.0)) < 4.0 * result.standard_error


def test_draws_at_a_bound_are_refused():
    draws = {"rate": np.ones((4, 400), np.float32)}
    draws["rate"][0, :3] = 0.0
    path = AnnealingPath(
        lambda key: {"rate": jax.random.normal(key)},
        lambda x: jax.scipy.stats.norm.logpdf(x["rate"]),
        lambda x: x["rate"] - jnp.exp(x["rate"]),
        coordinates=Coordinates(
            lambda x: {"rate": jnp.exp(x["rate"])},
            lambda y: {"rate": jnp.log(y["rate"])},
        ),
    )
    with pytest.raises(ValueError, match="3 of 1600 draws lie at a bound"):
        log_z_from_draws(KEY, path, draws)


@pytest.mark.slow
def test_draws_of_one_mode_of_two_are_told():
    draws = np.random.default_rng(0).normal(4.0, size=(4, 400, 2)).astype(np.float32)
    result = log_z_from_draws(KEY, bimodal, draws, **SETTINGS | {"max_moves": 100_000})
    assert "mode" in " ".join(result.warnings)


def test_chains_that_disagree_are_told():
    draws = np.random.default_rng(0).normal(4.0, size=(4, 400, 2)).astype(np.float32)
    draws[::2] -= 8.0
    result = log_z_from_draws(KEY, bimodal, draws, **SETTINGS | {"max_moves": 100_000})
    assert any("disagree" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("draws", "error"),
    [
        (np.zeros((3,)), r"leading axes \[\(3,\)\]"),
        (np.zeros((4, 10, 3)), "draws has 10 for each chain"),
        (np.full((4, 400, 3), np.nan), "not all finite"),
        ({"a": np.zeros((4, 40)), "b": np.zeros((4, 41))}, "the same two"),
    ],
)
def test_draws_that_cannot_be_are_refused(draws, error):
    with pytest.raises(ValueError, match=error):
        log_z_from_draws(KEY, correlated, draws)


@pytest.mark.parametrize("sizes", [(200, 200), (50, 400), (400, 50)])
def test_the_bridge_of_normal_log_weights(sizes):
    """Forward N(c - v / 2, v) and reverse N(c + v / 2, v) are of log Z = c."""
    rng = np.random.default_rng(0)
    found = [
        bridge(
            rng.normal(2.0 - 0.75, np.sqrt(1.5), sizes[0]),
            rng.normal(2.0 + 0.75, np.sqrt(1.5), sizes[1]),
        )
        for _ in range(300)
    ]
    log_z, error = np.array(found).T
    assert abs(log_z.mean() - 2.0) < 4.0 * log_z.std() / np.sqrt(300)
    assert 0.9 < np.std((log_z - 2.0) / error) < 1.15


def test_the_bridge_counts_draws_that_hang_together_as_fewer():
    rng = np.random.default_rng(0)
    forward = rng.normal(-0.5, 1.0, 400)
    alone = rng.normal(0.5, 1.0, 20)
    assert (
        bridge(forward, np.repeat(alone, 20))[1]
        > 2.0 * bridge(forward, normal.rvs(0.5, 1.0, 400, random_state=rng))[1]
    )


def test_split_r_hat_of_one_and_of_several_means():
    x = np.random.default_rng(0).normal(size=(4, 1000, 1))
    assert split_r_hat(x) < 1.01
    x[0] += 1.0
    assert split_r_hat(x) == pytest.approx(np.sqrt(1.0 + 1.5 / 7.0), abs=0.02)
    drifting = np.random.default_rng(0).normal(size=(1, 1000)) + np.linspace(0, 3, 1000)
    assert split_r_hat(drifting[..., None]) > 1.3


@pytest.mark.parametrize(
    ("log_density", "error"),
    [
        (lambda: 0.0, "log_density fails at one draw"),
        (lambda z: z["a"], "log_density fails at one draw"),
        (lambda z: z, r"returned ShapeDtypeStruct.* for one draw"),
        (lambda z: jnp.where(z[0] > 0.0, correlated(z), -jnp.inf), r"at \d* of 1600"),
        (lambda z: jnp.nan * z[0], "-inf or NaN at 1600 of 1600 draws"),
    ],
)
def test_what_is_no_density_of_the_draws_is_refused(log_density, error):
    with pytest.raises(ValueError, match=error):
        log_z_from_draws(KEY, log_density, exact_draws())
