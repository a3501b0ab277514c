"""Pilot runs choose temperatures, step sizes and mass matrices.

The first pass is adaptive sequential Monte Carlo, which finds a target of any scale;
later passes refine its schedule. Pilot chains are thrown away: an estimate depends on
them only through the frozen `Plan`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from ais_jax.annealing.clouds import Cloud, Transition
from ais_jax.annealing.loop import Guide, Moves, Paths, begin, put, run
from ais_jax.annealing.path import AnnealingPath, log_ratio
from ais_jax.evidence.mass_matrix import Covariance, blend, estimate, moments, to_scale
from ais_jax.evidence.spacing import interpolate, mean_where, place, smooth, spread
from ais_jax.types import AnyArray, PRNGKey, Scalar

INCREMENT = 1.0  # standard deviation of the log ratio's steps while tempering
MOST_TEMPERATURES = 256  # while tempering
GAIN = 2.0  # of the logarithm of the step size for an acceptance off its target
MOVES = 2  # at each temperature while tempering; later one
MOST_ROUNDS = 4  # times as many where the acceptance is not there yet
LARGEST_ERROR = 0.15  # of the acceptance where the rounds end
SMALLEST_WEIGHT = 1e-3  # of a point whose log ratio is counted, relative to an even one


class Pilot(NamedTuple):
    """What is known after a pass, at its own temperatures.

    Attributes:
        betas: its schedule; temperatures that were not needed stand at 1.
        log_steps: logarithms of the step sizes.
        density: of temperatures wanted in each interval, up to a factor: the standard
            deviation of log target - log base.
        covariance: of the chains at each temperature, or None for the path's units.
    """

    betas: Float[AnyArray, "N_plus_1"]
    log_steps: Float[AnyArray, "N_plus_1"]
    density: Float[AnyArray, "N"]
    covariance: Covariance | None


class PilotMemory(NamedTuple):
    """Where a pass stands.

    Attributes:
        i: the interval of temperatures.
        moves_left: at this temperature.
        beta: this temperature.
        log_step: of the step size, as it follows the acceptance.
        covariance: as it follows the chains.
        density: of this interval.
        track: what the pass has found so far.
    """

    i: Int[Array, ""]
    moves_left: Int[Array, ""]
    beta: Scalar
    log_step: Scalar
    covariance: Covariance | None
    density: Scalar
    track: Pilot


class PilotProblem(NamedTuple):
    """What is tuned: all that the passes share.

    Attributes:
        paths: of the pilot examples.
        num_chains: of each example.
        transition: makes the moves.
        target: acceptance probability to aim for.
        mass_matrix: a name in `mass_matrix.MASS_MATRICES`.
        first_step_size: of the first pass at the base, in units of its draws, times
            D^(1/4).
    """

    paths: Paths
    num_chains: int
    transition: Transition
    target: ScalarLike
    mass_matrix: str
    first_step_size: ScalarLike


def initial_pilot(mass_matrix: str, path: AnnealingPath, num: int) -> Pilot:
    """What is known of a flat path before the first pass: betas go from 0 to 1."""
    draw = jax.eval_shape(path.sample_base, jax.random.key(0))
    z, weight = np.zeros((1, 1, *draw.shape), draw.dtype), np.ones((1, 1), draw.dtype)
    now = jax.eval_shape(partial(estimate, mass_matrix), z, weight)
    return Pilot(
        betas=np.append(np.zeros(1, draw.dtype), np.ones(num, draw.dtype)),
        log_steps=np.zeros(num + 1, draw.dtype),
        density=np.ones(num, draw.dtype),
        covariance=jax.tree.map(lambda a: np.zeros((num + 1, *a.shape), a.dtype), now),
    )


def begin_pass(problem: PilotProblem, pilot: Pilot, clouds: Cloud) -> PilotMemory:
    """The memory of a pass that has not moved yet."""
    zero = jnp.zeros((), jnp.int32)
    size = clouds.points.z.shape[-1]
    log_step = jnp.log(problem.first_step_size * size**-0.25)
    log_step = log_step + _log_unit(problem, clouds)
    beta = jnp.zeros((), clouds.log_w.dtype)
    now = _covariance(problem, clouds)
    return PilotMemory(zero, zero, beta, log_step.astype(beta.dtype), now, beta, pilot)


def guide(problem: PilotProblem, pilot: Pilot, is_first: Bool[Array, ""]) -> Guide:
    """Steers one pass from the base to the target.

    In the first pass each temperature is as far from the last as the spread of the log
    ratio allows, and step sizes and mass matrices follow the chains. In later passes
    all of them are the pilot's. One guide serves both, so that a move is compiled once.
    """
    most = len(pilot.density)
    increment = jnp.where(is_first, INCREMENT, jnp.inf)
    num_moves = jnp.where(is_first, MOVES, 1)

    def row(memory, t, clouds):
        is_new = memory.moves_left == 0
        density = spread(*_ratios(clouds))
        new = memory.beta + jnp.maximum(increment / density, 1e-6 * memory.beta)
        end = jnp.where(memory.i == most - 1, 1.0, pilot.betas[memory.i + 1])
        new = jnp.where(memory.i == most - 1, end, jnp.minimum(new, end))
        beta = jnp.where(is_new, new, memory.beta)
        planned = _row((pilot.log_steps, pilot.covariance), memory.i + 1)
        log_step, covariance = _choose(
            is_first | ~is_new, (memory.log_step, memory.covariance), planned
        )
        moves = Moves(beta - memory.beta, beta, jnp.exp(log_step), scales(covariance))
        memory = memory._replace(
            beta=beta,
            log_step=log_step,
            covariance=covariance,
            density=jnp.where(is_new, density, memory.density),
            moves_left=jnp.where(is_new, num_moves, memory.moves_left) - 1,
        )
        return memory, moves

    def learn(memory, t, row, clouds, accept_prob):
        is_live = jnp.isfinite(log_ratio(clouds.points)).any(axis=-1)
        accept = mean_where(accept_prob, is_live)
        log_step = memory.log_step + GAIN * (accept - problem.target)
        seen = _covariance(problem, clouds)
        after = Pilot(memory.beta, log_step, memory.density, seen)
        is_last = memory.moves_left == 0
        return memory._replace(
            i=memory.i + is_last.astype(memory.i.dtype),
            log_step=log_step,
            covariance=_choose(is_first, blend(memory.covariance, seen), seen),
            track=_record(memory.track, memory.i, after),
        )

    def is_done(memory):
        return (memory.beta >= 1.0) & (memory.moves_left == 0)

    return Guide(row, learn, is_done)


def end_pass(
    memory: PilotMemory, pilot: Pilot, is_first: Bool[Array, ""]
) -> tuple[Pilot, Scalar]:
    """What a pass has found.

    Returns:
        (the pilot at the pass's temperatures, the largest distance of the acceptance
        from its target).
    """
    new = _filled(memory.track, memory.i)
    error = smooth(new.log_steps - pilot.log_steps)
    smoothed = jax.tree.map(smooth, (new.log_steps, new.covariance))
    blended = pilot.log_steps + error, blend(pilot.covariance, smoothed[1])
    log_steps, covariance = _choose(is_first, smoothed, blended)
    new = new._replace(log_steps=log_steps, covariance=covariance)
    error = jnp.max(jnp.abs(error))
    return new, jnp.where(is_first, jnp.inf, error)


def pilot_pass(
    key: PRNGKey, problem: PilotProblem, pilot: Pilot, is_first: Bool[Array, ""]
) -> tuple[Pilot, Scalar]:
    """One pass: what it found, and the acceptance's distance from its target."""
    chains = begin(problem.paths, key, problem.num_chains, problem.transition)
    _, memory, _, _ = run(
        problem.paths,
        chains,
        guide(problem, pilot, is_first),
        begin_pass(problem, pilot, chains.clouds),
        len(pilot.density) * MOVES,
        problem.transition,
        most_moves=1,
        resample_below=2.0,
    )
    return end_pass(memory, pilot, is_first)


