"""Pilot runs: where temperatures are wanted, how far moves reach, how wide it is there.

A first run tempers a population and finds a target of any scale; the rounds after it
refine what it saw. Nothing that is weighed depends on either but through the `Plan`
that is read off and frozen.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from ais_jax.ais import Transition
from ais_jax.batching import chain_keys
from ais_jax.path import AnnealingPath, evaluate
from ais_jax.placement import interpolate, mean_where, smooth, spread
from ais_jax.populations import systematic
from ais_jax.preconditioning import Covariance, blend, estimate, to_scale
from ais_jax.types import PRNGKey, Scalar

INCREMENT = 0.5  # standard deviation of the log weight's increments while tempering
MOST_TEMPERATURES = 256  # while tempering
MOVES = 3  # at each temperature while tempering


class Pilot(NamedTuple):
    """What is known after a pilot run, at its own N temperatures.

    Attributes:
        betas: its schedule.
        log_steps: logarithms of the step sizes.
        density: of temperatures wanted in each interval, up to a factor.
        covariance: of the chains at each temperature, or None for the path's units.
    """

    betas: Float[Array, "N_plus_1"]
    log_steps: Float[Array, "N_plus_1"]
    density: Float[Array, "N"]
    covariance: Covariance | None


class Task(NamedTuple):
    """What is to be tuned, for whom: all that the runs share.

    Attributes:
        path_fn: the flat path of one example.
        xs: pilot examples, a pytree with a leading axis of P.
        num_chains: K for each pilot example.
        transition: as for `ais.anneal`.
        target: acceptance probability to aim for.
        preconditioner: a name in `preconditioning.PRECONDITIONERS`.
    """

    path_fn: Callable[[PyTree], AnnealingPath]
    xs: PyTree
    num_chains: int
    transition: Transition
    target: ScalarLike
    preconditioner: str


def start(key: PRNGKey, task: Task, first_step_size: ScalarLike) -> Pilot:
    """Tempers a population from the base to the target, its step sizes following.

    Each temperature is as far from the last as the spread of the log ratio allows;
    chains are resampled by the increments of their weights, then moved.

    Args:
        key: of this run.
        task: what is tuned.
        first_step_size: at the base, in units of its draws.

    Returns:
        A pilot of `MOST_TEMPERATURES`, of which those that were not needed stand at 1.

    References:
        Del Moral, Doucet & Jasra, Sequential Monte Carlo samplers, 2006.
    """
    base_key, key = jax.random.split(key)
    points = _each(task, _draw)(_keys(base_key, task))
    covariance = _covariance(task, points)
    log_step = jnp.log(first_step_size) + _log_unit(task, points.z)

    def rows(row):
        return jnp.broadcast_to(row, (MOST_TEMPERATURES + 1, *row.shape))

    def temper(state):
        i, beta, points, log_step, covariance, track = state
        ratios = _ratios(points)
        density = spread(ratios)
        delta = jnp.maximum(INCREMENT / density, 1e-6 * beta)
        is_last = i == MOST_TEMPERATURES - 1
        new = jnp.where(is_last, 1.0, jnp.minimum(beta + delta, 1.0))
        choose_key, move_key = jax.random.split(jax.random.fold_in(key, i))
        points = _resample(choose_key, points, (new - beta) * ratios)
        points, log_step = _moves(move_key, task, points, new, log_step, covariance)
        covariance = blend(covariance, _covariance(task, points))
        after = Pilot(new, log_step, density, covariance)
        return i + 1, new, points, log_step, covariance, _record(track, i, after)

    track = Pilot(
        betas=jnp.ones((MOST_TEMPERATURES + 1,)).at[0].set(0.0),
        log_steps=rows(log_step),
        density=jnp.ones((MOST_TEMPERATURES,)),
        covariance=jax.tree.map(rows, covariance),
    )
    state = (jnp.array(0), jnp.zeros(()), points, log_step, covariance, track)
    track = jax.lax.while_loop(lambda state: state[1] < 1.0, temper, state)[-1]
    return track._replace(log_steps=track.log_steps.at[0].set(track.log_steps[1]))


def a_round(key: PRNGKey, task: Task, pilot: Pilot) -> tuple[Pilot, Scalar]:
    """Takes a population through the pilot's temperatures and brings all up to date.

    It is resampled at each of them, so that it does not lag behind where they are few.

    Returns:
        (the pilot, the largest distance of the acceptance from its target).
    """
    base_key, key = jax.random.split(key)
    points = _each(task, _draw)(_keys(base_key, task))
    deltas = jnp.diff(pilot.betas)

    def advance(points, xs):
        i, delta, beta, log_step, covariance = xs
        choose_key, move_key = jax.random.split(jax.random.fold_in(key, i))
        ratios = _ratios(points)
        points = _resample(choose_key, points, delta * ratios)
        points, accept = _move(move_key, task, points, beta, log_step, covariance)
        return points, (accept, spread(ratios), _covariance(task, points))

    inner = jax.tree.map(lambda a: a[1:-1], pilot)
    xs = jnp.arange(len(deltas) - 1), deltas[:-1], inner.betas, inner.log_steps
    points, (accept, density, new) = jax.lax.scan(
        advance, points, (*xs, inner.covariance)
    )
    error = smooth(accept - task.target)
    covariance = blend(inner.covariance, jax.tree.map(smooth, new))
    pilot = Pilot(
        betas=pilot.betas,
        log_steps=_with_ends(inner.log_steps + error),
        density=jnp.append(density, spread(_ratios(points))),
        covariance=jax.tree.map(_with_ends, covariance),
    )
    return pilot, jnp.max(jnp.abs(error))


def scales(
    covariance: Covariance | None, which: slice | None = None
) -> Float[Array, "..."] | None:
    """The `scale` of a path at some temperatures, or None for the path's units."""
    if covariance is None:
        return None
    if which is not None:
        covariance = jax.tree.map(lambda a: a[which], covariance)
    return to_scale(covariance)


