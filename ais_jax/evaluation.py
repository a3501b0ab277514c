"""Normalising constants and log-likelihoods with errors and bounds, in nats.

Everything takes an `AnnealingPath`, so it serves any pair of densities. A pilot run
(`tune`) places the temperatures and sets the step sizes; then they are frozen, since an
estimate whose chains adapt while they are weighed is biased.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ais_jax import schedules
from ais_jax.ais import anneal, reverse_anneal
from ais_jax.hmc import hmc_step
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_error,
)
from ais_jax.proposals import chain_keys

DEFAULT_TRANSITION = partial(hmc_step, num_leapfrog=10)
DEFAULT_STEP_SIZE = 0.1


class LogNormalizer(NamedTuple):
    """An estimate of log Z from K annealed chains.

    Attributes:
        log_z: f32[], log of the mean weight, a stochastic lower bound of log Z.
        standard_error: f32[], of log_z, from the spread of the weights; NaN for K = 1.
        ess: f32[], effective sample size of the weights, between 1 and K.
        log_w: f32[K], log weights.
        z: f32[K, D], the ends of the chains; with log_w they are weighted draws from
            the target.
        accept_prob: f32[M], mean acceptance of each move.
        increment_variance: f32[T], variance over the chains of each increment of the
            log weight.
    """

    log_z: jax.Array
    standard_error: jax.Array
    ess: jax.Array
    log_w: jax.Array
    z: jax.Array
    accept_prob: jax.Array
    increment_variance: jax.Array


class Bounds(NamedTuple):
    """Bidirectional Monte Carlo bounds of log Z.

    Attributes:
        lower: f32[], from forward chains; its expectation is at most log Z.
        upper: f32[], from reverse chains; its expectation is at least log Z.
        lower_error: f32[], standard error of lower over its chains.
        upper_error: f32[], of upper over its chains, which share one exact draw.
    """

    lower: jax.Array
    upper: jax.Array
    lower_error: jax.Array
    upper_error: jax.Array


class Plan(NamedTuple):
    """Frozen settings of a run: what `tune` gives and every estimate takes.

    Attributes:
        betas: f32[T + 1], inverse temperatures from 0 to 1.
        step_sizes: f32[T - 1], of the moves at betas[1], ..., betas[T - 1]; a move at
            beta = 1 would not change the weight.
    """

    betas: jax.Array
    step_sizes: jax.Array


def estimate_log_z(
    key, path, *, num_temperatures=100, num_chains=100, transition=DEFAULT_TRANSITION
):
    """Estimates log Z of a path with a pilot run of its own.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        num_temperatures: T; the bias falls with it.
        num_chains: K, independent chains; the standard error falls with it.
        transition: as for `ais.anneal`.

    Returns:
        A `LogNormalizer`.
    """
    pilot_key, key = jax.random.split(key)
    plan = tune(
        pilot_key,
        lambda _: path,
        jnp.zeros((1,)),
        num_temperatures=num_temperatures,
        num_chains=64,
        transition=transition,
    )
    return log_normalizer(key, path, plan, num_chains, transition)


def log_normalizer(key, path, plan, num_chains, transition=DEFAULT_TRANSITION):
    """Estimates log Z by K annealed chains of a frozen plan (Eq. 7).

    Chain k depends on the key and on k alone, so adding chains leaves the others as
    they are.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        plan: a `Plan`.
        num_chains: K.
        transition: as for `ais.anneal`.

    Returns:
        A `LogNormalizer`.
    """
    result = _forward(key, path, plan, num_chains, transition)
    increments = jnp.diff(plan.betas) * result.log_ratio
    return LogNormalizer(
        log_mean_exp(result.log_w),
        log_mean_exp_error(result.log_w),
        effective_sample_size(result.log_w),
        result.log_w,
        result.point.z,
        jnp.mean(result.accept_prob, axis=0),
        jnp.var(increments, axis=0),
    )


def bidirectional_bounds(
    key, path, z_target, plan, num_chains, transition=DEFAULT_TRANSITION
):
    """Bounds log Z from both sides (bidirectional Monte Carlo).

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        z_target: f32[D], one exact draw from the normalised target, from which all
            reverse chains start; as the z of a simulated pair (x, z) is for p(z|x).
        plan: a `Plan`.
        num_chains: K in each direction.
        transition: as for `ais.anneal`; it must be reversible.

    Returns:
        `Bounds`.

    References:
        Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using
        bidirectional Monte Carlo, 2015.
    """
    forward_key, reverse_key = jax.random.split(key)
    lower = _forward(forward_key, path, plan, num_chains, transition).log_w
    back = lambda key: reverse_anneal(
        key, path, z_target, plan.betas, plan.step_sizes, transition
    )
    upper = jax.vmap(back)(chain_keys(reverse_key, num_chains)).log_w
    return Bounds(
        log_mean_exp(lower),
        -log_mean_exp(upper),
        log_mean_exp_error(lower),
        log_mean_exp_error(upper),
    )


def importance_log_weights(key, path, num_samples, block_size=100):
    """Log weights of independent draws from the base.

    Their mean estimates the ELBO (Eq. 2) and their `log_mean_exp` the bound of Eq. 5.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        num_samples: K.
        block_size: samples drawn at a time, which bounds the memory.

    Returns:
        f32[K], nats.
    """

    def log_weight(k):
        z = path.sample_base(jax.random.fold_in(key, k))
        return path.log_target(z) - path.log_base(z)

    indices = jnp.arange(num_samples)
    return jax.lax.map(log_weight, indices, batch_size=min(block_size, num_samples))


def tune(
    key,
    path_fn,
    xs,
    *,
    num_temperatures,
    schedule="adaptive",
    num_chains=8,
    transition=DEFAULT_TRANSITION,
    target=0.65,
    first_step_size=DEFAULT_STEP_SIZE,
    pilot_temperatures=64,
    num_rounds=16,
):
    """Places the temperatures and sets the step sizes in a pilot run.

    Each round anneals pilot chains on a short schedule. The step size at each
    temperature then moves towards the target acceptance, smoothly in temperature. With
    schedule = 'adaptive' the temperatures are placed so that the conditional effective
    sample size between neighbours is constant: to the leading order that is a density
    proportional to the standard deviation of log target - log base at beta, here the
    root of its variance over chains averaged over examples.

    Args:
        key: PRNG key; use another one for the estimate itself.
        path_fn: x -> `AnnealingPath`.
        xs: pytree of pilot examples with a leading axis of P.
        num_temperatures: T of the plan.
        schedule: 'adaptive', a name in `schedules.SCHEDULES`, or f32[T + 1] betas.
        num_chains: chains for each pilot example, at least 2.
        transition: as for `ais.anneal`.
        target: acceptance probability to aim for.
        first_step_size: where the search starts.
        pilot_temperatures: temperatures of the pilot's own schedule, at most.
        num_rounds: pilot runs.

    Returns:
        A `Plan` of T temperatures.

    Raises:
        ValueError: for an unknown schedule.
    """
    fixed = None if isinstance(schedule, str) and schedule == "adaptive" else schedule
    if isinstance(fixed, str):
        if fixed not in schedules.SCHEDULES:
            known = [*schedules.SCHEDULES, "adaptive"]
            raise ValueError(schedules.unknown_name("schedule", fixed, known))
        fixed = schedules.make(fixed, num_temperatures)
    if num_temperatures == 1:
        return Plan(jnp.array([0.0, 1.0]), jnp.zeros((0,)))
    num_pilot = min(pilot_temperatures, num_temperatures)
    grid = jnp.linspace(0.0, 1.0, num_pilot + 1)

    def resample_betas(betas, density, num):
        length = jnp.append(0.0, jnp.cumsum(jnp.diff(betas) * density))
        new = jnp.interp(jnp.linspace(0.0, length[-1], num + 1), length, betas)
        return new.at[0].set(0.0).at[-1].set(1.0)

    def pilot(key, betas, log_steps):
        def chain(key, x):
            path = path_fn(x)
            base_key, key = jax.random.split(key)
            z0 = path.sample_base(base_key)
            steps = jnp.exp(log_steps)[1:-1]
            result = anneal(key, path, z0, betas, steps, transition)
            return result.accept_prob, result.log_ratio

        num = jax.tree.leaves(xs)[0].shape[0]
        keys = jax.vmap(chain_keys, (0, None))(chain_keys(key, num), num_chains)
        chains = jax.vmap(jax.vmap(chain, (0, None)))
        return chains(keys, xs)

    def a_round(i, carry):
        betas, log_steps, density = carry
        accept, ratios = pilot(jax.random.fold_in(key, i), betas, log_steps)
        error = _smooth(jnp.mean(accept, axis=(0, 1)) - target)
        log_steps = log_steps.at[1:-1].add(error)
        log_steps = log_steps.at[0].set(log_steps[1]).at[-1].set(log_steps[-2])
        spread = jnp.sqrt(jnp.mean(jnp.var(ratios, axis=1, ddof=1), axis=0))
        density = jnp.where(jnp.isfinite(spread), spread, 0.0)
        density = density + 0.1 * jnp.sum(jnp.diff(betas) * density) + 1e-6
        if fixed is None:
            moved = resample_betas(betas, density, num_pilot)
            log_steps = jnp.interp(moved, betas, log_steps)
            density = jnp.interp(moved[:-1], betas[:-1], density)
            betas = moved
        return betas, log_steps, density

    start = (
        grid
        if fixed is None
        else jnp.interp(grid, jnp.linspace(0.0, 1.0, len(fixed)), jnp.asarray(fixed))
    )
    log_steps = jnp.full((num_pilot + 1,), jnp.log(first_step_size))
    carry = (start, log_steps, jnp.ones((num_pilot,)))
    betas, log_steps, density = jax.lax.fori_loop(0, num_rounds, a_round, carry)
    final = (
        resample_betas(betas, density, num_temperatures)
        if fixed is None
        else jnp.asarray(fixed)
    )
    return Plan(final, jnp.exp(jnp.interp(final[1:-1], betas, log_steps)))


def resample_plan(plan, num_temperatures):
    """The same schedule and step sizes with another number of temperatures.

    Args:
        plan: a `Plan` of T temperatures.
        num_temperatures: of the new one.

    Returns:
        A `Plan`, its temperatures interpolated in their index and its step sizes in
        temperature; a plan of T = 1 has none, and gives `DEFAULT_STEP_SIZE`.
    """
    num = plan.betas.shape[0] - 1
    at = jnp.linspace(0.0, num, num_temperatures + 1)
    betas = jnp.interp(at, jnp.arange(num + 1.0), plan.betas)
    if num_temperatures == 1 or num == 1:
        return Plan(betas, jnp.full((num_temperatures - 1,), DEFAULT_STEP_SIZE))
    log_steps = jnp.interp(betas[1:-1], plan.betas[1:-1], jnp.log(plan.step_sizes))
    return Plan(betas, jnp.exp(log_steps))


def _forward(key, path, plan, num_chains, transition):
    """K chains from the base: an `AISResult` with a leading axis of K."""

    def chain(key):
        base_key, move_key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        return anneal(move_key, path, z0, plan.betas, plan.step_sizes, transition)

    return jax.vmap(chain)(chain_keys(key, num_chains))


def _smooth(values, width=5):
    """Moving average of f32[M] that shortens its window at the ends."""
    window = jnp.ones((min(width, values.shape[0]),))
    total = jnp.convolve(values, window, mode="same")
    return total / jnp.convolve(jnp.ones_like(values), window, mode="same")
