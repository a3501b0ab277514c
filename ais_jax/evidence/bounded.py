"""Bounded parameters (positive, ordered, shares) as paths over all real numbers."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.path import AnnealingPath, Coordinates
from ais_jax.types import is_traced

NUM_LOOKS = 256
"""Draws that are looked at, where floating-point numbers may not hold them."""


class Bijection(Protocol):
    """A one-to-one map from the reals, such as numpyro's `biject_to(constraint)`."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The bounded parameter of an unbounded one."""
        ...

    @property
    def inv(self) -> "Bijection":
        """The map back."""
        ...

    def log_abs_det_jacobian(
        self, x: Float[Array, "..."], y: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Log of the volume of y that a unit volume of x has."""
        ...


def bounded(path: AnnealingPath, bijections: PyTree) -> AnnealingPath:
    """A path over all real numbers, of one whose parameters are bounded.

    Densities gain the bijections' Jacobians, so log Z stays what it is. Estimates give
    `z` back, and take `z_target`, as the bounded parameters.

    Args:
        path: its functions give and take the bounded parameters; its `scale` is in the
            unbounded ones.
        bijections: a `Bijection` for each array of a position, in its shape, such as
            {"rate": biject_to(constraints.positive), "mean": None}; None leaves an
            array as it is.

    Raises:
        ValueError: where the bijections are not in the positions' shape, many of the
            base's draws round to a bound, or the path has coordinates already.
    """
    if path.coordinates is not None:
        raise ValueError("the path's parameters are unbounded already: use it as it is")

    def each(function, *trees):
        return jax.tree.map(function, bijections, *trees, is_leaf=_is_bijection)

    def constrain(x):
        return each(lambda b, x: x if b is None else b(x), x)

    def unconstrain(y):
        try:
            return each(lambda b, y: y if b is None else b.inv(y), y)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"bijections={bijections} do not fit a position: give one, or None, "
                f"for each of its arrays ({error})"
            ) from None

    def log_volume(x, y):
        def log_det(b, x, y):
            return 0.0 if b is None else jnp.sum(b.log_abs_det_jacobian(x, y))

        return sum(jax.tree.leaves(each(log_det, x, y)))

    def moved(log_density):
        def of_unbounded(x):
            y = constrain(x)
            return log_density(y) + log_volume(x, y)

        return of_unbounded

    def moved_target(target_with_residuals):
        def of_unbounded(x):
            y, pull_back = jax.vjp(constrain, x)
            log_target, force, residuals = target_with_residuals(y)
            volume, slope = jax.value_and_grad(lambda x: log_volume(x, constrain(x)))(x)
            force = jax.tree.map(jnp.add, *pull_back(force), slope)
            return log_target + volume, force, residuals

        return of_unbounded

    target = path.target_with_residuals

    def sample_base(key):
        return unconstrain(path.sample_base(key))

    def bounded_parts(key):
        return each(lambda b, x: None if b is None else x, sample_base(key))

    for name, reason in lost_draws(bounded_parts):
        raise ValueError(f"path.sample_base: of its draws {name or 'z'}, {reason}")
    return AnnealingPath(
        sample_base=sample_base,
        log_base=moved(path.log_base),
        log_target=moved(path.log_target),
        scale=path.scale,
        target_with_residuals=None if target is None else moved_target(target),
        coordinates=Coordinates(constrain, unconstrain),
    )


def _is_bijection(b):
    return b is None or callable(b)


def lost_draws(sample: Callable[[Any], PyTree]) -> list[tuple[str, str]]:
    """Where many draws of unbounded x are infinite, or round to equal ones.

    Args:
        sample: gives one draw for a key.

    Returns:
        The place in the draw, and what is wrong; nothing within `jit`.
    """
    keys = jax.random.split(jax.random.key(0), NUM_LOOKS)
    draws = jax.tree_util.tree_leaves_with_path(jax.jit(jax.vmap(sample))(keys))
    return [
        (
            jax.tree_util.keystr(place, simple=True),
            f"{_share_lost(np.asarray(x)):.0%} round to a bound or to each other in "
            f"{x.dtype}: change it, or use jax_enable_x64",
        )
        for place, x in draws
        if not is_traced(x) and _share_lost(np.asarray(x)) > 0.02
    ]


def _share_lost(x):
    """The largest share, over elements, of draws that are infinite or no new value."""
    new = [len(np.unique(a[np.isfinite(a)])) for a in x.reshape(len(x), -1).T]
    return 1.0 - min(new, default=len(x)) / len(x)
