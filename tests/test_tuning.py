"""The pilot: what it makes even, what it is good for, what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import evaluation, schedules, tuning
from ais_jax.path import AnnealingPath
from ais_jax.tuning import Plan
from tests import targets


def test_the_tuned_plan_keeps_conditional_sample_sizes_and_acceptance_even():
    path, _ = targets.log_gamma()
    tune = jax.jit(
        lambda key: tuning.tune(key, path, num_temperatures=32, num_chains=200)
    )
    plan = tune(jax.random.key(0))
    assert plan.betas[0] == 0.0 and plan.betas[-1] == 1.0
    assert jnp.all(jnp.diff(plan.betas) > 0.0)
    result = evaluation.log_normalizer(jax.random.key(1), path, plan, 1000)
    spread = np.sqrt(result.increment_variance)
    assert np.std(spread[1:]) < 0.25 * np.mean(spread[1:])
    np.testing.assert_allclose(result.accept_prob, 0.65, atol=0.2)


def test_the_adaptive_schedule_has_a_smaller_gap_than_the_linear_one():
    """From a base far from the target, at the same number of temperatures."""
    target = targets.skewed(4)
    base = targets.normal_base(4, 6.0)
    path = AnnealingPath(*base, target.path.log_target)

    @partial(jax.jit, static_argnames="schedule")
    def gaps(key, schedule):
        plan = tuning.tune(
            key, path, num_temperatures=16, num_chains=100, schedule=schedule
        )
        keys = jax.random.split(jax.random.key(1), 400)
        bound = lambda key: evaluation.bidirectional_bounds(
            key, path, target.sample(jax.random.fold_in(key, 7)), plan, 1
        )
        bounds = jax.vmap(bound)(keys)
        return bounds.upper - bounds.lower

    adaptive = gaps(jax.random.key(0), "adaptive")
    linear = gaps(jax.random.key(0), "linear")
    assert targets.errors_off(linear - adaptive, 0.0) > 4.0


def test_resampling_a_plan_keeps_its_ends_and_its_shape():
    betas = jnp.asarray(schedules.sigmoid(40))
    plan = Plan(betas, 0.1 + 0.2 * betas[1:-1])
    thin = tuning.resample_plan(plan, 10)
    np.testing.assert_allclose(thin.betas, betas[::4], atol=1e-6)
    np.testing.assert_allclose(thin.step_sizes, 0.1 + 0.2 * thin.betas[1:-1], rtol=1e-2)
    same = tuning.resample_plan(plan, 40)
    np.testing.assert_allclose(same.step_sizes, plan.step_sizes, rtol=1e-5)


def test_one_temperature_is_importance_sampling():
    path, _ = targets.log_gamma()
    plan = tuning.tune(jax.random.key(0), path, num_temperatures=1)
    result = evaluation.log_normalizer(jax.random.key(0), path, plan, 5)
    ratios = jax.vmap(lambda z: path.log_target(z) - path.log_base(z))(result.z)
    np.testing.assert_allclose(result.log_w, ratios, rtol=1e-5)


def test_unknown_schedules_are_refused_with_the_nearest_name():
    path, _ = targets.log_gamma()
    with pytest.raises(ValueError, match="did you mean 'adaptive'"):
        tuning.tune(jax.random.key(0), path, num_temperatures=4, schedule="adaptve")
