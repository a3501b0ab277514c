"""Counts: densities that are right to float32 for any counts, and library sizes.

The negative binomial's textbook formula subtracts log-gamma functions of millions from
each other. As in Loader's saddle-point form, what these have in common is left out
before anything is computed. Derivatives are closed forms of the same differences.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, Real

from ais_jax.numerics import LOG_2PI
from ais_jax.types import AnyArray, Scalar

LARGE = 4.0  # from here on Stirling's series is exact to float32
LARGEST_LOG = 60.0  # of a mean and of r, which are finite beyond it


@jax.custom_jvp
def log_poisson(
    log_rate: Float[AnyArray, "*#shape"], x: Real[AnyArray, "*#shape"]
) -> Float[Array, "..."]:
    """Log-probability of each count of a Poisson law, nats.

    Args:
        log_rate: logs of the means.
        x: whole numbers from 0.

    References:
        Loader, Fast and accurate computation of binomial probabilities, 2000.
    """
    log_rate = jnp.minimum(log_rate, LARGEST_LOG)
    rate, some = jnp.exp(log_rate), jnp.maximum(x, 1.0)
    diff = some - rate
    deviance = some * _log1p(diff / rate, jnp.log(some) - log_rate) - diff
    rest = _stirling(some) + 0.5 * (LOG_2PI + jnp.log(some))
    return jnp.where(x > 0.0, -deviance - rest, -rate)


@log_poisson.defjvp
def _derivative(primals, tangents):
    log_rate, x = primals
    push = x - jnp.exp(jnp.minimum(log_rate, LARGEST_LOG))
    return log_poisson(log_rate, x), push * tangents[0]


@jax.custom_jvp
def log_negative_binomial(
    log_mean: Float[AnyArray, "*#shape"],
    log_r: Float[AnyArray, "*#shape"],
    x: Real[AnyArray, "*#shape"],
) -> Float[Array, "..."]:
    """Log-probability of each count, of variance mean + mean^2 / r, nats.

    Args:
        log_mean: logs of the means.
        log_r: logs of the inverse dispersions.
        x: whole numbers from 0.

    References:
        Loader, Fast and accurate computation of binomial probabilities, 2000.
    """
    log_mean, log_r, mean, r = _clipped(log_mean, log_r)
    some = jnp.maximum(x, 1.0)
    log_sum, diff = jnp.logaddexp(log_mean, log_r), some - mean
    log_total = jnp.log(some + r)
    by_count = _log1p(
        r / (some + r) * diff / mean, jnp.log(some) - log_total + log_sum - log_mean
    )
    deviance = some * by_count - r * _log1p(diff / (mean + r), log_total - log_sum)
    rest = _stirling(some) + _stirling(r) - _stirling(some + r)
    rest += 0.5 * (LOG_2PI + jnp.log(some) + jnp.log1p(some / r))
    of_zero = -r * jax.nn.softplus(log_mean - log_r)
    return jnp.where(x > 0.0, -deviance - rest, of_zero)


@partial(log_negative_binomial.defjvp, symbolic_zeros=True)
def _derivatives(primals, tangents):
    log_mean, log_r, mean, r = _clipped(*primals[:2])
    x, (of_mean, of_r, _) = primals[2], tangents
    push = (x - mean) * jax.nn.sigmoid(log_r - log_mean)  # times r / (r + mean)
    total = jnp.zeros_like(push)
    if not isinstance(of_mean, SymbolicZero):
        total += push * of_mean
    if not isinstance(of_r, SymbolicZero):  # a force needs none of it
        log_ratio = jnp.log(x + r) - jnp.logaddexp(log_mean, log_r)
        log_ratio = _log1p((x - mean) / (mean + r), log_ratio)
        beyond = _digamma_less_log(x + r) - _digamma_less_log(r)
        total += (r * (log_ratio + beyond) - push) * of_r
    return log_negative_binomial(*primals), total


def log_zero_inflated(
    log_kept: Float[AnyArray, "*#shape"],
    odds: Float[AnyArray, "*#shape"],
    x: Real[AnyArray, "*#shape"],
) -> Float[Array, "..."]:
    """Log-probability of each count where some are dropped, which leaves 0, nats.

    Args:
        log_kept: log-probability of the count where none is dropped, nats.
        odds: log odds of a dropout.
        x: whole numbers from 0.
    """
    # 1 + change is the probability of 0, which may be near to 1 or to 0
    change = jax.nn.sigmoid(-odds) * jnp.expm1(jnp.where(x > 0.0, 0.0, log_kept))
    log_zero = jnp.where(
        change > -0.5,
        jnp.log1p(jnp.maximum(change, -0.5)),
        jnp.logaddexp(odds, log_kept) - jax.nn.softplus(odds),
    )
    return jnp.where(x > 0.0, log_kept - jax.nn.softplus(odds), log_zero)


def with_library(
    output: Float[Array, "X O"], log_library: Scalar, x: Real[Array, "X"]
) -> Float[Array, "X O"]:
    """The output whose means of kept values add up to a row's library size.

    Args:
        output: of a decoder; the first of a value's numbers is the log of its share.
        log_library: log of the library size, the total of the observed values.
        x: the row's values; those that are NaN have no part in the total.
    """
    is_seen = ~jnp.isnan(x)
    is_seen = is_seen | ~jnp.any(is_seen)
    log_total = jax.nn.logsumexp(output[:, 0], where=is_seen)
    return output.at[:, 0].add(log_library - log_total)


def log_library(x: Real[AnyArray, "N X"]) -> Float[np.ndarray, "N"]:
    """Logs of the rows' totals of observed values, at least one count each."""
    return np.log(np.maximum(np.nansum(x, axis=-1), 1.0)).astype(np.float32)


def _clipped(log_mean, log_r):
    log_mean = jnp.minimum(log_mean, LARGEST_LOG)
    log_r = jnp.clip(log_r, -LARGEST_LOG, LARGEST_LOG)
    return log_mean, log_r, jnp.exp(log_mean), jnp.exp(log_r)


def _log1p(change, log):
    """Log(1 + change): `log`, but where that would cancel."""
    return jnp.where(jnp.abs(change) < 0.5, jnp.log1p(change), log)


def _stirling(y):
    """Log Gamma(y) less Stirling's (y - 1/2) log y - y + log(2 pi) / 2."""
    small, large = jnp.minimum(y, LARGE), jnp.maximum(y, LARGE)
    square = jnp.square(1.0 / large)
    series = 1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))
    exact = gammaln(small) - (small - 0.5) * jnp.log(small) + small - 0.5 * LOG_2PI
    return jnp.where(y < LARGE, exact, series / large)


def _digamma_less_log(y):
    small, large = jnp.minimum(y, LARGE), jnp.maximum(y, LARGE)
    square = jnp.square(1.0 / large)
    series = 1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240))
    series = -0.5 / large - square * series
    return jnp.where(y < LARGE, digamma(small) - jnp.log(small), series)
