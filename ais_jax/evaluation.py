"""Normalising constants and log-likelihoods with errors and bounds, in nats.

Everything takes an `AnnealingPath`, so it serves any pair of densities, and a frozen
`Plan` of temperatures and step sizes, which `tuning` makes in a pilot run.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ais_jax.ais import AISResult, Transition, anneal, reverse_anneal
from ais_jax.batching import chain_keys
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_error,
)
from ais_jax.path import AnnealingPath
from ais_jax.tuning import DEFAULT_TRANSITION, Plan, tune
from ais_jax.types import PRNGKey, Scalar


class LogNormalizer(NamedTuple):
    """An estimate of log Z from K annealed chains.

    Attributes:
        log_z: log of the mean weight, a stochastic lower bound of log Z, nats.
        standard_error: of log_z, from the spread of the weights; NaN for K = 1.
        ess: effective sample size of the weights, between 1 and K.
        log_w: log weights.
        z: the ends of the chains; with log_w they are weighted draws from the target.
        accept_prob: mean acceptance of each move.
        increment_variance: variance over the chains of each increment of the log
            weight.
    """

    log_z: Scalar
    standard_error: Scalar
    ess: Scalar
    log_w: Float[Array, "K"]
    z: Float[Array, "K D"]
    accept_prob: Float[Array, "M"]
    increment_variance: Float[Array, "T"]


class Bounds(NamedTuple):
    """Bidirectional Monte Carlo bounds of log Z, nats.

    Attributes:
        lower: from forward chains; its expectation is at most log Z.
        upper: from reverse chains; its expectation is at least log Z.
        lower_error: standard error of lower over its chains.
        upper_error: of upper over its chains, which share one exact draw.
    """

    lower: Scalar
    upper: Scalar
    lower_error: Scalar
    upper_error: Scalar


def estimate_log_z(
    key: PRNGKey,
    path: AnnealingPath,
    *,
    num_temperatures: int = 100,
    num_chains: int = 100,
    transition: Transition = DEFAULT_TRANSITION,
) -> LogNormalizer:
    """Estimates log Z of a path with a pilot run of its own.

    Args:
        key: of the pilot and of the estimate.
        path: from the base to the target.
        num_temperatures: T; the bias falls with it.
        num_chains: K, independent chains; the standard error falls with it.
        transition: as for `ais.anneal`.
    """
    pilot_key, key = jax.random.split(key)
    plan = tune(
        pilot_key, path, num_temperatures=num_temperatures, transition=transition
    )
    return log_normalizer(key, path, plan, num_chains, transition)


def log_normalizer(
    key: PRNGKey,
    path: AnnealingPath,
    plan: Plan,
    num_chains: int,
    transition: Transition = DEFAULT_TRANSITION,
) -> LogNormalizer:
    """Estimates log Z by K annealed chains of a frozen plan (Eq. 7).

    Chain k depends on the key and on k alone, so adding chains leaves the others as
    they are.

    Args:
        key: not the one that made the plan.
        path: from the base to the target.
        plan: temperatures and step sizes.
        num_chains: K.
        transition: as for `ais.anneal`.
    """
    result = _forward(key, path, plan, num_chains, transition)
    increments = jnp.diff(plan.betas) * result.log_ratio
    return LogNormalizer(
        log_z=log_mean_exp(result.log_w),
        standard_error=log_mean_exp_error(result.log_w),
        ess=effective_sample_size(result.log_w),
        log_w=result.log_w,
        z=result.point.z,
        accept_prob=jnp.mean(result.accept_prob, axis=0),
        increment_variance=jnp.var(increments, axis=0),
    )


def bidirectional_bounds(
    key: PRNGKey,
    path: AnnealingPath,
    z_target: Float[Array, "D"],
    plan: Plan,
    num_chains: int,
    transition: Transition = DEFAULT_TRANSITION,
) -> Bounds:
    """Bounds log Z from both sides (bidirectional Monte Carlo).

    Args:
        key: not the one that made the plan.
        path: from the base to the target.
        z_target: one exact draw from the normalised target, from which all
            reverse chains start; as the z of a simulated pair (x, z) is for p(z|x).
        plan: temperatures and step sizes.
        num_chains: K in each direction.
        transition: as for `ais.anneal`; it must be reversible.

    References:
        Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using
        bidirectional Monte Carlo, 2015.
    """
    forward_key, reverse_key = jax.random.split(key)
    lower = _forward(forward_key, path, plan, num_chains, transition).log_w

    def back(key):
        betas, step_sizes = plan
        return reverse_anneal(key, path, z_target, betas, step_sizes, transition)

    upper = jax.vmap(back)(chain_keys(reverse_key, num_chains)).log_w
    return Bounds(
        lower=log_mean_exp(lower),
        upper=-log_mean_exp(upper),
        lower_error=log_mean_exp_error(lower),
        upper_error=log_mean_exp_error(upper),
    )


def importance_log_weights(
    key: PRNGKey, path: AnnealingPath, num_samples: int, block_size: int = 100
) -> Float[Array, "K"]:
    """Log weights of independent draws from the base.

    Their mean estimates the ELBO (Eq. 2) and their `log_mean_exp` the bound of Eq. 5.

    Args:
        key: sample k depends on it and on k alone.
        path: gives the base and the target.
        num_samples: K.
        block_size: samples drawn at a time, which bounds the memory.

    Returns:
        Nats.
    """

    def log_weight(k):
        z = path.sample_base(jax.random.fold_in(key, k))
        return path.log_target(z) - path.log_base(z)

    indices = jnp.arange(num_samples)
    return jax.lax.map(log_weight, indices, batch_size=min(block_size, num_samples))


def _forward(
    key: PRNGKey,
    path: AnnealingPath,
    plan: Plan,
    num_chains: int,
    transition: Transition,
) -> AISResult:
    """K chains from the base: an `AISResult` with a leading axis of K."""

    def chain(key):
        base_key, move_key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        return anneal(move_key, path, z0, plan.betas, plan.step_sizes, transition)

    return jax.vmap(chain)(chain_keys(key, num_chains))
