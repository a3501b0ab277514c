"""The trajectory transition: its physics, its invariance, and its weighted points."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ais_jax.annealing import trajectory
from ais_jax.annealing.clouds import Cloud
from ais_jax.annealing.hmc import energy, leapfrog
from ais_jax.annealing.path import AnnealingPath, evaluate
from ais_jax.annealing.trajectory import trajectory_step
from tests.annealing.test_hmc import coarse, draws_of_mixed_density
from tests.targets import errors_off, mixture, skewed

PATH = mixture().path
BETA = 0.4
NUM = 40_000
STEP = 1.5
MOVE = partial(trajectory_step, num_leapfrog=3)


def follow(key, *args, cloud_of=MOVE):
    """A move to a point of a trajectory, by weight: (the point, its cloud)."""
    move_key, next_key = jax.random.split(key)
    cloud, _ = cloud_of(move_key, *args)
    chosen = jax.random.categorical(next_key, cloud.log_w)
    return jax.tree.map(lambda a: a[chosen], cloud.points), cloud


def functions(z):
    """Functions whose means under f_beta the weighted points are to have."""
    return jnp.stack([z[..., 0], z[..., 0] ** 2, jnp.cos(2 * z[..., 0])], axis=-1)


def weighted_means(z, log_w):
    return jnp.sum(jnp.exp(log_w)[..., None] * functions(z), axis=-2)


@functools.cache
def compiled(move, path=PATH, num_moves=1):
    """(keys, exact draws, beta) -> (last positions, first move's weighted means)."""

    def one(key_of_chain, z, beta):
        def body(point, t):
            key = jax.random.fold_in(key_of_chain, t)
            point, cloud = follow(key, path, point, beta, STEP, cloud_of=move)
            return point, weighted_means(cloud.points.z, cloud.log_w)

        point, means = jax.lax.scan(body, evaluate(path, z), jnp.arange(num_moves))
        return point.z, means[0]

    return jax.jit(jax.vmap(one, (0, 0, None)))


def run(move, path=PATH, beta=BETA, num_moves=1, seed=1):
    """(next positions, weighted means, distribution function) from exact draws."""
    z, cdf = draws_of_mixed_density(PATH, beta, NUM, seed)
    keys = jax.random.split(jax.random.key(seed), NUM)
    return *compiled(move, path, num_moves)(keys, z, beta), cdf


def exact_means(beta):
    grid = jnp.linspace(-6.0, 6.0, 20001)[:, None]
    log_f = (1 - beta) * jax.vmap(PATH.log_base)(grid)
    log_f += beta * jax.vmap(PATH.log_target)(grid)
    f = np.exp(np.asarray(log_f, np.float64))
    return f @ np.asarray(functions(grid), np.float64) / np.sum(f)


def pvalue(z, cdf):
    return stats.kstest(np.asarray(z[:, 0], np.float64), cdf).pvalue


@pytest.mark.parametrize("beta", [0.0, BETA, 1.0])
def test_the_next_position_is_distributed_as_the_current_one(beta):
    z, _, cdf = run(MOVE, beta=beta, num_moves=5)
    assert pvalue(z, cdf) > 0.01


def test_the_place_does_not_depend_on_the_jittered_step():
    """Where nothing pulls, points on both sides tell the place in the middle."""
    flat = AnnealingPath(PATH.sample_base, lambda z: 0.0 * z[0], lambda z: 0.0 * z[0])
    move = partial(trajectory_step, num_leapfrog=2, jitter=0.9)

    def one(key):
        cloud, _ = move(key, flat, evaluate(flat, jnp.zeros(1)), 1.0, 1.0)
        return cloud.points.z[:2, 0]

    z = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 5000)))
    length, is_between = np.abs(z[:, 0]), z[:, 0] * z[:, 1] < 0.0
    assert abs(np.mean(is_between) - 1 / 3) < 0.03
    assert stats.ks_2samp(length[is_between], length[~is_between]).pvalue > 0.01


def test_weighted_points_have_the_means_of_the_density():
    _, means, _ = run(MOVE)
    assert np.abs(errors_off(means, exact_means(BETA))).max() < 4


def test_a_coarse_force_leaves_the_density_invariant():
    z, means, cdf = run(MOVE, coarse(PATH))
    assert pvalue(z, cdf) > 0.01
    assert np.abs(errors_off(means, exact_means(BETA))).max() < 4


def fixed_place(place):
    """A mutant that always stands at one place of the trajectory."""

    def move(key, path, point, beta, step_size):
        momentum = jax.random.normal(key, point.z.shape)
        points, energies = trajectory._integrate(
            path, (point, momentum), beta, step_size, 3, place
        )
        return Cloud(points, jax.nn.log_softmax(-energies)), None

    return move


def without_weights(*args):
    """A mutant whose points all have the same weight."""
    cloud, info = MOVE(*args)
    return cloud._replace(log_w=jnp.full(4, -jnp.log(4.0))), info


def without_the_current(*args):
    """A mutant that drops the current position, as where a rejection adds nothing."""
    cloud, info = MOVE(*args)
    log_w = cloud.log_w.at[-1].set(-jnp.inf)
    return cloud._replace(log_w=jax.nn.log_softmax(log_w)), info