def move_to(pilot: Pilot, betas: Float[Array, "T_plus_1"]) -> Pilot:
    """The pilot at other temperatures, by interpolation."""

    def rows(a):
        return interpolate(betas, pilot.betas, a)

    density = interpolate(betas[:-1], pilot.betas[:-1], pilot.density)
    covariance = jax.tree.map(rows, pilot.covariance)
    return Pilot(betas, rows(pilot.log_steps), density, covariance)


def _record(track, i, after):
    """The track with what is known after its i-th interval."""

    def put(j):
        return lambda rows, row: rows.at[j].set(row)

    return Pilot(
        betas=put(i + 1)(track.betas, after.betas),
        log_steps=put(i + 1)(track.log_steps, after.log_steps),
        density=put(i)(track.density, after.density),
        covariance=jax.tree.map(put(i + 1), track.covariance, after.covariance),
    )


def _keys(key, task):
    """Keys of P examples with K chains each."""
    num = jax.tree.leaves(task.xs)[0].shape[0]
    return jax.vmap(chain_keys, (0, None))(chain_keys(key, num), task.num_chains)


def _each(task, function):
    """A function of one chain's path and arguments, for K chains of P examples."""

    def one(x, *args):
        return function(task.path_fn(x), *args)

    def all_chains(*args):
        chains = jax.vmap(one, (None, *[0] * len(args)))
        return jax.vmap(chains)(task.xs, *args)

    return all_chains


def _draw(path, key):
    return evaluate(path, path.sample_base(key))


def _ratios(points):
    return points.log_target - points.log_base


def _covariance(task, points):
    is_finite = jnp.isfinite(_ratios(points))
    return estimate(task.preconditioner, points.z, is_finite)


def _log_unit(task, z):
    """Log of the smallest standard deviation of the base's draws in HMC's units."""
    if task.preconditioner != "unit":
        return 0.0
    paths_scale = task.path_fn(jax.tree.map(lambda a: a[0], task.xs)).scale
    log_sd = estimate("diagonal", z, jnp.ones(z.shape[:-1], bool)).log_sd
    if jnp.ndim(paths_scale) == 2:
        return 0.0
    return jnp.min(log_sd - jnp.log(paths_scale))


def _resample(key, points, log_w):
    """K chains of each example drawn by their log weights [P, K], systematically."""

    def choose(key, points, log_w):
        chosen = systematic(key, log_w)
        return jax.tree.map(lambda a: a[chosen], points)

    return jax.vmap(choose)(chain_keys(key, len(log_w)), points, log_w)


def _move(key, task, points, beta, log_step, covariance):
    """One move of all chains: where they are, and their mean acceptance."""
    scale = scales(covariance)

    def one(path, key, point):
        path = path if scale is None else path._replace(scale=scale)
        return task.transition(key, path, point, beta, jnp.exp(log_step))

    before = jnp.isfinite(_ratios(points))
    points, info = _each(task, one)(_keys(key, task), points)
    return points, mean_where(info.accept_prob, before)


def _moves(key, task, points, beta, log_step, covariance):
    """A few moves of all chains, the step size following their acceptance."""

    def move(i, carry):
        points, log_step = carry
        move_key = jax.random.fold_in(key, i)
        points, accept = _move(move_key, task, points, beta, log_step, covariance)
        return points, log_step + accept - task.target

    return jax.lax.fori_loop(0, MOVES, move, (points, log_step))


def _with_ends(rows):
    """Rows of N - 1 temperatures with those of the ends, which copy neighbours."""
    return jnp.concatenate([rows[:1], rows, rows[-1:]])
