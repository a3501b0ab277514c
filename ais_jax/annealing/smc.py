"""Resampling of K annealed chains whose weights have grown uneven.

This is sequential Monte Carlo. Chains of small weight give way to copies of others, so
that moves are not spent where the target is not. Copies share their first ancestors:
chains are independent by ancestors, not one by one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, ScalarLike

from ais_jax.numerics import effective_sample_size, log_mean_exp, relative_weights
from ais_jax.types import Scalar


def pooled(
    uniform: Scalar,
    before: Float[Array, "K"],
    shares: Float[Array, "K P"],
    own: Int[Array, "K"],
    log_w: Float[Array, "K"],
    lost: Float[Array, "K"],
    resample_below: ScalarLike,
) -> tuple[Int[Array, "K"], Float[Array, "K"], Float[Array, "K"]]:
    """Draws K points from all clouds where the weights are uneven enough.

    Args:
        uniform: a number in [0, 1).
        before: log weights of the chains before the increment, nats.
        shares: log weights of their points after it.
        own: each chain's choice of its own points, among all K x P.
        log_w: log weights after the increment.
        lost: their rounding error.
        resample_below: the share of K of the effective sample size that is due.

    Returns:
        (places among the K x P points, log weights, rounding errors). Chains that are
        drawn anew have the mean weight.
    """
    whole = log_w + lost
    ess = effective_sample_size(whole)
    is_due = (ess > 0.0) & (ess < resample_below * len(log_w))
    chosen = systematic(uniform, (before[:, None] + shares).ravel(), len(log_w))
    mean = jnp.broadcast_to(log_mean_exp(whole), log_w.shape)
    log_w = jnp.where(is_due, mean, log_w)
    return (
        jnp.where(is_due, chosen, own),
        log_w,
        jnp.where(is_due, jnp.zeros_like(lost), lost),
    )


def systematic(uniform: Scalar, log_w: Float[Array, "N"], num: int) -> Int[Array, "K"]:
    """Draws K indices by their weights, equally spaced: index n about K w_n times.

    Where no weight is positive, all are taken as equal; NaN and plus infinity weigh
    zero.

    References:
        Kitagawa, Monte Carlo filter and smoother, 1996.
    """
    log_w = jnp.where(log_w < jnp.inf, log_w, -jnp.inf)  # of NaN too
    log_w = jnp.where(jnp.any(jnp.isfinite(log_w)), log_w, 0.0)
    ends = jnp.cumsum(relative_weights(log_w))
    at = (jnp.arange(num, dtype=ends.dtype) + uniform.astype(ends.dtype)) / num
    places = jnp.searchsorted(ends, at * ends[-1])
    return jnp.minimum(places, len(log_w) - 1).astype(jnp.int32)


def ancestor_log_weights(
    log_w: Float[Array, "K"], ancestors: Int[Array, "K"]
) -> Float[Array, "K"]:
    """The summed weights of each ancestor's chains, minus infinity where none is left.

    Their mean is that of the weights. Ancestors are independent until they meet in
    resampling, so their spread gives the error of the mean.

    References:
        Lee & Whiteley, Variance estimation in the particle filter, 2018.
    """
    largest = jnp.max(log_w)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    sums = jax.ops.segment_sum(jnp.exp(log_w - largest), ancestors, len(log_w))
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
