"""What an estimate of log Z says, and that it never says too much."""

import functools
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence import estimates, log_z
from ais_jax.evidence.plan import Plan
from ais_jax.numerics import effective_sample_size, log_mean_exp_error
from tests import targets

PLAN = Plan(jnp.linspace(0.0, 1.0, 5), jnp.full((3,), 1.0))

MOVE = partial(hmc_step, num_leapfrog=10, jitter=0.9)  # whose clouds are one point


summarize = jax.jit(estimates.summarize)
summarize_each = jax.jit(jax.vmap(estimates.summarize))


def run(log_target, size=2, num_chains=100, plan=PLAN):
    path = AnnealingPath(*targets.normal_base(size, 1.0), log_target)
    return log_z.log_normalizer(jax.random.key(0), path, plan, num_chains, MOVE)


def test_an_error_that_weights_do_not_support_is_not_small():
    """Normal log weights of a standard deviation of 8 see their mean, not log Z."""
    log_w = 8.0 * jax.random.normal(jax.random.key(0), (50, 100))
    summary = summarize_each(log_w)
    off = np.abs(summary.log_z - 32.0)
    assert off.min() > 5.0
    assert np.all(summary.standard_error > 0.3 * off)


def test_a_supported_error_is_the_spread_over_repeats():
    log_w = 0.3 * jax.random.normal(jax.random.key(0), (400, 200))
    summary = summarize_each(log_w)
    error = np.median(summary.standard_error)
    np.testing.assert_allclose(error, np.std(summary.log_z), rtol=0.1)
    assert np.mean(summary.pareto_k > 0.7) < 0.01


def test_errors_cover_log_z_where_the_delta_method_does_not():
    """Log-normal weights of a variance of 2, where no warning is due."""
    log_w = np.sqrt(2.0) * jax.random.normal(jax.random.key(0), (4000, 100)) - 1.0
    summary = summarize_each(log_w)
    is_quiet = (summary.ess >= 25.0) & (summary.pareto_k <= 0.7)
    delta = jax.jit(jax.vmap(log_mean_exp_error))(log_w)
    covered, by_delta = (
        np.mean(np.abs(summary.log_z) < 3.0 * error, where=is_quiet)
        for error in (summary.standard_error, delta)
    )
    assert np.sum(is_quiet) > 1000
    assert covered > 0.96 > 0.95 > by_delta


def test_weights_that_are_all_zero_have_no_error():
    summary = summarize(jnp.full((30,), -jnp.inf))
    assert summary.log_z == -jnp.inf and summary.standard_error == jnp.inf
    assert summary.ess == 0.0 and summary.pareto_k == jnp.inf


def test_densities_of_nan_and_of_zero_give_the_same_log_z():
    of_nan, of_zero = (
        run(lambda z, a=a: jnp.where(z[0] > 0.0, -0.5 * jnp.sum(z**2), a))
        for a in (jnp.nan, -jnp.inf)
    )
    assert of_nan.log_z == of_zero.log_z
    for result in (of_nan, of_zero):
        num_zero = int(np.sum(result.log_w == -np.inf))
        assert 30 < num_zero < 70
        assert result.num_nan == (num_zero if result is of_nan else 0)
        assert f"{num_zero} of 100 chains of zero weight" in str(result)
        assert ("NaN" in str(result)) == (result is of_nan)


def test_a_report_has_the_numbers_and_no_warning_where_none_is_due():
    result = run(lambda z: -0.6 * jnp.sum(z**2))
    text = str(result)
    assert f"{result.log_z:.3f}" in text
    assert f"{result.ess:.1f} of 100" in text
    assert f"Pareto k {result.pareto_k:.2f}" in text
    assert result.warnings == []


@functools.cache
def doubtful(name):
    """The estimate of a target about which something must be said."""
    targets = {
        "outside": lambda z: jnp.where(z[0] > 99.0, 0.0, -jnp.inf),
        "narrow": lambda z: -5e3 * jnp.sum((z - 1.0) ** 2),
        "large": lambda z: 1e7 - 0.5 * jnp.sum(z**2),
    }
    return run(targets[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outside", "base that lies within"),
        ("narrow", "raise num_temperatures"),
        ("large", "jax_enable_x64"),
    ],
)
def test_a_report_warns_and_says_what_to_do(name, message):
    result = doubtful(name)
    assert any(message in text for text in result.warnings)
    assert message in str(result)


def test_an_error_without_support_is_not_told_as_a_number():
    result = doubtful("narrow")
    assert "its error not estimated" in str(result)
    assert not result.is_supported


def test_nothing_is_drawn_of_chains_without_weight():
    result = doubtful("outside")
    with pytest.raises(ValueError, match="no chain has a positive weight"):
        result.draws(jax.random.key(0), 10)


def test_the_error_is_never_below_the_resolution():
    result = doubtful("large")
    assert result.standard_error >= 0.5 * np.spacing(np.float32(1e7))


def test_results_pickle_and_cross_jit_and_vmap():
    keys = jax.random.split(jax.random.key(0), 3)
    path = AnnealingPath(*targets.normal_base(2, 1.0), lambda z: -jnp.sum(z**2))

    @jax.jit
    def estimate(key):
        return log_z.log_normalizer(key, path, PLAN, 30)

    batch = jax.vmap(estimate)(keys)
    header, *rows = str(batch).splitlines()
    assert header.split() == ["log", "Z", "+-", "ESS", "Pareto", "k", "warnings"]
    for i, row in enumerate(rows[:3]):
        assert row.split()[:2] == [f"[{i}]", f"{batch.log_z[i]:.4g}"]
    again = pickle.loads(pickle.dumps(batch))
    jax.tree.map(np.testing.assert_array_equal, batch, again)


def test_the_effective_sample_size_does_not_move_with_a_constant():
    base = np.tile([0.0, 1.0, 2.0, 3.0], 25)
    exact = np.exp(base).sum() ** 2 / (np.exp(base) ** 2).sum()
    for shift in (-8e6, -1e4, 0.0, 1e6, 8e6):
        ess = jax.jit(effective_sample_size)(np.float32(base + shift))
        np.testing.assert_allclose(ess, exact, rtol=1e-5)
