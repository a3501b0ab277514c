"""Trajectory averaging: all points of a Hamiltonian trajectory, with their weights.

A trajectory of L leapfrog steps evaluates L + 1 positions, of which HMC keeps one. Here
the current position stands at a uniformly drawn place of its trajectory, so that the
trajectory could as well have been begun at any other of its points. Drawing the next
position with weights exp(-energy) then leaves f_beta invariant, and the weighted mean
of a function over the points has the function's mean under f_beta, where the current
position has that distribution.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from ais_jax.annealing.hmc import (
    energy,
    leapfrog,
)
from ais_jax.annealing.path import (
    AnnealingPath,
    Point,
)
from ais_jax.types import (
    PRNGKey,
    Scalar,
)


class TrajectoryInfo(NamedTuple):
    """The points of one trajectory.

    Attributes:
        accept_prob: the mean over the other points of min(1, exp(-energy error)), by
            which step sizes are adapted as they are by HMC's acceptance.
        z: the positions that are kept.
        log_w: their log weights, whose exponentials add up to one.
        factors: of each, as `Point` has them, or None.
    """

    accept_prob: Scalar
    z: Float[Array, "P D"]
    log_w: Float[Array, "P"]
    factors: PyTree = None


def trajectory_step(
    key: PRNGKey,
    path: AnnealingPath,
    point: Point,
    beta: ScalarLike,
    step_size: ScalarLike,
    *,
    num_leapfrog: int,
    stride: int = 1,
) -> tuple[Point, TrajectoryInfo]:
    """One move along a trajectory that leaves f_beta (Eq. 6) invariant.

    It costs L evaluations, as an HMC move does, and is reversible without a Metropolis
    test. A point whose energy is not finite has the weight zero.

    Args:
        key: of this move.
        path: gives the densities, and the units of the step size.
        point: the current one.
        beta: the inverse temperature.
        step_size: in units of `path.scale`.
        num_leapfrog: L, the number of leapfrog steps, at least 1.
        stride: every stride-th point is kept, in phase with the next position, by which
            their weighted mean stays unbiased. It must divide L + 1.

    Returns:
        (the next point, the P = (L + 1) / stride points in the trajectory's order, or
        with `path.score`, for a stride of 1 alone, in that of their evaluation). The
        next point has no factors.

    References:
        Neal, An improved acceptance procedure for the hybrid Monte Carlo algorithm,
        1994; Betancourt, A conceptual introduction to Hamiltonian Monte Carlo, 2017,
        appendix A; Nishimura & Dunson, Recycling intermediate steps to improve
        Hamiltonian Monte Carlo, 2020.
    """
    momentum_key, place_key, next_key = jax.random.split(key, 3)
    momentum = jax.random.normal(momentum_key, point.z.shape, point.z.dtype)
    place = jax.random.randint(place_key, (), 0, num_leapfrog + 1)
    points, energies, factors, places = _integrate(
        path, (point, momentum), beta, step_size, num_leapfrog, place
    )
    log_w = _log_weights(energies, place)
    is_other = jnp.arange(num_leapfrog + 1) != place
    accept_prob = jnp.mean(jnp.exp(jnp.minimum(0.0, log_w)), where=is_other)
    chosen = jax.random.categorical(next_key, log_w)
    kept = chosen % stride + stride * jnp.arange((num_leapfrog + 1) // stride)
    if factors is not None:  # to bring them in order would cost a copy
        kept = places
    log_shares = jax.nn.log_softmax(log_w[kept])
    info = TrajectoryInfo(accept_prob, points.z[kept], log_shares, factors)
    return jax.tree.map(lambda a: a[chosen], points), info


def _log_weights(energies, place):
    """Minus the energies of the L + 1 points, relative to the current position's.

    A current position of no density is left for any point that has one.
    """
    is_finite = jnp.isfinite(energies)
    lowest = jnp.min(jnp.where(is_finite, energies, jnp.inf))
    origin = jnp.where(is_finite[place], energies[place], lowest)
    log_w = jnp.where(is_finite, origin - energies, -jnp.inf)
    return jnp.where(jnp.any(is_finite), log_w, log_w.at[place].set(0.0))


def _integrate(path, start, beta, step_size, num_leapfrog, place):
    """Makes `place` steps backwards from the start and the others forwards.

    Returns:
        (points, energies, factors, places): the first two in the trajectory's order,
        the points' factors in that of their evaluation, which `places` says, all with a
        leading axis of L + 1.
    """
    start, factors = (start[0]._replace(factors=None), start[1]), start[0].factors
    steps = jnp.arange(num_leapfrog)
    is_backward = steps < place

    def step(state, xs):
        number, direction = xs
        turns = number == place  # now forwards, from the start again
        state = jax.tree.map(lambda a, b: jnp.where(turns, a, b), start, state)
        point, momentum = leapfrog(path, *state, beta, direction * step_size, 1)
        own, point = point.factors, point._replace(factors=None)
        return (point, momentum), (point, energy(point, momentum, beta), own)

    directions = jnp.where(is_backward, -1.0, 1.0).astype(start[1].dtype)
    _, (*others, own) = jax.lax.scan(step, start, (steps, directions))
    places = jnp.append(jnp.where(is_backward, place - 1 - steps, steps + 1), place)

    def in_order(others, current):
        rows = jnp.concatenate([others, current[None]])
        return jnp.zeros_like(rows).at[places].set(rows, unique_indices=True)

    current = [start[0], energy(*start, beta)]
    points, energies = jax.tree.map(in_order, others, current)
    factors = jax.tree.map(lambda a, b: jnp.append(a, b[None], axis=0), own, factors)
    return points, energies, factors, places
