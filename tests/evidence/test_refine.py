"""The search for log Z: it stops where the estimate stands, and says where not."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.budget import Found, Limits, Meter, first_temperatures
from ais_jax.evidence.log_z import estimate_log_z, log_normalizer
from ais_jax.evidence.plan import Plan
from ais_jax.evidence.refine import Chunk, is_rough_result, merge
from ais_jax.evidence.reports import right_skew
from ais_jax.evidence.sampler import SEGMENT
from tests import targets
from tests.compilations import compilations

KEY = jax.random.key(0)
SETTINGS = {"num_chains": 50}
HMC = partial(hmc_step, num_leapfrog=2)


def normal(data):
    """A normal target, with the scale of the data, under a wider base."""
    return AnnealingPath(
        lambda key: 3.0 * jax.random.normal(key, (2,)),
        lambda z: jnp.sum(norm.logpdf(z, 0.0, 3.0)),
        lambda z: -0.5 * jnp.sum(jnp.square((z - 1.0) / data)),
    )


def exact(scale):
    return float(np.log(2.0 * np.pi) + 2.0 * np.log(scale))


@pytest.fixture(scope="module")
def found():
    """The default call on data, and what it told on the way."""
    lines = []
    result = estimate_log_z(
        KEY, normal, jnp.array(0.7), progress=lambda p: lines.append(p), **SETTINGS
    )
    return result, lines


def test_the_default_call_reaches_its_error(found):
    result, _ = found
    assert result.standard_error <= 0.1 and not result.warnings
    assert abs(result.log_z - exact(0.7)) < 4.0 * result.standard_error
    assert len(result.log_w) == len(result.z) >= 50
    assert len(result.increment_variance) == len(result.plan.betas) - 1


def test_progress_tells_stages_shares_and_moves(found):
    result, lines = found
    assert lines[0].stage == "pilot"
    assert lines[-1].stage.startswith("chains at T =")
    assert lines[-1].num_moves == result.num_moves
    assert all(a.num_moves < b.num_moves for a, b in pairwise(lines))
    assert "% done, about" in str(lines[0])


def test_the_pilot_is_a_small_part_of_the_moves(found):
    _, lines = found
    pilot = max(line.num_moves for line in lines if line.stage == "pilot")
    assert pilot <= 0.2 * lines[-1].num_moves


def test_the_plan_can_be_handed_on(found):
    result, _ = found
    again = log_normalizer(jax.random.key(1), normal(0.7), result.plan, 50)
    assert abs(again.log_z - exact(0.7)) < 4.0 * again.standard_error


def test_the_same_call_gives_the_same_bits_and_other_data_compile_nothing(found):
    result, _ = found
    again = estimate_log_z(KEY, normal, jnp.array(0.7), **SETTINGS)
    np.testing.assert_array_equal(result.log_w, again.log_w)
    before = compilations()
    other = estimate_log_z(KEY, normal, jnp.array(0.4), **SETTINGS)
    assert compilations() == before
    assert abs(other.log_z - exact(0.4)) < 4.0 * other.standard_error


def test_a_run_is_the_frozen_chains_of_its_plan_with_a_key_of_its_own():
    """Longer than a segment of moves; chunk 0 of T has a key by T and by 0."""
    num = SEGMENT + 30
    settings = SETTINGS | {"num_temperatures": num, "transition": HMC}
    result = estimate_log_z(KEY, normal, jnp.array(0.7), **settings)
    key = jax.random.fold_in(jax.random.split(KEY, 3)[2], num)
    key = jax.random.fold_in(key, 0)
    again = log_normalizer(key, normal(0.7), result.plan, 50, HMC)
    away = np.abs(result.log_w - again.log_w)
    assert np.median(away) < 1e-3 < 0.01 < np.std(again.log_w)


def test_every_move_is_counted():
    """Of the pilot, of the base's fit and of fewer temperatures, by all chains."""
    made = []

    def counted(*args):
        jax.debug.callback(lambda: made.append(1))
        return HMC(*args)

    result = estimate_log_z(
        KEY, normal, jnp.array(0.1), error=0.3, num_chains=8, transition=counted
    )
    jax.effects_barrier()  # a call is counted once for all chains
    assert result.num_moves == 8 * len(made)


def chunk(log_w):
    """Chains of these log weights, as `run_chunk` gives them."""
    log_w = np.asarray(log_w, np.float32)
    num = len(log_w)
    ones, no = np.ones((1, num), np.float32), np.zeros(num, bool)
    plan = Plan(np.array([0.0, 1.0], np.float32), np.zeros(0, np.float32))
    return Chunk(log_w, ones.T, ones[0], ones, ones, no, no, 1.0, plan)


def meter(**limits):
    limits = {"error": 0.1, "num_temperatures": None, "max_moves": 10**7} | limits
    return Meter(Limits(**limits, max_seconds=np.inf), 50, None)


def test_a_shift_is_told_in_the_errors_of_both_estimates():
    log_w = 0.3 * np.random.default_rng(0).normal(size=200)
    now = merge([chunk(log_w)], meter(), 1e-7, None)
    error = now.standard_error
    before = now._replace(log_z=now.log_z + 6.0 * error, standard_error=2.0 * error)
    found = merge([chunk(log_w)], meter(), 1e-7, before).shift
    assert found == pytest.approx(6.0 / np.sqrt(5.0), rel=1e-3)


