"""Annealed importance sampling, forward and reverse (Eq. 7), for one chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key, ScalarLike, UInt32

from ais_jax.annealing.path import (
    AnnealingPath,
    Point,
    evaluate,
    log_ratio,
)
from ais_jax.annealing.schedules import check_betas
from ais_jax.numerics import two_sum
from ais_jax.types import (
    PRNGKey,
    Scalar,
)

Transition = Callable[
    [PRNGKey, AnnealingPath, Point, ScalarLike, ScalarLike], tuple[Point, Any]
]
"""(key, path, point, beta, step_size) -> (point, info), with `info.accept_prob`."""


class AISResult(NamedTuple):
    """The end of one annealed chain.

    Attributes:
        point: the last one.
        log_w: the log importance weight, nats.
        accept_prob: the acceptance probability of each move.
        log_ratio: log target - log base where each weight increment was taken; the
            increments are `diff(betas) * log_ratio`. NaN and plus infinity, which
            no density has there, weigh zero.
    """

    point: Point
    log_w: Scalar
    accept_prob: Float[Array, "M"]
    log_ratio: Float[Array, "T"]


def anneal(
    key: PRNGKey,
    path: AnnealingPath,
    z0: Float[Array, "D"],
    betas: Float[ArrayLike, "T_plus_1"],
    step_sizes: Float[ArrayLike, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> AISResult:
    """Runs one chain from the base to the target and weighs it (Eq. 7).

    E[exp(log_w)] is the target's normalising constant Z, for any schedule and any
    transitions that leave their f_beta invariant. T = 1 without a move is importance
    sampling. A chain of M moves of L leapfrog steps evaluates the target 1 + L*M times.

    Args:
        key: of this chain.
        path: from the base to the target.
        z0: an exact draw from the base.
        betas: rising from 0 to 1.
        step_sizes: one for each move at betas[1], ..., betas[M]. M = T makes
            the last move, at beta = 1, which leaves the weight as it is; M = T - 1
            leaves it out.
        transition: for instance `hmc_step` with its `num_leapfrog` bound.
        scale: of the path at each move, in place of its one `scale`.

    Raises:
        ValueError: where the number of step sizes is neither T nor T - 1, or betas do
            not rise from 0 to 1.

    References:
        Neal, Annealed importance sampling, 2001; Ding & Freedman, 2020, Eq. 7.
    """
    check_lengths(betas, step_sizes)
    return _run(key, path, z0, betas, step_sizes, transition, scale)


def reverse_anneal(
    key: PRNGKey,
    path: AnnealingPath,
    z_target: Float[Array, "D"],
    betas: Float[ArrayLike, "T_plus_1"],
    step_sizes: Float[ArrayLike, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> AISResult:
    """Runs one chain from the target back to the base and weighs it.

    The same function on the flipped schedule: each move is made at the temperature,
    and with the step size, that it has in `anneal`. E[exp(log_w)] = 1 / Z where
    `z_target` is an exact draw from the normalised target, so -log_w bounds log Z from
    above in expectation.

    Args:
        key: of this chain.
        path: as for `anneal`.
        z_target: an exact draw from the target.
        betas: rising from 0 to 1, as for `anneal`.
        step_sizes: as for `anneal`; the final move's is not used.
        transition: as for `anneal`; it must be reversible, as HMC is.
        scale: as for `anneal`.

    Returns:
        The chain, whose log_w estimates -log Z.

    Raises:
        ValueError: as for `anneal`.

    References:
        Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using
        bidirectional Monte Carlo, 2015.
    """
    check_lengths(betas, step_sizes)
    num = betas.shape[0] - 2  # a move at beta = 1 changes no weight
    inner = step_sizes[:num][::-1]
    scale = None if scale is None else scale[:num][::-1]
    return _run(key, path, z_target, betas[::-1], inner, transition, scale)


def anneal_both_ways(
    keys: Key[Array, "2 K"] | UInt32[Array, "2 K words"],
    path: AnnealingPath,
    z: Float[Array, "2 K D"],
    betas: Float[ArrayLike, "T_plus_1"],
    step_sizes: Float[ArrayLike, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> AISResult:
    """K chains of `anneal` and K of `reverse_anneal`, which are compiled once.

    Args:
        keys: of the chains.
        path: as for `anneal`.
        z: K draws from the base, then K from the target.
        betas: as for `anneal`.
        step_sizes: as for `reverse_anneal`: no chain makes the final move.
        transition: as for `reverse_anneal`.
        scale: as for `anneal`.

    Returns:
        The chains, with leading axes of 2 and K.

    Raises:
        ValueError: as for `anneal`.
    """
    check_lengths(betas, step_sizes)
    inner = jax.tree.map(lambda a: a[: betas.shape[0] - 2], (step_sizes, scale))
    ways = jax.tree.map(lambda a: jnp.stack([a, a[::-1]]), (betas, *inner))

    def run(way):
        keys, z, (betas, step_sizes, scale) = way

        def chain(key, z):
            return _run(key, path, z, betas, step_sizes, transition, scale)

        return jax.vmap(chain)(keys, z)

    return jax.lax.map(run, (keys, z, ways))


def check_lengths(
    betas: Float[ArrayLike, "T_plus_1"], step_sizes: Float[ArrayLike, "M"]
) -> None:
    """Checks that temperatures and moves fit together.

    Raises:
        ValueError: as `anneal`.
    """
    if not isinstance(betas, jax.core.Tracer):
        check_betas(betas)
    num_temperatures, num_moves = betas.shape[0] - 1, step_sizes.shape[0]
    if num_moves not in (num_temperatures, num_temperatures - 1):
        raise ValueError(
            f"{num_moves} step sizes for {num_temperatures} temperatures: give "
            f"{num_temperatures} (with the final move) or {num_temperatures - 1}"
        )


def add_increment(
    log_w: Scalar, delta: ScalarLike, ratio: Scalar
) -> tuple[Scalar, Scalar]:
    """Adds delta * ratio to a log weight: the sum and its rounding error, nats.

    A point of zero target density has log_ratio = -inf: its weight is zero, and an
    increment of width zero leaves it as it is. So does one of no density at all (NaN,
    or plus infinity).
    """
    is_finite = jnp.isfinite(ratio)
    increment = delta * jnp.where(is_finite, ratio, 0.0)
    is_sound = jnp.isfinite(log_w) & (is_finite | (delta == 0.0))
    total, error = two_sum(jnp.where(is_sound, log_w, 0.0), increment)
    zero = jnp.where(delta < 0.0, jnp.inf, -jnp.inf)  # of a reverse chain: of 1 / w
    lost = jnp.where(jnp.isfinite(log_w), zero, log_w)
    return jnp.where(is_sound, total, lost), jnp.where(is_sound, error, 0.0)


def _run(key, path, z, betas, step_sizes, transition, scale):
    """Weighs, then moves, at each temperature after the first."""
    num_moves = step_sizes.shape[0]
    deltas = jnp.diff(betas)

    def body(carry, xs):
        point, log_w, lost = carry
        t, delta, beta, step_size, scale = xs
        units = path if scale is None else path._replace(scale=scale)
        ratio = log_ratio(point)
        log_w, error = add_increment(log_w, delta, ratio)  # at the old point (Eq. 7)
        point, info = transition(
            jax.random.fold_in(key, t), units, point, beta, step_size
        )
        return (point, log_w, lost + error), (info.accept_prob, ratio)

    point = evaluate(path, z)
    zero = jnp.zeros_like(point.log_target)
    moved = deltas[:num_moves], betas[1:][:num_moves], step_sizes, scale
    xs = (jnp.arange(num_moves), *moved)
    (point, log_w, lost), (accept_prob, ratios) = jax.lax.scan(
        body, (point, zero, zero), xs
    )
    if num_moves < deltas.shape[0]:
        ratio = log_ratio(point)
        log_w, error = add_increment(log_w, deltas[-1], ratio)
        lost, ratios = lost + error, jnp.append(ratios, ratio)
    return AISResult(point, log_w + lost, accept_prob, ratios)
