"""The pilot: what it makes even, what it is good for, what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ais_jax import schedules
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence import log_z as evaluation
from ais_jax.evidence import plan as tuning
from ais_jax.evidence.mass_matrix import Covariance
from ais_jax.evidence.pilot import Pilot
from ais_jax.evidence.plan import Plan
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


@pytest.mark.slow
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
        keys = jax.random.split(jax.random.key(1), 2000)
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
    end = partial(hmc_step, num_leapfrog=1)  # whose clouds are one point
    result = evaluation.log_normalizer(jax.random.key(0), path, plan, 5, end)
    ratios = jax.vmap(lambda z: path.log_target(z) - path.log_base(z))(result.z)
    np.testing.assert_allclose(result.log_w, ratios, rtol=1e-5)


def test_unknown_schedules_are_refused_with_the_nearest_name():
    path, _ = targets.log_gamma()
    with pytest.raises(ValueError, match="did you mean 'adaptive'"):
        tuning.tune(jax.random.key(0), path, num_temperatures=4, schedule="adaptve")


# What a pilot must find: walls, units, narrow targets, correlations.


def estimates(path, num=4, **settings):
    """Estimates of log Z with pilots of their own, in one batch."""

    @jax.jit
    @jax.vmap
    def run(key):
        return evaluation.estimate_log_z(key, path, **settings)

    return run(jax.random.split(jax.random.key(0), num))


def boxed(cut, penalty):
    """A target zero, or penalised, on a share of the base."""
    half = 3.0 * stats.norm.ppf(0.5 + 0.5 * (1.0 - cut) ** (1 / 2))

    def log_target(z):
        inside = jnp.all(jnp.abs(z) < half)
        return jnp.where(inside, -0.5 * jnp.sum(((z - 1.0) / 0.2) ** 2), penalty)

    path = AnnealingPath(*targets.normal_base(2, 3.0), log_target)
    return path, 2.0 * np.log(0.2 * np.sqrt(2.0 * np.pi))


@pytest.mark.parametrize(
    ("cut", "penalty"),
    [
        (0.4, -jnp.inf),
        pytest.param(0.4, -1e4, marks=pytest.mark.slow),
        pytest.param(0.4, -1e30, marks=pytest.mark.slow),
        pytest.param(0.04, -jnp.inf, marks=pytest.mark.slow),
        pytest.param(0.04, -1e4, marks=pytest.mark.slow),
        pytest.param(0.04, -1e30, marks=pytest.mark.slow),
    ],
)
def test_walls_do_not_spoil_the_schedule(cut, penalty):
    path, log_z = boxed(cut, penalty)
    result = estimates(path, num_temperatures=100)
    assert np.abs(result.log_z - log_z).max() < 1.0
    assert np.all(np.abs(result.log_z - log_z) < 4.0 * result.standard_error)
    free = boxed(1e-9, 0.0)[0]
    betas, plain = (
        tuning.tune(jax.random.key(0), p, num_temperatures=40).betas
        for p in (path, free)
    )
    assert np.sum(betas < 0.1) > 0.7 * np.sum(plain < 0.1)


def normal_in_units(unit, width):
    path = AnnealingPath(
        *targets.normal_base(3, unit),
        lambda z: -0.5 * jnp.sum(((z / unit - 0.5) / width) ** 2),
    )
    return path, 3.0 * np.log(width * unit * np.sqrt(2.0 * np.pi))


@pytest.mark.parametrize(
    ("unit", "width", "mass_matrix"),
    [
        pytest.param(1e6, 0.5, "unit", marks=pytest.mark.slow),
        (1.0, 1e-3, "diagonal"),
        pytest.param(1e6, 0.5, "diagonal", marks=pytest.mark.slow),
        pytest.param(1e-4, 0.5, "unit", marks=pytest.mark.slow),
        pytest.param(1e-4, 0.5, "diagonal", marks=pytest.mark.slow),
        pytest.param(1.0, 1e-3, "unit", marks=pytest.mark.slow),
    ],
)
def test_units_and_narrow_targets_are_followed(unit, width, mass_matrix):
    path, log_z = normal_in_units(unit, width)
    result = estimates(path, mass_matrix=mass_matrix, num_temperatures=800)
    assert np.all(np.abs(result.log_z - log_z) < 4.0 * result.standard_error)
    assert np.abs(np.median(result.log_z) - log_z) < 0.6
    accepted = np.quantile(result.accept_prob.mean(axis=0), [0.01, 0.99])
    assert 0.3 < accepted[0] < accepted[1] < 0.95


def test_a_dense_mass_matrix_straightens_correlations():
    size = 20
    covariance = np.full((size, size), 0.99) + 0.01 * np.eye(size)
    precision = np.linalg.inv(covariance)
    path = AnnealingPath(
        *targets.normal_base(size, 1.0),
        lambda z: -0.5 * z @ jnp.asarray(precision, jnp.float32) @ z,
    )

    def conditions(mass_matrix):
        settings = {"num_chains": 200, "mass_matrix": mass_matrix}
        plan = tuning.tune(jax.random.key(0), path, num_temperatures=50, **settings)
        beta = np.asarray(plan.betas)[1:-1, None, None]
        factor = plan.scale
        if mass_matrix == "diagonal":
            factor = plan.scale[:, None] * np.eye(size)
        here = (1.0 - beta) * np.eye(size) + beta * precision
        return np.linalg.cond(np.swapaxes(factor, 1, 2) @ here @ factor)

    assert conditions("dense").max() < 10.0
    assert conditions("diagonal").max() > 100.0


def test_scales_of_a_plan_are_used_at_their_temperatures():
    path, _ = normal_in_units(1.0, 0.5)
    plan = Plan(jnp.linspace(0.0, 1.0, 4), jnp.full((2,), 0.5))
    scale = jnp.array([[1.0] * 3, [0.5] * 3])
    run = partial(evaluation.log_normalizer, jax.random.key(0), path, num_chains=3)
    by_rows = run(plan._replace(scale=scale))
    by_steps = run(plan._replace(step_sizes=0.5 * scale[:, 0]))
    by_factors = run(plan._replace(scale=scale[:, :, None] * jnp.eye(3)))
    np.testing.assert_allclose(by_rows.log_w, by_steps.log_w, rtol=1e-5)
    np.testing.assert_allclose(by_factors.log_w, by_steps.log_w, rtol=1e-5)


def test_moves_have_the_steps_and_scales_of_their_own_temperatures():
    betas = jnp.linspace(0.0, 1.0, 9)
    widths = Covariance(log_sd=-2.0 * betas[:, None], correlation=None)
    plan = tuning.make_plan(Pilot(betas, -betas, jnp.ones(8), widths), 4, None)
    np.testing.assert_allclose(plan.betas, jnp.linspace(0.0, 1.0, 5), atol=1e-6)
    np.testing.assert_allclose(plan.step_sizes, np.exp(-plan.betas[1:-1]), rtol=1e-5)
    found = plan.scale[:, 0]
    np.testing.assert_allclose(found, np.exp(-2.0 * plan.betas[1:-1]), rtol=1e-5)


def test_bounds_use_the_scales_of_a_plan():
    """Of both directions: scales of one half are steps of half the size."""
    path, _ = normal_in_units(1.0, 0.5)
    plan = Plan(jnp.linspace(0.0, 1.0, 4), jnp.full((2,), 0.5))
    args = jax.random.key(0), path, jnp.zeros(3)
    halves = plan._replace(scale=jnp.full((2, 3), 0.5))
    by_scale = evaluation.bidirectional_bounds(*args, halves, num_chains=3)
    small = plan._replace(step_sizes=jnp.full((2,), 0.25))
    by_steps = evaluation.bidirectional_bounds(*args, small, num_chains=3)
    np.testing.assert_allclose(by_scale.lower, by_steps.lower, rtol=1e-5)
    np.testing.assert_allclose(by_scale.upper, by_steps.upper, rtol=1e-5)


# What is refused.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_temperatures": 0}, "num_temperatures=0: use at least 1"),
        ({"num_temperatures": -3}, "num_temperatures=-3: use at least 1"),
        ({"num_chains": 1}, "num_chains=1: use at least 2"),
        ({"target": 65}, "target=65: use a number between 0 and 1"),
        ({"first_step_size": 0}, "first_step_size=0: use a positive number"),
        ({"num_rounds": 0}, "num_rounds=0: use at least 1"),
        ({"mass_matrix": "diag"}, "did you mean 'diagonal'"),
        ({"schedule": [0.0, 0.5, 0.9]}, "from 0 to 0.9"),
        ({"schedule": [0.0, 0.9, 0.1, 1.0]}, r"betas\[1\]=0.9"),
        ({"schedule": [0.0, 0.5, 1.0]}, "num_temperatures=3: make them equal"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_before_the_pilot(settings, message):
    path, _ = normal_in_units(1.0, 0.5)
    with pytest.raises(ValueError, match=message):
        tuning.tune(jax.random.key(0), path, **{"num_temperatures": 3, **settings})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(jnp.array([0.0, 0.5, 0.9]), jnp.ones(1)), "from 0 to 0.9"),
        (Plan(jnp.array([0.0, 0.9, 0.1, 1.0]), jnp.ones(2)), r"betas\[1\]=0.9"),
        (Plan(jnp.array([0.0, 0.5, 1.0]), jnp.ones(3)), r"step_sizes of shape \(3,\)"),
        (Plan(jnp.array([0.0, 0.5, 1.0]), jnp.zeros(1)), "use positive numbers"),
        (Plan(jnp.array([0.0, 0.5, 1.0]), jnp.ones(1), jnp.ones((2, 3))), "2 rows"),
    ],
    ids=["end", "falling", "steps", "zero", "scale"],
)
def test_a_plan_that_does_not_fit_is_refused(plan, message):
    path, _ = normal_in_units(1.0, 0.5)
    with pytest.raises(ValueError, match=message):
        evaluation.log_normalizer(jax.random.key(0), path, plan, 3)


@pytest.mark.parametrize("num", [0, -3])
def test_no_chains_are_refused(num):
    path, _ = normal_in_units(1.0, 0.5)
    with pytest.raises(ValueError, match=f"num_chains={num}: use at least 2"):
        evaluation.estimate_log_z(jax.random.key(0), path, num_chains=num)


def test_examples_may_be_numpy_arrays():
    xs = {"x": np.array([[0.3], [0.5]]), "n": np.array([3, 4])}

    def path(x):
        log_target = lambda z: -0.5 * x["n"] * jnp.sum((z - x["x"]) ** 2)
        return AnnealingPath(*targets.normal_base(1, 1.0), log_target)

    plan = tuning.tune_examples(jax.random.key(0), path, xs, num_temperatures=4)
    assert jnp.all(jnp.isfinite(plan.step_sizes))


def test_a_path_takes_no_data_and_a_function_needs_them():
    path, _ = normal_in_units(1.0, 0.5)
    key, xs = jax.random.key(0), jnp.zeros((2, 1))
    with pytest.raises(ValueError, match="data is given and path takes none"):
        evaluation.estimate_log_z(key, path, xs)
    with pytest.raises(ValueError, match="is a function: give xs"):
        tuning.tune(key, lambda x: path, num_temperatures=3)
