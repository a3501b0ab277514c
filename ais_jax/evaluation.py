"""Normalising constants and log-likelihoods with errors and bounds, in nats.

Everything takes an `AnnealingPath`, so it serves any pair of densities, and a frozen
`Plan` of temperatures and step sizes, which `tuning` makes in a pilot run.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ais_jax.ais import anneal, reverse_anneal
from ais_jax.batching import chain_keys
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_error,
)
from ais_jax.tuning import DEFAULT_TRANSITION, tune


class LogNormalizer(NamedTuple):
    """An estimate of log Z from K annealed chains.

    Attributes:
        log_z: f32[], log of the mean weight, a stochastic lower bound of log Z.
        standard_error: f32[], of log_z, from the spread of the weights; NaN for K = 1.
        ess: f32[], effective sample size of the weights, between 1 and K.
        log_w: f32[K], log weights.
        z: f32[K, D], the ends of the chains; with log_w they are weighted draws from
            the target.
        accept_prob: f32[M], mean acceptance of each move.
        increment_variance: f32[T], variance over the chains of each increment of the
            log weight.
    """

    log_z: jax.Array
    standard_error: jax.Array
    ess: jax.Array
    log_w: jax.Array
    z: jax.Array
    accept_prob: jax.Array
    increment_variance: jax.Array


class Bounds(NamedTuple):
    """Bidirectional Monte Carlo bounds of log Z.

    Attributes:
        lower: f32[], from forward chains; its expectation is at most log Z.
        upper: f32[], from reverse chains; its expectation is at least log Z.
        lower_error: f32[], standard error of lower over its chains.
        upper_error: f32[], of upper over its chains, which share one exact draw.
    """

    lower: jax.Array
    upper: jax.Array
    lower_error: jax.Array
    upper_error: jax.Array


def estimate_log_z(
    key, path, *, num_temperatures=100, num_chains=100, transition=DEFAULT_TRANSITION
):
    """Estimates log Z of a path with a pilot run of its own.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        num_temperatures: T; the bias falls with it.
        num_chains: K, independent chains; the standard error falls with it.
        transition: as for `ais.anneal`.

    Returns:
        A `LogNormalizer`.
    """
    pilot_key, key = jax.random.split(key)
    plan = tune(
        pilot_key, path, num_temperatures=num_temperatures, transition=transition
    )
    return log_normalizer(key, path, plan, num_chains, transition)


def log_normalizer(key, path, plan, num_chains, transition=DEFAULT_TRANSITION):
    """Estimates log Z by K annealed chains of a frozen plan (Eq. 7).

    Chain k depends on the key and on k alone, so adding chains leaves the others as
    they are.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        plan: a `Plan`.
        num_chains: K.
        transition: as for `ais.anneal`.

    Returns:
        A `LogNormalizer`.
    """
    result = _forward(key, path, plan, num_chains, transition)
    increments = jnp.diff(plan.betas) * result.log_ratio
    return LogNormalizer(
        log_mean_exp(result.log_w),
        log_mean_exp_error(result.log_w),
        effective_sample_size(result.log_w),
        result.log_w,
        result.point.z,
        jnp.mean(result.accept_prob, axis=0),
        jnp.var(increments, axis=0),
    )


def bidirectional_bounds(
    key, path, z_target, plan, num_chains, transition=DEFAULT_TRANSITION
):
    """Bounds log Z from both sides (bidirectional Monte Carlo).

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        z_target: f32[D], one exact draw from the normalised target, from which all
            reverse chains start; as the z of a simulated pair (x, z) is for p(z|x).
        plan: a `Plan`.
        num_chains: K in each direction.
        transition: as for `ais.anneal`; it must be reversible.

    Returns:
        `Bounds`.

    References:
        Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using
        bidirectional Monte Carlo, 2015.
    """
    forward_key, reverse_key = jax.random.split(key)
    lower = _forward(forward_key, path, plan, num_chains, transition).log_w
    back = lambda key: reverse_anneal(
        key, path, z_target, plan.betas, plan.step_sizes, transition
    )
    upper = jax.vmap(back)(chain_keys(reverse_key, num_chains)).log_w
    return Bounds(
        log_mean_exp(lower),
        -log_mean_exp(upper),
        log_mean_exp_error(lower),
        log_mean_exp_error(upper),
    )


def importance_log_weights(key, path, num_samples, block_size=100):
    """Log weights of independent draws from the base.

    Their mean estimates the ELBO (Eq. 2) and their `log_mean_exp` the bound of Eq. 5.

    Args:
        key: PRNG key.
        path: an `AnnealingPath`.
        num_samples: K.
        block_size: samples drawn at a time, which bounds the memory.

    Returns:
        f32[K], nats.
    """

    def log_weight(k):
        z = path.sample_base(jax.random.fold_in(key, k))
        return path.log_target(z) - path.log_base(z)

    indices = jnp.arange(num_samples)
    return jax.lax.map(log_weight, indices, batch_size=min(block_size, num_samples))


def _forward(key, path, plan, num_chains, transition):
    """K chains from the base: an `AISResult` with a leading axis of K."""

    def chain(key):
        base_key, move_key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        return anneal(move_key, path, z0, plan.betas, plan.step_sizes, transition)

    return jax.vmap(chain)(chain_keys(key, num_chains))
