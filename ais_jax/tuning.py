"""The pilot run: temperatures and step sizes, which are then frozen.

An estimate whose chains adapt while they are weighed is biased. So a pilot with a key
of its own makes a `Plan`, and every estimate takes one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree, ScalarLike

from ais_jax import schedules
from ais_jax.ais import Transition, anneal
from ais_jax.batching import chain_keys
from ais_jax.hmc import hmc_step
from ais_jax.path import AnnealingPath
from ais_jax.registry import lookup
from ais_jax.types import PRNGKey

DEFAULT_TRANSITION = partial(hmc_step, num_leapfrog=10)
DEFAULT_STEP_SIZE = 0.1
DEFAULT_TARGET = 0.65  # near HMC's optimal acceptance (Beskos et al., 2013)
PILOT_CHAINS = 64  # of one path: the spread of its log ratio is read from them
PILOT_TEMPERATURES = 64  # the plan is read off the pilot's schedule by interpolation
NUM_ROUNDS = 16
SMOOTHING = 5  # temperatures over which the acceptance is averaged
SMALLEST_SHARE = 0.1  # of the mean density, kept everywhere: spreads are noisy
SMALLEST_DENSITY = 1e-6  # where the base is the target and nothing spreads

Schedule = str | Float[ArrayLike, "T_plus_1"] | Sequence


class Plan(NamedTuple):
    """Frozen settings of a run: what `tune` gives and every estimate takes.

    Attributes:
        betas: inverse temperatures from 0 to 1.
        step_sizes: of the moves at betas[1], ..., betas[T - 1]; a move at beta = 1
            would not change the weight.
    """

    betas: Float[Array, "T_plus_1"]
    step_sizes: Float[Array, "T_minus_1"]


class Pilot(NamedTuple):
    """What a pilot run knows after a round, at its own N temperatures.

    Attributes:
        betas: its schedule.
        log_steps: logarithms of the step sizes.
        density: of temperatures wanted in each interval, up to a factor.
    """

    betas: Float[Array, "N_plus_1"]
    log_steps: Float[Array, "N_plus_1"]
    density: Float[Array, "N"]


def tune(
    key: PRNGKey,
    path: AnnealingPath,
    *,
    num_temperatures: int,
    num_chains: int = PILOT_CHAINS,
    **settings: Any,
) -> Plan:
    """Places the temperatures and sets the step sizes of one path in a pilot run.

    Args:
        key: use another one for the estimate itself.
        path: from the base to the target.
        num_temperatures: T of the plan.
        num_chains: pilot chains, at least 2.
        **settings: as for `tune_examples`.

    Raises:
        ValueError: as `tune_examples`.
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
    key: PRNGKey,
    path_fn: Callable[[PyTree], AnnealingPath],
    xs: PyTree,
    *,
    num_temperatures: int,
    schedule: Schedule = "adaptive",
    num_chains: int = 8,
    transition: Transition = DEFAULT_TRANSITION,
    target: ScalarLike = DEFAULT_TARGET,
    first_step_size: ScalarLike = DEFAULT_STEP_SIZE,
    pilot_temperatures: int = PILOT_TEMPERATURES,
    num_rounds: int = NUM_ROUNDS,
) -> Plan:
    """Makes one plan for the paths of many examples, from some of them.

    Each round anneals pilot chains on a short schedule. The step size at each
    temperature then moves towards the target acceptance, smoothly in temperature. With
    schedule = 'adaptive' the temperatures are placed so that the conditional effective
    sample size between neighbours is constant: to the leading order that is a density
    proportional to the standard deviation of log target - log base at beta, here the
    root of its variance over chains averaged over examples.

    Args:
        key: use another one for the estimate itself.
        path_fn: the path of one example.
        xs: pilot examples, a pytree with a leading axis of P.
        num_temperatures: T of the plan.
        schedule: 'adaptive', a name in `schedules.SCHEDULES`, or T + 1 betas.
        num_chains: chains for each pilot example, at least 2.
        transition: as for `ais.anneal`.
        target: acceptance probability to aim for.
        first_step_size: where the search starts.
        pilot_temperatures: temperatures of the pilot's own schedule, at most.
        num_rounds: pilot runs.

    Raises:
        ValueError: for an unknown schedule, betas of another number of temperatures,
            or a number out of range.
    """
    fixed = _fixed_betas(schedule, num_temperatures)
    if num_chains < 2:
        raise ValueError(f"num_chains={num_chains}: use at least 2 in a pilot")
    if num_temperatures == 1:
        return Plan(jnp.array([0.0, 1.0]), jnp.zeros((0,)))

    def a_round(i, pilot):
        round_key = jax.random.fold_in(key, i)
        accept, ratios = _run_chains(
            round_key, path_fn, xs, pilot, num_chains, transition
        )
        pilot = Pilot(
            betas=pilot.betas,
            log_steps=_follow_acceptance(pilot.log_steps, accept, target),
            density=_wanted_density(pilot.betas, ratios),
        )
        return _move(pilot) if fixed is None else pilot

    num_pilot = min(pilot_temperatures, num_temperatures)
    pilot = _first_pilot(num_pilot, fixed, first_step_size)
    pilot = jax.lax.fori_loop(0, num_rounds, a_round, pilot)
    betas = fixed
    if fixed is None:
        betas = _place(pilot.betas, pilot.density, num_temperatures)
    log_steps = jnp.interp(betas[1:-1], pilot.betas, pilot.log_steps)
    return Plan(betas, jnp.exp(log_steps))


