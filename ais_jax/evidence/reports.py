"""An estimate of log Z as text: its numbers, and warnings of what they do not support.

A warning names arguments of `estimate_log_z`.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

LARGEST_K = 0.7  # of the Pareto shape (Vehtari et al., 2024)
SMALLEST_ESS = 25.0  # for the delta method; half of K for fewer than 50 chains
LARGEST_SKEW = 0.7  # of log weights (`right_skew`)
LARGEST_SHIFT = 2.0  # standard errors that log Z may move by where T is doubled
SMALLEST_ACCEPTANCE = 0.2
LARGEST_ACCEPTANCE = 0.99
MOST_DIVERGENT = 0.006  # of the moves near the target
FEW_DIVERGENT = 0.002  # of them: more temperatures tell whether there is a neck
SURE_TEMPERATURES = 1024  # are enough to tell


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


def report(result: Any) -> str:
    """The numbers of one `LogNormalizer` and its warnings, as text."""
    num = np.size(result.log_w)
    num_zero = int(np.sum(np.isneginf(result.log_w)))
    lines = [
        f"log Z = {_number(result.log_z)} {_error(result)}",
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
    return "\n".join(lines + [f"  warning: {text}" for text in result.warnings])


def _number(log_z):
    return f"{log_z:.4g}" if abs(log_z) < 1.0 else f"{log_z:.3f}"


def _error(result):
    if not result.is_supported:
        return "nats, its error not estimated"
    return f"+- {result.standard_error:.2g} nats"


def table(results: list[Any]) -> str:
    """A line for each estimate, and then their warnings."""
    rows = [["", "log Z", "+-", "ESS", "Pareto k", "warnings"]]
    for i, one in enumerate(results):
        error = f"{one.standard_error:.2g}" if one.is_supported else "not estimated"
        numbers = f"{one.ess:.1f}", f"{one.pareto_k:.2f}", f"{len(one.warnings)}"
        rows.append([f"[{i}]", _number(one.log_z), error, *numbers])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in rows]
    for i, one in enumerate(results):
        lines += [f"[{i}] warning: {text}" for text in one.warnings]
    return "\n".join(lines)


def warnings_of(result: Any) -> list[str]:
    """What is wrong with one `LogNormalizer`, each with what to do."""
    return [text for is_so, text in _warnings(result) if is_so]


def _warnings(result):
    """(whether it holds, the warning) for each of them."""
    num, ess = np.size(result.log_w), float(result.ess)
    num_nan, resolution = int(result.num_nan), float(result.resolution)
    accept = np.asarray(result.accept_prob)
    low, usual = (accept.min(), np.median(accept)) if accept.size else (0.65, 0.65)
    dtype, is_empty = result.log_w.dtype, ess == 0.0
    divergent = divergent_near_target(result)
    return [
        (
            is_empty,
            "no chain has a positive weight, so log Z is not estimated: use a base "
            "that lies within the target's support",
        ),
        (
            result.standard_error > result.wanted_error,
            f"the error wanted, {float(result.wanted_error):.2g}, was not reached: "
            "raise max_moves and max_seconds, or use a base nearer to the target",
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
            "probably too low: raise num_temperatures, or use a base nearer to it",
        ),
        (num == 1, "one chain says nothing of its own error: raise num_chains"),
        (
            not is_empty and ess < min(SMALLEST_ESS, num / 2),
            f"an effective sample size of {ess:.1f} supports no standard error, and "
            "log Z is probably too low: raise num_temperatures, or use a better base",
        ),
        (
            not is_empty and num >= 25 and not result.pareto_k <= LARGEST_K,
            f"a Pareto k of {float(result.pareto_k):.2f}, above {LARGEST_K}, supports "
            "no standard error: raise num_temperatures, or use a base of heavier "
            "tails",
        ),
        (
            resolution > max(1e-3, 0.5 * float(result.standard_error)),
            f"{dtype} resolves log densities as large as these to {resolution:.2g} "
            "nats: use jax_enable_x64 or subtract a constant from the log density",
        ),
        (
            low < SMALLEST_ACCEPTANCE,
            f"moves are accepted with probability {low:.2f} at some temperature: "
            "raise num_chains, or num_leapfrog of the transition",
        ),
        (
            divergent > MOST_DIVERGENT,
            f"{divergent:.1%} of the moves near the target diverge, as in the neck of "
            "a funnel, whose mass may be missed, or at a hard edge: make a parameter "
            "of changing scale loc + scale * u, with u its coordinate",
        ),
        (
            usual > LARGEST_ACCEPTANCE,
            f"most moves are accepted with probability {usual:.2f} or more, so they "
            "may be too short to mix: raise num_leapfrog of the transition",
        ),
    ]


def may_diverge(result: Any) -> bool:
    """Whether moves diverge of which more temperatures would tell more."""
    is_short = len(result.plan.betas) <= SURE_TEMPERATURES
    return is_short and divergent_near_target(result) > FEW_DIVERGENT


def divergent_near_target(result: Any) -> float:
    """The share of divergent moves at inverse temperatures above a half."""
    is_near = np.asarray(result.plan.betas)[1:-1] >= 0.5
    return (
        float(np.mean(np.asarray(result.divergent)[is_near])) if any(is_near) else 0.0
    )
