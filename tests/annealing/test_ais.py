"""Annealed chains: exact identities, unbiased weights, and mutants that must fail."""

import collections
import functools
import itertools
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import schedules
from ais_jax.annealing import hmc, path
from ais_jax.annealing.ais import anneal, anneal_both_ways, reverse_anneal
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.trajectory import trajectory_step
from ais_jax.numerics import effective_sample_size
from tests.targets import (
    LOG_Z,
    OPTIMIZED,
    driven_by,
    errors_off,
    mixture,
    ratio_and_error,
    skewed,
    slow_but,
)

TARGETS = {"mixture 1-d": mixture(), "skewed 20-d": skewed(20)}
MOVE = partial(hmc_step, num_leapfrog=3)
STEP = 0.5

each_target = pytest.mark.parametrize("name", TARGETS)
one_target = pytest.mark.parametrize("name", slow_but(TARGETS, "skewed 20-d"))


@functools.cache
def compiled(target, move, run):
    draw = target.sample if run is reverse_anneal else target.path.sample_base

    def one(key, betas, step_sizes):
        start_key, key = jax.random.split(key)
        return run(key, target.path, draw(start_key), betas, step_sizes, move)

    return jax.jit(jax.vmap(one, (0, None, None)))


def chains(target, betas, num, *, step_sizes=None, move=MOVE, run=anneal, seed=0):
    """Results of many chains, each from an exact draw of the end where it starts."""
    betas = jnp.asarray(betas, jnp.float32)
    if step_sizes is None:
        step_sizes = jnp.full(len(betas) - 1, STEP)
    keys = jax.random.split(jax.random.key(seed), num)
    return compiled(target, move, run)(keys, betas, jnp.asarray(step_sizes))


@functools.cache
def linear_chains(name, num_temperatures, run=anneal):
    """Chains on the linear schedule, which several tests read."""
    num = {1: 2**17, 2: 2**16, 50: 2**13}.get(num_temperatures, 2**15)
    return chains(TARGETS[name], schedules.linear(num_temperatures), num, run=run)


def ignore(key, path, point, beta, step_size):
    """A transition that stays where it is."""
    return point, SimpleNamespace(accept_prob=jnp.ones(()))


# Exact identities.


def test_one_temperature_is_importance_sampling():
    path, z = skewed(5).path, jnp.linspace(-0.5, 1.5, 5)

    @jax.jit
    def run(step_sizes):
        key, betas = jax.random.key(0), jnp.array([0.0, 1.0])
        result = anneal(key, path, z, betas, step_sizes, MOVE)
        return result.log_w, path.log_target(z) - path.log_base(z)

    for step_sizes in (jnp.zeros(0), jnp.full(1, STEP)):
        log_w, expected = run(step_sizes)
        assert log_w == expected


@pytest.mark.parametrize("num_temperatures", [1, 4])
def test_all_target_gives_the_weights_of_the_starting_points(num_temperatures):
    target, z = skewed(5), jnp.linspace(-0.5, 1.5, 5)
    betas = schedules.all_target(num_temperatures)
    step_sizes = jnp.full(num_temperatures, STEP)

    @jax.jit
    def run(z):
        key, path = jax.random.key(0), target.path
        result = anneal(key, path, z, betas, step_sizes, MOVE)
        return result, path.log_target(z) - path.log_base(z)

    result, expected = run(z)
    assert result.log_w == expected
    assert np.all(result.point.z != z)


def test_without_moving_the_weight_is_that_of_the_start_on_any_schedule():
    path, z = skewed(5).path, jnp.linspace(-0.5, 1.5, 5)
    betas = schedules.sigmoid(50)

    @jax.jit
    def run(z):
        result = anneal(jax.random.key(0), path, z, betas, jnp.zeros(50), ignore)
        return result.log_w, path.log_target(z) - path.log_base(z)

    np.testing.assert_allclose(*run(z), rtol=1e-6)


