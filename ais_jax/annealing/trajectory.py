"""All points of a Hamiltonian trajectory, with their weights, as a cloud.

A trajectory of L leapfrog steps evaluates L + 1 positions, of which HMC keeps one. Here
the current position stands at a uniformly drawn place of its trajectory. So the
trajectory could as well have been begun at any other of its points.

Drawing the next position with weights exp(-energy) then leaves f_beta invariant. The
weighted mean of a function over the points has the function's mean under f_beta, where
the current position has that distribution.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import ScalarLike

from ais_jax.annealing.clouds import Cloud
from ais_jax.annealing.hmc import energy, leapfrog
from ais_jax.annealing.path import AnnealingPath, Point
from ais_jax.types import PRNGKey, Scalar


class TrajectoryInfo(NamedTuple):
    """What a trajectory did.

    Attributes:
        accept_prob: the mean over the other points of min(1, exp(-energy error)). Step
            sizes are adapted by it, as they are by HMC's acceptance.
    """

    accept_prob: Scalar


def trajectory_step(
    key: PRNGKey,
    path: AnnealingPath,
    point: Point,
    beta: ScalarLike,
    step_size: ScalarLike,
    *,
    num_leapfrog: int,
    jitter: float = 0.0,
) -> tuple[Cloud, TrajectoryInfo]:
    """The points of a trajectory through a position, weighted for f_beta (Eq. 6).

    It costs L evaluations, as an HMC move does. The next position is one of the points,
    drawn by weight; that leaves f_beta invariant, is reversible and needs no Metropolis
    test. A point whose energy is not finite has the weight zero.

    Args:
        key: of this move.
        path: gives the densities, and the units of the step size.
        point: the current one.
        beta: the inverse temperature.
        step_size: in units of `path.scale`.
        num_leapfrog: L, the number of leapfrog steps, at least 1.
        jitter: the step size is drawn uniformly between (1 - jitter) and 1 times what
            is given; 0 leaves it as it is. This breaks the periods at which a
            trajectory returns to its start.

    Returns:
        (the L + 1 points in the order of their evaluation, the current one last; the
        acceptance).

    References:
        Neal, An improved acceptance procedure for the hybrid Monte Carlo algorithm,
        1994; Betancourt, A conceptual introduction to Hamiltonian Monte Carlo, 2017,
        appendix A; Nishimura & Dunson, Recycling intermediate steps to improve
        Hamiltonian Monte Carlo, 2020.
    """
    momentum, place, step_size = _draw(key, point, step_size, num_leapfrog, jitter)
    start = point, momentum
    points, energies = _integrate(path, start, beta, step_size, num_leapfrog, place)
    log_w = _log_weights(energies)
    accept_prob = jnp.mean(jnp.exp(jnp.minimum(0.0, log_w[:-1])))
    return Cloud(points, jax.nn.log_softmax(log_w)), TrajectoryInfo(accept_prob)


def _integrate(path, start, beta, step_size, num_leapfrog, place):
    """Makes `place` steps backwards from the start and the others forwards.

    Returns:
        (points, energies), in the order of evaluation and then the start's, with a
        leading axis of L + 1.
    """
    start, current = _apart(*start, beta)

    def step(state, number):
        turns = number == place  # now forwards, from the start again
        state = jax.tree.map(lambda a, b: jnp.where(turns, a, b), start, state)
        signed = jnp.where(number < place, -step_size, step_size)
        point, momentum = state
        return _apart(*leapfrog(path, point, momentum, beta, signed, 1), beta)

    _, others = jax.lax.scan(step, start, jnp.arange(num_leapfrog))
    return jax.tree.map(lambda a, b: jnp.append(a, b[None], axis=0), others, current)


def _apart(point, momentum, beta):
    """The state without residuals, which no step reads, and what is kept of it."""
    kept = point, energy(point, momentum, beta)
    return (point._replace(residuals=None), momentum), kept


def _draw(key, point, step_size, num_leapfrog, jitter):
    """Momentum, place in the trajectory and step size, from one random vector."""
    size, dtype = point.z.shape[0], point.z.dtype
    least = jnp.nextafter(jnp.asarray(-1.0, dtype), jnp.asarray(0.0, dtype))
    v = jax.random.uniform(key, (size + 2,), dtype, least, 1.0)
    momentum = jnp.asarray(2.0**0.5, dtype) * jax.lax.erf_inv(v[:size])
    share = 0.5 * (1.0 + v[size:])
    place = jnp.floor(share[0] * (num_leapfrog + 1)).astype(jnp.int32)
    place = jnp.minimum(place, num_leapfrog)
    return momentum, place, step_size * (1.0 - jitter * share[1])


def _log_weights(energies):
    """Minus the energies of the L + 1 points, relative to the current one's, the last.

    A current position of no density is left for any point that has one.
    """
    is_finite = jnp.isfinite(energies)
    lowest = jnp.min(jnp.where(is_finite, energies, jnp.inf))
    origin = jnp.where(is_finite[-1], energies[-1], lowest)
    log_w = jnp.where(is_finite, origin - energies, -jnp.inf)
    return jnp.where(jnp.any(is_finite), log_w, log_w.at[-1].set(0.0))
