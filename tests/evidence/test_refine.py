"""Runs that go on until log Z has a wanted error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence import (
    log_z,
)
from ais_jax.evidence import (
    refine as refining,
)
from ais_jax.evidence.plan import Plan
from tests import targets

KEY = jax.random.key(0)
PATH, LOG_Z = targets.log_gamma()
PLAN = Plan(jnp.linspace(0.0, 1.0, 5), jnp.full((3,), 0.3))


@jax.jit
def chunk(key, plan):
    return log_z.log_normalizer(key, PATH, plan, 50)


def refine(run=chunk, error=0.04, max_moves=10**6, **settings):
    limits = {"num_chains": 50, "error": error, "max_moves": max_moves}
    return refining.refine(run, KEY, PLAN, **limits, **settings)


@pytest.mark.slow
def test_a_wanted_error_is_reached_by_temperatures_and_chains():
    lines = []
    result = refine(progress=lambda progress: lines.append(str(progress)))
    assert result.standard_error <= 0.04
    assert abs(result.log_z - LOG_Z) < 4.0 * result.standard_error
    assert len(result.increment_variance) > 4
    assert len(result.log_w) == len(result.z) > 50
    assert len(lines) >= len(result.log_w) / 50
    assert "moves: log Z =" in lines[-1] and f"{result.num_moves:,} of" in lines[-1]
    assert "wanted +- 0.04" in str(result)
    assert not any("was not reached" in text for text in result.warnings)


def test_chains_are_those_of_chunks_that_are_weighed_together():
    result = refine(error=0.15)
    np.testing.assert_allclose(
        result.log_z, np.log(np.mean(np.exp(np.float64(result.log_w)))), rtol=1e-5
    )
    again = refine(error=0.15)
    np.testing.assert_array_equal(result.log_w, again.log_w)


def test_the_limit_holds_and_is_said():
    result = refine(error=1e-4, max_moves=3000)
    assert result.num_moves <= 3000 and result.standard_error > 1e-4
    assert any("0.0001, was not reached" in text for text in result.warnings)


def test_halves_that_disagree_double_the_temperatures():
    """Every second chunk is a nat above the others; the effective size stays high."""
    temperatures = []

    def run(key, plan):
        temperatures.append(len(plan.betas) - 1)
        log_w = 0.1 * jax.random.normal(key, (50,)) + len(temperatures) % 2
        return chunk(key, PLAN)._replace(log_w=log_w)

    result = refine(run, error=0.012, max_moves=3000)
    assert temperatures[:3] == [4, 4, 8]
    assert any("was not reached" in text for text in result.warnings)


def test_estimate_log_z_takes_an_error():
    result = log_z.estimate_log_z(
        KEY, PATH, num_temperatures=20, num_chains=50, error=0.1
    )
    assert result.standard_error <= 0.1
    assert abs(result.log_z - LOG_Z) < 4.0 * result.standard_error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 0.0}, r"error=0.0: use a positive"),
        ({"error": float("nan")}, r"error=nan: use a positive"),
        ({"error": 0.1, "max_moves": 0}, "max_moves=0: use at least 1"),
        ({"error": 0.1, "resample_below": 0.5}, "leave one of them out"),
    ],
    ids=str,
)
def test_errors_that_cannot_be_aimed_for_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        log_z.estimate_log_z(KEY, PATH, **settings)


def test_a_limit_below_one_chunk_and_traced_keys_are_refused():
    with pytest.raises(ValueError, match="max_moves=10 is less than one chunk"):
        refine(max_moves=10)
    with pytest.raises(ValueError, match="not for jit or vmap"):
        jax.jit(lambda key: log_z.estimate_log_z(key, PATH, error=0.1))(KEY)


def test_dead_chains_ask_for_more_chains_not_for_temperatures():
    def log_target(z):
        return jnp.where(jnp.all(z > 0.0), -0.5 * jnp.sum(z**2), -jnp.inf)

    path = AnnealingPath(*targets.normal_base(3, 1.0), log_target)
    run = jax.jit(lambda key, plan: log_z.log_normalizer(key, path, plan, 50))
    result = refine(run, error=0.1)
    assert len(result.increment_variance) == 4 and result.standard_error <= 0.1
    exact = 1.5 * np.log(2.0 * np.pi) - 3.0 * np.log(2.0)
    assert abs(result.log_z - exact) < 4.0 * result.standard_error