def test_the_final_move_leaves_the_weights_as_they_are():
    betas = schedules.linear(4)
    with_move = chains(TARGETS["mixture 1-d"], betas, 100)
    without = chains(TARGETS["mixture 1-d"], betas, 100, step_sizes=np.full(3, STEP))
    np.testing.assert_allclose(with_move.log_w, without.log_w, rtol=1e-6)
    np.testing.assert_allclose(
        with_move.accept_prob[:, :3], without.accept_prob, rtol=1e-5
    )
    assert jnp.mean(with_move.point.z != without.point.z) > 0.5


@pytest.mark.parametrize("num_moves", [4, 5])
def test_increments_add_up_to_the_log_weight(num_moves):
    betas = schedules.sigmoid(5)
    step_sizes = np.full(num_moves, STEP)
    result = chains(TARGETS["skewed 20-d"], betas, 50, step_sizes=step_sizes)
    assert result.increments.shape == (50, 5)
    assert result.accept_prob.shape == (50, num_moves)
    total = np.float64(result.increments).sum(axis=1)
    np.testing.assert_allclose(result.log_w, total, rtol=1e-5)


def test_the_weight_is_eq_7_along_the_visited_points():
    """A transition that reports its point lets the test add up Eq. 7 by hand."""
    target, betas = TARGETS["mixture 1-d"], schedules.sigmoid(5)
    visited = lambda point: SimpleNamespace(accept_prob=point.z[0])

    def spy(key, path, point, beta, step_size):
        point, _ = MOVE(key, path, point, beta, step_size)
        return point, visited(point)

    z0 = jnp.array([0.7])
    step_sizes = jnp.full(5, STEP)
    result = anneal(jax.random.key(3), target.path, z0, betas, step_sizes, spy)
    points = jnp.concatenate([z0, result.accept_prob])
    ends = (target.path.log_base, target.path.log_target)
    log_base, log_target = (jax.jit(jax.vmap(f))(points[:5, None]) for f in ends)
    log_f = lambda betas: (1 - betas) * log_base + betas * log_target
    expected = np.sum(log_f(betas[1:]) - log_f(betas[:-1]))
    assert len(set(points.tolist())) > 4
    np.testing.assert_allclose(result.log_w, expected, rtol=1e-5)


def test_many_temperatures_add_up_without_loss():
    """Ten thousand increments of a weight that is known, in single precision."""
    betas, z = schedules.linear(10_000), jnp.zeros(1)

    @partial(jax.jit, compiler_options=OPTIMIZED)
    def log_w(value):
        ends = path.AnnealingPath(
            lambda key: z, lambda z: 0.0 * z[0], lambda z: value + z[0]
        )
        key, step_sizes = jax.random.key(0), jnp.zeros(10_000)
        return anneal(key, ends, z, betas, step_sizes, ignore).log_w

    assert abs(log_w(-123.456) + 123.456) < 1e-5


@pytest.mark.parametrize("run", [anneal, reverse_anneal])
@pytest.mark.parametrize("num_moves", [1, 4])
def test_a_wrong_number_of_step_sizes_is_refused(run, num_moves):
    with pytest.raises(ValueError, match=f"{num_moves} step sizes for 3 temperatures"):
        run(
            jax.random.key(0),
            TARGETS["mixture 1-d"].path,
            jnp.zeros(1),
            schedules.linear(3),
            jnp.full(num_moves, STEP),
            MOVE,
        )


def half_line():
    """A target that is zero on half of the base."""
    plain = mixture()
    inside = lambda z: jnp.where(z[0] > 0.0, plain.path.log_target(z), -jnp.inf)
    return plain._replace(path=plain.path._replace(log_target=inside))


@pytest.mark.parametrize("betas", [[0, 1], [0, 0.5, 1], [0, 1, 1], [0, 0, 1]], ids=str)
def test_a_start_where_the_target_is_zero_has_weight_zero(betas):
    result = chains(half_line(), betas, 2000, move=ignore)
    outside = np.asarray(result.point.z[:, 0] <= 0.0)
    assert 0.2 < outside.mean() < 0.8
    np.testing.assert_array_equal(result.log_w[outside], -np.inf)
    assert np.all(np.isfinite(result.log_w[~outside]))


# The cost.


