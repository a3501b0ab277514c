"""Log Z where chains of both directions meet: Bennett's acceptance ratio."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ais_jax.evidence.estimates import LARGEST_K, summarize

FAR = 3.0  # standard errors between the bounds
LARGEST_R_HAT = 1.05
NUM_BATCHES = 20  # of reverse chains, whose starts are draws of a Markov chain
MOST_ROUNDS = 1000
NEAR_ENOUGH = 1e-10  # nats, of two rounds


def bridge(
    forward: Float[np.ndarray, "K"], reverse: Float[np.ndarray, "N"]
) -> tuple[float, float]:
    """Combines log weights of forward and reverse chains with the least variance.

    With no temperatures between, it is Meng and Wong's bridge sampling.

    Args:
        forward: log weights of independent chains from the base.
        reverse: of chains from draws of the target, in the order of the draws, which
            may depend on those before them: their error is that of the means of 20
            batches. The mean of exp(-reverse) estimates 1 / Z.

    Returns:
        (log Z, its standard error by the delta method), nats.

    References:
        Bennett, Efficient estimation of free energy differences from Monte Carlo data,
        1976; Meng & Wong, Simulating ratios of normalizing constants via a simple
        identity, 1996.
    """
    forward, reverse = forward.astype(float), reverse.astype(float)
    # Chains of zero weight count as far below all others.
    forward = np.where(np.isfinite(forward), forward, -np.inf)
    offset = math.log(len(reverse) / len(forward))
    log_z, before = float(np.median(reverse)), math.inf
    num_rounds = 0
    while True:
        log_forward = -np.logaddexp(0.0, log_z - offset - forward)
        log_reverse = -np.logaddexp(0.0, offset + reverse - log_z)
        if not abs(log_z - before) > NEAR_ENOUGH or num_rounds == MOST_ROUNDS:
            break
        before, num_rounds = log_z, num_rounds + 1
        log_z += np.logaddexp.reduce(log_forward) - np.logaddexp.reduce(log_reverse)
    if not math.isfinite(log_z):
        return log_z, math.inf
    of_forward, of_reverse = np.exp(log_forward), np.exp(log_reverse)
    batches = np.array_split(of_reverse, min(NUM_BATCHES, len(reverse)))
    means = np.array([batch.mean() for batch in batches])
    errors = [
        of_forward.std(ddof=1) / of_forward.mean() / math.sqrt(len(forward)),
        means.std(ddof=1) / of_reverse.mean() / math.sqrt(len(means)),
    ]
    return log_z, math.hypot(*errors)


class Round(NamedTuple):
    """K chains from the base, and K back from draws.

    Attributes:
        forward: log weights of those from the base.
        reverse: minus the log weights of those back, which estimate log Z too.
        starts: numbers of the draws that these began at.
        num_nan: chains that met a density of NaN or plus infinity.
        num_outside: chains that met a place where the base's density is zero and the
            target's is not.
        largest: of the log densities at the ends of chains.
    """

    forward: Float[np.ndarray, "K"]
    reverse: Float[np.ndarray, "K"]
    starts: Int[np.ndarray, "K"]
    num_nan: int
    num_outside: int
    largest: float


class BridgeEstimate(NamedTuple):
    """Log Z from a posterior's draws, nats; `print` it for a report.

    Attributes:
        log_z: where chains of both directions meet.
        standard_error: of it.
        lower: from forward chains; its expectation is at most log Z.
        upper: from reverse chains; its expectation is at least log Z, if the draws are
            from the target.
        lower_error: standard error of lower over its chains.
        upper_error: of upper, as if the draws were independent.
        pareto_k: shape of the largest weights' distribution, the larger of both ways.
        r_hat: the largest split R-hat of the draws' unbounded positions.
        resolution: to which floating-point numbers tell log Z.
        num_chains: K in each direction.
        num_temperatures: T.
        num_nan: chains that met a density of NaN or plus infinity; they weigh zero.
        num_outside: chains that met a place where the base's density is zero and the
            target's is not.
        num_moves: of all chains together, the pilot's included.
        wanted_error: standard error that was asked for.
        digest: of the data, as `digests.digest`, for `compare`; 0 where unknown.
    """

    log_z: float
    standard_error: float
    lower: float
    upper: float
    lower_error: float
    upper_error: float
    pareto_k: float
    r_hat: float
    resolution: float
    num_chains: int
    num_temperatures: int
    num_nan: int
    num_outside: int
    num_moves: int
    wanted_error: float
    digest: int = 0

    def __str__(self) -> str:
        """The report."""
        lines = [
            f"log Z = {self.log_z:.3f} +- {self.standard_error:.2g} nats, from draws",
            f"  {self.lower:.3f} (+- {self.lower_error:.2g}) < log Z < "
            f"{self.upper:.3f} (+- {self.upper_error:.2g}), if the draws are right",
            f"  {self.num_chains} chains each way at T = {self.num_temperatures}, "
            f"{self.num_moves:,} moves; Pareto k {self.pareto_k:.2f}, "
            f"R-hat of the draws {self.r_hat:.3f}",
        ]
        return "\n".join(lines + [f"  warning: {text}" for text in self.warnings])

    @property
    def apart(self) -> float:
        """How far the bounds are apart in standard errors; below 0 where they cross."""
        return (self.upper - self.lower) / math.hypot(
            self.lower_error, self.upper_error, 1e-3
        )

    @property
    def warnings(self) -> list[str]:
        """What is wrong, each with what to do."""
        return [text for is_so, text in _warnings(self) if is_so]


def _warnings(result):
    """(whether it holds, the warning) for each of them."""
    return [
        (
            result.apart < -FAR,
            f"the bounds cross by {-result.apart:.1f} standard errors: chains from the "
            "base found mass where the draws have none, such as another mode",
        ),
        (
            result.r_hat > LARGEST_R_HAT,
            f"the draws' chains disagree (R-hat {result.r_hat:.2f}, above "
            f"{LARGEST_R_HAT}), so the upper bound and the error cannot be believed: "
            "draw longer chains",
        ),
        (
            result.apart > FAR,
            f"the bounds do not meet, by {result.apart:.1f} standard errors: raise "
            "max_moves",
        ),
        (
            not result.pareto_k <= LARGEST_K,
            f"a Pareto k of {result.pareto_k:.2f}, above {LARGEST_K}, supports no "
            "standard error; the draws may lack a mode that few chains have found",
        ),
        (
            not result.standard_error <= result.wanted_error,
            f"the error wanted, {result.wanted_error:.2g}, was not reached: raise "
            "max_moves, or give more draws",
        ),
        (
            result.num_nan > 0,
            f"{result.num_nan} chains met a density of NaN or +inf and weigh zero: "
            "return -inf where the density is zero",
        ),
        (
            result.num_outside > 0,
            f"{result.num_outside} chains met places where the base's density is zero "
            "and the target's is not: use a base whose support covers it",
        ),
        (
            result.resolution > max(1e-3, 0.5 * result.standard_error),
            f"log densities as large as these are resolved to {result.resolution:.2g} "
            "nats: use jax_enable_x64 or subtract a constant from the log density",
        ),
    ]


def meet(
    rounds: list[Round], num_temperatures: int, num_moves: int, eps: float
) -> BridgeEstimate:
    """The estimate of all chains of some rounds, with no R-hat and no wish yet."""
    forward, reverse, starts = (np.concatenate(a) for a in list(zip(*rounds))[:3])
    log_z, error = bridge(forward, reverse[np.argsort(starts, kind="stable")])
    low, high = _summarize(forward), _summarize(-reverse)
    resolution = max(r.largest for r in rounds) * eps
    return BridgeEstimate(
        log_z=log_z,
        standard_error=math.hypot(error, resolution),
        lower=float(low.log_z),
        upper=-float(high.log_z),
        lower_error=float(low.standard_error),
        upper_error=float(high.standard_error),
        pareto_k=max(float(low.pareto_k), float(high.pareto_k)),
        r_hat=math.nan,
        resolution=resolution,
        num_chains=len(forward),
        num_temperatures=num_temperatures,
        num_nan=sum(int(r.num_nan) for r in rounds),
        num_outside=sum(int(r.num_outside) for r in rounds),
        num_moves=num_moves,
        wanted_error=math.inf,
    )


_summarize = jax.jit(summarize)
