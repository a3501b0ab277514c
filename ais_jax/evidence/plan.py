"""The pilot run: temperatures and step sizes, which are then frozen.

An estimate whose chains adapt while they are weighed is biased. So a pilot with a key
of its own makes a `Plan`, and every estimate takes one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, ScalarLike

from ais_jax.annealing import schedules
from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.loop import Paths
from ais_jax.annealing.path import AnnealingPath
from ais_jax.annealing.trajectory import trajectory_step
from ais_jax.checks import check_count, lookup
from ais_jax.evidence import pilot as pilots
from ais_jax.evidence.base import BaseFit, with_base
from ais_jax.evidence.derivatives import stopped
from ais_jax.evidence.mass_matrix import suited
from ais_jax.evidence.positions import flatten
from ais_jax.evidence.spacing import interpolate, place
from ais_jax.types import AnyArray, PRNGKey, is_traced

DEFAULT_JITTER = 0.5  # so that no trajectory always returns to its start
DEFAULT_TRANSITION = partial(trajectory_step, num_leapfrog=10, jitter=DEFAULT_JITTER)
DEFAULT_STEP_SIZE = 1.0  # times D^(-1/4), in units of the base's draws
UNKNOWN_STEP_SIZE = 0.1  # of the moves that a plan without any is given
DEFAULT_TARGET = 0.8  # acceptance; below it a trajectory's weights are uneven
PILOT_CHAINS = 64  # of one path: the spread of its log ratio is read from them
PILOT_TEMPERATURES = 64  # the plan is read off the pilot's schedule by interpolation
NUM_ROUNDS = 4
MOST_ROUNDS = 4  # times as many where the acceptance is not there yet
LARGEST_ERROR = 0.15  # of the acceptance where the rounds end

Schedule = str | Float[AnyArray, "T_plus_1"] | Sequence


class Plan(NamedTuple):
    """Frozen settings of a run: what `tune` gives and every estimate takes.

    Attributes:
        betas: inverse temperatures from 0 to 1.
        step_sizes: of the moves at betas[1], ..., betas[T - 1]; a move at beta = 1
            would not change the weight.
        scale: of the path at each of these moves, in place of its `scale`: standard
            deviations [T - 1, D] or factors [T - 1, D, D]; or a number, which leaves
            the path's as it is.
        base: fitted by a pilot, from which chains start in place of the path's own
            base (`base.with_base`), or None.
    """

    betas: Float[AnyArray, "T_plus_1"]
    step_sizes: Float[AnyArray, "T_minus_1"]
    scale: Float[AnyArray, "..."] | ScalarLike = 1.0
    base: BaseFit | None = None


def tune(
    key: PRNGKey,
    path: AnnealingPath | Callable[[PyTree], AnnealingPath],
    xs: PyTree = None,
    *,
    num_temperatures: int,
    num_chains: int = PILOT_CHAINS,
    mass_matrix: str | None = None,
    **settings: Any,
) -> Plan:
    """Places the temperatures and sets the step sizes of one path in a pilot run.

    Args:
        key: use another one for the estimate itself.
        path: from the base to the target; or, with xs, x -> path.
        xs: None, or pilot examples, a pytree with a leading axis.
        num_temperatures: T of the plan.
        num_chains: pilot chains of each path, at least 2.
        mass_matrix: 'dense', 'diagonal', or 'unit', which leaves the path's `scale`.
            None is 'dense' where the chains allow it (`mass_matrix.suited`).
        **settings: the other arguments of `tune_examples`.

    Raises:
        ValueError: as `tune_examples`.
    """
    check_data("xs", path, xs)
    return tune_examples(
        key,
        (lambda _: path) if isinstance(path, AnnealingPath) else path,
        jnp.zeros((1,)) if xs is None else xs,
        num_temperatures=num_temperatures,
        num_chains=num_chains,
        mass_matrix=mass_matrix,
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
    mass_matrix: str | None = "unit",
) -> Plan:
    """Makes one plan for the paths of many examples, from some of them.

    First chains are tempered with resampling, and temperatures and step sizes follow
    what they meet. Then rounds of chains go through a short schedule. In each the step
    sizes move towards the target acceptance, smoothly in temperature, until it is
    there.

    With schedule = 'adaptive' the conditional effective sample size between neighbours
    is constant. To leading order the density of temperatures is then proportional to
    the standard deviation of log target - log base at beta. Its variance is taken over
    chains and averaged over examples. Chains of zero density, or of a penalty far below
    all others, are left out.

    Args:
        key: use another one for the estimate itself.
        path_fn: the path of one example.
        xs: pilot examples, a pytree with a leading axis of P.
        num_temperatures: T of the plan.
        schedule: 'adaptive', a name in `schedules.SCHEDULES`, or T + 1 betas.
        num_chains: chains for each pilot example, at least 2.
        transition: makes the moves, for instance `hmc_step`.
        target: acceptance probability to aim for.
        first_step_size: where the search starts, in units of the base's draws; it is
            multiplied by D^(-1/4).
        pilot_temperatures: temperatures of the pilot's own schedule, at most.
        num_rounds: pilot runs; up to four times as many where they are needed.
        mass_matrix: 'unit' leaves the path's `scale`; 'diagonal' and 'dense' put in
            its place the standard deviations, or a factor of the covariance, that the
            pilot's chains have at each temperature. None is 'dense' where the chains
            allow it (`mass_matrix.suited`).

    Raises:
        ValueError: for an unknown schedule, betas of another number of temperatures,
            a path that does not fit together, or a number out of range.
    """
    check_count("num_chains", num_chains, 2)
    check_count("pilot_temperatures", pilot_temperatures)
    check_count("num_rounds", num_rounds)
    _check_between("target", target, 1.0)
    _check_between("first_step_size", first_step_size, float("inf"))
    fixed = _fixed_betas(schedule, num_temperatures)
    xs = jax.tree.map(jnp.asarray, xs)  # NumPy's types are not all JAX's
    first = path_fn(jax.tree.map(lambda a: a[0], xs))
    mass_matrix = suited(mass_matrix, key, first, num_chains)
    if num_temperatures == 1:
        return Plan(jnp.array([0.0, 1.0]), jnp.zeros((0,)), jnp.ones(()))

    @jax.jit  # one program, where every operation would be compiled by itself
    def run(key, xs):
        def flat(x):
            return flatten(key, path_fn(x))[0]

        problem = pilots.PilotProblem(
            Paths(flat, xs),
            num_chains,
            transition,
            target,
            mass_matrix,
            first_step_size,
        )
        num = min(pilot_temperatures, num_temperatures)
        pilot = pilots.find_pilot(key, problem, fixed, num, num_rounds)
        return make_plan(pilot, num_temperatures, fixed)

    return stopped(run, key, xs)


def check_data(
    name: str, path: AnnealingPath | Callable[[PyTree], AnnealingPath], data: PyTree
) -> None:
    """Refuses a path that is given data, and a function of data without them."""
    if isinstance(path, AnnealingPath) and data is not None:
        raise ValueError(f"{name} is given and path takes none: give a function of it")
    if not isinstance(path, AnnealingPath) and data is None:
        raise ValueError(f"path={path} is a function: give {name}, which it takes")


def resample_plan(plan: Plan, num_temperatures: int) -> Plan:
    """The same schedule and step sizes with another number of temperatures.

    Temperatures are interpolated in their index, step sizes and scales in temperature;
    a plan of T = 1 has none, and gives `UNKNOWN_STEP_SIZE`.
    """
    check_count("num_temperatures", num_temperatures)
    num = plan.betas.shape[0] - 1
    at = jnp.linspace(0.0, num, num_temperatures + 1)
    old = jnp.asarray(plan.betas)
    betas = jnp.interp(at, jnp.arange(num + 1.0), old)
    if num_temperatures == 1 or num == 1:
        steps = jnp.full((num_temperatures - 1,), UNKNOWN_STEP_SIZE)
        return Plan(betas, steps, base=plan.base)
    inner = betas[1:-1], old[1:-1]
    log_steps = interpolate(*inner, jnp.log(plan.step_sizes))
    scale = scale_of_moves(plan)
    scale = plan.scale if scale is None else interpolate(*inner, scale)
    return Plan(betas, jnp.exp(log_steps), scale, plan.base)


def check_plan(plan: Plan) -> Plan:
    """Checks a `Plan` and returns it with arrays in it.

    Values that are traced are not known and are not checked.

    Raises:
        ValueError: for betas that do not rise from 0 to 1, or for lengths or step sizes
            that do not fit.
    """
    if not is_traced(plan.betas):
        schedules.check_betas(plan.betas)
    if not is_traced(plan.step_sizes):
        _check_step_sizes(np.asarray(plan.step_sizes))
    betas, step_sizes, scale = map(jnp.asarray, plan[:3])
    num = betas.shape[0] - 2
    if step_sizes.shape != (num,):
        raise ValueError(
            f"step_sizes of shape {step_sizes.shape} for {num + 1} temperatures: a "
            f"plan has {num}, one for each but the last"
        )
    if scale.ndim > 0 and len(scale) != num:
        raise ValueError(
            f"scale has {len(scale)} rows: a plan of these betas has {num}"
        )
    return Plan(betas, step_sizes, scale, plan.base)


def make_plan(
    pilot: pilots.Pilot, num_temperatures: int, betas: Float[Array, "T_plus_1"] | None
) -> Plan:
    """The plan of so many temperatures that a pilot gives, at betas where these are."""
    if betas is None:
        betas = place(pilot.betas, pilot.density, num_temperatures)
    pilot = pilots.move_to(pilot, betas)
    scale = pilots.scales(pilot.covariance, slice(1, -1))
    step_sizes = jnp.exp(pilot.log_steps[1:-1])
    return Plan(betas, step_sizes, jnp.ones(()) if scale is None else scale)


def from_base_of(plan: Plan, path: AnnealingPath) -> AnnealingPath:
    """A flat path from the plan's base, or from its own where the plan has none."""
    return path if plan.base is None else with_base(path, plan.base)


