"""The geometric annealing path between a normalised base and a target (Eq. 6).

Positions are flat vectors here; `positions.flatten` makes them of any pytree.
Everything is for one chain: add chains and examples by `jax.vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from ais_jax.types import AnyArray, PRNGKey, Scalar

Position = PyTree[Float[Array, "..."]]
"""f32[D]; of a path that is not flattened yet, any pytree."""

TargetWithResiduals = Callable[
    [Float[Array, "D"]], tuple[Scalar, Float[Array, "D"], PyTree]
]
"""z -> (log_target in nats, force, residuals).

The force drives the leapfrog. It is the gradient of log_target or of a cheaper, coarser
function: HMC stays exact with any that is deterministic. Compute it apart from the
value, which is not needed within a trajectory and is then left out. Residuals are what
each `Point` keeps for a later gradient in the target's own parameters, or None.
"""


class Coordinates(NamedTuple):
    """A one-to-one map between a path's positions and the parameters of its user.

    Attributes:
        constrain: the parameters at a position.
        unconstrain: the position of parameters.
        report: the parameters and what is derived from them, or None.
    """

    constrain: Callable[[PyTree], PyTree]
    unconstrain: Callable[[PyTree], PyTree]
    report: Callable[[PyTree], PyTree] | None = None


class AnnealingPath(NamedTuple):
    """A base distribution and a target density, as closures.

    Build it inside the function that is traced: it does not cross `jit`, `vmap` or
    `scan`.

    Attributes:
        sample_base: an exact draw from the base.
        log_base: its normalised log-density, log q(z|x), nats.
        log_target: the target's log-density up to its normalising constant,
            log p(x, z), nats.
        scale: the length scale of each coordinate in HMC (the inverse square root of a
            diagonal mass matrix); 1 in the paper. Or a matrix S, for HMC of z = S u.
        target_with_residuals: what HMC evaluates in place of log_target and its
            gradient, or None.
        coordinates: between positions and parameters, where these are bounded, or
            None. Estimates then give and take parameters.
    """

    sample_base: Callable[[PRNGKey], Position]
    log_base: Callable[[Position], Scalar]
    log_target: Callable[[Position], Scalar]
    scale: Float[AnyArray, "D D"] | Float[AnyArray, "#D"] | ScalarLike = 1.0
    target_with_residuals: TargetWithResiduals | None = None
    coordinates: Coordinates | None = None


class PathOfData(AnnealingPath):
    """A path that a function of data gives, so that other data need no other program.

    Its digest is that of the data that its target observes (`digests.digest`), or 0
    where they are not known. No base is fitted where its own is not normalised. A path
    that `_replace` makes of it has lost all of these.
    """

    function: Callable[[PyTree], AnnealingPath] | None = None
    data: PyTree = None
    digest: int = 0
    is_base_normalised: bool = True


def path_of_data(
    function: Callable[[PyTree], AnnealingPath], data: PyTree, digest: int = 0
) -> PathOfData:
    """The path that a function gives for data, which remembers all of these."""
    path = PathOfData(*function(data))
    path.function, path.data, path.digest = function, data, digest
    return path


def has_own_base(path: Any) -> bool:
    """Whether its base is a user's, which should be normalised."""
    is_normalised = getattr(path, "is_base_normalised", True)
    return is_normalised and getattr(path, "function", None) is None


def digest_of(path: Any) -> int:
    """The digest of a path's data; 0 where it has none."""
    return getattr(path, "digest", 0)


class Point(NamedTuple):
    """A position with both endpoints' values and gradients there.

    Every intermediate density of the path and its gradient are linear mixtures of
    them, so nothing is evaluated again when the temperature changes.

    Attributes:
        z: the position.
        log_base: nats.
        log_target: nats.
        grad_base: gradient of log_base.
        grad_target: the gradient that drives the leapfrog.
        residuals: of `TargetWithResiduals`, or None.
    """

    z: Float[Array, "D"]
    log_base: Scalar
    log_target: Scalar
    grad_base: Float[Array, "D"]
    grad_target: Float[Array, "D"]
    residuals: PyTree = None


def evaluate(path: AnnealingPath, z: Float[Array, "D"]) -> Point:
    """Evaluates both endpoints at a position: one pass forward and backward."""
    log_base, grad_base = jax.value_and_grad(path.log_base)(z)
    log_target, grad_target, residuals = _target(path, z)
    return Point(
        z=z,
        log_base=log_base,
        log_target=log_target,
        grad_base=grad_base,
        grad_target=grad_target,
        residuals=residuals,
    )


def _target(path, z):
    """The target's value, its force and residuals."""
    if path.target_with_residuals is not None:
        return path.target_with_residuals(z)
    return *jax.value_and_grad(path.log_target)(z), None


def without_residuals(path: AnnealingPath) -> AnnealingPath:
    """The path with the same force, whose points keep no residuals."""
    target = path.target_with_residuals
    if target is None:
        return path
    return path._replace(target_with_residuals=lambda z: (*target(z)[:2], None))


def mix(
    beta: ScalarLike, base: Float[Array, "*D"], target: Float[Array, "*D"]
) -> Float[Array, "*D"]:
    """The path's mixture of the endpoints' values: (1 - beta) base + beta target.

    An endpoint of weight zero is left out, so that its infinities do not enter.
    """
    return jnp.where(jnp.less(beta, 1.0), (1.0 - beta) * base, 0.0) + jnp.where(
        jnp.greater(beta, 0.0), beta * target, 0.0
    )


def log_density(point: Point, beta: ScalarLike) -> Scalar:
    """Log of f_beta (Eq. 6), unnormalised, at a point, nats.

    A density of NaN is treated as zero.
    """
    value = mix(beta, point.log_base, point.log_target)
    return jnp.where(jnp.isnan(value), -jnp.inf, value)


def grad_log_density(point: Point, beta: ScalarLike) -> Float[Array, "D"]:
    """Gradient of log f_beta (Eq. 6) that drives the leapfrog at a point."""
    return mix(beta, point.grad_base, point.grad_target)


def force_at(
    path: AnnealingPath, beta: ScalarLike, z: Float[Array, "D"]
) -> Float[Array, "D"]:
    """The gradient of log f_beta at a new position, without the values."""
    return mix(beta, jax.grad(path.log_base)(z), _target(path, z)[1])


def log_ratio(point: Point) -> Float[Array, "*K"]:
    """Log of target over base at a point or at many, the integrand of Eq. 7, nats."""
    return point.log_target - point.log_base


def scaled(
    scale: Float[AnyArray, "*S"] | ScalarLike,
    v: Float[Array, "D"],
    step_size: ScalarLike,
) -> Float[Array, "D"]:
    """A step along v of the path's units in those of the position: scale * v, or S v.

    Chains of different step sizes share one product with S.
    """
    if jnp.ndim(scale) == 2:
        return jnp.multiply(step_size, jnp.matmul(scale, v))
    return jnp.multiply(step_size * scale, v)


def scaled_back(
    scale: Float[AnyArray, "*S"] | ScalarLike,
    v: Float[Array, "D"],
    step_size: ScalarLike,
) -> Float[Array, "D"]:
    """A step along a gradient, in the path's units: scale * v, or S' v."""
    if jnp.ndim(scale) == 2:
        return jnp.multiply(step_size, jnp.matmul(v, scale))
    return jnp.multiply(step_size * scale, v)