def find_pilot(
    key: PRNGKey,
    problem: PilotProblem,
    fixed: Float[Array, "T_plus_1"] | None,
    num: int,
    num_rounds: int,
) -> Pilot:
    """A pilot of `num` temperatures: tempered once, then refined in rounds."""
    given = None
    if fixed is not None:
        at, places = jnp.linspace(0.0, 1.0, num + 1), jnp.linspace(0.0, 1.0, len(fixed))
        given = interpolate(at, places, fixed)

    def a_pass(state):
        i, pilot, _ = state
        pass_key = jax.random.fold_in(key, i)
        pilot, error = pilot_pass(pass_key, problem, pilot, i == 0)
        betas = place(pilot.betas, pilot.density, num) if given is None else given
        not_needed = jnp.ones((len(pilot.betas) - len(betas),), betas.dtype)
        return i + 1, move_to(pilot, jnp.append(betas, not_needed)), error

    def is_unfinished(state):
        i, _, error = state
        is_far = (error > LARGEST_ERROR) & (i <= MOST_ROUNDS * num_rounds)
        return (i <= num_rounds) | is_far

    most = max(num, MOST_TEMPERATURES)
    path = problem.paths.path_fn(jax.tree.map(lambda a: a[0], problem.paths.xs))
    first = jax.tree.map(jnp.asarray, initial_pilot(problem.mass_matrix, path, most))
    state = jnp.zeros((), jnp.int32), first, jnp.array(jnp.inf)
    return jax.lax.while_loop(is_unfinished, a_pass, state)[1]


