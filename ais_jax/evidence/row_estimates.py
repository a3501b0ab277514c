"""What the chains of many rows say: log p(x) of each, its errors, and the gap."""

import math
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ais_jax.evidence.allocation import SLOTS
from ais_jax.evidence.row_search import Estimate, Load, Search, wanted_error
from ais_jax.types import PRNGKey

PROBED = SLOTS  # pairs that decide how many there are to be
FEWEST_PAIRS, MOST_PAIRS = 2 * SLOTS, 32 * SLOTS


class Gap(NamedTuple):
    """The bidirectional gap: how far the bounds on log p(x) are apart, nats.

    Attributes:
        per_pair: upper less lower bound of each simulated pair.
        lower: the mean lower bound.
    """

    per_pair: Float[np.ndarray, "N"]
    lower: float

    @property
    def mean(self) -> float:
        """Over the pairs; it bounds the bias of log p(x) on the model's own data."""
        return float(np.mean(self.per_pair))

    @property
    def standard_error(self) -> float:
        """Of the mean, over pairs; NaN of a lone one."""
        num = len(self.per_pair)
        return float(np.std(self.per_pair, ddof=1) / num**0.5) if num > 1 else math.nan

    @property
    def median(self) -> float:
        """Of the pairs."""
        return float(np.median(self.per_pair))

    @property
    def num_large(self) -> int:
        """How many of the largest pairs make half of the gaps above zero."""
        falling = np.sort(np.maximum(self.per_pair, 0.0))[::-1]
        total = falling.sum()
        return int(np.searchsorted(np.cumsum(falling), 0.5 * total) + 1)

    def __str__(self) -> str:
        """One line."""
        num = len(self.per_pair)
        return (
            f"gap {self.mean:.3f} +- {self.standard_error:.3f} nats on {num} simulated "
            f"pairs (median {self.median:.3f}; {self.num_large} make half of it)"
        )


class LogLikelihood(NamedTuple):
    """Log p(x) of each row; `print` it for a report.

    Attributes:
        log_p: a lower bound in expectation, nats.
        standard_error: Monte Carlo, of each row's log_p. Its squares over two are the
            bias to first order.
        ess: effective sample size, of num_chains.
        num_chains: of each row.
        num_temperatures: T of each row.
        start: index of the start of each row: 0 for the usual one.
        accept_prob: of the moves.
        wanted_error: of the mean, nats.
        num_gradients: evaluations of log p(x, z) with its gradient, pilot, scouts and
            the gap's included.
        num_gradients_fixed: that the largest T would have cost for all rows.
        gap: on simulated pairs, or None.
        draws: posterior draws of each row, or None.
    """

    log_p: Float[np.ndarray, "N"]
    standard_error: Float[np.ndarray, "N"]
    ess: Float[np.ndarray, "N"]
    num_chains: Int[np.ndarray, "N"]
    num_temperatures: Int[np.ndarray, "N"]
    start: Int[np.ndarray, "N"]
    accept_prob: Float[np.ndarray, "N"]
    wanted_error: float
    num_gradients: int
    num_gradients_fixed: int
    gap: Gap | None = None
    draws: Float[np.ndarray, "N S D"] | None = None

    @property
    def mean(self) -> float:
        """Of log_p over rows, nats."""
        return float(np.mean(self.log_p))

    @property
    def error_over_rows(self) -> float:
        """Standard error of the mean as that of a population of rows, nats."""
        num = len(self.log_p)
        return float(np.std(self.log_p, ddof=1) / num**0.5) if num > 1 else math.nan

    @property
    def monte_carlo(self) -> float:
        """Standard error of the mean over chains, the rows as they are, nats."""
        return float(np.sqrt(np.sum(self.standard_error**2)) / len(self.log_p))

    @property
    def bias(self) -> float:
        """Of the mean, to first order, nats: it is too low by as much."""
        return float(-0.5 * np.mean(self.standard_error**2))

    def __str__(self) -> str:
        """The report."""
        least, most = self.num_temperatures.min(), self.num_temperatures.max()
        lines = [
            f"log p(x) = {self.mean:.3f} +- {self.error_over_rows:.3f} nats (over "
            f"{len(self.log_p)} rows; Monte Carlo +- {self.monte_carlo:.3f}, bias "
            f"about {self.bias:.3f})",
            f"  T = {least} to {most}, {self.num_gradients:,} gradient evaluations "
            f"({self.num_gradients_fixed:,} at the largest T for all)"
            if least < most
            else f"  T = {most}, {self.num_gradients:,} gradient evaluations",
        ]
        return "\n".join(lines if self.gap is None else [*lines, f"  {self.gap}"])


def measured_gap(
    search: Search, load: Load, estimate: Estimate, num: int | None
) -> Gap:
    """The bidirectional gap on simulated pairs, to the wanted error of an estimate.

    Of how many pairs the first ones decide, where no number is given. They are thrown
    away: pairs that are counted until few are hard would hide the hard ones.
    """
    error = estimate.error or wanted_error(estimate.moments.log_p)
    measure = partial(search.estimate, is_paired=True, error=error)
    if num is None:
        probe = gap_of(measure("probe", PROBED, load))
        needed = PROBED * (probe.standard_error / error) ** 2
        slots = math.ceil(min(max(needed, FEWEST_PAIRS), MOST_PAIRS) / SLOTS)
        num = slots * SLOTS
    return gap_of(measure("pairs", num, lambda rows: load(rows + PROBED)))


def gap_of(estimate: Estimate) -> Gap:
    """The `Gap` of pairs whose chains ran both ways."""
    assert estimate.reverse is not None
    lower = estimate.moments.log_p
    return Gap(-estimate.reverse.log_p - lower, float(np.mean(lower)))


def as_result(
    estimate: Estimate,
    num_gradients: int,
    num_leapfrog: int,
    gap: Gap | None = None,
    draws: Float[np.ndarray, "N S D"] | None = None,
) -> LogLikelihood:
    """What an estimate of rows says, in single precision but for the sums."""
    found, share = estimate.moments, estimate.share
    each = found.num_chains.max() * share.num_temperatures.max() * num_leapfrog
    return LogLikelihood(
        log_p=found.log_p,
        standard_error=np.sqrt(found.variance),
        ess=found.ess,
        num_chains=found.num_chains,
        num_temperatures=share.num_temperatures,
        start=estimate.start,
        accept_prob=estimate.accept_prob,
        wanted_error=estimate.error,
        num_gradients=num_gradients,
        num_gradients_fixed=int(each) * len(found.log_p),
        gap=gap,
        draws=draws,
    )


def posterior_draws(
    key: PRNGKey, estimate: Estimate, num: int
) -> Float[np.ndarray, "N S D"]:
    """Draws of each row's target: ends of its chains, chosen by their weights."""
    rows = np.concatenate([of_slot for of_slot, _ in estimate.chains])
    log_w = np.concatenate([chains["log_w"] for _, chains in estimate.chains])
    z = np.concatenate([chains["z"] for _, chains in estimate.chains])
    order = np.argsort(rows, kind="stable")
    ends = np.searchsorted(rows[order], np.arange(1, len(estimate.start)))
    out = []
    for i, mine in enumerate(np.split(order, ends)):
        row_key = jax.random.fold_in(key, i)
        flat = log_w[mine].ravel()
        picks = jax.random.categorical(row_key, flat, shape=(num,))
        out.append(z[mine].reshape(len(flat), -1)[np.asarray(picks)])
    return np.stack(out)
