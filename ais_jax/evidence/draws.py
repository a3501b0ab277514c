"""A posterior's draws as flat positions, and whether their chains agree."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ais_jax.evidence.positions import ravel

FEWEST = 20  # draws for each chain


def read_draws(draws: Any, like: PyTree = None) -> PyTree[Float[np.ndarray, "C N ..."]]:
    """Draws with axes of (chain, draw, ...), of a pytree or an ArviZ object.

    Args:
        draws: arrays; or an `InferenceData` or `DataTree` with the group posterior.
        like: one draw; a dict of it says which variables are wanted.

    Raises:
        ValueError: naming what is missing, or the array that does not fit.
    """
    posterior = getattr(draws, "posterior", None)
    if posterior is not None:
        draws = {str(name): posterior[name].values for name in posterior.data_vars}
    if isinstance(like, Mapping) and isinstance(draws, Mapping):
        missing = sorted(set(like) - set(draws))
        if missing:
            raise ValueError(f"draws lack {', '.join(missing)}: the path has it")
        draws = {name: draws[name] for name in like}
    draws = jax.tree.map(np.asarray, draws)
    shapes = {np.shape(a)[:2] for a in jax.tree.leaves(draws)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        found = sorted(shapes) or draws
        raise ValueError(
            f"draws have the leading axes {found}: give every array the same "
            "two, of chains and draws"
        )
    num = next(iter(shapes))[1]
    if num < FEWEST:
        raise ValueError(
            f"draws has {num} for each chain: give at least {FEWEST}, with axes of "
            "(chain, draw, ...)"
        )
    for leaf in jax.tree.leaves(draws):
        if not np.all(np.isfinite(leaf)):
            raise ValueError("draws are not all finite: leave out what is not a draw")
    return draws


def check_shapes(draws: PyTree, like: PyTree) -> None:
    """Refuses draws of another structure or shape than one position.

    Raises:
        ValueError: with both shapes.
    """
    ours = jax.tree.map(lambda a: np.shape(a)[2:], draws)
    theirs = jax.tree.map(lambda a: a.shape, like)
    if ours != theirs:
        raise ValueError(
            f"draws have the shapes {ours} after chains and draws, and the path's "
            f"parameters {theirs}: give them the same"
        )


def check_density(log_density: Callable[[PyTree], Any], position: PyTree) -> None:
    """Refuses what is no log density of one position.

    Raises:
        ValueError: with what came instead.
    """
    shapes = jax.tree.map(lambda a: np.shape(a), position)
    try:
        value = jax.eval_shape(log_density, position)
    except Exception as error:
        raise ValueError(
            f"log_density fails at one draw, of the shapes {shapes} ({error!r}): give "
            "a function of one position, or the path of a model"
        ) from error
    if getattr(value, "shape", None) != ():
        raise ValueError(
            f"log_density returned {value} for one draw: it must return one number"
        )


def flat_draws(
    draws: PyTree[Float[np.ndarray, "C N ..."]],
    unconstrain: Callable[[PyTree], PyTree] | None,
    log_density: Callable[[PyTree], Float[Array, ""]],
) -> Float[Array, "C N D"]:
    """Each draw as a flat position, after `unconstrain` where that is given.

    Raises:
        ValueError: where positions or their densities are not finite.
    """

    @jax.jit
    def flat(draws):
        def one(draw):
            z = unconstrain(draw) if unconstrain else draw
            return ravel(z), log_density(z)

        return jax.lax.map(one, draws)

    leaves = jax.tree.leaves(draws)
    num = leaves[0].shape[:2]
    merged = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), draws)
    positions, log_densities = flat(merged)
    num_lost = int(np.sum(~np.all(np.isfinite(positions), axis=1)))
    if num_lost:
        raise ValueError(
            f"{num_lost} of {len(positions)} draws lie at a bound of their parameters, "
            f"as {positions.dtype} tells numbers: use jax_enable_x64"
        )
    num_zero = int(np.sum(~np.isfinite(np.asarray(log_densities))))
    if num_zero:
        raise ValueError(
            f"log_density is -inf or NaN at {num_zero} of {len(positions)} draws: give "
            "the density that they were drawn from"
        )
    return positions.reshape(*num, -1)


def split_r_hat(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, "D"]:
    """The potential scale reduction of half chains; 1 where all of them agree.

    References:
        Gelman, Carlin, Stern, Dunson, Vehtari & Rubin, Bayesian Data Analysis, 3rd
        edition, 2013, section 11.4.
    """
    half = x.shape[1] // 2
    halves = np.concatenate([x[:, :half], x[:, -half:]]).astype(float)
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    return np.sqrt((half - 1) / half + between / np.maximum(within, 1e-300))
