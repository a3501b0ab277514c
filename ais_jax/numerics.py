"""Log-probabilities and averages in log space."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

LOG_2PI = math.log(2.0 * math.pi)


@jax.custom_jvp
def _bernoulli_terms(logits, x):
    return x * logits - jax.nn.softplus(logits)


_bernoulli_terms.defjvps(
    lambda g, _, logits, x: g * (x - 0.5 - 0.5 * jnp.tanh(0.5 * logits)),  # sigmoid
    lambda g, _, logits, x: g * logits,
)


def bernoulli_log_prob(
    logits: Float[ArrayLike, "*#batch X"], x: Real[ArrayLike, "*#batch X"]
) -> Float[Array, "..."]:
    """Log-probability of independent Bernoulli variables, summed.

    The derivative with respect to the logits is given in closed form, x - sigmoid,
    which saves automatic differentiation's second pass over the widest layer.

    Args:
        logits: log-odds.
        x: in [0, 1]; values between are the usual cross-entropy.

    Returns:
        Nats.
    """
    return jnp.sum(_bernoulli_terms(logits, x), axis=-1)


def normal_log_prob(
    z: Float[ArrayLike, "*#batch"],
    mean: Float[ArrayLike, "*#batch"],
    scale: Float[ArrayLike, "*#batch"],
) -> Float[Array, "..."]:
    """Log-density of a diagonal normal distribution, summed over the last axis.

    Args:
        z: positions.
        mean: of each coordinate.
        scale: standard deviations.

    Returns:
        Nats.
    """
    terms = -0.5 * jnp.square((z - mean) / scale) - jnp.log(scale) - 0.5 * LOG_2PI
    return jnp.sum(terms, axis=-1)


def standard_normal_log_prob(z: Float[ArrayLike, "*batch D"]) -> Float[Array, "*batch"]:
    """Log-density of N(0, I), summed over the last axis, nats."""
    return jnp.sum(-0.5 * jnp.square(z) - 0.5 * LOG_2PI, axis=-1)


def log_mean_exp(log_w: Float[ArrayLike, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Log of the mean of exp(log_w) along an axis."""
    return jax.nn.logsumexp(log_w, axis=axis) - math.log(log_w.shape[axis])


def effective_sample_size(
    log_w: Float[ArrayLike, "..."], axis: int = -1
) -> Float[Array, "..."]:
    """Effective sample size (sum w)^2 / sum w^2 of K weights, between 1 and K.

    Args:
        log_w: unnormalised log weights.
        axis: the axis of the samples.
    """
    lse = jax.nn.logsumexp
    return jnp.exp(2.0 * lse(log_w, axis=axis) - lse(2.0 * log_w, axis=axis))


def log_mean_exp_error(
    log_w: Float[ArrayLike, "..."], axis: int = -1
) -> Float[Array, "..."]:
    """Standard error of `log_mean_exp` by the delta method.

    It is sd(w) / (mean(w) sqrt(K)) with the unbiased variance, which in terms of the
    effective sample size is sqrt((K / ESS - 1) / (K - 1)). A single weight gives NaN:
    one sample says nothing of its own error.

    Args:
        log_w: independent log weights.
        axis: the axis of the samples.

    Returns:
        Nats.
    """
    num = log_w.shape[axis]
    if num < 2:
        return jnp.full_like(jnp.sum(log_w, axis=axis), jnp.nan)
    ratio = num / effective_sample_size(log_w, axis)
    return jnp.sqrt(jnp.maximum(ratio - 1.0, 0.0) / (num - 1))


def two_sum(
    total: Float[ArrayLike, "..."], term: Float[ArrayLike, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Adds without loss: returns the rounded sum and the rounding error (Knuth).

    Returns:
        (sum, error), with sum + error = total + term exactly.
    """
    result = total + term
    virtual = result - total
    return result, (total - (result - virtual)) + (term - virtual)
