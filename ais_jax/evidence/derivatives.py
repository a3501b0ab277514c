"""Derivatives of log Z in the target's parameters, which no chain has to carry.

For a target p of parameters theta, d log Z is the mean of d log p(z) over z drawn from
the normalised target: a normalised base adds nothing, whatever it depends on. So chains
run without derivatives, and their weighted ends give the mean (Eq. 8).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree, ScalarLike

from ais_jax.annealing.path import AnnealingPath
from ais_jax.types import AnyArray, PRNGKey


def constant(tree: PyTree) -> PyTree:
    """Arrays without their derivatives; of those of `jax.grad` the values are known."""
    return jax.lax.stop_gradient(tree)


def closes_over_traced(key: PRNGKey, path: AnnealingPath) -> bool:
    """Whether a path's densities close over arrays that are traced or differentiated.

    Args:
        key: of the kind that `sample_base` takes.
        path: in the user's shape.
    """

    def densities(z):
        return path.log_target(z), path.log_base(z)

    draw = jax.eval_shape(path.sample_base, key)
    return bool(jax.closure_convert(densities, draw)[1])


def stopped(function: Callable[..., Any], *args: PyTree) -> Any:
    """The value of a function of arrays, a constant for all derivatives.

    What the function closes over is constant too.
    """
    converted, outside = jax.closure_convert(function, *args)
    return converted(*constant((*args, *outside)))


def refused(name: str, function: Callable[..., Any], *args: PyTree) -> Any:
    """The value of a function of arrays, which has no derivative.

    Raises:
        ValueError: where one is taken.
    """
    converted, outside = jax.closure_convert(function, *args)
    return converted(*_refusing(name, (*args, *outside)))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _refusing(name, arrays):
    return arrays


@_refusing.defjvp
def _refuse(name, *_):
    raise ValueError(f"{name} has no derivative: take that of log_normalizer's log_z")


def with_derivative(
    log_z: ScalarLike,
    path: AnnealingPath,
    z: Float[AnyArray, "K D"],
    log_w: Float[AnyArray, "K"],
) -> ScalarLike:
    """Log Z, with its derivative in what the path's target closes over.

    Args:
        log_z: the estimate, nats.
        path: of flat positions.
        z: the ends of its chains.
        log_w: their log weights.
    """
    log_target, outside = jax.closure_convert(path.log_target, z[0])
    if not outside:
        return log_z

    @jax.jit
    def mean(outside, z, log_w):
        """Of the log target, over the ends that weigh anything."""
        weights = jax.nn.softmax(log_w)
        z = jnp.where(weights[:, None] > 0.0, z, z[jnp.argmax(weights)])
        return weights @ jax.vmap(lambda z: log_target(z, *outside))(z)

    @jax.custom_jvp
    def value(outside, log_z, z, log_w):
        return log_z

    @value.defjvp
    def derivative(primals, tangents):
        outside, log_z, *ends = primals
        return log_z, jax.jvp(lambda a: mean(a, *ends), (outside,), tangents[:1])[1]

    return value(outside, log_z, z, log_w)