class Counter:
    """Counts at run time how often each chain evaluates its target."""

    def __init__(self):
        self.calls = collections.Counter()

    def watch(self, function, chain):
        """The same function of z, counted for its chain."""

        def counted(z):
            jax.debug.callback(lambda i: self.calls.update([int(i)]), chain)
            return function(z)

        return counted

    def of_chains(self, num):
        """The counts of all chains, once every callback has run."""
        jax.effects_barrier()
        counts = [self.calls[i] for i in range(num)]
        assert sum(counts) == self.calls.total()
        return counts


@pytest.mark.parametrize(
    ("num_leapfrog", "num_moves"),  # without and with the final move
    slow_but(itertools.product([1, 5], [3, 4]), (1, 4), (5, 3)),
)
def test_a_chain_evaluates_its_target_once_and_once_a_leapfrog_step(
    num_leapfrog, num_moves
):
    plain, counter = TARGETS["mixture 1-d"].path, Counter()

    def one(chain, key):
        path = plain._replace(log_target=counter.watch(plain.log_target, chain))
        move = partial(hmc_step, num_leapfrog=num_leapfrog)
        betas, step_sizes = jnp.linspace(0.0, 1.0, 5), jnp.full(num_moves, STEP)
        return anneal(key, path, jnp.zeros(1), betas, step_sizes, move)

    keys = jax.random.split(jax.random.key(0), 3)
    jax.block_until_ready(jax.jit(jax.vmap(one))(jnp.arange(3), keys))
    assert counter.of_chains(3) == [1 + num_leapfrog * num_moves] * 3


# Unbiased weights.


def is_unbiased(log_w, log_z):
    """Whether E[w] / Z = 1 within 4 standard errors, which are at most 0.01."""
    ratio, error = ratio_and_error(log_w, log_z)
    assert error < 0.01
    return abs(ratio - 1.0) < 4.0 * error


@pytest.mark.parametrize(
    ("name", "num_temperatures"),
    slow_but(
        itertools.product(TARGETS, [1, 2, 5, 11, 50]),
        ("mixture 1-d", 5),
        *(("skewed 20-d", num) for num in (1, 5, 50)),
    ),
)
def test_weights_average_to_the_normalising_constant(name, num_temperatures):
    result = linear_chains(name, num_temperatures)
    assert is_unbiased(result.log_w, LOG_Z)
    assert 0.5 < jnp.mean(result.accept_prob) < 0.99


@pytest.mark.parametrize("num_temperatures", slow_but([2, 5, 11], 5))
@each_target
def test_reverse_weights_average_to_its_inverse(name, num_temperatures):
    result = linear_chains(name, num_temperatures, reverse_anneal)
    assert is_unbiased(result.log_w, -LOG_Z)


def test_reverse_chains_do_not_use_the_final_step_size():
    target, betas = TARGETS["mixture 1-d"], schedules.linear(3)
    run = partial(chains, target, betas, 50, run=reverse_anneal)
    full = run(step_sizes=np.array([0.3, 0.5, 0.7]))
    short = run(step_sizes=np.array([0.3, 0.5]))
    np.testing.assert_array_equal(full.log_w, short.log_w)


@one_target
def test_forward_and_reverse_bounds_hold_log_z_between_them(name):
    gaps = []
    for num_temperatures in (1, 5):
        lower = linear_chains(name, num_temperatures).log_w
        upper = -linear_chains(name, num_temperatures, reverse_anneal).log_w
        assert errors_off(lower, LOG_Z) < -4
        assert errors_off(upper, LOG_Z) > 4
        gaps.append(jnp.mean(upper) - jnp.mean(lower))
    assert gaps[1] < 0.7 * gaps[0]


@pytest.mark.parametrize("schedule", slow_but(["sigmoid", "all_target"], "all_target"))
def test_any_schedule_is_unbiased(schedule):
    target, betas = TARGETS["mixture 1-d"], schedules.make(schedule, 5)
    assert is_unbiased(chains(target, betas, 2**15).log_w, LOG_Z)


