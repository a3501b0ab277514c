"""Log p(x) of many rows to a wanted error, against a model where it is exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ais_jax
from ais_jax.evidence import allocation
from ais_jax.evidence.row_estimates import FEWEST_PAIRS, MOST_PAIRS, measured_gap
from ais_jax.evidence.row_search import Rule, Search
from ais_jax.models import evaluation
from tests.targets import exact_log_p, exact_posterior, linear_gaussian

NUM, K = 24, 4
MODEL = linear_gaussian()
PARAMS = MODEL.init(None)
X = np.array(
    jax.vmap(MODEL.simulate, (0, None))(
        jax.random.split(jax.random.key(5), NUM), PARAMS[0]
    )[0]
)
X[:3] *= 8.0  # where q misses the posterior
EXACT = np.asarray(jax.vmap(partial(exact_log_p, PARAMS[0]))(X))
STARTS = evaluation.starts_of(MODEL, ("encoder", "wide"), "encoder")
PROGRAM = evaluation.compiled(STARTS, evaluation.trajectories(2), K)


def search(seed, rule):
    run = evaluation.in_memory(PROGRAM, PARAMS)
    return Search(jax.random.key(seed), run, rule, num_starts=2, first_step_size=0.5)


def load(rows):
    return X[rows], np.zeros((len(rows), 1), np.float32)


@pytest.fixture(scope="module")
def repeats():
    """200 estimates, whose pilot is that of the first."""
    found, ladders = [], None
    for seed in range(200):
        one = search(seed, Rule(error=0.05, num_chains=K))
        if ladders is not None:
            one.ladders = list(ladders)
        found.append(one.estimate("rows", NUM, load))
        ladders = one.ladders if ladders is None else ladders
    return found


def test_deciding_by_scouts_leaves_every_mean_weight_unbiased(repeats):
    ratios = np.exp([e.moments.log_p - EXACT for e in repeats])
    error = np.std(ratios, axis=0, ddof=1) / len(repeats) ** 0.5
    assert np.all(np.abs(np.mean(ratios, axis=0) - 1.0) < 5.0 * error + 1e-4)
    mean = np.mean(ratios, axis=1)
    error = np.std(mean, ddof=1) / len(repeats) ** 0.5
    assert abs(np.mean(mean) - 1.0) < 4.0 * error < 0.02


def test_the_error_and_the_bias_are_what_they_say(repeats):
    away = np.array([np.mean(e.moments.log_p - EXACT) for e in repeats])
    variance = np.array([np.mean(e.moments.variance) for e in repeats])
    bias, monte_carlo = -variance / 2.0, np.sqrt(variance / NUM)
    assert np.sqrt(np.mean(away**2)) < 0.05
    assert 0.75 < np.std(away) / np.mean(monte_carlo) < 1.25
    assert abs(np.mean(away - bias)) < 0.3 * np.mean(monte_carlo)


def test_hard_rows_get_the_temperatures(repeats):
    work = np.mean(
        [e.share.num_temperatures * e.share.num_replicates for e in repeats], axis=0
    )
    assert np.mean(work[:3]) > 4.0 * np.mean(work[3:])


def test_rows_of_wide_weights_are_scouted_again():
    stages, one = [], search(0, Rule(error=0.01, num_chains=K))
    run = one.run

    def recorded(stage, *args):
        stages.append(stage)
        return run(stage, *args)

    one.run = recorded
    one.estimate("rows", NUM, load)
    assert "scouts rows T=32" in stages
    assert any(stage.startswith("scouts rows T=128") for stage in stages)


def test_the_pilot_is_of_as_many_rows_as_asked_for():
    seen = []

    def recorded(rows):
        seen.append(set(rows.tolist()))
        return load(rows)

    rule = Rule(num_temperatures=4, num_chains=K, num_pilot=6)
    search(0, rule).estimate("rows", NUM, recorded)
    assert seen[0] == set(range(6)) and seen[-1] == set(range(NUM))


def test_the_gap_closes_and_holds_the_bound():
    pairs = partial(evaluation.simulate, MODEL, jax.random.key(1), PARAMS[0])
    one, told = search(0, Rule(error=0.05, num_chains=K)), []
    one.progress = told.append
    found = one.estimate("pairs", 64, pairs, is_paired=True)
    planned = [a.expected_moves for a in told if a.stage == "pairs"]
    assert planned[-1] == one.num_moves
    x, _ = pairs(np.arange(64))
    exact = np.asarray(jax.vmap(partial(exact_log_p, PARAMS[0]))(x))
    for log_p in (found.moments.log_p, -found.reverse.log_p):
        away = log_p - exact
        assert abs(np.mean(away)) < 0.05 + 4.0 * np.std(away) / 8.0
    gap = -found.reverse.log_p - found.moments.log_p
    assert abs(np.mean(gap)) < 0.05 + 4.0 * np.std(gap) / 8.0


def test_one_program_serves_every_number_of_temperatures_and_both_ways():
    make = partial(evaluation.compiled, STARTS, evaluation.trajectories(3))
    before = make(K)._cache_size()
    for error, num in ((0.1, None), (0.02, None), (0.0, 7), (0.0, 40)):
        run = evaluation.in_memory(make(K), PARAMS)
        rule = Rule(error, num, K)
        one = Search(jax.random.key(3), run, rule, num_starts=2, first_step_size=0.5)
        one.estimate("rows", NUM, load, is_paired=True)
    assert before == 0 and make(K)._cache_size() == 1


def test_rows_and_draws_of_the_public_function():
    found = ais_jax.log_likelihood(
        jax.random.key(0),
        MODEL,
        X[3:],
        PARAMS,
        num_temperatures=64,
        num_draws=400,
        num_simulated=0,
    )
    assert found.gap is None and np.all(found.num_temperatures == 64)
    away = found.log_p - EXACT[3:]
    assert np.max(np.abs(away) / (found.standard_error + 1e-3)) < 5.0
    assert abs(found.mean - np.mean(EXACT[3:])) < 4.0 * found.monte_carlo
    mean, _ = jax.vmap(partial(exact_posterior, PARAMS[0]))(X[3:])
    assert found.draws.shape == (NUM - 3, 400, 1)
    assert np.mean(np.abs(found.draws.mean(1)[:, 0] - mean)) < 0.2


def test_a_decoder_that_was_trained_elsewhere_is_scored_from_the_prior():
    weight, bias = PARAMS[0]

    def decode(theta, z):
        return theta["w"] * z[0] + theta["b"], jnp.full(2, np.log(0.7))

    model = ais_jax.from_decoder(decode, 1, "gaussian")
    theta = {"w": np.asarray(weight), "b": np.asarray(bias)}
    found = ais_jax.log_likelihood(
        jax.random.key(0), model, X, (theta, ()), start="prior", num_simulated=32
    )
    away = np.abs(found.log_p - EXACT)
    assert np.max(away / (found.standard_error + 1e-3)) < 5.0
    assert abs(found.gap.mean) < 0.05 + 4.0 * found.gap.standard_error
    assert "simulated pairs" in str(found) and found.wanted_error >= 0.05


@pytest.mark.parametrize(
    "name, value",
    [("error", -1.0), ("start", "middle"), ("num_chains", 1), ("num_temperatures", 0)],
)
def test_what_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}|{name}"):
        ais_jax.log_likelihood(jax.random.key(0), MODEL, X, PARAMS, **{name: value})


def test_work_goes_by_the_root_of_the_cost_and_fills_the_slots():
    cost = np.where(np.arange(1000) < 4, 640.0, 4.0)
    share = allocation.allocate(cost, 8, 0.05, 2**14)
    work = share.num_temperatures * share.num_replicates
    assert np.mean(cost / (8 * work)) <= 0.05
    assert np.all(work[:4] >= 16 * work[4:].max())
    share = allocation.allocate(np.full(5, 4.0), 8, 0.001, 2**14)
    work = share.num_temperatures * share.num_replicates
    assert np.all(share.num_replicates > 8) and np.all(work >= 500)
    slots = allocation.slots_of(share, np.arange(4))
    assert slots.shape[1] % allocation.SLOTS == 0
    assert len({tuple(slot) for slot in slots.T}) == slots.shape[1]
    log_w = allocation.by_row(slots[1][:, None].astype(float), slots[0], np.arange(4))
    for row in log_w:
        there = row[~np.isnan(row)]
        np.testing.assert_array_equal(there, np.arange(len(there)))


def test_moments_of_log_normal_weights():
    rng, sd = np.random.default_rng(0), np.sqrt(0.4)
    log_w = rng.normal(-0.5 * sd**2, sd, (20000, 8))
    found = allocation.moments(log_w)
    assert np.mean(found.variance) == pytest.approx(np.var(found.log_p), rel=0.15)
    assert -np.mean(found.variance) / 2 == pytest.approx(np.mean(found.log_p), rel=0.15)
    filled = np.concatenate([log_w[:3], np.full((3, 5), np.nan)], axis=1)
    for a, b in zip(allocation.moments(filled), found):
        np.testing.assert_allclose(a, b[:3])
    with_dead = np.array([[0.0, -np.inf], [-np.inf, -np.inf]])
    dead = allocation.moments(with_dead)
    np.testing.assert_allclose(dead.log_p, [-np.log(2.0), -np.inf])


def test_there_are_as_many_pairs_as_the_gaps_error_needs():
    pairs = partial(evaluation.simulate, MODEL, jax.random.key(1), PARAMS[0])
    nums = []
    for error in (0.5, 0.03):
        one = search(0, Rule(error=error, num_temperatures=4, num_chains=K))
        estimate = one.estimate("rows", NUM, load)
        gap = measured_gap(one, pairs, estimate, None)
        nums.append(len(gap.per_pair))
        assert gap.standard_error < 1.3 * error
    assert nums[0] == FEWEST_PAIRS < nums[1] <= MOST_PAIRS
    fixed = measured_gap(one, pairs, estimate, 20)
    assert len(fixed.per_pair) == 20
