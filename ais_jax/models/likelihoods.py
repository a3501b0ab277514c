"""Likelihoods p(x|z) of what a decoder gives, in nats, with draws and means.

A decoder gives one number or more for each value of x, its output; some likelihoods
have another parameter for each value, its log scale, which does not depend on z.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from ais_jax.checks import lookup
from ais_jax.models.counts import log_negative_binomial, log_poisson, log_zero_inflated
from ais_jax.numerics import bernoulli_log_prob, normal_log_prob
from ais_jax.types import AnyArray, is_traced

LEVELS = 255  # of an 8-bit image above 0
SMALLEST_SCALE = 0.01  # of the normal: constant pixels would have infinite density
SMALLEST_LOG_SCALE = -7.0  # of the discretized logistic
FIRST_DROPOUT = -2.0  # log odds of a dropout before training
Start = tuple[Float[Array, "X"] | Float[Array, "X O"], Float[Array, "X"] | None]


class Likelihood(NamedTuple):
    """Independent values of x given the decoder's outputs.

    Attributes:
        output: the name of the decoder's output.
        has_scale: whether each value has a log scale; else None stands for it.
        is_count: whether values are whole numbers from 0, unscaled.
        values: the values that have a probability, in words.
        is_value: whether values have one, elementwise.
        log_prob: (output, log_scale, x) -> summed over the values, nats.
        sample: (key, output, log_scale) -> x.
        mean: output -> the mean of x.
        start: data f32[N, X] -> (output, log_scale) of the mean image.
        encoder_input: x -> what the encoder's network sees of it.
        num_outputs: O of a value; the decoder's output is f32[X, O] where O > 1.
        has_library: whether networks scale the means to a row's library size
            (`counts.with_library`), the log of which ends the row.
    """

    output: str
    has_scale: bool
    is_count: bool
    values: str
    is_value: Callable[[np.ndarray], np.ndarray]
    log_prob: Callable[..., Float[Array, ""]]
    sample: Callable[..., Float[Array, "X"]]
    mean: Callable[[Float[Array, "X"]], Float[Array, "X"]]
    start: Callable[[np.ndarray], Start]
    encoder_input: Callable[[AnyArray], Array]
    num_outputs: int = 1
    has_library: bool = False


def bernoulli() -> Likelihood:
    """Binary values; data between 0 and 1 are their means, drawn at each visit."""

    def sample(key, logits, _):
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(logits.dtype)

    return Likelihood(
        output="logits",
        has_scale=False,
        is_count=False,
        values="numbers from 0 to 1",
        is_value=lambda x: (x >= 0.0) & (x <= 1.0),
        log_prob=lambda logits, _, x: bernoulli_log_prob(logits, x),
        sample=sample,
        mean=jax.nn.sigmoid,
        start=lambda data: (data_mean_bias(data), None),
        encoder_input=_as_it_is,
    )


def gaussian(smallest: float = SMALLEST_SCALE) -> Likelihood:
    """Real values, whose standard deviations are learned.

    They are `smallest` + exp(log_scale).
    """

    def scale(log_scale):
        return smallest + jnp.exp(log_scale)

    def sample(key, mean, log_scale):
        return mean + scale(log_scale) * jax.random.normal(key, mean.shape, mean.dtype)

    return Likelihood(
        output="mean",
        has_scale=True,
        is_count=False,
        values="real numbers",
        is_value=np.isfinite,
        log_prob=lambda mean, s, x: normal_log_prob(x, mean, scale(s)),
        sample=sample,
        mean=_as_it_is,
        start=_start_at_moments,
        encoder_input=_as_it_is,
    )


def discretized_logistic() -> Likelihood:
    """8-bit intensities k / 255: a logistic variable's chance of rounding to them.

    References:
        Salimans, Karpathy, Chen & Kingma, PixelCNN++, 2017, Section 2.1.
    """

    def scale(log_scale):
        return jnp.exp(jnp.maximum(log_scale, SMALLEST_LOG_SCALE))

    def log_prob(mean, log_scale, x):
        above = (x + 0.5 / LEVELS - mean) / scale(log_scale)
        below = (x - 0.5 / LEVELS - mean) / scale(log_scale)
        width = 1.0 / (LEVELS * scale(log_scale))
        # log(sigmoid(above) - sigmoid(below)) without cancellation
        inside = (
            jax.nn.log_sigmoid(above)
            + jax.nn.log_sigmoid(-below)
            + jnp.log(-jnp.expm1(-width))
        )
        first, last = jax.nn.log_sigmoid(above), jax.nn.log_sigmoid(-below)
        is_first, is_last = x < 0.5 / LEVELS, x > 1.0 - 0.5 / LEVELS
        return jnp.sum(jnp.where(is_first, first, jnp.where(is_last, last, inside)))

    def sample(key, mean, log_scale):
        noise = jax.random.logistic(key, mean.shape, mean.dtype)
        x = jnp.round(LEVELS * (mean + scale(log_scale) * noise))
        return jnp.clip(x, 0.0, LEVELS) / LEVELS

    return Likelihood(
        output="mean",
        has_scale=True,
        is_count=False,
        values="8-bit intensities k/255",
        is_value=lambda x: (x >= 0) & (x <= 1) & (abs(x * LEVELS % 1 - 0.5) > 0.49),
        log_prob=log_prob,
        sample=sample,
        mean=lambda mean: jnp.clip(mean, 0.0, 1.0),
        start=_start_at_moments,
        encoder_input=_as_it_is,
    )


def poisson() -> Likelihood:
    """Counts, whose log rates the decoder gives."""

    def log_prob(log_rate, _, x):
        return jnp.sum(log_poisson(log_rate, x))

    def sample(key, log_rate, _):
        return jax.random.poisson(key, jnp.exp(log_rate)).astype(log_rate.dtype)

    return _counts("log_rate", False, log_prob, sample)


def negative_binomial() -> Likelihood:
    """Counts of variance mean + mean^2 / r: their log means, and log r as log scale."""

    def log_prob(log_mean, log_r, x):
        return jnp.sum(log_negative_binomial(log_mean, log_r, x))

    def sample(key, log_mean, log_r):
        rate_key, key = jax.random.split(key)
        log_gamma = jax.random.loggamma(rate_key, jnp.exp(log_r))
        rate = jnp.exp(log_gamma - log_r + log_mean)
        return jax.random.poisson(key, rate).astype(log_mean.dtype)

    return _counts("log_mean", True, log_prob, sample)


def zero_inflated_negative_binomial() -> Likelihood:
    """Counts that are dropped, or else of the negative binomial, as in scVI.

    A value's outputs are its log mean where it is kept, and the log odds of a dropout,
    which leaves 0. Log r is the log scale.

    References:
        Lopez, Regier, Cole, Jordan & Yosef, Deep Generative Modeling for Single-Cell
        Transcriptomics, 2018.
    """
    kept = negative_binomial()

    def log_prob(output, log_r, x):
        log_kept = log_negative_binomial(output[..., 0], log_r, x)
        return jnp.sum(log_zero_inflated(log_kept, output[..., 1], x))

    def sample(key, output, log_r):
        drop_key, key = jax.random.split(key)
        is_kept = jax.random.bernoulli(drop_key, jax.nn.sigmoid(-output[..., 1]))
        return jnp.where(is_kept, kept.sample(key, output[..., 0], log_r), 0.0)

    def start(data):
        log_mean, log_r = kept.start(data)
        odds = jnp.full_like(log_mean, FIRST_DROPOUT)
        return jnp.stack([log_mean + jax.nn.softplus(odds), odds], axis=-1), log_r

    return kept._replace(
        log_prob=log_prob,
        sample=sample,
        mean=lambda output: jnp.exp(output[..., 0] - jax.nn.softplus(output[..., 1])),
        start=start,
        num_outputs=2,
        has_library=True,
    )


def of_observed(family: Likelihood) -> Likelihood:
    """A likelihood of the observed values alone: those of x that are not NaN.

    Its encoder's input is a pair for each value: what the network saw of it before, 0
    where it is missing, and whether it is observed.

    References:
        Mattei & Frellsen, MIWAE: Deep Generative Modelling and Imputation of Incomplete
        Data Sets, 2019.
    """

    def log_prob(output, log_scale, x):
        is_observed, filled = ~jnp.isnan(x), jnp.nan_to_num(x)
        columns = jax.tree.map(lambda a: a[:, None], (output, log_scale, filled))
        each = jax.vmap(family.log_prob)(*columns)
        return jnp.sum(jnp.where(is_observed, each, 0.0))

    def encoder_input(x):
        seen = family.encoder_input(jnp.nan_to_num(x))
        return jnp.stack([seen, ~jnp.isnan(x)], axis=-1).ravel()

    return family._replace(log_prob=log_prob, encoder_input=encoder_input)


def data_mean_bias(
    images: Real[Array | np.ndarray, "N X"], smallest: float = 0.001
) -> Float[Array, "X"]:
    """Logits of the clipped mean image, a start for the decoder's output bias.

    Args:
        images: intensities in [0, 1].
        smallest: the mean is clipped to [smallest, 1 - smallest].

    Raises:
        ValueError: an intensity is outside [0, 1] or NaN; not checked under `jit`.

    References:
        Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016 (code).
    """
    if not is_traced(images):
        low, high = jnp.min(images), jnp.max(images)
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"images has intensities from {low} to {high}: they lie in [0, 1]; "
                "divide levels 0 to 255 by 255"
            )
    mean = jnp.clip(jnp.mean(images, axis=0), smallest, 1.0 - smallest)
    return jnp.log(mean) - jnp.log1p(-mean)


def _counts(output, has_scale, log_prob, sample):
    def start(data):
        mean = jnp.log(jnp.maximum(jnp.mean(data, axis=0), 0.01))
        return mean, jnp.zeros_like(mean) if has_scale else None

    return Likelihood(
        output=output,
        has_scale=has_scale,
        is_count=True,
        values="whole numbers from 0",
        is_value=lambda x: (x >= 0.0) & (x % 1.0 == 0.0),
        log_prob=log_prob,
        sample=sample,
        mean=jnp.exp,
        start=start,
        encoder_input=jnp.log1p,
    )


def _start_at_moments(data):
    scale = jnp.maximum(jnp.std(data, axis=0), SMALLEST_SCALE)
    return jnp.mean(data, axis=0), jnp.log(scale)


def _as_it_is(x):
    return x


LIKELIHOODS = {
    make.__name__: make()
    for make in (
        bernoulli,
        gaussian,
        discretized_logistic,
        poisson,
        negative_binomial,
        zero_inflated_negative_binomial,
    )
}


def check_values(name: str, x: Real[np.ndarray, "..."]) -> None:
    """Refuses values that have no probability.

    Args:
        name: one of `LIKELIHOODS`.
        x: the values.

    Raises:
        ValueError: naming the likelihood, a value and what to do.
    """
    likelihood = lookup("likelihood", name, LIKELIHOODS)
    bad = x[~likelihood.is_value(x)]
    if bad.size:
        raise ValueError(
            f"the value {bad.flat[0]:g} does not fit likelihood={name!r}, which takes "
            f"{likelihood.values}: scale the data, or choose another of "
            f"{', '.join(LIKELIHOODS)}"
        )