def test_ties_in_the_schedule_only_add_moves():
    target, betas = TARGETS["mixture 1-d"], [0.0, 0.0, 0.5, 0.5, 0.5, 1.0]
    assert is_unbiased(chains(target, betas, 2**15).log_w, LOG_Z)


def test_a_coarse_force_is_unbiased():
    target = TARGETS["skewed 20-d"]
    rounded = lambda z: z.astype(jnp.bfloat16).astype(jnp.float32)
    force = lambda z: target.path.log_target(rounded(z))
    z = target.path.sample_base(jax.random.key(0))
    fine_and_coarse = jax.jit(
        lambda z: (jax.grad(target.path.log_target)(z), jax.grad(force)(z))
    )
    exact_grad, coarse_grad = fine_and_coarse(z)
    assert 1e-3 < jnp.max(jnp.abs(exact_grad - coarse_grad)) < 1e-1
    path = driven_by(target.path, force)
    result = chains(target._replace(path=path), schedules.linear(11), 2**15)
    assert is_unbiased(result.log_w, LOG_Z)


@one_target
def test_more_temperatures_give_a_larger_effective_sample_size(name):
    shares = [
        effective_sample_size(linear_chains(name, t).log_w[: 2**13]) / 2**13
        for t in (1, 5, 50)
    ]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.9


# Mutants: each is a plausible mistake, and the checks above must reject it.


def printed_algorithm(key, path_, z0, betas, step_sizes, transition):
    """Algorithm 1 as printed: the first increment twice, the last one never."""
    point = path.evaluate(path_, z0)
    log_w = (betas[1] - betas[0]) * path.log_ratio(point)
    for t in range(1, len(betas) - 1):
        log_w += (betas[t] - betas[t - 1]) * path.log_ratio(point)
        key, move_key = jax.random.split(key)
        point, _ = transition(move_key, path_, point, betas[t], step_sizes[t - 1])
    return {"log_w": log_w}


def moved_before_weighed(key, path_, z0, betas, step_sizes, transition):
    """Each increment at the new point instead of the old one."""
    point, log_w = path.evaluate(path_, z0), 0.0
    for t in range(1, len(betas)):
        key, move_key = jax.random.split(key)
        point, _ = transition(move_key, path_, point, betas[t], step_sizes[t - 1])
        log_w += (betas[t] - betas[t - 1]) * path.log_ratio(point)
    return {"log_w": log_w}


def stale_energy(key, path_, point, beta, step_size, *, gap):
    """HMC whose current energy is the one cached at the temperature before."""
    momentum_key, accept_key = jax.random.split(key)
    momentum = jax.random.normal(momentum_key, point.z.shape)
    new, end = hmc.leapfrog(path_, point, momentum, beta, step_size, 3)
    kinetic = 0.5 * jnp.sum(momentum**2 - end**2)
    old = path.log_density(point, beta - gap)
    log_ratio = path.log_density(new, beta) - old + kinetic
    accept = jnp.log(jax.random.uniform(accept_key)) < log_ratio
    point = jax.tree.map(partial(jnp.where, accept), new, point)
    return point, SimpleNamespace(accept_prob=jnp.exp(jnp.minimum(0.0, log_ratio)))


def stale_temperature(key, path_, point, beta, step_size, *, gap):
    """Moves at the temperature before."""
    return MOVE(key, path_, point, beta - gap, step_size)


def wrong_temperature(key, path_, point, beta, step_size, *, gap):
    """Moves at the temperature after, where the weight has not arrived yet."""
    return MOVE(key, path_, point, jnp.minimum(beta + gap, 1.0), step_size)


@pytest.mark.parametrize(
    "mutant", slow_but([printed_algorithm, moved_before_weighed], printed_algorithm)
)
def test_misplaced_increments_are_rejected(mutant):
    result = chains(TARGETS["mixture 1-d"], schedules.linear(5), 2**15, run=mutant)
    assert not is_unbiased(result["log_w"], LOG_Z)


