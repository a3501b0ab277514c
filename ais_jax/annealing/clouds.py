"""Clouds: the weighted points that a chain holds between two moves.

A move along a Hamiltonian trajectory evaluates L + 1 points. A chain may hold all of
them with their weights, as one weighted sample of the density at its temperature. Where
a move gives one point alone, its cloud is that point.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from ais_jax.annealing.path import AnnealingPath, Point, log_ratio
from ais_jax.types import PRNGKey, Scalar

NEAR = 30.0  # nats below the best point of a cloud that still count as its mass


class Cloud(NamedTuple):
    """P weighted points of one chain.

    Attributes:
        points: each array has a leading axis of P.
        log_w: their log weights, whose exponentials add up to one.
    """

    points: Point
    log_w: Float[Array, "P"]


Transition = Callable[
    [PRNGKey, AnnealingPath, Point, ScalarLike, ScalarLike], tuple[Any, Any]
]
"""(key, path, point, beta, step_size) -> (point or `Cloud`, info with accept_prob).

It leaves f_beta invariant, and is reversible where chains run backwards. Of a `Cloud`,
a point drawn by weight is the next position; the cloud must not depend on which of its
points it was begun at.
"""


class Weighed(NamedTuple):
    """What one increment of the temperature makes of a cloud.

    Attributes:
        increment: of the log weight, the log of the weighted mean of exp(delta U),
            where U is log target - log base. Its two parts are added to the log weight
            one after the other.
        shares: log weights of the points at the new temperature.
        is_unsound: whether a point of positive weight has a density of NaN or infinity.
        is_outside: whether a point has a target density but no base density.
    """

    increment: tuple[Scalar, Scalar]
    shares: Float[Array, "P"]
    is_unsound: Bool[Array, ""]
    is_outside: Bool[Array, ""]


def of_points(points: Point, num: int) -> Cloud:
    """Points of equal weights, such as draws from the base, as a cloud."""
    zeros = jnp.zeros_like(points.log_target)
    return Cloud(points, zeros - jnp.log(jnp.asarray(num, zeros.dtype)))


def as_cloud(moved: Point | Cloud) -> Cloud:
    """What a transition gives, as a cloud."""
    if isinstance(moved, Cloud):
        return moved
    return of_points(jax.tree.map(lambda a: a[None], moved), 1)


def weigh(cloud: Cloud, delta: ScalarLike) -> Weighed:
    """Weighs a cloud for a step of the inverse temperature (Eq. 7).

    A point of zero target density weighs zero, and so does one of no density at all
    (NaN or plus infinity); a step of width zero leaves weights as they are.
    """
    ratio = log_ratio(cloud.points)
    is_finite = jnp.isfinite(ratio)
    terms = delta * jnp.where(is_finite, ratio, 0.0)
    terms = jnp.where(is_finite | (delta == 0.0), terms, -jnp.inf)
    shares = cloud.log_w + terms
    if len(shares) == 1:
        increment = terms[0], jnp.zeros_like(terms[0])
    else:
        largest = jnp.max(shares)
        centre = jnp.where(jnp.isfinite(largest), largest, 0.0)
        increment = largest, jnp.log(jnp.maximum(jnp.sum(jnp.exp(shares - centre)), 1))
    return Weighed(increment, shares, *_faults(cloud, ratio))


def choose(uniform: Scalar, log_w: Float[Array, "P"]) -> Int[Array, ""]:
    """The index that a uniform number draws by log weights; NaN weighs zero.

    Where no weight is positive all are equal.
    """
    if len(log_w) == 1:
        return jnp.zeros((), jnp.int32)
    largest = jnp.nanmax(log_w)
    log_w = jnp.where(jnp.isfinite(largest), log_w - largest, 0.0)
    w = jnp.where(jnp.isnan(log_w), 0.0, jnp.exp(log_w))
    ends = jnp.sum(jnp.where(np.tri(len(w), dtype=bool), w, 0.0), axis=1)
    place = jnp.sum(ends <= uniform * ends[-1])
    return jnp.minimum(place, len(log_w) - 1).astype(jnp.int32)


def _faults(cloud, ratio):
    points, is_live = cloud.points, cloud.log_w > -jnp.inf
    is_wrong = jnp.isnan(ratio) | jnp.isposinf(ratio)
    target = jnp.where(jnp.isfinite(points.log_target), points.log_target, -jnp.inf)
    best = jnp.max(jnp.where(is_live, target, -jnp.inf))
    is_outside = jnp.isneginf(points.log_base) & (target > best - NEAR)
    return jnp.any(is_wrong & is_live), jnp.any(is_outside)
