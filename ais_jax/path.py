"""The geometric annealing path between a normalised base and a target (Eq. 6).

Positions are flat vectors f32[D]; `jax.flatten_util.ravel_pytree` makes one of any
pytree. Everything here is for one chain: add chains and examples by `jax.vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class AnnealingPath(NamedTuple):
    """A base distribution and a target density, as closures.

    Build it inside the function that is traced: it does not cross `jit`, `vmap` or
    `scan`.

    Attributes:
        sample_base: key -> f32[D], an exact draw from the base.
        log_base: f32[D] -> f32[], its normalised log-density, log q(z|x), nats.
        log_target: f32[D] -> f32[], the target's log-density up to its normalising
            constant, log p(x, z), nats.
        scale: f32[D] or f32[], the length scale of each coordinate in HMC (the inverse
            square root of a diagonal mass matrix); 1 in the paper.
        force: f32[D] -> f32[] or None. Its gradient, in place of the target's, drives
            the leapfrog. Any deterministic function keeps HMC exact; a cheaper or
            coarser copy of `log_target` makes it fast.
    """

    sample_base: Callable[[Array], Array]
    log_base: Callable[[Array], Array]
    log_target: Callable[[Array], Array]
    scale: Any = 1.0
    force: Callable[[Array], Array] | None = None


class Point(NamedTuple):
    """A position with both endpoints' values and gradients there.

    Every intermediate density of the path and its gradient are linear mixtures of
    them, so nothing is evaluated again when the temperature changes.

    Attributes:
        z: f32[D].
        log_base: f32[].
        log_target: f32[].
        grad_base: f32[D].
        grad_target: f32[D], the gradient that drives the leapfrog.
    """

    z: Array
    log_base: Array
    log_target: Array
    grad_base: Array
    grad_target: Array


def evaluate(path, z):
    """Evaluates both endpoints at a position: one pass forward and backward.

    Args:
        path: an `AnnealingPath`.
        z: f32[D].

    Returns:
        The `Point` at z.
    """
    log_base, grad_base = jax.value_and_grad(path.log_base)(z)
    if path.force is None:
        log_target, grad_target = jax.value_and_grad(path.log_target)(z)
    else:
        log_target, grad_target = path.log_target(z), jax.grad(path.force)(z)
    return Point(z, log_base, log_target, grad_base, grad_target)


def mix(beta, base, target):
    """The path's mixture of the endpoints' values: (1 - beta) base + beta target.

    An endpoint of weight zero is left out, so that its infinities do not enter.
    """
    return jnp.where(beta < 1.0, (1.0 - beta) * base, 0.0) + jnp.where(
        beta > 0.0, beta * target, 0.0
    )


def log_density(point, beta):
    """Log of f_beta (Eq. 6), unnormalised, at a point: f32[], nats."""
    return mix(beta, point.log_base, point.log_target)


def grad_log_density(point, beta):
    """Gradient of log f_beta (Eq. 6) that drives the leapfrog at a point: f32[D]."""
    return mix(beta, point.grad_base, point.grad_target)


def force_at(path, beta, z):
    """The gradient of log f_beta at a new position, without the values: f32[D]."""
    target = path.log_target if path.force is None else path.force
    return mix(beta, jax.grad(path.log_base)(z), jax.grad(target)(z))


def log_ratio(point):
    """Log of target over base at a point, the integrand of Eq. 7: f32[], nats."""
    return point.log_target - point.log_base