@pytest.mark.parametrize(
    "mutant", [fixed_place(0), fixed_place(1), without_weights, without_the_current]
)
def test_mutants_are_told_apart(mutant):
    _, means, _ = run(mutant)
    assert np.abs(errors_off(means, exact_means(BETA))).max() > 6


def test_a_fixed_place_changes_the_density():
    z, _, cdf = run(fixed_place(0), num_moves=5)
    assert pvalue(z, cdf) < 1e-6


@pytest.fixture(scope="module")
def start():
    path = skewed(3).path._replace(scale=jnp.array([0.5, 1.0, 2.0]))
    z, momentum = jax.random.normal(jax.random.key(0), (2, 3))
    return path, evaluate(path, z), momentum


@pytest.mark.parametrize("place", range(5))
def test_points_are_those_before_and_after_the_current_one(start, place):
    """Backwards from the start `place` times, forwards the others, then the start."""
    path, point, momentum = start
    points, energies = trajectory._integrate(
        path, (point, momentum), BETA, 0.3, 4, place
    )
    np.testing.assert_array_equal(points.z[-1], point.z)
    offsets = [-1, -2, -3, -4][:place] + [1, 2, 3, 4][: 4 - place]
    for i, offset in enumerate([*offsets, 0]):
        z, p = point, momentum
        for _ in range(abs(offset)):
            z, p = leapfrog(path, z, p, BETA, 0.3 * np.sign(offset), 1)
        np.testing.assert_allclose(points.z[i], z.z, atol=1e-5)
        np.testing.assert_allclose(energies[i], energy(z, p, BETA), rtol=1e-5)


def test_every_point_has_the_same_trajectory(start):
    """Begun at its last point, at its own place, the trajectory is the same."""
    path, point, momentum = start
    points, energies = trajectory._integrate(path, (point, momentum), BETA, 0.3, 4, 1)
    end, end_momentum = leapfrog(path, point, momentum, BETA, 0.3, 3)
    again, same = trajectory._integrate(path, (end, end_momentum), BETA, 0.3, 4, 4)
    there, back = [0, 4, 1, 2, 3], [3, 2, 1, 0, 4]  # from the first place to the last
    np.testing.assert_allclose(
        again.z[jnp.array(back)], points.z[jnp.array(there)], atol=1e-5
    )
    np.testing.assert_allclose(
        same[jnp.array(back)], energies[jnp.array(there)], rtol=1e-5
    )


def test_each_point_has_its_own_residuals(start):
    plain, point, _ = start

    def target(z):
        return *jax.value_and_grad(plain.log_target)(z), {"twice": 2.0 * z}

    path = plain._replace(target_with_residuals=target)
    key = jax.random.key(0)
    cloud, _ = MOVE(key, path, evaluate(path, point.z), BETA, 0.3)
    expected, _ = MOVE(key, plain, point, BETA, 0.3)
    np.testing.assert_allclose(cloud.points.residuals["twice"], 2.0 * cloud.points.z)
    assert expected.points.residuals is None
    np.testing.assert_allclose(cloud.points.z, expected.points.z, rtol=1e-5)
    np.testing.assert_allclose(cloud.log_w, expected.log_w, rtol=1e-4)


def test_points_of_no_density_have_no_weight():
    wall = AnnealingPath(
        PATH.sample_base,
        PATH.log_base,
        lambda z: jnp.where(z[0] > 0.0, PATH.log_target(z), -jnp.inf),
    )
    move = jax.jit(lambda key, z: MOVE(key, wall, evaluate(wall, z), 1.0, STEP))
    keys = jax.random.split(jax.random.key(0), 200)
    for z in (jnp.array([0.2]), jnp.array([-0.2])):
        cloud, info = jax.vmap(move, (0, None))(keys, z)
        inside = cloud.points.z[..., 0] > 0.0
        assert jnp.any(inside) and jnp.any(~inside)
        has_density = jnp.any(inside, axis=1, keepdims=True)
        assert jnp.all(inside | (jnp.exp(cloud.log_w) == 0.0) | ~has_density)
        assert jnp.all(jnp.isfinite(info.accept_prob))


def test_the_acceptance_falls_with_the_step():
    path = skewed(3).path
    z = jax.random.normal(jax.random.key(1), (500, 3))
    keys = jax.random.split(jax.random.key(2), 500)

    def acceptance(step_size):
        one = lambda key, z: MOVE(key, path, evaluate(path, z), 1.0, step_size)
        return jnp.mean(jax.jit(jax.vmap(one))(keys, z)[1].accept_prob)

    assert acceptance(1.5) < 0.8 < 0.97 < acceptance(0.1) <= 1.0
    assert acceptance(50.0) < 0.01  # the current point is not counted


def test_a_trajectory_costs_one_evaluation_a_step():
    count = []

    def log_target(z):
        jax.debug.callback(lambda: count.append(1))
        return -0.5 * jnp.sum(z**2)

    path = AnnealingPath(PATH.sample_base, PATH.log_base, log_target)
    point = evaluate(path, jnp.ones(1))
    jax.effects_barrier()
    count.clear()
    jax.block_until_ready(
        trajectory_step(jax.random.key(0), path, point, 1.0, 0.3, num_leapfrog=6)
    )
    jax.effects_barrier()
    assert len(count) == 6
