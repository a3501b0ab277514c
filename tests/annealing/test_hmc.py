"""The physics of HMC, and that one move leaves f_beta as it is."""

import functools
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ais_jax.annealing.hmc import hmc_step, leapfrog
from ais_jax.annealing.path import AnnealingPath, evaluate, log_density
from tests.targets import driven_by, errors_off, mixture, skewed, slow_but

BETA = 0.4


def coarse(path):
    """The same path, driven by a gradient that passes through bfloat16."""

    def force(z):
        return path.log_target(z.astype(jnp.bfloat16).astype(jnp.float32))

    return driven_by(path, force)


PATH = mixture().path


def energy(point, momentum, beta):
    return 0.5 * jnp.sum(momentum**2) - log_density(point, beta)


@pytest.fixture(scope="module")
def start():
    z, momentum = jax.random.normal(jax.random.key(0), (2, 3))
    return z, momentum


@pytest.mark.parametrize("change", [lambda p: p, coarse], ids=["exact", "coarse"])
def test_leapfrog_reverses(start, change):
    path = change(skewed(3).path)._replace(scale=jnp.array([0.5, 1.0, 2.0]))
    z, momentum = start
    run = jax.jit(partial(leapfrog, path, beta=BETA, step_size=0.1, num_leapfrog=10))
    end, end_momentum = run(evaluate(path, z), momentum)
    assert jnp.all(jnp.abs(end.z - z) > 0.1)
    back, back_momentum = run(end, -end_momentum)
    np.testing.assert_allclose(back.z, z, atol=2e-6)
    np.testing.assert_allclose(-back_momentum, momentum, atol=2e-6)


def test_leapfrog_returns_the_point_at_its_end(start):
    path, (z, momentum) = skewed(3).path, start
    end, _ = leapfrog(path, evaluate(path, z), momentum, BETA, 0.1, 3)
    jax.tree.map(np.testing.assert_array_equal, end, evaluate(path, end.z))


def test_leapfrog_is_the_textbooks(start):
    """Half a kick, a drift, half a kick, L times."""
    path, (z, momentum) = skewed(3).path, start
    end, end_momentum = leapfrog(path, evaluate(path, z), momentum, BETA, 0.2, 4)
    log_f = lambda z: (1 - BETA) * path.log_base(z) + BETA * path.log_target(z)
    for _ in range(4):
        momentum = momentum + 0.1 * jax.grad(log_f)(z)
        z = z + 0.2 * momentum
        momentum = momentum + 0.1 * jax.grad(log_f)(z)
    np.testing.assert_allclose(end.z, z, atol=1e-5)
    np.testing.assert_allclose(end_momentum, momentum, atol=1e-5)


def test_energy_error_falls_fourfold_when_the_step_halves():
    path = skewed(3).path
    starts = jax.random.normal(jax.random.key(1), (2, 200, 3))

    def error(step_size, num_leapfrog):
        def one(z, momentum):
            point = evaluate(path, z)
            end = leapfrog(path, point, momentum, BETA, step_size, num_leapfrog)
            return energy(*end, BETA) - energy(point, momentum, BETA)

        return jnp.sqrt(jnp.mean(jax.jit(jax.vmap(one))(*starts) ** 2))

    ratio = error(0.2, 4) / error(0.1, 8)
    np.testing.assert_allclose(ratio, 4.0, rtol=0.05)


def test_momentum_kept_in_place_makes_one_step_of_langevin(start):
    path, (z, momentum) = skewed(3).path, start
    point = evaluate(path, z)
    end, _ = leapfrog(path, point, momentum, 1.0, 0.3, 1)
    expected = z + 0.3 * momentum + 0.045 * jax.grad(path.log_target)(z)
    np.testing.assert_allclose(end.z, expected, atol=1e-6)


