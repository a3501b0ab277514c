"""The pilot run: temperatures and step sizes, which are then frozen.

An estimate whose chains adapt while they are weighed is biased. So a pilot with a key
of its own makes a `Plan`, and every estimate takes one.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ais_jax import schedules
from ais_jax.ais import anneal
from ais_jax.batching import chain_keys
from ais_jax.hmc import hmc_step
from ais_jax.registry import lookup

DEFAULT_TRANSITION = partial(hmc_step, num_leapfrog=10)
DEFAULT_STEP_SIZE = 0.1
PILOT_CHAINS = 64  # of one path; the spread of its weights is read from them


class Plan(NamedTuple):
    """Frozen settings of a run: what `tune` gives and every estimate takes.

    Attributes:
        betas: f32[T + 1], inverse temperatures from 0 to 1.
        step_sizes: f32[T - 1], of the moves at betas[1], ..., betas[T - 1]; a move at
            beta = 1 would not change the weight.
    """

    betas: jax.Array
    step_sizes: jax.Array


def tune(key, path, *, num_temperatures, num_chains=PILOT_CHAINS, **settings):
    """Places the temperatures and sets the step sizes of one path in a pilot run.

    Args:
        key: PRNG key; use another one for the estimate itself.
        path: an `AnnealingPath`.
        num_temperatures: T of the plan.
        num_chains: pilot chains, at least 2.
        **settings: as for `tune_examples`.

    Returns:
        A `Plan` of T temperatures.
    """
    return tune_examples(
        key,
        lambda _: path,
        jnp.zeros((1,)),
        num_temperatures=num_temperatures,
        num_chains=num_chains,
        **settings,
    )


def tune_examples(
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
        lookup("schedule", fixed, [*schedules.SCHEDULES, "adaptive"])
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


def _smooth(values, width=5):
    """Moving average of f32[M] that shortens its window at the ends."""
    window = jnp.ones((min(width, values.shape[0]),))
    total = jnp.convolve(values, window, mode="same")
    return total / jnp.convolve(jnp.ones_like(values), window, mode="same")
