"""How chains begin, and how reverse chains end at the base."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ais_jax.annealing.clouds import Cloud, of_points, weigh
from ais_jax.annealing.loop import add_increment
from ais_jax.annealing.path import AnnealingPath, Point, evaluate


def first_clouds(
    path: AnnealingPath, z0: Float[Array, "K D"] | Float[Array, "K P D"], size: int
) -> Cloud:
    """K clouds of `size` points whose first have the weight: arrays [1, K, P, ...]."""
    given = 1 if z0.ndim == 2 else z0.shape[1]
    if given > size:
        raise ValueError(f"z0 has {given} draws and the transition's clouds {size}")
    each = jax.vmap(lambda z: evaluate(path, z))
    if z0.ndim == 2:  # evaluated as a proposal evaluates it, which is then shared
        points = jax.tree.map(lambda a: a[:, None], each(z0))
    else:
        points = jax.vmap(each)(z0)
    if given < size:
        repeats = np.minimum(np.arange(size), given - 1)
        points = jax.tree.map(lambda a: a[:, repeats], points)
    log_w = jnp.where(jnp.arange(size) < given, -jnp.log(1.0 * given), -jnp.inf)
    shape = points.log_target.shape
    log_w = jnp.broadcast_to(log_w, shape).astype(points.log_target.dtype)
    return jax.tree.map(lambda a: a[None], Cloud(points, log_w))


def weigh_at_base(
    chains: tuple[Point, Float[Array, "K"]], fresh: Point, delta: ScalarLike
) -> tuple:
    """The last increment of K reverse chains, whose clouds have fresh draws besides.

    Args:
        chains: (a point of each, their log weights).
        fresh: draws from the base of each chain, with leading axes of K and P - 1.
        delta: step of the inverse temperature; 0 leaves the weights as they are.

    Returns:
        (log weights, increments, (is_unsound, is_outside)).
    """

    def one(point, log_w, fresh):
        points = jax.tree.map(lambda a, b: jnp.append(a[None], b, 0), point, fresh)
        weighed = weigh(of_points(points, len(points.log_target)), delta)
        increment = -weighed.increment[0] - weighed.increment[1]
        faults = weighed.is_unsound, weighed.is_outside
        return add_increment(log_w, increment)[0], increment, faults

    return jax.vmap(one)(*chains, fresh)
