"""Chains that are resampled on the way: Z stays unbiased, and its error is honest."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing import loop, proposals, smc
from ais_jax.annealing.ais import anneal_chains
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.trajectory import trajectory_step
from ais_jax.batching import chain_keys
from ais_jax.evidence.log_z import log_normalizer
from ais_jax.evidence.plan import Plan
from tests import targets

TARGET = targets.skewed(3)
BASE = targets.normal_base(3, 3.0)  # so wide that weights are uneven
PATH = TARGET.path._replace(sample_base=BASE[0], log_base=BASE[1])
BETAS = jnp.linspace(0.0, 1.0, 7) ** 2
STEPS = jnp.full((5,), 0.7)
MOVE = partial(hmc_step, num_leapfrog=3)
CLOUDS = partial(trajectory_step, num_leapfrog=3)


def run(key, num_chains=8, resample_below=0.7, move=MOVE):
    base_key, key = jax.random.split(key)
    z0 = jax.vmap(PATH.sample_base)(jax.random.split(base_key, num_chains))
    keys = chain_keys(key, num_chains)
    return anneal_chains(keys, PATH, z0, BETAS, STEPS, move, None, resample_below)


def many(num=2000, **settings):
    run_all = jax.jit(jax.vmap(lambda key: run(key, **settings)))
    return run_all(jax.random.split(jax.random.key(0), num))


def off(log_w):
    """Standard errors of the mean over populations of mean(w) / Z from one."""
    return targets.errors_off(np.exp(log_w - TARGET.log_z).mean(axis=1), 1.0)


@pytest.mark.parametrize("move", [MOVE, CLOUDS], ids=["end", "trajectory"])
def test_z_is_unbiased_with_resampling(move):
    chains = many(move=move)
    num_ancestors = np.mean([len(set(row)) for row in np.asarray(chains.ancestor)])
    assert num_ancestors < 6.0
    assert abs(off(chains.log_w)) < 4.0


def test_weights_that_are_not_made_even_are_rejected(monkeypatch):
    def mutant(uniform, before, shares, own, log_w, lost, **share):
        chosen, *_ = smc.pooled(uniform, before, shares, own, log_w, lost, **share)
        chain = chosen // shares.shape[1]
        return chosen, log_w[chain], lost[chain]

    monkeypatch.setattr(loop, "pooled", mutant)
    assert abs(off(many().log_w)) > 8.0


def test_a_mean_weight_that_is_dropped_is_rejected(monkeypatch):
    def mutant(*args, **share):
        chosen, new, lost = smc.pooled(*args, **share)
        return chosen, jnp.where(jnp.all(new == new[0]), 0.0, new), lost

    monkeypatch.setattr(loop, "pooled", mutant)
    assert abs(off(many().log_w)) > 8.0


def test_a_rounding_error_that_outlives_the_resampling_is_rejected(monkeypatch):
    """The mean weight holds the errors already; kept, they would count twice."""

    def one(pooled):
        ones = jnp.zeros((4,))
        lost = jnp.array([0.5, 0.0, 0.0, 0.0])
        spread = jnp.array([9.0, 0.0, 0.0, 0.0])
        _, log_w, left = pooled(
            jnp.array(0.3), ones, spread[:, None], jnp.arange(4), spread, lost, 0.9
        )
        return jax.nn.logsumexp(log_w + left) - jax.nn.logsumexp(spread + lost)

    def mutant(*args):
        chosen, log_w, _ = smc.pooled(*args)
        return chosen, log_w, args[5]

    np.testing.assert_allclose(one(smc.pooled), 0.0, atol=1e-5)
    assert abs(one(mutant)) > 0.1


def test_the_error_of_ancestors_is_the_spread_over_repeats():
    plan = Plan(BETAS, STEPS)
    keys = jax.random.split(jax.random.key(1), 200)
    estimate = partial(log_normalizer, resample_below=0.5)
    result = jax.jit(jax.vmap(lambda key: estimate(key, PATH, plan, 400, MOVE)))(keys)
    spread = np.std(result.log_z)
    assert 0.9 * spread < np.median(result.standard_error) < 2.0 * spread
    error = result.log_z - TARGET.log_z
    assert np.mean(np.abs(error) < 3.0 * result.standard_error) > 0.97


def test_resampling_helps_where_weights_are_uneven():
    resampled = np.asarray(many(num=400, num_chains=32).log_w)
    alone = np.asarray(many(num=400, num_chains=32, resample_below=None).log_w)
    spread = [np.std(np.log(np.exp(w).mean(axis=1))) for w in (resampled, alone)]
    assert spread[0] < 0.9 * spread[1]


def test_chains_that_are_never_resampled_are_their_own_ancestors():
    chains, alone = (
        jax.jit(partial(run, num_chains=5, resample_below=share))(jax.random.key(2))
        for share in (0.0, None)
    )
    assert list(chains.ancestor) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(chains.log_w, alone.log_w, rtol=1e-6)


def test_systematic_draws_are_in_proportion():
    log_w = jnp.log(jnp.array([0.5, 0.0, 0.3, 0.2]))
    uniform = jax.random.uniform(jax.random.key(0), (1000,))
    drawn = jax.vmap(lambda u: smc.systematic(u, log_w, 4))(uniform)
    counts = np.stack([np.sum(drawn == k, axis=1) for k in range(4)], axis=1)
    assert set(counts[:, 0]) == {2} and set(counts[:, 1]) == {0}
    assert np.all(np.abs(targets.errors_off(counts[:, 2:], [1.2, 0.8])) < 4.0)
    even = smc.systematic(uniform[0], jnp.full((4,), -jnp.inf), 4)
    assert list(even) == [0, 1, 2, 3]


def test_ancestors_keep_the_mean_of_the_weights():
    log_w = jnp.array([0.0, -jnp.inf, 1.0, 2.0, 200.0])
    sums = smc.ancestor_log_weights(log_w, jnp.array([3, 3, 0, 0, 2]))
    expected = [np.logaddexp(1.0, 2.0), -np.inf, 200.0, 0.0, -np.inf]
    np.testing.assert_allclose(sums[jnp.array([1, 2, 4])], [-np.inf, 200.0, -np.inf])
    small = smc.ancestor_log_weights(log_w[:4], jnp.array([3, 3, 0, 0]))
    np.testing.assert_allclose(small, [expected[0], -np.inf, -np.inf, 0.0], rtol=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match=r"resample_below=.*between 0"):
        proposals.annealed(BETAS, MOVE, 4, resample_below=share)
    plan = Plan(BETAS, STEPS)
    with pytest.raises(ValueError, match=r"resample_below=.*between 0"):
        log_normalizer(jax.random.key(0), PATH, plan, 4, MOVE, resample_below=share)


def test_a_proposal_takes_resampled_chains_with_unbiased_weights():
    propose = proposals.annealed(BETAS, MOVE, 8, resample_below=0.7)
    keys = jax.random.split(jax.random.key(3), 1000)
    samples = jax.jit(jax.vmap(lambda key: propose(key, PATH, jnp.full((6,), 0.7))))(
        keys
    )
    assert samples.z.shape == (1000, 8, 3)
    assert abs(off(samples.log_w)) < 4.0