def resample_plan(plan: Plan, num_temperatures: int) -> Plan:
    """The same schedule and step sizes with another number of temperatures.

    Temperatures are interpolated in their index and step sizes in temperature; a plan
    of T = 1 has none, and gives `DEFAULT_STEP_SIZE`.
    """
    num = plan.betas.shape[0] - 1
    at = jnp.linspace(0.0, num, num_temperatures + 1)
    betas = jnp.interp(at, jnp.arange(num + 1.0), plan.betas)
    if num_temperatures == 1 or num == 1:
        return Plan(betas, jnp.full((num_temperatures - 1,), DEFAULT_STEP_SIZE))
    log_steps = jnp.interp(betas[1:-1], plan.betas[1:-1], jnp.log(plan.step_sizes))
    return Plan(betas, jnp.exp(log_steps))


def _fixed_betas(schedule, num_temperatures):
    """The betas of a schedule, or None where the pilot is to place them."""
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures={num_temperatures}: use at least 1")
    if isinstance(schedule, str):
        lookup("schedule", schedule, [*schedules.SCHEDULES, "adaptive"])
        if schedule == "adaptive":
            return None
        schedule = schedules.make(schedule, num_temperatures)
    betas = jnp.asarray(schedule)
    if len(betas) != num_temperatures + 1:
        raise ValueError(
            f"schedule has {len(betas) - 1} temperatures after the first and "
            f"num_temperatures={num_temperatures}: make them equal"
        )
    return betas


def _first_pilot(num, fixed, step_size):
    """Equal spacing, or the fixed schedule's shape, at one step size."""
    betas = jnp.linspace(0.0, 1.0, num + 1)
    if fixed is not None:
        betas = jnp.interp(betas, jnp.linspace(0.0, 1.0, len(fixed)), fixed)
    log_steps = jnp.full((num + 1,), jnp.log(step_size))
    return Pilot(betas, log_steps, jnp.ones((num,)))


def _run_chains(
    key: PRNGKey,
    path_fn: Callable[[PyTree], AnnealingPath],
    xs: PyTree,
    pilot: Pilot,
    num_chains: int,
    transition: Transition,
) -> tuple[Float[Array, "P K N_minus_1"], Float[Array, "P K N"]]:
    """Acceptance of each move, and log target - log base, of K chains an example."""
    step_sizes = jnp.exp(pilot.log_steps)[1:-1]

    def chain(key, x):
        path = path_fn(x)
        base_key, key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        result = anneal(key, path, z0, pilot.betas, step_sizes, transition)
        return result.accept_prob, result.log_ratio

    num = jax.tree.leaves(xs)[0].shape[0]
    keys = jax.vmap(chain_keys, (0, None))(chain_keys(key, num), num_chains)
    return jax.vmap(jax.vmap(chain, (0, None)))(keys, xs)


def _follow_acceptance(log_steps, accept, target):
    """Step sizes nearer the target acceptance; the ends, unmoved, copy neighbours."""
    error = _smooth(jnp.mean(accept, axis=(0, 1)) - target)
    log_steps = log_steps.at[1:-1].add(error)
    return log_steps.at[0].set(log_steps[1]).at[-1].set(log_steps[-2])


def _wanted_density(betas, ratios):
    """Temperatures wanted in each interval, up to a factor."""
    spread = jnp.sqrt(jnp.mean(jnp.var(ratios, axis=1, ddof=1), axis=0))
    density = jnp.where(jnp.isfinite(spread), spread, 0.0)
    mean = jnp.sum(jnp.diff(betas) * density)
    return density + SMALLEST_SHARE * mean + SMALLEST_DENSITY


def _place(betas, density, num):
    """Betas of `num` intervals, each holding an equal share of the density."""
    length = jnp.append(0.0, jnp.cumsum(jnp.diff(betas) * density))
    new = jnp.interp(jnp.linspace(0.0, length[-1], num + 1), length, betas)
    return new.at[0].set(0.0).at[-1].set(1.0)


def _move(pilot):
    """The pilot with its temperatures where its density wants them."""
    betas = _place(pilot.betas, pilot.density, len(pilot.density))
    log_steps = jnp.interp(betas, pilot.betas, pilot.log_steps)
    density = jnp.interp(betas[:-1], pilot.betas[:-1], pilot.density)
    return Pilot(betas, log_steps, density)


def _smooth(values, width=SMOOTHING):
    """Moving average that shortens its window at the ends."""
    window = jnp.ones((min(width, values.shape[0]),))
    total = jnp.convolve(values, window, mode="same")
    return total / jnp.convolve(jnp.ones_like(values), window, mode="same")