def scale_of_moves(plan: Plan) -> Float[Array, "..."] | None:
    """The plan's scales as `ais.anneal` takes them."""
    scale = jnp.asarray(plan.scale)
    return None if scale.ndim == 0 else scale


def _check_step_sizes(step_sizes):
    if not np.all(np.isfinite(step_sizes) & (step_sizes > 0.0)):
        raise ValueError(f"step_sizes={step_sizes}: use positive numbers")


def _check_between(name, value, end):
    if is_traced(value):
        return
    if not 0.0 < float(np.asarray(value)) < end:
        wanted = "a positive number" if end > 1.0 else "a number between 0 and 1"
        raise ValueError(f"{name}={value}: use {wanted}")


def _fixed_betas(schedule, num_temperatures):
    """The betas of a schedule, or None where the pilot is to place them."""
    check_count("num_temperatures", num_temperatures)
    if isinstance(schedule, str):
        lookup("schedule", schedule, [*schedules.SCHEDULES, "adaptive"])
        if schedule == "adaptive":
            return None
        schedule = schedules.make(schedule, num_temperatures)
    if not is_traced(schedule):
        schedules.check_betas(schedule)
    betas = jnp.asarray(schedule, float)
    if len(betas) != num_temperatures + 1:
        raise ValueError(
            f"schedule has {len(betas) - 1} temperatures after the first and "
            f"num_temperatures={num_temperatures}: make them equal"
        )
    return betas
