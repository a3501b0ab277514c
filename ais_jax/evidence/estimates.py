"""What an estimate of log Z says: its numbers, and what its numbers cannot tell."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from ais_jax.checks import check_count
from ais_jax.evidence import stepping
from ais_jax.evidence.arviz_objects import to_arviz
from ais_jax.evidence.plan import Plan
from ais_jax.evidence.reports import LARGEST_K, SMALLEST_ESS, report, table, warnings_of
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_mean_exp_error,
    pareto_k,
    relative_weights,
)
from ais_jax.types import AnyArray, PRNGKey, Scalar, is_traced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERGENT = 1e-4  # acceptance of a move below which its energy has gone astray


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


class Draws(NamedTuple):
    """Draws from the target, of equal weights.

    Attributes:
        z: the user's parameters, each with a leading axis of draws.
        ess: so many independent draws give a mean as well. Autocorrelations would
            tell more: they do not see that chains are repeated.
        log_w: log weights of the chains that they end, nats.
        log_target: at the draws, in the path's coordinates, nats.
    """

    z: PyTree[Float[np.ndarray, "N ..."]]
    ess: float
    log_w: Float[np.ndarray, "N"]
    log_target: Float[np.ndarray, "N"]


class LogNormalizer(NamedTuple):
    """An estimate of log Z from K annealed chains; `print` it for a report.

    Attributes:
        log_z: log of the mean weight, a stochastic lower bound of log Z, nats.
        standard_error: of log_z over the chains, and at least `resolution`.
        ess: effective sample size of the weights, between 1 and K; 0 where all are 0.
            Of the weights of families, where chains were resampled.
        log_w: log weights; minus infinity for chains that met no positive density.
        z: the ends of the chains; with log_w they are weighted draws from the target.
        log_target: at the ends, in the path's coordinates, nats.
        accept_prob: mean acceptance of each move, over chains of positive weight.
        divergent: share of these chains whose move is accepted with a probability
            below 1e-4, at each move.
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
        digest: of the data, as `digests.digest`, for `compare`; 0 where unknown.
        log_z_at: log Z of the path at plan.betas[1:], nats. From a fitted base
            (plan.base) it is not that of the tempered posterior: use fit_base=False.
            None for chains that were resampled.
        error_at: standard errors of log_z_at.
    """

    log_z: Scalar
    standard_error: Scalar
    ess: Scalar
    log_w: Float[AnyArray, "K"]
    z: PyTree[Float[AnyArray, "K ..."]]
    log_target: Float[AnyArray, "K"]
    accept_prob: Float[AnyArray, "M"]
    divergent: Float[AnyArray, "M"]
    increment_variance: Float[AnyArray, "T"]
    pareto_k: Scalar
    resolution: Float[AnyArray, ""]
    num_nan: Int[AnyArray, ""]
    num_outside: Int[AnyArray, ""]
    num_moves: ScalarLike = 0
    wanted_error: ScalarLike = float("inf")
    shift: float | np.floating | Scalar = 0.0
    plan: Plan | None = None
    digest: ScalarLike = 0
    log_z_at: Float[AnyArray, "T"] | None = None
    error_at: Float[AnyArray, "T"] | None = None

    def __str__(self) -> str:
        """The report, of one estimate or of a batch of them."""
        if is_traced(self):
            return repr(self)
        if np.ndim(self.log_z) == 0:
            return report(self)
        num = len(self.log_z)
        parts = [jax.tree.map(lambda a, i=i: a[i], self) for i in range(num)]
        return table(parts)

    @property
    def is_supported(self) -> bool:
        """Whether the weights of one estimate support a standard error."""
        num = np.size(self.log_w)
        is_few = not self.ess >= min(SMALLEST_ESS, num / 2)
        return not is_few and (num < 25 or bool(self.pareto_k <= LARGEST_K))

    def draws(self, key: PRNGKey, num: int) -> Draws:
        """Draws from the target: ends of the chains of one estimate, by their weights.

        Args:
            key: of the draws.
            num: how many. A chain may be drawn more than once, so that they are worth
                fewer, `Draws.ess`.

        Raises:
            ValueError: where no chain has a positive weight.
        """
        check_count("num", num)
        if not self.ess > 0.0:
            raise ValueError("no chain has a positive weight, so nothing can be drawn")
        index = np.asarray(jax.random.categorical(key, self.log_w, shape=(num,)))
        z = jax.tree.map(lambda a: np.asarray(a)[index], self.z)
        ess = float(1.0 / (1.0 / self.ess + 1.0 / num))
        log_w, log_target = (
            np.asarray(a)[index] for a in (self.log_w, self.log_target)
        )
        return Draws(z, ess, log_w, log_target)

    def to_arviz(self, key: PRNGKey, num_draws: int = 1000) -> Any:
        """Draws from the target with what is known of them, for ArviZ.

        They are worth fewer independent ones than ArviZ computes from them: the
        attribute `ess` of the group posterior says how many. The group sample_stats has
        `log_marginal_likelihood`, as PyMC names it, its standard error, the
        `log_weight` of the chain that each draw ends, and `lp`, the log target there.

        Args:
            key: of the draws.
            num_draws: in one chain of ArviZ's.

        Returns:
            A `DataTree`, or an `InferenceData` where ArviZ is installed below 1.

        Raises:
            ImportError: without arviz-base, which the extra `arviz` brings.
            ValueError: where no chain has a positive weight.
        """
        return to_arviz(key, self, num_draws)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with one estimate, each with what to do; read on the host."""
        return warnings_of(self)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws log_z_at against the inverse temperature, with two standard errors."""
        return stepping.plot(self, ax)


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

    def __str__(self) -> str:
        """The bounds in one line."""
        if np.ndim(self.lower) > 0:
            return repr(self)
        return (
            f"{self.lower:.3f} (+- {self.lower_error:.3f}) < log Z < "
            f"{self.upper:.3f} (+- {self.upper_error:.3f}), in expectation"
        )


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
