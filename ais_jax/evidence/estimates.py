"""What an estimate of log Z says: its numbers, and what its numbers cannot tell."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from ais_jax.evidence.plan import Plan
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_error,
    pareto_k,
    relative_weights,
)
from ais_jax.types import AnyArray, Scalar, is_traced

LARGEST_K = 0.7  # of the Pareto shape (Vehtari et al., 2024)
SMALLEST_ESS = 25.0  # for the delta method; half of K for fewer than 50 chains
LARGEST_SKEW = 0.7  # of log weights (`right_skew`)
LARGEST_SHIFT = 2.0  # standard errors that log Z may move by where T is doubled
SMALLEST_ACCEPTANCE = 0.2
LARGEST_ACCEPTANCE = 0.99


class Summary(NamedTuple):
    """What K log weights say of log Z.

    Attributes:
        log_z: log of the mean weight, nats.
        standard_error: by the delta method, or that of log-normal weights of the same
            spread where it is larger, where the weights support one. Where they do not
            (ESS below 25 or half of K, or Pareto shape above 0.7), that of a single
            chain: at least s and s^2 / 2, s the standard deviation of the log weights.
            NaN for K = 1, infinite where at most one weight is positive.
        ess: effective sample size.
        pareto_k: as `numerics.pareto_k`.
    """

    log_z: Scalar
    standard_error: Scalar
    ess: Scalar
    pareto_k: Scalar


class LogNormalizer(NamedTuple):
    """An estimate of log Z from K annealed chains; `print` it for a report.

    Attributes:
        log_z: log of the mean weight, a stochastic lower bound of log Z, nats.
        standard_error: of log_z, as in `Summary`, and at least `resolution`.
        ess: effective sample size of the weights, between 1 and K; 0 where all are 0.
            Of the weights of families, where chains were resampled.
        log_w: log weights; minus infinity for chains that met no positive density.
        z: the ends of the chains; with log_w they are weighted draws from the target.
        accept_prob: mean acceptance of each move, over chains of positive weight.
        increment_variance: variance of each increment of the log weight, over chains of
            positive weight.
        pareto_k: shape of the largest weights' distribution: above 0.7 they support no
            standard error. Infinite for fewer than 25 chains, which cannot tell.
        resolution: the spacing of floating-point numbers as large as the log densities,
            to which log Z can be told, nats.
        num_nan: chains that met a density of NaN or plus infinity; they weigh zero.
        num_outside: chains that met a place where the base's density is zero and the
            target's is not.
        num_moves: of all chains together, those of the pilot and of fewer temperatures
            included.
        wanted_error: standard error that was asked for, or infinity.
        shift: standard errors by which log Z moved when temperatures were doubled.
        plan: the frozen schedule; `log_normalizer` takes it again.
    """

    log_z: Scalar
    standard_error: Scalar
    ess: Scalar
    log_w: Float[AnyArray, "K"]
    z: PyTree[Float[AnyArray, "K ..."]]
    accept_prob: Float[AnyArray, "M"]
    increment_variance: Float[AnyArray, "T"]
    pareto_k: Scalar
    resolution: Float[AnyArray, ""]
    num_nan: Int[AnyArray, ""]
    num_outside: Int[AnyArray, ""]
    num_moves: ScalarLike = 0
    wanted_error: ScalarLike = float("inf")
    shift: float | np.floating | Scalar = 0.0
    plan: Plan | None = None

    def __str__(self) -> str:
        """The report, of one estimate or of a batch of them."""
        if is_traced(self):
            return repr(self)
        if np.ndim(self.log_z) == 0:
            return "\n".join(_report(self))
        num = len(self.log_z)
        parts = [jax.tree.map(lambda a, i=i: a[i], self) for i in range(num)]
        return "\n".join(f"[{i}] {part}" for i, part in enumerate(parts))

    @property
    def warnings(self) -> list[str]:
        """What is wrong with one estimate, each with what to do; read on the host."""
        return [text for is_so, text in _warnings(self) if is_so]


class Bounds(NamedTuple):
    """Bidirectional Monte Carlo bounds of log Z, nats.

    Attributes:
        lower: from forward chains; its expectation is at most log Z.
        upper: from reverse chains; its expectation is at least log Z.
        lower_error: standard error of lower over its chains, as in `Summary`.
        upper_error: of upper over its chains, which share one exact draw.
    """

    lower: Scalar
    upper: Scalar
    lower_error: Scalar
    upper_error: Scalar

    def __str__(self) -> str:
        """The bounds in one line."""
        if np.ndim(self.lower) > 0:
            return repr(self)
        return (
            f"{self.lower:.3f} (+- {self.lower_error:.3f}) < log Z < "
            f"{self.upper:.3f} (+- {self.upper_error:.3f}), in expectation"
        )


def right_skew(log_w: Float[np.ndarray, "K"]) -> float:
    """Skewness of the log weights but for their left tail, whose chains are lost.

    The left is cut at three times the spread of the right. Where log weights lean to
    the right, the largest weights are rare, few chains see them, and log Z is too low.
    It is 0 for fewer than 25 live chains, and where all are within 0.1 nats.
    """
    live = log_w[np.isfinite(log_w)].astype(float)
    if len(live) < 25:
        return 0.0
    away = live - np.median(live)
    spread = math.sqrt(np.mean(np.square(away[away > 0.0]))) if np.any(away > 0) else 0
    if spread < 0.05:
        return 0.0
    away = np.maximum(away, -3.0 * spread)
    away -= away.mean()
    return float(np.mean(away**3) / np.mean(away**2) ** 1.5)


def summarize(log_w: Float[Array, "K"]) -> Summary:
    """Log Z of K independent log weights, with an error that is never too small."""
    num, ess, k = len(log_w), effective_sample_size(log_w), pareto_k(log_w)
    is_supported = ess >= min(SMALLEST_ESS, num / 2)
    if num >= 25:
        is_supported &= k <= LARGEST_K
    error = jnp.maximum(log_mean_exp_error(log_w), _log_normal_error(log_w))
    alone = jnp.maximum(error, _error_of_one(log_w))
    return Summary(log_mean_exp(log_w), jnp.where(is_supported, error, alone), ess, k)


def _log_normal_error(log_w):
    """The standard error if the weights are log-normal.

    The delta method sees only weights that came; this infers the larger ones that did
    not from the spread of the log weights above their median. It covers log Z where the
    delta method falls short (a test shows by how much).
    """
    is_live = relative_weights(log_w) > 0.0
    num = jnp.sum(is_live)
    count = jnp.maximum(num, 1).astype(log_w.dtype)
    falling = -jnp.sort(-jnp.where(is_live, log_w, -jnp.inf))
    median = falling[jnp.maximum(num - 1, 0) // 2]
    above = jnp.where(is_live & (log_w > median), log_w - median, 0.0)
    num_above = jnp.maximum(jnp.sum(above > 0.0), 1).astype(log_w.dtype)
    squares = jnp.sum(jnp.square(above)) / num_above
    return jnp.sqrt(jnp.expm1(squares) / count)


def _error_of_one(log_w):
    """An error that a single chain could have: s, or its bias for normal log weights.

    The mean of exp(N(m, s^2)) is exp(m + s^2 / 2), while few draws see exp(m).
    """
    is_live = relative_weights(log_w) > 0.0
    num = jnp.sum(is_live)
    values = jnp.where(is_live, log_w, 0.0)
    mean = jnp.sum(values) / jnp.maximum(num, 1).astype(log_w.dtype)
    squares = jnp.sum(jnp.where(is_live, jnp.square(values - mean), 0.0))
    variance = squares / jnp.maximum(num - 1, 1).astype(log_w.dtype)
    error = jnp.maximum(jnp.sqrt(variance), 0.5 * variance)
    return jnp.where(num > 1, error, jnp.inf)


def _report(result):
    num = np.size(result.log_w)
    num_zero = int(np.sum(np.isneginf(result.log_w)))
    lines = [
        f"log Z = {result.log_z:.4g} +- {result.standard_error:.2g} nats"
        if abs(result.log_z) < 1.0
        else f"log Z = {result.log_z:.3f} +- {result.standard_error:.2g} nats",
        f"  effective sample size {result.ess:.1f} of {num} chains, "
        + (f"Pareto k {result.pareto_k:.2f}" if num >= 25 else "too few for Pareto k"),
    ]
    if np.size(result.accept_prob):
        low, high = np.min(result.accept_prob), np.max(result.accept_prob)
        lines.append(f"  acceptance {low:.2f} to {high:.2f} over the moves")
    if np.isfinite(result.wanted_error):
        lines.append(
            f"  wanted +- {result.wanted_error:.2g} with {num} chains of "
            f"{len(result.increment_variance)} temperatures, {result.num_moves:,} moves"
        )
    if num_zero:
        lines.append(f"  {num_zero} of {num} chains of zero weight")
    return lines + [f"  warning: {text}" for text in result.warnings]


def _warnings(result):
    """(whether it holds, the warning) for each of them."""
    num, ess = np.size(result.log_w), float(result.ess)
    num_nan, resolution = int(result.num_nan), float(result.resolution)
    accept = np.asarray(result.accept_prob)
    low, high = (accept.min(), accept.max()) if accept.size else (0.65, 0.65)
    dtype, is_empty = result.log_w.dtype, ess == 0.0
    return [
        (
            is_empty,
            "no chain has a positive weight, so log Z is not estimated: use a base "
            "that lies within the target's support",
        ),
        (
            result.standard_error > result.wanted_error,
            f"the error wanted, {float(result.wanted_error):.2g}, was not reached: "
            "raise max_moves, or use a base nearer to the target",
        ),
        (
            num_nan > 0,
            f"{num_nan} of {num} chains met a density of NaN or +inf and weigh zero: "
            "return -inf where the density is zero",
        ),
        (
            int(result.num_outside) > 0,
            f"{int(result.num_outside)} of {num} chains met places where the base's "
            "density is zero and the target's is not, so log Z is that of a part of "
            "the target: use a base whose support covers it",
        ),
        (
            float(result.shift) > LARGEST_SHIFT,
            f"log Z moved by {float(result.shift):.1f} standard errors when the "
            "temperatures were doubled: raise max_moves",
        ),
        (
            not is_empty and right_skew(np.asarray(result.log_w)) > LARGEST_SKEW,
            "the log weights lean to the right, so large weights are rare and log Z is "
            "probably too low: use more temperatures, or a base nearer to the target",
        ),
        (num == 1, "one chain says nothing of its own error: use more chains"),
        (
            not is_empty and ess < min(SMALLEST_ESS, num / 2),
            f"an effective sample size of {ess:.1f} supports no standard error, and "
            "log Z is probably too low: use more temperatures or a better base",
        ),
        (
            not is_empty and num >= 25 and not result.pareto_k <= LARGEST_K,
            f"a Pareto k of {float(result.pareto_k):.2f}, above {LARGEST_K}, supports "
            "no standard error: use more temperatures or a base of heavier tails",
        ),
        (
            resolution > max(1e-3, 0.5 * float(result.standard_error)),
            f"{dtype} resolves log densities as large as these to {resolution:.2g} "
            "nats: use jax_enable_x64 or subtract a constant from the log density",
        ),
        (
            low < SMALLEST_ACCEPTANCE,
            f"moves are accepted with probability {low:.2f} at some temperature: "
            "raise num_rounds of the pilot, or num_temperatures",
        ),
        (
            high > LARGEST_ACCEPTANCE,
            f"moves are accepted with probability {high:.2f} at some temperature, so "
            "they may be too short to mix: raise first_step_size or num_rounds",
        ),
    ]


def mean_over(
    is_live: Bool[Array, "K"], values: Float[Array, "K M"]
) -> Float[Array, "M"]:
    """Means of values [K, M] over the chains that are live, or over all if none is."""
    where = (is_live | ~jnp.any(is_live))[:, None]
    total = jnp.sum(jnp.where(where, values, 0.0), axis=0)
    return total / jnp.sum(where)


def variance_over(
    is_live: Bool[Array, "K"], values: Float[Array, "K T"]
) -> Float[Array, "T"]:
    """Variances of values [K, T] over the chains that are live; zero if none is."""
    num = jnp.maximum(jnp.sum(is_live), 1)
    values = jnp.where(is_live[:, None] & jnp.isfinite(values), values, 0.0)
    deviations = values - (jnp.sum(values, axis=0) / num)[None]
    squares = jnp.where(is_live[:, None], jnp.square(deviations), 0.0)
    return jnp.sum(squares, axis=0) / num
