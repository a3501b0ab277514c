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
    """The points of one trajectory, in the order of their evaluation.

    Attributes:
        accept_prob: the mean over the other points of min(1, exp(-energy error)), by
            which step sizes are adapted as they are by HMC's acceptance.
        z: the L + 1 positions; the last is the current one.
        log_w: their log weights, whose exponentials add up to one.
        residuals: of each, as `Point` has them, or None.
    """

    accept_prob: Scalar
    z: Float[Array, "P D"]
    log_w: Float[Array, "P"]
    residuals: PyTree = None


def trajectory_step(
    key: PRNGKey,
    path: AnnealingPath,
    point: Point,
    beta: ScalarLike,
    step_size: ScalarLike,
    *,
    num_leapfrog: int,
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

    Returns:
        (the next point, without residuals; the L + 1 points of the trajectory).

    References:
        Neal, An improved acceptance procedure for the hybrid Monte Carlo algorithm,
        1994; Betancourt, A conceptual introduction to Hamiltonian Monte Carlo, 2017,
        appendix A; Nishimura & Dunson, Recycling intermediate steps to improve
        Hamiltonian Monte Carlo, 2020.
    """
    momentum_key, place_key, next_key = jax.random.split(key, 3)
    momentum = jax.random.normal(momentum_key, point.z.shape, point.z.dtype)
    place = jax.random.randint(place_key, (), 0, num_leapfrog + 1)
    points, energies, residuals = _integrate(
        path, (point, momentum), beta, step_size, num_leapfrog, place
    )
    log_w = _log_weights(energies)
    accept_prob = jnp.mean(jnp.exp(jnp.minimum(0.0, log_w[:-1])))
    chosen = _choose(next_key, log_w, place)
    log_shares = jax.nn.log_softmax(log_w)
    info = TrajectoryInfo(accept_prob, points.z, log_shares, residuals)
    return jax.tree.map(lambda a: a[chosen], points), info


def _log_weights(energies):
    """Minus the energies of the L + 1 points, relative to the current one's, the last.

    A current position of no density is left for any point that has one.
    """
    is_finite = jnp.isfinite(energies)
    lowest = jnp.min(jnp.where(is_finite, energies, jnp.inf))
    origin = jnp.where(is_finite[-1], energies[-1], lowest)
    log_w = jnp.where(is_finite, origin - energies, -jnp.inf)
    return jnp.where(jnp.any(is_finite), log_w, log_w.at[-1].set(0.0))


def _choose(key, log_w, place):
    """A point by its weight, its noise drawn by its place in the trajectory."""
    steps = jnp.arange(len(log_w) - 1)
    places = jnp.append(jnp.where(steps < place, place - 1 - steps, steps + 1), place)
    noise = jax.random.gumbel(key, log_w.shape, log_w.dtype)
    return jnp.argmax(noise[places] + log_w)


def _integrate(path, start, beta, step_size, num_leapfrog, place):
    """Makes `place` steps backwards from the start and the others forwards.

    Returns:
        (points without residuals, energies, residuals), in the order of evaluation and
        then the start's, all with a leading axis of L + 1.
    """

    def apart(point, momentum):
        """The state without residuals, and what is kept of it."""
        residuals, point = point.residuals, point._replace(residuals=None)
        kept = point, energy(point, momentum, beta), residuals
        return (point, momentum), kept

    start, current = apart(*start)

    def step(state, xs):
        number, direction = xs
        turns = number == place  # now forwards, from the start again
        state = jax.tree.map(lambda a, b: jnp.where(turns, a, b), start, state)
        return apart(*leapfrog(path, *state, beta, direction * step_size, 1))

    steps = jnp.arange(num_leapfrog)
    directions = jnp.where(steps < place, -1.0, 1.0).astype(start[1].dtype)
    _, others = jax.lax.scan(step, start, (steps, directions))
    return jax.tree.map(lambda a, b: jnp.append(a, b[None], axis=0), others, current)