def test_halves_that_disagree_are_an_error_and_ask_for_more_temperatures():
    noise = 0.1 * np.random.default_rng(0).normal(size=100)
    one = merge([chunk(noise), chunk(noise[::-1])], meter(), 1e-7, None)
    two = merge([chunk(noise), chunk(noise + 1.0)], meter(), 1e-7, None)
    assert one.standard_error < 0.02 and not is_rough_result(one)
    assert two.standard_error > 0.45 and is_rough_result(two)


def test_temperatures_grow_with_the_square_of_the_paths_length():
    def first(length, **limits):
        return first_temperatures(meter(**limits), Found(None, 8, length, None))

    assert first(40.0) == 4 * first(20.0) == 16 * first(10.0) == 3200
    assert first(1.0) == 64
    assert first(40.0, max_moves=50 * 4 * 100) == 100


def test_a_far_target_gets_a_fitted_base():
    """The base is a hundred times as wide as the target, in each of four directions."""

    def path(_):
        return AnnealingPath(
            lambda key: 100.0 * jax.random.normal(key, (4,)),
            lambda z: jnp.sum(norm.logpdf(z, 0.0, 100.0)),
            lambda z: -0.5 * jnp.sum(jnp.square(z - 7.0)),
        )

    stages = []
    result = estimate_log_z(
        KEY, path, jnp.zeros(()), progress=lambda p: stages.append(p.stage), **SETTINGS
    )
    right = 2.0 * np.log(2.0 * np.pi)
    assert any("fitted base" in stage for stage in stages)
    assert not result.warnings and result.standard_error < 0.05
    assert abs(result.log_z - right) < 4.0 * result.standard_error
    again = log_normalizer(jax.random.key(1), path(None), result.plan, 50)
    assert abs(again.log_z - right) < 4.0 * again.standard_error < 0.4


def test_limits_end_a_search_and_are_said():
    def check(progress):
        assert progress.num_moves <= 30_000

    limits = {"error": 1e-4, "max_moves": 30_000, "progress": check}
    result = estimate_log_z(KEY, normal, jnp.array(0.7), **limits, **SETTINGS)
    assert result.standard_error > 1e-4
    assert any("0.0001, was not reached" in text for text in result.warnings)


def test_a_rare_tail_of_weights_is_seen():
    normal_log_w = np.asarray(jax.random.normal(KEY, (100,)))
    tail = np.where(np.arange(100) < 5, 4.0 + normal_log_w, normal_log_w)
    left = np.where(np.arange(100) < 10, -20.0, normal_log_w)
    assert right_skew(normal_log_w) < 0.7 < right_skew(tail)
    assert right_skew(left) < 0.7
    assert right_skew(1e-3 * tail) == 0.0


def test_a_moved_estimate_asks_for_more_temperatures(found):
    result, _ = found
    assert not is_rough_result(result)
    assert is_rough_result(result._replace(shift=np.float32(2.5)))
    moved = result._replace(shift=np.float32(2.5)).warnings
    assert any("moved by 2.5 standard errors" in text for text in moved)


def test_a_density_of_nan_everywhere_is_refused():
    def log_target(data):
        return lambda z: -0.5 * jnp.sum(jnp.square(z - data))

    with pytest.raises(ValueError, match="look for NaN among the data"):
        estimate_log_z(KEY, normal(0.0)._replace(log_target=log_target(jnp.nan)))


def test_one_temperature_of_easy_moves_is_not_warned_of(found):
    result, _ = found
    easy = np.full_like(result.accept_prob, 0.8)
    for share, is_warned in ((0.1, False), (0.9, True)):
        num = int(share * len(easy))
        moves = result._replace(accept_prob=np.append(easy[num:], easy[:num] + 0.195))
        is_said = any("too short to mix" in text for text in moves.warnings)
        assert is_said == is_warned


def test_a_base_that_misses_the_target_is_said():
    path = AnnealingPath(
        lambda key: jax.random.uniform(key, (1,), minval=-1.0),
        lambda z: jnp.where(jnp.abs(z[0]) < 1.0, -jnp.log(2.0), -jnp.inf),
        lambda z: -0.5 * jnp.sum(jnp.square(z)),
    )
    result = estimate_log_z(KEY, path, num_temperatures=20)
    assert any("base's density is zero" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 0.0}, r"error=0.0: use a positive"),
        ({"error": float("nan")}, r"error=nan: use a positive"),
        ({"error": 0.1, "max_moves": 0}, "max_moves=0: use at least 1"),
        ({"max_seconds": 0.0}, "max_seconds=0.0: use a positive"),
        ({"num_temperatures": 0}, "num_temperatures=0: use at least 1"),
        ({"max_moves": 10}, "max_moves=10 is less than num_chains=100 make at 64"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        estimate_log_z(KEY, targets.mixture().path, **settings)


def test_traced_calls_need_their_temperatures():
    with pytest.raises(ValueError, match="under jit or vmap give num_temperatures"):
        jax.jit(lambda key: estimate_log_z(key, targets.mixture().path))(KEY)
