"""Metropolis-corrected Hamiltonian Monte Carlo on an annealing path."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ais_jax.path import evaluate, force_at, grad_log_density, log_density


class HMCInfo(NamedTuple):
    """What one HMC move did.

    Attributes:
        accept_prob: f32[], the Metropolis acceptance probability.
        is_accepted: bool[].
        energy_error: f32[], the change of the Hamiltonian along the trajectory, nats.
    """

    accept_prob: jax.Array
    is_accepted: jax.Array
    energy_error: jax.Array


def leapfrog(path, point, momentum, beta, step_size, num_leapfrog):
    """Integrates Hamilton's equations for the potential -log f_beta.

    Works in the path's units: with z = scale * u, it moves u with a unit mass. It costs
    `num_leapfrog` gradients; only the last position's densities are computed.

    Args:
        path: an `AnnealingPath`.
        point: the `Point` to start from.
        momentum: f32[D], of u.
        beta: f32[], the inverse temperature.
        step_size: f32[].
        num_leapfrog: L, a Python integer of at least 1.

    Returns:
        (point, momentum) at the end of the trajectory.
    """
    kick = step_size * path.scale

    def step(_, carry):
        z, momentum = carry
        z = z + kick * momentum
        return z, momentum + kick * force_at(path, beta, z)

    momentum = momentum + 0.5 * kick * grad_log_density(point, beta)
    z, momentum = jax.lax.fori_loop(0, num_leapfrog - 1, step, (point.z, momentum))
    point = evaluate(path, z + kick * momentum)
    return point, momentum + 0.5 * kick * grad_log_density(point, beta)


def hmc_step(key, path, point, beta, step_size, *, num_leapfrog):
    """One HMC move that leaves f_beta (Eq. 6) invariant.

    A proposal whose energy is not finite is rejected.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        point: the current `Point`.
        beta: f32[], the inverse temperature.
        step_size: f32[], in units of `path.scale`.
        num_leapfrog: L, the number of leapfrog steps, at least 1.

    Returns:
        (the next `Point`, `HMCInfo`).

    References:
        Neal, MCMC using Hamiltonian dynamics, Handbook of MCMC, 2011.
    """
    momentum_key, accept_key = jax.random.split(key)
    momentum = jax.random.normal(momentum_key, point.z.shape, point.z.dtype)
    proposal, end = leapfrog(path, point, momentum, beta, step_size, num_leapfrog)
    energy = _energy(proposal, end, beta)
    energy_error = energy - _energy(point, momentum, beta)
    accept_prob = jnp.exp(jnp.minimum(0.0, -energy_error))
    is_sound = jnp.isfinite(energy) & ~jnp.isnan(accept_prob)
    accept_prob = jnp.where(is_sound, accept_prob, 0.0)
    is_accepted = jax.random.uniform(accept_key) < accept_prob
    point = jax.tree.map(lambda a, b: jnp.where(is_accepted, a, b), proposal, point)
    return point, HMCInfo(accept_prob, is_accepted, energy_error)


def _energy(point, momentum, beta):
    return 0.5 * jnp.sum(jnp.square(momentum)) - log_density(point, beta)
