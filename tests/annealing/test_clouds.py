"""Trajectory-weighted chains: E[W] = Z at K = 1, and the mistakes that break it."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing import loop
from ais_jax.annealing.ais import anneal, reverse_anneal
from ais_jax.annealing.clouds import Cloud, choose, of_points, weigh
from ais_jax.annealing.path import AnnealingPath, Point, evaluate
from ais_jax.annealing.trajectory import TrajectoryInfo, trajectory_step
from tests.targets import LOG_Z, mixture, ratio_and_error, skewed, slow_but

NUM_LEAPFROG = 4
MOVE = partial(trajectory_step, num_leapfrog=NUM_LEAPFROG, jitter=0.5)
TARGETS = {"mixture": mixture(), "skewed": skewed(3)}
NUM = 20_000
soon_weighed = jax.jit(weigh)


def run(target, num_temperatures, move=MOVE, step=0.7):
    """Forward and reverse log weights of single chains, from exact draws."""
    betas = jnp.linspace(0.0, 1.0, num_temperatures + 1) ** 1.3
    steps = jnp.full((num_temperatures - 1,), step)

    def one(key):
        base_key, forward_key, target_key, reverse_key = jax.random.split(key, 4)
        draws = jax.random.split(base_key, NUM_LEAPFROG + 1)
        z0 = jax.vmap(target.path.sample_base)(draws)
        z = target.sample(target_key)
        forward = anneal(forward_key, target.path, z0, betas, steps, move)
        reverse = reverse_anneal(reverse_key, target.path, z, betas, steps, move)
        return forward.log_w, reverse.log_w

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), NUM))


def errors_off(log_w, log_z):
    ratio, error = ratio_and_error(log_w, log_z)
    return abs(ratio - 1.0) / error


@pytest.mark.parametrize(
    ("name", "num_temperatures"),
    slow_but(
        itertools.product(TARGETS, [1, 2, 5]),
        *(("mixture", 1), ("skewed", 2), ("mixture", 5)),
    ),
)
def test_one_chain_is_unbiased_both_ways(name, num_temperatures):
    forward, reverse = run(TARGETS[name], num_temperatures)
    assert errors_off(forward, LOG_Z) < 4.0
    assert errors_off(reverse, -LOG_Z) < 4.0
    assert np.mean(forward) < LOG_Z < -np.mean(reverse)


def test_a_next_start_by_the_weights_alone_is_rejected(monkeypatch):
    """Forwards the next start is drawn by weight times increment."""

    def mutant(cloud, delta):
        weighed = weigh(cloud, delta)
        return weighed._replace(shares=cloud.log_w)

    monkeypatch.setattr(loop, "weigh", mutant)
    assert errors_off(run(TARGETS["mixture"], 5)[0], LOG_Z) > 6.0


def test_even_weights_of_a_trajectory_are_rejected():
    def mutant(*args):
        cloud, info = MOVE(*args)
        return of_points(cloud.points, NUM_LEAPFROG + 1), info

    assert errors_off(run(TARGETS["mixture"], 5, mutant)[0], LOG_Z) > 6.0


def test_a_cloud_is_weighed_by_its_weighted_mean():
    path = TARGETS["skewed"].path
    z = jax.random.normal(jax.random.key(0), (5, 3))
    log_w = jax.nn.log_softmax(jnp.arange(5.0))
    cloud = Cloud(jax.jit(jax.vmap(lambda z: evaluate(path, z)))(z), log_w)
    weighed = soon_weighed(cloud, 0.3)
    ratio = np.float64(cloud.points.log_target - cloud.points.log_base)
    shares = np.exp(np.float64(log_w)) * np.exp(0.3 * ratio)
    np.testing.assert_allclose(sum(weighed.increment), np.log(shares.sum()), rtol=1e-5)
    np.testing.assert_allclose(np.exp(weighed.shares), shares, rtol=1e-5)


def cloud_of(log_base, log_target):
    """A cloud of even weights whose points have these densities."""
    nothing = jnp.zeros((len(log_base), 1))
    log_base, log_target = jnp.array(log_base), jnp.array(log_target)
    points = Point(nothing, log_base, log_target, nothing, nothing)
    return of_points(points, len(log_base))


@pytest.mark.parametrize("log_target", [[-jnp.inf], [-jnp.inf, jnp.nan]])
def test_a_step_of_width_zero_leaves_weights_as_they_are(log_target):
    cloud = cloud_of([-1.0] * len(log_target), log_target)
    weighed = soon_weighed(cloud, 0.0)
    np.testing.assert_allclose(sum(weighed.increment), 0.0, atol=1e-6)
    np.testing.assert_array_equal(weighed.shares, cloud.log_w)
    assert sum(soon_weighed(cloud, 0.1).increment) == -jnp.inf


@pytest.mark.parametrize(("tail", "is_outside"), [(-5.0, True), (-61.0, False)])
def test_a_base_misses_places_of_some_mass_alone(tail, is_outside):
    cloud = cloud_of([-3.0, -jnp.inf], [-1.0, tail])
    assert soon_weighed(cloud, 0.1).is_outside == is_outside


def test_a_fault_that_was_met_on_the_way_is_remembered():
    """The base's draw has a density of NaN; every later place is sound."""
    nan_at_two = lambda z: jnp.where(z[0] == 2.0, jnp.nan, -jnp.sum(z**2))
    path = TARGETS["mixture"].path._replace(log_target=nan_at_two)

    def leave(key, path, point, beta, step_size):
        info = TrajectoryInfo(jnp.ones(()))
        return evaluate(path, jnp.ones(1)), info

    betas, steps = jnp.linspace(0.0, 1.0, 4), jnp.ones(2)
    run = jax.jit(lambda z: anneal(jax.random.key(0), path, z, betas, steps, leave))
    for start, is_unsound in ((2.0, True), (0.0, False)):
        result = run(jnp.array([start]))
        assert result.is_unsound == is_unsound
        assert jnp.isneginf(result.log_w) == is_unsound


def test_a_point_is_chosen_by_its_weight():
    log_w = jnp.log(jnp.array([0.2, 0.0, 0.5, 0.3]))
    at = jnp.array([0.0, 0.19, 0.21, 0.69, 0.71, 0.999])
    chosen = jax.vmap(lambda u: choose(u, log_w))(at)
    assert list(chosen) == [0, 0, 2, 2, 3, 3]
    assert choose(jnp.array(0.6), jnp.array([-jnp.inf, jnp.nan])) in (0, 1)


def test_places_outside_the_base_are_seen_both_ways():
    """The base ends at 1 where the target goes on; moves meet the rest."""
    path = AnnealingPath(
        lambda key: jax.random.uniform(key, (1,), minval=-1.0),
        lambda z: jnp.where(jnp.abs(z[0]) < 1.0, -jnp.log(2.0), -jnp.inf),
        lambda z: -0.5 * jnp.sum(z**2),
    )
    betas, steps = jnp.linspace(0.0, 1.0, 5), jnp.full((3,), 0.5)
    keys = jax.random.split(jax.random.key(0), 50)

    def both(key):
        z = jnp.array([0.3])
        runs = (f(key, path, z, betas, steps, MOVE) for f in (anneal, reverse_anneal))
        return [result.is_outside for result in runs]

    for met in jax.jit(jax.vmap(both))(keys):
        assert np.mean(met) > 0.5