def draws_of_mixed_density(path, beta, num, seed):
    """Draws of f_beta in one dimension by its inverse distribution function."""
    grid = jnp.linspace(-6.0, 6.0, 20001)
    log_f = (1 - beta) * jax.vmap(path.log_base)(grid[:, None])
    log_f += beta * jax.vmap(path.log_target)(grid[:, None])
    f = np.exp(np.asarray(log_f, np.float64))
    cdf = np.cumsum(f) / np.sum(f)
    levels = np.random.default_rng(seed).uniform(size=num)
    draws = jnp.float32(np.interp(levels, cdf, grid))[:, None]
    return draws, lambda z: np.interp(z, grid, cdf)


def without_metropolis(key, path, point, beta, step_size, *, num_leapfrog):
    """A mutant that accepts every proposal."""
    momentum = jax.random.normal(key, point.z.shape)
    point, _ = leapfrog(path, point, momentum, beta, step_size, num_leapfrog)
    return point, None


@functools.cache
def compiled(move, path):
    def one(key, z, beta):
        return move(key, path, evaluate(path, z), beta, 0.9, num_leapfrog=2)

    return jax.jit(jax.vmap(one, (0, 0, None)))


def move_of(move, path, beta, z):
    """One move from each position: (points, infos)."""
    keys = jax.random.split(jax.random.key(1), len(z))
    return compiled(move, path)(keys, z, beta)


JITTERED = partial(hmc_step, jitter=0.9)


MOVES = {"plain": hmc_step, "jittered": JITTERED}
FORCES = {"exact": PATH, "coarse": coarse(PATH)}


@pytest.mark.parametrize(
    ("force", "beta", "name"),
    slow_but(
        itertools.product(FORCES, [0.0, BETA, 1.0], MOVES),
        *(("exact", beta, "plain") for beta in (0.0, BETA, 1.0)),
        *((force, BETA, "jittered") for force in FORCES),
    ),
)
def test_one_move_leaves_the_density_invariant(force, beta, name):
    path, move = FORCES[force], MOVES[name]
    z, cdf = draws_of_mixed_density(path, beta, 20000, seed=2)
    point, info = move_of(move, path, beta, z)
    assert 0.5 < jnp.mean(info.is_accepted) < 0.999
    assert stats.kstest(np.asarray(point.z[:, 0]), cdf).pvalue > 1e-3
    for power in (1, 2, 3):
        assert abs(errors_off(point.z**power - z**power, 0.0)).max() < 4


def test_jitter_breaks_the_period_of_a_trajectory():
    path = AnnealingPath(
        lambda key: jax.random.normal(key, (1,)),
        lambda z: -0.5 * jnp.sum(z**2),
        lambda z: -0.5 * jnp.sum(z**2),
    )
    z = jax.random.normal(jax.random.key(0), (10000, 1))
    period = 2.0 * np.sin(np.pi / 10)  # of ten steps on a normal density

    def correlation(move):
        def one(key, z):
            point = evaluate(path, z)
            return move(key, path, point, 1.0, period, num_leapfrog=10)[0].z

        after = jax.vmap(one)(jax.random.split(jax.random.key(1), len(z)), z)
        return jnp.corrcoef(z[:, 0], after[:, 0])[0, 1]

    assert correlation(hmc_step) > 0.999
    assert abs(correlation(JITTERED)) < 0.2


def test_the_invariance_test_rejects_a_move_without_metropolis():
    path = PATH
    z, cdf = draws_of_mixed_density(path, BETA, 20000, seed=2)
    point, _ = move_of(without_metropolis, path, BETA, z)
    assert stats.kstest(np.asarray(point.z[:, 0]), cdf).pvalue < 1e-6


def test_detailed_balance_holds_between_start_and_end():
    """Under f_beta, a reversible move gives E[g(z) h(z')] = E[h(z) g(z')]."""
    path = PATH
    z, _ = draws_of_mixed_density(path, BETA, 20000, seed=3)
    end = move_of(hmc_step, path, BETA, z)[0].z
    assert abs(errors_off(z * end**2 - z**2 * end, 0.0)).max() < 4


