"""Paths whose positions are any pytree, made flat and checked where they come in."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.path import AnnealingPath
from ais_jax.types import PRNGKey

Unflatten = Callable[[Float[Array, "D"]], PyTree]
"""The position in the user's shape, of a flat one."""


def flatten(key: PRNGKey, path: AnnealingPath) -> tuple[AnnealingPath, Unflatten]:
    """A path of flat positions of the default floating-point type.

    Nothing is computed: shapes and types alone are looked at.

    Args:
        key: of the kind that `sample_base` takes.
        path: its positions are arrays of at most one axis, or pytrees of any arrays.

    Returns:
        (the flat path, a function that brings its positions in the user's shape and
        coordinates).

    Raises:
        ValueError: naming the function that returned what does not fit.
    """
    dtype = jnp.result_type(float)
    draw = jax.eval_shape(path.sample_base, key)
    _check_draw(draw)
    draw = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), draw)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), draw)
    unflatten = ravel_pytree(zeros)[1]

    def sample_base(key):
        return ravel(path.sample_base(key))

    def of_flat(name):
        function = getattr(path, name)
        _check_density(name, function, draw)
        return lambda z: jnp.asarray(function(unflatten(z)), dtype)

    def flat_target(target_with_residuals):
        _check_target(target_with_residuals, draw)

        def of_flat(z):
            value, force, residuals = target_with_residuals(unflatten(z))
            return jnp.asarray(value, dtype), ravel(force), residuals

        return of_flat

    def to_user(z):
        if path.coordinates is None or path.coordinates.report is None:
            return constrain(path, unflatten(z))
        return path.coordinates.report(unflatten(z))

    size = sum(a.size for a in jax.tree.leaves(draw))
    target = path.target_with_residuals
    flat = AnnealingPath(
        sample_base=sample_base,
        log_base=of_flat("log_base"),
        log_target=of_flat("log_target"),
        scale=_flat_scale(path.scale, draw, size),
        target_with_residuals=None if target is None else flat_target(target),
    )
    return flat, to_user


def ravel(z: PyTree) -> Float[Array, "D"]:
    """A position as a flat vector of the default floating-point type."""
    dtype = jnp.result_type(float)
    leaves = [jnp.ravel(jnp.asarray(a, dtype)) for a in jax.tree.leaves(z)]
    return jnp.concatenate(leaves) if len(leaves) > 1 else leaves[0]


def check_like_draws(
    key: PRNGKey, path: AnnealingPath, name: str, z: PyTree
) -> Float[Array, "D"]:
    """A position in the user's coordinates and the shape of the base's draws, flat.

    Raises:
        ValueError: naming the argument, where it has another shape.
    """
    draw = jax.eval_shape(lambda key: constrain(path, path.sample_base(key)), key)
    if _shapes(z) != _shapes(draw):
        raise ValueError(
            f"{name} has the shape {_shapes(z)} and a draw of path.sample_base "
            f"{_shapes(draw)}: give one position of the same shape"
        )
    if path.coordinates is not None:
        z = path.coordinates.unconstrain(jax.tree.map(jnp.asarray, z))
    return ravel(z)


def constrain(path: AnnealingPath, z: PyTree) -> PyTree:
    """A position in the user's coordinates."""
    return z if path.coordinates is None else path.coordinates.constrain(z)


def _check_draw(draw):
    """Refuses draws that are no position."""
    leaves = jax.tree.leaves(draw)
    if not leaves or not sum(a.size for a in leaves):
        raise ValueError(f"path.sample_base returned {draw}, of no numbers")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"path.sample_base returned {leaf.dtype}{list(leaf.shape)}: positions "
                "are floating-point numbers"
            )
    if isinstance(draw, jax.ShapeDtypeStruct) and len(draw.shape) > 1:
        raise ValueError(
            f"path.sample_base returned an array of shape {draw.shape}: it must return "
            "one draw, of shape [D]; put an array of more axes in a dict"
        )


def _check_density(name, function, draw):
    value = jax.eval_shape(function, draw)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        text = f"{dtype}{list(shape)}" if shape is not None else str(value)
        raise ValueError(
            f"path.{name} returned {text} for one position: it must return one "
            "floating-point number, the log-density summed over coordinates"
        )


def _check_target(function, draw):
    value, force, _ = jax.eval_shape(function, draw)
    if getattr(value, "shape", None) != () or _shapes(force) != _shapes(draw):
        raise ValueError(
            f"path.target_with_residuals returned a value of shape {_shapes(value)} "
            f"and a force of shape {_shapes(force)} for a position of shape "
            f"{_shapes(draw)}: return one number, a force of the position's shape, "
            "and residuals or None"
        )


def _shapes(tree):
    """The shape of each array of a pytree."""
    return jax.tree.map(lambda a: getattr(a, "shape", np.shape(a)), tree)


def _flat_scale(scale, draw, size):
    """The scale as a number, a vector [D] or a matrix [D, D]."""
    if _shapes(scale) == _shapes(draw):
        return ravel(scale)
    try:
        scale = jnp.asarray(scale, jnp.result_type(float))
    except (TypeError, ValueError):
        raise ValueError(f"path.scale={scale}: use numbers, or draws' shape") from None
    if scale.shape not in [(), (1,), (size,), (size, size)]:
        raise ValueError(
            f"path.scale has the shape {scale.shape} for positions of D={size}: use a "
            f"number, a vector of shape ({size},) or a matrix ({size}, {size})"
        )
    return scale


def spacing_of_numbers(key: PRNGKey, path: AnnealingPath) -> float:
    """The relative spacing of the numbers that the coarser density returns."""
    draw = jax.eval_shape(path.sample_base, key)
    densities = path.log_target, path.log_base
    dtypes = [jax.eval_shape(density, draw).dtype for density in densities]
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
