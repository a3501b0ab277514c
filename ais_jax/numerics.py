"""Log-probabilities and averages in log space."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ais_jax.types import AnyArray

LOG_2PI = math.log(2.0 * math.pi)


@jax.custom_jvp
def _bernoulli_terms(logits, x):
    return x * logits - jax.nn.softplus(logits)


_bernoulli_terms.defjvps(
    lambda g, _, logits, x: g * (x - 0.5 - 0.5 * jnp.tanh(0.5 * logits)),  # sigmoid
    lambda g, _, logits, x: g * logits,
)


def bernoulli_log_prob(
    logits: Float[AnyArray, "*#batch X"], x: Real[AnyArray, "*#batch X"]
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
    z: Float[AnyArray, "*#batch"],
    mean: Float[AnyArray, "*#batch"] | float,
    scale: Float[AnyArray, "*#batch"] | float,
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


def standard_normal_log_prob(z: Float[AnyArray, "*batch D"]) -> Float[Array, "*batch"]:
    """Log-density of N(0, I), summed over the last axis, nats."""
    return jnp.sum(-0.5 * jnp.square(z) - 0.5 * LOG_2PI, axis=-1)


def log_mean_exp(log_w: Float[AnyArray, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Log of the mean of exp(log_w) along an axis."""
    return jax.nn.logsumexp(log_w, axis=axis) - math.log(log_w.shape[axis])


def effective_sample_size(
    log_w: Float[AnyArray, "..."], axis: int = -1
) -> Float[Array, "..."]:
    """Effective sample size (sum w)^2 / sum w^2 of K weights, between 1 and K.

    It is 0 where all weights are zero, and does not move with a constant that is added
    to the log weights.

    Args:
        log_w: unnormalised log weights.
        axis: the axis of the samples.
    """
    w = relative_weights(log_w, axis)
    # The largest weight is 1, so the sum of squares is below that only where all are 0.
    squares = jnp.maximum(jnp.sum(jnp.square(w), axis=axis), 1.0)
    return jnp.square(jnp.sum(w, axis=axis)) / squares


def relative_weights(
    log_w: Float[AnyArray, "..."], axis: int = -1
) -> Float[Array, "..."]:
    """Weights as shares of the largest one along an axis."""
    largest = jnp.max(log_w, axis=axis, keepdims=True)
    return jnp.exp(log_w - jnp.where(jnp.isfinite(largest), largest, 0.0))


def log_mean_exp_error(
    log_w: Float[AnyArray, "..."], axis: int = -1
) -> Float[Array, "..."]:
    """Standard error of `log_mean_exp` by the delta method.

    It is sd(w) / (mean(w) sqrt(K)) with the unbiased variance. In terms of the
    effective sample size that is sqrt((K / ESS - 1) / (K - 1)): at most one nat,
    however far the estimate is off. A single weight gives NaN, since one sample says
    nothing of its own error. Weights that are all zero give infinity.

    Args:
        log_w: independent log weights.
        axis: the axis of the samples.

    Returns:
        Nats.
    """
    num = log_w.shape[axis]
    if num < 2:
        return jnp.full_like(jnp.sum(log_w, axis=axis), jnp.nan)
    w = relative_weights(log_w, axis)
    mean = jnp.mean(w, axis=axis)
    error = jnp.std(w, axis=axis, ddof=1) / math.sqrt(num)
    return jnp.where(mean > 0.0, error / jnp.where(mean > 0.0, mean, 1.0), jnp.inf)


def pareto_k(log_w: Float[AnyArray, "K"]) -> Float[Array, ""]:
    """Shape of the generalized Pareto distribution of the largest weights.

    Above 0.5 the variance of the weights does not exist, and above 0.7 their mean
    converges too slowly for an error to be stated.

    Args:
        log_w: independent log weights.

    Returns:
        The shape, 0 where the largest weights are equal; infinity for fewer than
        25 weights, which are too few to tell, and where all are zero.

    References:
        Zhang & Stephens, A new and efficient estimation method for the generalized
        Pareto distribution, 2009; Vehtari, Simpson, Gelman, Yao & Gabry, Pareto
        smoothed importance sampling, 2024.
    """
    num = log_w.shape[0]
    num_tail = min(num // 5, math.ceil(3.0 * math.sqrt(num)))
    if num_tail < 5:
        return jnp.full_like(log_w[0], jnp.inf)
    w = jnp.sort(relative_weights(log_w))
    excess = w[-num_tail:] - w[-num_tail - 1]
    noise = 4.0 * jnp.finfo(w.dtype).eps
    k = _pareto_shape(excess / jnp.maximum(excess[-1], noise))
    k = jnp.where(excess[-1] > noise, k, 0.0)
    return jnp.where(w[-1] > 0.0, k, jnp.inf)


def _pareto_shape(x):
    """The shape, from rising exceedances whose last is 1, with a weak prior at 0.5."""
    num = x.shape[0]
    num_grid = 30 + math.isqrt(num)
    quartile = jnp.maximum(x[int(num / 4 + 0.5) - 1], 1e-6)
    grid = 1.0 - jnp.sqrt(num_grid / (jnp.arange(1, num_grid + 1, dtype=x.dtype) - 0.5))
    b = 1.0 + grid / (3.0 * quartile)
    b = jnp.where(jnp.abs(b) < 1e-6, 1e-6, b)
    shapes = jnp.mean(jnp.log1p(-b[:, None] * x[None]), axis=1)
    profile = num * (jnp.log(-b / shapes) - shapes - 1.0)
    b = jnp.sum(jax.nn.softmax(profile) * b)
    return (num * jnp.mean(jnp.log1p(-b * x)) + 10.0 * 0.5) / (num + 10.0)


def two_sum(
    total: Float[Array, "..."], term: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Adds without loss: returns the rounded sum and the rounding error (Knuth).

    Returns:
        (sum, error), with sum + error = total + term exactly.
    """
    result = total + term
    virtual = result - total
    return result, (total - (result - virtual)) + (term - virtual)
