"""Families as laws of gamma variates, whose logarithms float32 holds.

A share of 1 - 1e-20 and a rate of 1e-100 round to 1 and 0 in float32, but their logit
and their logarithm do not. So x, the unbounded parameter, is drawn and weighed itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, gammaln
from jaxtyping import Array, ArrayLike, Float

from ais_jax.types import PRNGKey


class Law(NamedTuple):
    """A family in its unbounded coordinates.

    Attributes:
        sample: a draw of a batch shape.
        log_prob: the log-density of each element of the batch, nats.
    """

    sample: Callable[[PRNGKey, tuple[int, ...]], Float[Array, "..."]]
    log_prob: Callable[[Float[Array, "..."]], Float[Array, "..."]]


def sticks(log_shares: Float[Array, "*B K"]) -> Float[Array, "*B K-1"]:
    """The unbounded x of shares, by their logarithms, up to a constant factor."""
    rest = jax.lax.cumlogsumexp(log_shares, axis=log_shares.ndim - 1, reverse=True)
    x = log_shares[..., :-1] - rest[..., 1:]
    return x + balance(x)


def balance(x: Float[Array, "*B N"]) -> Float[Array, "N"]:
    """What is added to the logits of fractions of a stick: equal shares are at 0."""
    return jnp.log(jnp.arange(x.shape[-1], 0, -1, dtype=x.dtype))


def of_gammas(
    a: ArrayLike,
    b: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    slope: ArrayLike = 1.0,
) -> Law:
    """The law of shift + slope log(A / B) of gamma variates A and B, or of A alone."""
    a, shift, slope = (jnp.asarray(v, float) for v in (a, shift, slope))
    b = None if b is None else jnp.asarray(b, float)

    def sample(key, batch):
        keys = jax.random.split(key)
        log_ratio = jax.random.loggamma(keys[0], a, batch)
        if b is not None:
            log_ratio = log_ratio - jax.random.loggamma(keys[1], b, batch)
        return shift + slope * log_ratio

    def log_prob(x):
        u = (x - shift) / slope
        density = _log_gamma(a, u) if b is None else _logit_beta(a, b, u)
        return density - jnp.log(jnp.abs(slope))

    return Law(sample, log_prob)


def _log_gamma(a, u):
    """The log-density of the logarithm of a gamma variate."""
    return a * u - jnp.exp(u) - gammaln(a)


def _logit_beta(a, b, u):
    """The log-density of the logit of a beta variate."""
    return a * jax.nn.log_sigmoid(u) + b * jax.nn.log_sigmoid(-u) - betaln(a, b)


def _dirichlet(d: Any) -> Law:
    """Independent beta fractions of a stick (Connor & Mosimann, 1969)."""
    a = jnp.asarray(d.concentration, float)
    rest = jnp.flip(jnp.cumsum(jnp.flip(a, axis=-1), axis=-1), axis=-1)

    def sample(key, batch):
        return sticks(jax.random.loggamma(key, a, batch + a.shape[-1:]))

    def log_prob(x):
        return _logit_beta(a[..., :-1], rest[..., 1:], x - balance(x)).sum(-1)

    return Law(sample, log_prob)


def _kumaraswamy(d: Any) -> Law:
    """Of Y whose power a is a beta variate of 1 and b."""
    a, b = (jnp.asarray(v, float) for v in (d.concentration1, d.concentration0))
    powers = of_gammas(1.0, b)

    def sample(key, batch):
        log_y = jax.nn.log_sigmoid(powers.sample(key, batch)) / a
        return log_y - _log1mexp(log_y)

    def log_prob(x):
        log_power = a * jax.nn.log_sigmoid(x)
        complement = _log1mexp(log_power)
        slope = jnp.log(a) + jax.nn.log_sigmoid(-x) - complement
        return powers.log_prob(log_power - complement) + slope

    return Law(sample, log_prob)


def _log1mexp(x):
    """log(1 - exp(x)) of x < 0."""
    x = jnp.minimum(x, -jnp.finfo(x.dtype).tiny)
    is_near = x > -0.7
    near = jnp.log(-jnp.expm1(jnp.where(is_near, x, -0.7)))
    return jnp.where(is_near, near, jnp.log1p(-jnp.exp(jnp.where(is_near, -0.7, x))))


FAMILIES: dict[str, Callable[[Any], Law]] = {
    "Beta": lambda d: of_gammas(d.concentration1, d.concentration0),
    "Dagum": lambda d: of_gammas(
        d.concentration, 1.0, jnp.log(d.scale), 1.0 / d.sharpness
    ),
    "Dirichlet": _dirichlet,
    "Exponential": lambda d: of_gammas(1.0, None, -jnp.log(d.rate)),
    "Gamma": lambda d: of_gammas(d.concentration, None, -jnp.log(d.rate)),
    "HalfCauchy": lambda d: of_gammas(0.5, 0.5, jnp.log(d.scale), 0.5),
    "HalfNormal": lambda d: of_gammas(
        0.5, None, jnp.log(d.scale) + 0.5 * jnp.log(2.0), 0.5
    ),
    "InverseGamma": lambda d: of_gammas(d.concentration, None, jnp.log(d.rate), -1.0),
    "Kumaraswamy": _kumaraswamy,
    "Levy": lambda d: of_gammas(0.5, None, jnp.log(d.scale / 2.0), -1.0),
    "Pareto": lambda d: of_gammas(1.0, d.alpha, jnp.log(d.scale)),
    "Uniform": lambda d: of_gammas(1.0, 1.0),
    "Weibull": lambda d: of_gammas(1.0, None, jnp.log(d.scale), 1.0 / d.concentration),
}
"""By a family's name; x is the logarithm of a positive parameter, or of its distance
from the lower bound, and the logit of one between two bounds."""
