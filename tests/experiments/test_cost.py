"""What the compiled programs cost: FLOPs, and memory that does not grow with T and L.

XLA's cost analysis counts a loop's body once, so `benchmarks.flops` multiplies the
matrix products of the compiled program by its loops' trip counts.
"""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import pytest

from ais_jax import estimators
from ais_jax.batching import chain_keys
from ais_jax.training.step import sampled_gradient
from benchmarks import common, flops
from tests.targets import slow_but

WORK = common.Workload(batch=8, data_size=196, latent=20, widths=(64, 48))


def compiled_sampler(work, num_samples, num_temperatures, block=None):
    estimate = common.estimator(work, num_samples, num_temperatures)
    arguments = common.sampler_arguments(work, num_temperatures)
    return common.compiled(common.make_sampler(estimate, block), *arguments)[1]


def encoder_flops(work):
    sizes = (work.data_size, *work.widths, 2 * work.latent)
    return work.batch * 2 * sum(a * b for a, b in itertools.pairwise(sizes))


def compiled_step(num_samples, num_temperatures, num_leapfrog):
    work = WORK._replace(num_leapfrog=num_leapfrog)
    estimate = common.estimator(work, num_samples, num_temperatures)
    arguments = common.step_arguments(work, estimate)
    return common.compiled(common.make_step(estimate, None), *arguments)[1]


def test_matrix_products_in_loops_are_counted_by_their_trips():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 4))
    inner = lambda _, a: jnp.tanh(a @ b)
    outer = lambda _, a: jnp.tanh(jax.lax.fori_loop(0, 7, inner, a) @ b)
    program = common.compiled(lambda a: jax.lax.fori_loop(0, 5, outer, a), a)[1]
    assert flops.dot_flops(program) == 5 * (7 + 1) * 2 * 3 * 4 * 4


@pytest.mark.parametrize(
    "num_samples, block", slow_but([(1, None), (4, None), (4, 4)], (4, None), (4, 4))
)
def test_the_sampler_makes_the_fewest_matrix_products(num_samples, block):
    num_temperatures = 3
    program = compiled_sampler(WORK, num_samples, num_temperatures, block)
    least = WORK.minimum_flops(num_samples, num_temperatures) + encoder_flops(WORK)
    assert flops.dot_flops(program) == pytest.approx(least, rel=0.01)


def test_a_coarse_force_takes_the_values_once_a_move():
    num_temperatures = 3
    program = compiled_sampler(WORK._replace(force="tf32"), 1, num_temperatures)
    forces = WORK.minimum_flops(1, num_temperatures)
    values = (1 + num_temperatures) * WORK.batch * WORK.pass_flops() / 2
    least = forces + values + encoder_flops(WORK)
    assert flops.dot_flops(program) == pytest.approx(least, rel=0.01)


@pytest.mark.parametrize("force", ["float32", "tf32"])
def test_points_cost_products_of_residuals_or_passes_beside_a_coarse_force(force):
    """Residuals give theta's gradient one product a layer; passes are three.

    A coarse force takes the values at every point.
    """
    work = WORK._replace(force=force)
    estimate = estimators.ais(
        work.model(), num_temperatures=1, num_leapfrog=4, average="points"
    )
    key, theta, phi, x, step_sizes = common.sampler_arguments(work, 1)
    gradient = partial(sampled_gradient, estimate)
    keys = chain_keys(key, len(x))
    program = common.compiled(gradient, theta, phi, step_sizes, keys, x)[1]
    least = encoder_flops(work) + 1.5 * (1 + 4) * work.batch * work.pass_flops()
    if force != "float32":
        least += flops.gradient_minimum(work, 1 + 4, 1)
        least -= flops.gradient_minimum(work, 0, 1)
    assert flops.dot_flops(program) == pytest.approx(least, rel=0.01)


def test_importance_weights_come_from_the_forward_pass_of_the_gradient_for_theta():
    estimate = estimators.dreg(WORK.model(), num_samples=4)
    step = common.make_step(estimate, None)
    program = common.compiled(step, *common.step_arguments(WORK, estimate))[1]
    least = flops.gradient_minimum(WORK, 4, num_phi_samples=4)
    assert flops.dot_flops(program) == pytest.approx(least, rel=0.01)


@cache
def temporary_bytes(**settings):
    return compiled_step(**settings).memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_leapfrog_steps():
    settings = {"num_samples": 4, "num_temperatures": 4}
    short = temporary_bytes(**settings, num_leapfrog=4)
    assert 0 < temporary_bytes(**settings, num_leapfrog=64) <= short


def test_memory_grows_with_temperatures_by_an_acceptance_of_each_chain_alone():
    short = temporary_bytes(num_samples=4, num_temperatures=4, num_leapfrog=4)
    long = temporary_bytes(num_samples=4, num_temperatures=32, num_leapfrog=4)
    acceptances = 4 * WORK.batch * 4 * (32 - 4)
    assert 0 < long <= short + acceptances
    assert acceptances < 0.25 * short
