"""Weighted samples of one target, and draws of the implicit proposals (Algorithm 2)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import schedules
from ais_jax.annealing import proposals
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.trajectory import trajectory_step
from tests.targets import LOG_Z, errors_off, ratio_and_error, skewed

MOVE = partial(hmc_step, num_leapfrog=3)
TARGET = skewed(2)
MOMENTS = lambda z: jnp.concatenate([z, z**2, z[..., :1] * z[..., 1:]], axis=-1)


def annealed(num_samples, **settings):
    return proposals.annealed(schedules.linear(3), MOVE, num_samples, **settings)


def run(propose, step_sizes):
    return jax.jit(lambda key: propose(key, TARGET.path, step_sizes))(jax.random.key(0))


STEPS = jnp.full(3, 0.5)


@pytest.fixture(scope="module")
def exact_moments():
    keys = jax.random.split(jax.random.key(9), 1_000_000)
    return jnp.mean(MOMENTS(jax.jit(jax.vmap(TARGET.sample))(keys)), axis=0)


def implicit_draws(propose, step_sizes, num, seed=0):
    """Draws of q_IS or q_AIS, each of its own K samples."""

    def one(key):
        propose_key, pick_key = jax.random.split(key)
        samples = propose(propose_key, TARGET.path, step_sizes)
        return proposals.resample(pick_key, samples)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), num))


def test_importance_weighs_draws_of_the_base():
    samples = run(proposals.importance(4), STEPS)
    path = TARGET.path
    expected = jax.vmap(path.log_target)(samples.z) - jax.vmap(path.log_base)(samples.z)
    np.testing.assert_allclose(samples.log_w, expected, rtol=1e-5)
    np.testing.assert_array_equal(samples.accept_prob, np.zeros(3))
    assert len(np.unique(samples.z)) == samples.z.size == 8


def test_annealed_weights_average_to_the_normalising_constant():
    samples = run(annealed(2**15), STEPS)
    ratio, error = ratio_and_error(samples.log_w, LOG_Z)
    assert error < 0.01
    assert abs(ratio - 1.0) < 4 * error


def test_annealed_reports_the_mean_acceptance_of_each_move():
    samples = run(annealed(500), jnp.array([0.1, 2.0]))
    assert samples.accept_prob.shape == (2,)
    assert samples.accept_prob[1] < 0.7 < 0.95 < samples.accept_prob[0]


@pytest.mark.parametrize("make", [proposals.importance, annealed])
def test_a_chain_does_not_depend_on_how_many_there_are(make):
    few, many = run(make(2), STEPS), run(make(5), STEPS)
    np.testing.assert_allclose(few.z, many.z[:2], rtol=1e-5)
    np.testing.assert_allclose(few.log_w, many.log_w[:2], rtol=1e-5)


def test_uniform_weighting_keeps_the_chains_and_drops_the_weights():
    weighted = run(annealed(3), STEPS)
    uniform = run(annealed(3, weighting="uniform"), STEPS)
    np.testing.assert_array_equal(uniform.z, weighted.z)
    np.testing.assert_array_equal(uniform.log_w, np.zeros(3))


@pytest.mark.parametrize("name", ["weighting", "average"])
def test_unknown_choices_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}='equal'"):
        annealed(3, **{name: "equal"})


def test_points_of_the_last_move_share_their_chains_weight():
    """They are K of the last trajectory's, with residuals that the chain dropped."""
    move = partial(trajectory_step, num_leapfrog=3)
    target = lambda z: (*jax.value_and_grad(TARGET.path.log_target)(z), 2.0 * z)
    path = TARGET.path._replace(target_with_residuals=target)

    def sample(average):
        propose = proposals.annealed(schedules.linear(3), move, 4, average=average)
        return jax.jit(lambda key: propose(key, path, STEPS))(jax.random.key(0))

    ends, points = sample("end"), sample("points")
    assert points.z.shape == (4 * 4, 2)
    shared = jax.nn.logsumexp(points.log_w.reshape(4, 4), axis=1)
    np.testing.assert_allclose(shared, ends.log_w, rtol=1e-5)
    is_end = jnp.all(points.z.reshape(4, 4, 2) == ends.z[:, None], axis=-1)
    np.testing.assert_array_equal(jnp.sum(is_end, axis=1), np.ones(4))
    np.testing.assert_allclose(points.accept_prob, ends.accept_prob, rtol=1e-5)
    np.testing.assert_array_equal(points.residuals, 2.0 * points.z)
    assert ends.residuals is None


def test_points_need_the_final_move():
    propose = annealed(2, average="points")
    with pytest.raises(ValueError, match="1 step sizes for 3 temperatures"):
        propose(jax.random.key(0), TARGET.path, STEPS[:2])


def test_resampling_follows_the_weights():
    weights = np.array([0.1, 0.2, 0.7])
    samples = proposals.WeightedSamples(
        jnp.eye(3), jnp.float32(np.log(weights) + 50.0), jnp.zeros(0)
    )
    keys = jax.random.split(jax.random.key(0), 20000)
    draws = jax.vmap(proposals.resample, (0, None))(keys, samples)
    assert abs(errors_off(draws, weights)).max() < 4


def test_implicit_is_draws_approach_the_target(exact_moments):
    one = implicit_draws(proposals.importance(1), STEPS, 20000)
    assert abs(errors_off(MOMENTS(one), exact_moments)).max() > 8
    many = implicit_draws(proposals.importance(200), STEPS, 20000)
    assert abs(errors_off(MOMENTS(many), exact_moments)).max() < 4


def test_implicit_ais_draws_approach_the_target(exact_moments):
    """Without the final move, so that only the weights bring the last stretch."""
    one = implicit_draws(annealed(1), jnp.full(2, 0.1), 20000)
    assert abs(errors_off(MOMENTS(one), exact_moments)).max() > 8
    many = implicit_draws(annealed(50), jnp.full(2, 0.1), 20000)
    assert abs(errors_off(MOMENTS(many), exact_moments)).max() < 4


def test_moves_bring_single_draws_nearer_to_the_target(exact_moments):
    distances = [
        abs(errors_off(MOMENTS(implicit_draws(propose, sizes, 20000)), exact_moments))
        for propose, sizes in [(proposals.importance(1), STEPS), (annealed(1), STEPS)]
    ]
    assert distances[1].max() < 0.5 * distances[0].max()