@pytest.mark.parametrize(
    "mutant",
    slow_but([stale_energy, stale_temperature, wrong_temperature], stale_energy),
)
def test_moves_that_mix_temperatures_are_rejected(mutant):
    move = partial(mutant, gap=0.2)
    target, betas = TARGETS["skewed 20-d"], schedules.linear(5)
    result = chains(target, betas, 2**15, move=move)
    assert not is_unbiased(result.log_w, LOG_Z)


@each_target
def test_a_weight_of_the_wrong_sign_is_rejected(name):
    assert not is_unbiased(-linear_chains(name, 5).log_w, LOG_Z)


# The reverse chain makes the same moves as the forward one.


def spy(key, path_, point, beta, step_size):
    """A transition that reports its temperature and step size in place of moving."""
    return point, SimpleNamespace(accept_prob=10.0 * beta + step_size)


def test_reverse_moves_have_the_step_sizes_of_their_temperatures():
    betas = schedules.linear(4)
    step_sizes = jnp.array([0.1, 0.2, 0.3, 0.4])
    path_, z = TARGETS["mixture 1-d"].path, jnp.zeros(1)
    forward, reverse = jax.jit(
        lambda key: [
            run(key, path_, z, betas, step_sizes, spy).accept_prob
            for run in (anneal, reverse_anneal)
        ]
    )(jax.random.key(0))
    np.testing.assert_allclose(forward, 10.0 * betas[1:] + step_sizes, rtol=1e-6)
    np.testing.assert_array_equal(reverse, forward[:3][::-1])


@pytest.mark.parametrize(
    ("size", "is_scaled"),
    slow_but(itertools.product([1, 4], [False, True]), (1, True), (4, False)),
)
def test_both_ways_are_the_chains_of_each_way(size, is_scaled):
    scale = jnp.array([[0.5], [1.0], [2.0]]) if is_scaled else None
    path_, betas = TARGETS["mixture 1-d"].path, schedules.linear(4)
    steps, move = jnp.array([0.1, 0.4, 0.9]), partial(hmc_step, num_leapfrog=2)
    if size > 1:
        move = partial(trajectory_step, num_leapfrog=size - 1)
    keys = jax.random.split(jax.random.key(0), (2, 5))
    z0 = jax.random.normal(jax.random.key(1), (5, size, 1))
    both = jax.jit(
        lambda keys, z0: anneal_both_ways(
            keys, path_, z0, z0[:, 0], betas, steps, move, scale
        )
    )(keys, z0)
    for mine, run, z, key in zip(both, (anneal, reverse_anneal), (z0, z0[:, 0]), keys):
        one = lambda key, z, run=run: run(key, path_, z, betas, steps, move, scale)
        alone = jax.jit(jax.vmap(one))(key, z)._replace(ancestor=mine.ancestor)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(alone)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def crooks_error(target, betas, forward_steps, reverse_steps):
    """Standard errors between E_f[h(w) w] / Z and E_r[h(1/w)], equal for any h."""
    run = partial(chains, target, betas, 2**15)
    forward = np.float64(run(step_sizes=forward_steps).log_w) - target.log_z
    reverse = run(step_sizes=reverse_steps, run=reverse_anneal, seed=1).log_w
    reverse = -np.float64(reverse) - target.log_z
    a = np.exp(forward) / (1.0 + np.exp(3.0 * forward))
    b = 1.0 / (1.0 + np.exp(3.0 * reverse))
    spread = np.hypot(a.std(), b.std()) / np.sqrt(len(a))
    return abs(a.mean() - b.mean()) / spread


def test_forward_and_reverse_weights_obey_crooks_theorem():
    """It holds only where both directions make the same moves at each temperature."""
    target, betas = TARGETS["skewed 20-d"], [0.0, 0.2, 0.9, 1.0]
    steps = np.array([0.6, 0.02, 0.3])
    assert crooks_error(target, betas, steps, steps) < 4.0


def test_reverse_step_sizes_off_by_one_temperature_are_rejected():
    target, betas = TARGETS["skewed 20-d"], [0.0, 0.2, 0.9, 1.0]
    steps = np.array([0.6, 0.02, 0.3])
    assert crooks_error(target, betas, steps, np.roll(steps, 1)) > 6.0
