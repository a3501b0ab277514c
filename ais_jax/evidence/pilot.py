"""Pilot runs: where temperatures are wanted, how far moves reach, how wide it is there.

A first pass tempers a population and finds a target of any scale; those after it refine
what it saw. Nothing that is weighed depends on either but through the `Plan`
that is read off and frozen.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, ScalarLike

from ais_jax.annealing.ais import Transition
from ais_jax.annealing.path import (
    AnnealingPath,
    evaluate,
)
from ais_jax.annealing.smc import systematic
from ais_jax.evidence.mass_matrix import (
    Covariance,
    blend,
    estimate,
    to_scale,
)
from ais_jax.evidence.spacing import (
    interpolate,
    mean_where,
    smooth,
    spread,
)
from ais_jax.types import (
    PRNGKey,
    Scalar,
)

INCREMENT = 0.5  # standard deviation of the log weight's increments while tempering
MOST_TEMPERATURES = 256  # while tempering
MOVES = 3  # at each temperature while tempering; later one


class Pilot(NamedTuple):
    """What is known after a pass, at its own temperatures.

    Attributes:
        betas: its schedule; temperatures that were not needed stand at 1.
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


def blank(key: PRNGKey, task: Task, num: int) -> Pilot:
    """What is known before the first pass: that betas go from 0 to 1."""
    covariance = jax.eval_shape(
        lambda key: _covariance(task, _base_points(key, task)), key
    )
    return Pilot(
        betas=jnp.ones((num + 1,)).at[0].set(0.0),
        log_steps=jnp.zeros((num + 1,)),
        density=jnp.ones((num,)),
        covariance=jax.tree.map(
            lambda a: jnp.zeros((num + 1, *a.shape), a.dtype), covariance
        ),
    )


def a_pass(
    key: PRNGKey,
    task: Task,
    pilot: Pilot,
    is_first: Bool[Array, ""],
    first_step_size: ScalarLike,
) -> tuple[Pilot, Scalar]:
    """Takes a population from the base to the target and brings the pilot up to date.

    Chains are resampled at each temperature by the increments of their weights, then
    moved. In the first pass each temperature is as far from the last as the spread of
    the log ratio allows, and step sizes and units follow the population; in later ones
    they are the pilot's. (One function for both, so that a move is compiled once.)

    Args:
        key: of this pass.
        task: what is tuned.
        pilot: of the last pass, or `blank`.
        is_first: whether it is `blank`.
        first_step_size: of the first pass at the base, in units of its draws.

    Returns:
        (the pilot, the largest distance of the acceptance from its target).

    References:
        Del Moral, Doucet & Jasra, Sequential Monte Carlo samplers, 2006.
    """
    base_key, key = jax.random.split(key)
    points = _base_points(base_key, task)
    log_step = jnp.log(first_step_size) + _log_unit(task, points.z)
    most = len(pilot.density)
    increment = jnp.where(is_first, INCREMENT, jnp.inf)
    num_moves = jnp.where(is_first, MOVES, 1)

    def temper(state):
        i, key, points, beta, followed, track = state
        planned = _row((pilot.log_steps, pilot.covariance), i + 1)
        log_step, covariance = _choose(is_first, followed, planned)
        ratios = _ratios(points)
        density = spread(ratios)
        new = beta + jnp.maximum(increment / density, 1e-6 * beta)
        new = jnp.where(i == most - 1, 1.0, jnp.minimum(new, pilot.betas[i + 1]))
        key, choose_key, move_key = jax.random.split(key, 3)
        points = _resample(choose_key, points, (new - beta) * ratios)
        points, log_step = _moves(
            move_key, task, points, new, log_step, covariance, num_moves
        )
        seen = _covariance(task, points)
        track = _record(track, i, Pilot(new, log_step, density, seen))
        followed = log_step, blend(covariance, seen)
        return i + 1, key, points, new, followed, track

    followed = log_step, _covariance(task, points)
    state = jnp.array(0), key, points, jnp.zeros(()), followed, pilot
    num, *_, track = jax.lax.while_loop(lambda state: state[3] < 1.0, temper, state)
    new = _filled(track, num)

    error = smooth(new.log_steps - pilot.log_steps)
    smoothed = jax.tree.map(smooth, (new.log_steps, new.covariance))
    blended = pilot.log_steps + error, blend(pilot.covariance, smoothed[1])
    log_steps, covariance = _choose(is_first, smoothed, blended)
    new = new._replace(log_steps=log_steps, covariance=covariance)
    error = jnp.max(jnp.abs(error))
    return new, jnp.where(is_first, jnp.inf, error)


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


def _row(tree, i):
    return jax.tree.map(lambda rows: rows[i], tree)


def _choose(condition, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _base_points(key, task):
    """K draws from the base of each of P examples."""
    return _each(task, _draw)(_keys(key, task))


def _keys(key, task):
    """Keys of P examples with K chains each."""
    num = jax.tree.leaves(task.xs)[0].shape[0]
    return jax.random.split(key, (num, task.num_chains))


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

    return jax.vmap(choose)(jax.random.split(key, len(log_w)), points, log_w)


def _move(key, task, points, beta, log_step, covariance):
    """One move of all chains: where they are, and their mean acceptance."""
    scale = scales(covariance)

    def one(path, key, point):
        path = path if scale is None else path._replace(scale=scale)
        return task.transition(key, path, point, beta, jnp.exp(log_step))

    before = jnp.isfinite(_ratios(points))
    points, info = _each(task, one)(_keys(key, task), points)
    return points, mean_where(info.accept_prob, before)


def _moves(key, task, points, beta, log_step, covariance, num_moves):
    """Moves of all chains, the step size following their acceptance."""

    def move(i, carry):
        points, log_step = carry
        move_key = jax.random.fold_in(key, i)
        points, accept = _move(move_key, task, points, beta, log_step, covariance)
        return points, log_step + accept - task.target

    return jax.lax.fori_loop(0, num_moves, move, (points, log_step))
