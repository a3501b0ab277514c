"""Bounded parameters (positive, ordered, shares) as paths over all real numbers."""

from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.path import (
    AnnealingPath,
    Coordinates,
)


class Bijection(Protocol):
    """A one-to-one map from the reals, such as numpyro's `biject_to(constraint)`."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The bounded parameter of an unbounded one."""

    @property
    def inv(self) -> "Bijection":
        """The map back."""

    def log_abs_det_jacobian(
        self, x: Float[Array, "..."], y: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Log of the volume of y that a unit volume of x has."""


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
        ValueError: where the bijections are not in the positions' shape, or the path
            has coordinates already.
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
    return AnnealingPath(
        sample_base=lambda key: unconstrain(path.sample_base(key)),
        log_base=moved(path.log_base),
        log_target=moved(path.log_target),
        scale=path.scale,
        target_with_residuals=None if target is None else moved_target(target),
        coordinates=Coordinates(constrain, unconstrain),
    )


def _is_bijection(b):
    return b is None or callable(b)
