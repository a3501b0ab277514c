"""How much work each row of a batch gets, so that the mean reaches an error.

The variance s^2 of a log weight falls as 1 / T. The log of the mean of n log-normal
weights has the variance v = (exp(s^2) - 1) / n, and the bias -v / 2, to first order.
Everything here reads chains that are then thrown away, so that the chains that count
have a fixed plan.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

SLOTS = 32  # a row's chains, of one replicate, that are computed at a time
FEWEST = 8  # temperatures
EXTRAPOLATED = 1.0  # variance of a log weight above which 1 / T is no law, and more
# temperatures do more than more chains
FURTHER = 4.0  # the same of further scouts, whose spreads are the law's on average
NEGLIGIBLE = 0.1  # of the wanted error, that hard rows may make together
PRIOR_CHAINS = 4  # as many as the spread of all rows counts for in each row's own


class Moments(NamedTuple):
    """What n log weights of each row say.

    Attributes:
        log_p: log of their mean, nats.
        variance: of log_p, nats^2; minus half of it is its bias to first order.
        spread: variance of the log weights, of log-normal ones as far as they are even.
        ess: effective sample size.
        num_chains: n.
    """

    log_p: Float[np.ndarray, "N"]
    variance: Float[np.ndarray, "N"]
    spread: Float[np.ndarray, "N"]
    ess: Float[np.ndarray, "N"]
    num_chains: Int[np.ndarray, "N"]


class Share(NamedTuple):
    """The chains that each row gets.

    Attributes:
        num_temperatures: T.
        num_replicates: times K chains.
    """

    num_temperatures: Int[np.ndarray, "N"]
    num_replicates: Int[np.ndarray, "N"]


def moments(log_w: Float[np.ndarray, "N W"]) -> Moments:
    """The `Moments` of rows of log weights, filled up with NaN."""
    log_w = np.asarray(log_w, float)
    is_there = ~np.isnan(log_w)
    num = is_there.sum(1)
    log_w = np.where(is_there, log_w, -np.inf)
    largest = np.max(log_w, axis=1, keepdims=True)
    weights = np.exp(log_w - np.where(np.isfinite(largest), largest, 0.0))
    total = weights.sum(1)
    ess = total**2 / np.maximum((weights**2).sum(1), 1.0)
    log_p = largest[:, 0] + np.log(np.maximum(total, 1e-300) / num)
    spread = _spread(log_w, num, ess)
    alone = np.maximum(spread, spread**2 / 4.0)  # of a single chain that has it all
    with np.errstate(over="ignore"):
        variance = np.minimum(np.expm1(spread) / num, alone)
    variance = np.where(ess > 0.0, variance, np.inf)
    return Moments(log_p, variance, spread, ess, num)


def hard_rows(
    spread: Float[np.ndarray, "N"], error: float, limit: float = EXTRAPOLATED
) -> Bool[np.ndarray, "N"]:
    """The rows whose weights spread too far to tell how many temperatures they need.

    Those are left out, from the least on, whose bias together does not matter.
    """
    order, bias = np.argsort(spread), np.maximum(spread, spread**2) / 2.0
    is_wide = spread > limit
    small = np.cumsum(np.where(is_wide, bias, 0.0)[order])
    is_small = np.zeros_like(is_wide)
    is_small[order] = small <= NEGLIGIBLE * error * len(spread)
    return is_wide & ~is_small


def wanted_variance(error: float, num: int) -> float:
    """The mean variance of log p(x) of N rows, so that their mean has an error.

    It solves V^2 + V / N = error^2. To first order the bias is V / 2, and that of
    reverse chains is as large, so that the bidirectional gap is within the error too.
    """
    return 0.5 * (math.sqrt(1.0 / num**2 + 4.0 * error**2) - 1.0 / num)


def allocate(
    cost: Float[np.ndarray, "N"], num_chains: int, variance: float, most: int
) -> Share:
    """The least work at which the mean variance of log p(x) over rows is a given one.

    T is proportional to the root of the row's cost. It is at least the cost, where the
    variance of a log weight is one. Where few rows have the same T, they get more
    chains of fewer temperatures, which fill up the slots.

    Args:
        cost: T times the variance of a log weight, of each row.
        num_chains: K.
        variance: wanted on average, of log-normal weights.
        most: temperatures.
    """
    root = np.sqrt(np.maximum(cost, 1e-12))
    ideal, least = root * root.mean() / (num_chains * variance), cost / EXTRAPOLATED

    def levels_of(factor):
        wanted = np.clip(np.maximum(factor * ideal, least), FEWEST, most)
        return 2 ** np.round(np.log2(wanted))

    factor, most_work = 0.7, 5.0
    levels = levels_of(factor)
    while factor < most_work:
        spread = np.minimum(cost / levels, 2.0 * EXTRAPOLATED)
        if np.mean(np.expm1(spread)) <= num_chains * variance:
            break
        factor *= 1.05
        levels = levels_of(factor)
    return _fill(levels.astype(int), np.minimum(least, most))


def slots_of(share: Share, rows: Int[np.ndarray, "R"]) -> Int[np.ndarray, "2 S"]:
    """(row, replicate) of each slot for some rows, filled up to whole `SLOTS`.

    What is left over becomes further chains of the same rows.
    """
    repeats = share.num_replicates[rows]
    order = np.repeat(rows, repeats)
    replicates = np.concatenate([np.arange(r) for r in repeats])
    more = np.arange(-len(order) % SLOTS)
    extra = rows[more % len(rows)]
    after = share.num_replicates[extra] + more // len(rows)
    return np.stack([np.append(order, extra), np.append(replicates, after)])


def by_row(
    log_w: Float[np.ndarray, "S K"],
    of_slot: Int[np.ndarray, "S"],
    rows: Int[np.ndarray, "N"],
) -> Float[np.ndarray, "N W"]:
    """The log weights of slots, a line for each row, filled up with NaN."""
    place = np.searchsorted(rows, of_slot)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place, minlength=len(rows))
    turn = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = np.full((len(rows), counts.max(), log_w.shape[1]), np.nan)
    out[place[order], turn] = log_w[order]
    return out.reshape(len(rows), -1)


def _spread(log_w, num, ess):
    """Variance of log weights: of log-normal ones where they are even enough."""
    is_live = np.isfinite(log_w)
    live = np.maximum(is_live.sum(1), 1)
    values = np.where(is_live, log_w, 0.0)
    mean = values.sum(1) / live
    squares = np.where(is_live, (values - mean[:, None]) ** 2, 0.0).sum(1)
    own = squares / np.maximum(live - 1, 1)
    own = np.where(live > 1, own, np.inf)
    even = np.log1p((num / np.maximum(ess, 1.0) - 1.0) * num / np.maximum(num - 1, 1))
    return np.where(ess >= 0.5 * num, even, own)


def _fill(levels, least):
    """Replicates in place of temperatures where a level has too few slots."""
    repeats = np.ones_like(levels)
    for level in sorted(set(levels.tolist()), reverse=True):
        while level > FEWEST:
            is_here = levels == level
            if repeats[is_here].sum() >= 4 * SLOTS:
                break
            can_fall = is_here & (level // 2 >= least)
            if not can_fall.any():
                break
            levels = np.where(can_fall, level // 2, levels)
            repeats = np.where(can_fall, 2 * repeats, repeats)
            level //= 2
    return Share(levels, repeats)


def shrunk(
    spread: Float[np.ndarray, "N"], num_chains: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    """Each row's spread, drawn towards that of the middle row, which is surer."""
    known = num_chains - 1.0
    middle = np.median(spread)
    drawn = (known * spread + PRIOR_CHAINS * middle) / (known + PRIOR_CHAINS)
    return np.maximum(spread, np.where(np.isfinite(drawn), drawn, spread))