def scales(
    covariance: Covariance | None, which: slice | None = None
) -> Float[Array, "..."] | None:
    """The `scale` of a path at some temperatures, or None for the path's units."""
    if covariance is None:
        return None
    if which is None:
        return to_scale(covariance)
    return to_scale(jax.tree.map(lambda a: a[which], covariance))


def move_to(pilot: Pilot, betas: Float[Array, "T_plus_1"]) -> Pilot:
    """The pilot at other temperatures, by interpolation."""

    def rows(a):
        return interpolate(betas, pilot.betas, a)

    density = interpolate(betas[:-1], pilot.betas[:-1], pilot.density)
    covariance = jax.tree.map(rows, pilot.covariance)
    return Pilot(betas, rows(pilot.log_steps), density, covariance)


def length(pilot: Pilot) -> Scalar:
    """The path's length: the integral of the log ratio's standard deviation over beta.

    T equal steps of it add increments of variance (length / T)^2 to a log weight.
    """
    return jnp.sum(jnp.diff(pilot.betas) * pilot.density)


def _record(track, i, after):
    """The track with what is known after its i-th interval."""
    at_end = partial(put, i=i + 1)
    return Pilot(
        betas=at_end(track.betas, row=after.betas),
        log_steps=at_end(track.log_steps, row=after.log_steps),
        density=put(track.density, i, after.density),
        covariance=jax.tree.map(
            lambda rows, row: at_end(rows, row=row), track.covariance, after.covariance
        ),
    )


def _filled(track, num):
    """The track of a pass of `num` intervals; the base's row is that of the first."""

    def fill(rows):
        return rows[jnp.clip(jnp.arange(len(rows)), 1, num)]

    return Pilot(
        betas=jnp.where(jnp.arange(len(track.betas)) < num, track.betas, 1.0),
        log_steps=fill(track.log_steps),
        density=track.density[jnp.minimum(jnp.arange(len(track.density)), num - 1)],
        covariance=jax.tree.map(fill, track.covariance),
    )


def _row(tree: PyTree, i: Int[Array, ""]) -> PyTree:
    return jax.tree.map(lambda rows: rows[i], tree)


def _choose(condition, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _ratios(clouds):
    """Log ratios [E, K P], and which of them are of points that weigh anything."""
    ratios, log_w = log_ratio(clouds.points), clouds.log_w
    is_heavy = log_w > jnp.log(SMALLEST_WEIGHT / log_w.shape[-1])
    ratios = jnp.where(is_heavy, ratios, jnp.nan)
    return (ratios.reshape(len(ratios), -1),)


def _covariance(problem, clouds):
    """Of the points of all clouds, each by its weight."""
    z, weight = clouds.points.z, jnp.exp(clouds.log_w)
    weight = jnp.where(jnp.isfinite(log_ratio(clouds.points)), weight, 0.0)
    z = z.reshape(len(z), -1, z.shape[-1])
    return estimate(problem.mass_matrix, z, weight.reshape(len(z), -1))


def _log_unit(problem, clouds):
    """Log of the smallest standard deviation of the base's draws in HMC's units."""
    if problem.mass_matrix != "unit":
        return jnp.zeros(())
    paths, z = problem.paths, clouds.points.z
    scale = paths.path_fn(jax.tree.map(lambda a: a[0], paths.xs)).scale
    if jnp.ndim(scale) == 2:
        return jnp.zeros(())
    flat = z.reshape(len(z), -1, z.shape[-1])
    log_sd = moments(flat, jnp.ones(flat.shape[:-1]), is_dense=False).log_sd
    return jnp.min(log_sd - jnp.log(jnp.asarray(scale)))
