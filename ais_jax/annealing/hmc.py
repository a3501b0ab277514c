"""Metropolis-corrected Hamiltonian Monte Carlo on an annealing path."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from ais_jax.annealing.path import (
    AnnealingPath,
    Point,
    evaluate,
    force_at,
    grad_log_density,
    log_density,
    scaled,
    scaled_back,
)
from ais_jax.types import PRNGKey, Scalar


class HMCInfo(NamedTuple):
    """What one HMC move did.

    Attributes:
        accept_prob: the Metropolis acceptance probability.
        is_accepted: whether the proposal was taken.
        energy_error: the change of the Hamiltonian along the trajectory, nats.
    """

    accept_prob: Scalar
    is_accepted: Bool[Array, ""]
    energy_error: Scalar


def leapfrog(
    path: AnnealingPath,
    point: Point,
    momentum: Float[Array, "D"],
    beta: ScalarLike,
    step_size: ScalarLike,
    num_leapfrog: int,
) -> tuple[Point, Float[Array, "D"]]:
    """Integrates Hamilton's equations for the potential -log f_beta.

    Works in the path's units: with z = scale * u (or S u), it moves u with a unit mass.
    It costs `num_leapfrog` gradients; only the last position's densities are computed.

    Args:
        path: gives the gradients and the units.
        point: where to start.
        momentum: of u.
        beta: the inverse temperature.
        step_size: in units of `path.scale`.
        num_leapfrog: L, at least 1.

    Returns:
        (point, momentum) at the end of the trajectory.
    """

    def drift(momentum):
        return scaled(path.scale, momentum, step_size)

    def kick(force, share=1.0):
        return scaled_back(path.scale, force, share * step_size)

    def step(_, carry):
        z, momentum = carry
        z = z + drift(momentum)
        return z, momentum + kick(force_at(path, beta, z))

    # The half kicks at the ends come from gradients that the points already hold, so
    # only the L - 1 inner positions and the end are evaluated.
    momentum = momentum + kick(grad_log_density(point, beta), 0.5)
    z = point.z
    if num_leapfrog > 1:
        z, momentum = jax.lax.fori_loop(0, num_leapfrog - 1, step, (z, momentum))
    point = evaluate(path, z + drift(momentum))
    return point, momentum + kick(grad_log_density(point, beta), 0.5)


def hmc_step(
    key: PRNGKey,
    path: AnnealingPath,
    point: Point,
    beta: ScalarLike,
    step_size: ScalarLike,
    *,
    num_leapfrog: int,
    jitter: float = 0.0,
) -> tuple[Point, HMCInfo]:
    """One HMC move that leaves f_beta (Eq. 6) invariant.

    A proposal whose energy is not finite is rejected.

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

    References:
        Neal, MCMC using Hamiltonian dynamics, Handbook of MCMC, 2011 (jitter: 5.4.2.2).
    """
    momentum_key, accept_key = jax.random.split(key)
    if jitter == 0.0:
        u = jax.random.uniform(accept_key)
    else:
        u, share = jax.random.uniform(accept_key, (2,), point.z.dtype)
        step_size = step_size * (1.0 - jitter * share)
    momentum = jax.random.normal(momentum_key, point.z.shape, point.z.dtype)
    proposal, end = leapfrog(path, point, momentum, beta, step_size, num_leapfrog)
    end_energy = energy(proposal, end, beta)
    energy_error = end_energy - energy(point, momentum, beta)
    accept_prob = jnp.exp(jnp.minimum(0.0, -energy_error))
    is_sound = jnp.isfinite(end_energy) & ~jnp.isnan(accept_prob)
    accept_prob = jnp.where(is_sound, accept_prob, 0.0)
    is_accepted = u < accept_prob
    point = jax.tree.map(lambda a, b: jnp.where(is_accepted, a, b), proposal, point)
    return point, HMCInfo(accept_prob, is_accepted, energy_error)


def energy(point: Point, momentum: Float[Array, "D"], beta: ScalarLike) -> Scalar:
    """The Hamiltonian at f_beta of a position and its momentum, nats."""
    return 0.5 * jnp.sum(jnp.square(momentum)) - log_density(point, beta)
