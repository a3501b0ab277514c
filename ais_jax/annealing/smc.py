"""K annealed chains that are resampled where their weights have grown uneven.

This is sequential Monte Carlo. Chains of small weight give way to copies of others, so
that moves are not spent where the target is not. Copies share their first ancestors:
chains are independent by families, not one by one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ais_jax.annealing.ais import (
    AISResult,
    Transition,
    add_increment,
    check_lengths,
)
from ais_jax.annealing.path import (
    AnnealingPath,
    evaluate,
    log_ratio,
)
from ais_jax.batching import chain_keys
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
    relative_weights,
)
from ais_jax.types import PRNGKey


class Population(NamedTuple):
    """The end of K chains that were annealed together.

    Attributes:
        chains: each array with a leading axis of K. The mean of exp(log_w) estimates Z
            without bias; row k of `accept_prob` and `log_ratio` is that of whichever
            chain stood in place k.
        families: the first ancestor of each chain, by its place.
    """

    chains: AISResult
    families: Int[Array, "K"]


def anneal_population(
    key: PRNGKey,
    path: AnnealingPath,
    z0: Float[Array, "K D"],
    betas: Float[ArrayLike, "T_plus_1"],
    step_sizes: Float[ArrayLike, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
    *,
    resample_below: float,
) -> Population:
    """Runs K chains from the base to the target, resampling them on the way.

    Before a move, where the effective sample size has fallen below a share of K, the
    chains are drawn anew by their weights and all get the mean weight.

    Args:
        key: of the population; no chain depends on its own place alone.
        path: from the base to the target.
        z0: exact draws from the base.
        betas: as for `ais.anneal`.
        step_sizes: as for `ais.anneal`.
        transition: as for `ais.anneal`.
        scale: as for `ais.anneal`.
        resample_below: the share, between 0 (never) and 1.

    Raises:
        ValueError: as `ais.anneal`, and for a share out of range.

    References:
        Del Moral, Doucet & Jasra, Sequential Monte Carlo samplers, 2006.
    """
    check_lengths(betas, step_sizes)
    check_share(resample_below)
    num_moves, deltas = step_sizes.shape[0], jnp.diff(betas)
    add = jax.vmap(add_increment, (0, None, 0))

    def weigh(points, log_w, lost, delta):
        ratios = jax.vmap(log_ratio)(points)
        log_w, error = add(log_w, delta, ratios)
        return log_w, lost + error, ratios

    def body(carry, xs):
        points, families, log_w, lost = carry
        t, delta, beta, step_size, scale = xs
        choose_key, move_key = jax.random.split(jax.random.fold_in(key, t))
        log_w, lost, ratios = weigh(points, log_w, lost, delta)
        chosen, log_w, lost = _resample(choose_key, log_w, lost, resample_below)
        points, families = jax.tree.map(lambda a: a[chosen], (points, families))
        units = path if scale is None else path._replace(scale=scale)
        points, info = jax.vmap(
            lambda key, point: transition(key, units, point, beta, step_size)
        )(chain_keys(move_key, len(log_w)), points)
        return (points, families, log_w, lost), (info.accept_prob, ratios)

    points = jax.vmap(lambda z: evaluate(path, z))(z0)
    zeros = jnp.zeros_like(points.log_target)
    carry = points, jnp.arange(len(z0)), zeros, zeros
    moved = deltas[:num_moves], betas[1:][:num_moves], step_sizes, scale
    carry, (accept_prob, ratios) = jax.lax.scan(
        body, carry, (jnp.arange(num_moves), *moved)
    )
    points, families, log_w, lost = carry
    if num_moves < len(deltas):
        log_w, lost, last = weigh(points, log_w, lost, deltas[-1])
        ratios = jnp.concatenate([ratios, last[None]])
    chains = AISResult(points, log_w + lost, accept_prob.T, ratios.T)
    return Population(chains, families)


def systematic(key: PRNGKey, log_w: Float[Array, "K"]) -> Int[Array, "K"]:
    """K draws of indices by their weights, equally spaced: index k about K w_k times.

    Where no weight is positive, all are taken as equal; NaN and plus infinity weigh
    zero.

    References:
        Kitagawa, Monte Carlo filter and smoother, 1996.
    """
    num = len(log_w)
    log_w = jnp.where(log_w < jnp.inf, log_w, -jnp.inf)  # of NaN too
    log_w = jnp.where(jnp.any(jnp.isfinite(log_w)), log_w, 0.0)
    ends = jnp.cumsum(relative_weights(log_w))
    at = (jnp.arange(num) + jax.random.uniform(key)) / num
    return jnp.minimum(jnp.searchsorted(ends, at * ends[-1]), num - 1)


def family_log_weights(
    log_w: Float[Array, "K"], families: Int[Array, "K"]
) -> Float[Array, "K"]:
    """The summed weights of each family, minus infinity for those that died out.

    Their mean is that of the weights. Families are independent until they meet in
    resampling, so their spread gives the error of the mean.

    References:
        Lee & Whiteley, Variance estimation in the particle filter, 2018.
    """
    largest = jnp.max(log_w)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    sums = jax.ops.segment_sum(jnp.exp(log_w - largest), families, len(log_w))
    return jnp.where(
        sums > 0.0, jnp.log(jnp.where(sums > 0.0, sums, 1.0)), -jnp.inf
    ) + (largest)


def check_share(resample_below: float) -> float:
    """A share of K.

    Raises:
        ValueError: unless it is between 0 and 1.
    """
    if not 0.0 <= resample_below <= 1.0:
        raise ValueError(
            f"resample_below={resample_below}: use a share of the chains between 0 "
            "(never) and 1 (before every move)"
        )
    return resample_below


def _resample(key, log_w, lost, resample_below):
    """Which chains go on, and their weights."""
    whole = log_w + lost
    ess = effective_sample_size(whole)
    is_due = (ess > 0.0) & (ess < resample_below * len(log_w))
    chosen = jnp.where(is_due, systematic(key, whole), jnp.arange(len(log_w)))
    log_w = jnp.where(is_due, log_mean_exp(whole), log_w)
    return chosen, log_w, jnp.where(is_due, 0.0, lost)