def test_acceptance_is_the_exponential_of_the_energy_error():
    path = PATH
    z, _ = draws_of_mixed_density(path, BETA, 5000, seed=4)
    point, info = move_of(hmc_step, path, BETA, z)
    expected = np.exp(np.minimum(0.0, -info.energy_error))
    np.testing.assert_allclose(info.accept_prob, expected, rtol=1e-6)
    assert abs(errors_off(info.is_accepted - info.accept_prob, 0.0)) < 4
    moved = point.z[:, 0] != z[:, 0]
    np.testing.assert_array_equal(moved, info.is_accepted)


@pytest.mark.parametrize("value", [jnp.nan, -jnp.inf, jnp.inf])
def test_non_finite_proposals_are_rejected(value):
    """Beyond the origin's neighbourhood the density is not a finite number."""
    plain = PATH
    outside = lambda z: jnp.where(jnp.abs(z[0]) < 0.5, plain.log_target(z), value)
    path = plain._replace(log_target=outside)
    z = jnp.zeros((2000, 1))
    point, info = move_of(hmc_step, path, BETA, z)
    accepted = np.asarray(info.is_accepted)
    assert 0.05 < accepted.mean() < 0.95
    assert jnp.all(jnp.abs(point.z) < 0.5)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(point))
    assert jnp.all((info.accept_prob >= 0.0) & (info.accept_prob <= 1.0))


def test_a_non_finite_force_is_rejected():
    path = driven_by(PATH, lambda z: jnp.nan * jnp.sum(z))
    z = jnp.zeros((10, 1))
    point, info = move_of(hmc_step, path, BETA, z)
    np.testing.assert_array_equal(point.z, z)
    np.testing.assert_array_equal(info.accept_prob, 0.0)


def test_a_start_of_zero_density_can_be_left():
    plain = PATH
    inside = lambda z: jnp.where(z[0] > 0.0, plain.log_target(z), -jnp.inf)
    path = plain._replace(log_target=inside)
    point, info = move_of(hmc_step, path, BETA, jnp.full((2000, 1), -0.1))
    left = np.asarray(info.is_accepted)
    assert 0.2 < left.mean() < 0.8
    np.testing.assert_array_equal(point.z[:, 0] > 0.0, left)


@pytest.mark.parametrize("num_leapfrog", [1, 3])
def test_scale_is_a_change_of_units(start, num_leapfrog):
    path, scale = skewed(3).path, jnp.array([0.25, 1.0, 2.0])
    scaled = path._replace(scale=scale)
    unit = AnnealingPath(
        path.sample_base,
        lambda u: path.log_base(scale * u),
        lambda u: path.log_target(scale * u),
    )
    run = partial(hmc_step, beta=BETA, step_size=0.7, num_leapfrog=num_leapfrog)
    both = lambda key, z: (
        run(key, scaled, evaluate(scaled, z)),
        run(key, unit, evaluate(unit, z / scale)),
    )
    keys = jax.random.split(jax.random.key(3), 200)
    (a, a_info), (b, b_info) = jax.jit(jax.vmap(both, (0, None)))(keys, start[0])
    np.testing.assert_allclose(a.z, b.z * scale, atol=1e-5)
    np.testing.assert_array_equal(a_info.is_accepted, b_info.is_accepted)
    np.testing.assert_allclose(a_info.energy_error, b_info.energy_error, atol=1e-4)
    assert 0.1 < jnp.mean(a_info.is_accepted) < 0.99


def test_the_accepted_point_is_kept_whole():
    path = skewed(3).path
    z = jax.vmap(path.sample_base)(jax.random.split(jax.random.key(4), 100))
    point, _ = move_of(hmc_step, path, BETA, z)
    again = jax.vmap(partial(evaluate, path))(point.z)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, point, again)
