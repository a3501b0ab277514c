"""The chains of one row of data as one program, for any number of temperatures.

What chains do is data: the schedule, how many temperatures it is cut into, which start
they have and whether they run forwards or backwards. A pilot, chains of few or many
temperatures and both bounds are then the same compiled program.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ais_jax.annealing.clouds import Cloud, Transition
from ais_jax.annealing.ends import first_clouds, weigh_at_base
from ais_jax.annealing.loop import Guide, Moves, Paths, cloud_size, finish, run, start
from ais_jax.annealing.path import AnnealingPath, log_ratio
from ais_jax.batching import chain_keys
from ais_jax.numerics import effective_sample_size, log_mean_exp
from ais_jax.types import AnyArray, PRNGKey, Scalar

KNOTS = 32  # intervals between the knots of a schedule
GAIN = 2.0  # of the logarithm of the step size for an acceptance off its target
SMALLEST_SHARE = 0.1  # of the mean density of temperatures, kept everywhere
Start = Callable[[PyTree, PyTree], AnnealingPath]
"""(params, x) -> the path to log p(x, z) of one row, from one of its starts."""


class Ladder(NamedTuple):
    """A schedule of any number of temperatures, by its values at equally spaced knots.

    Attributes:
        betas: inverse temperatures, from 0 to 1.
        log_steps: logarithms of the step sizes there.
    """

    betas: Float[AnyArray, "N_plus_1"]
    log_steps: Float[AnyArray, "N_plus_1"]


class Work(NamedTuple):
    """What the chains of all rows of a call do, all of it data.

    Attributes:
        key: of the call; a row's chains go by it, the row and the replicate alone.
        ladder: the schedule.
        num_temperatures: T.
        start: index of the start.
        is_reverse: whether chains run from a draw of the target back to the start.
    """

    key: PRNGKey
    ladder: Ladder
    num_temperatures: Int[AnyArray, ""]
    start: Int[AnyArray, ""]
    is_reverse: Bool[AnyArray, ""]


class RowChains(NamedTuple):
    """K chains of one row.

    Attributes:
        log_w: log weights, nats; those of reverse chains estimate -log p(x).
        z: where they end.
        accept_prob: summed over the moves nearest to each knot.
        num_moves: that it is summed over.
        variance: of the log ratio, summed over the increments nearest to each knot.
        num_increments: that it is summed over.
    """

    log_w: Float[Array, "K"]
    z: Float[Array, "K D"]
    accept_prob: Float[Array, "N_plus_1"]
    num_moves: Float[Array, "N_plus_1"]
    variance: Float[Array, "N_plus_1"]
    num_increments: Float[Array, "N_plus_1"]


def linear_ladder(step_size: float) -> Ladder:
    """Equally spaced inverse temperatures and one step size: what a pilot begins at."""
    betas = np.linspace(0.0, 1.0, KNOTS + 1).astype(np.float32)
    return Ladder(betas, np.full(KNOTS + 1, np.log(step_size), np.float32))


def row_chains(
    starts: tuple[Start, ...],
    transition: Transition,
    num_chains: int,
    params: PyTree,
    work: Work,
    row: Int[Array, ""],
    replicate: Int[Array, ""],
    x: PyTree,
    z: Float[Array, "D"],
) -> RowChains:
    """K annealed chains of one row (Eq. 7), forwards or backwards.

    Args:
        starts: functions of (params, x), of paths that share their target and scale.
        transition: makes the moves; reversible where chains run backwards.
        num_chains: K.
        params: of the starts.
        work: what is done.
        row: the number of the row.
        replicate: other chains of the same row have another number.
        x: the row's data.
        z: an exact draw from the target, read by reverse chains alone.
    """
    path = _one_of([each(params, x) for each in starts], work.start)
    key = jax.random.fold_in(jax.random.fold_in(work.key, row), replicate)
    base_key, key = jax.random.split(key)
    keys, size = chain_keys(key, num_chains), cloud_size(path, key, transition)

    def draw(key):
        return jax.vmap(path.sample_base)(chain_keys(key, size))

    z0 = jax.vmap(draw)(chain_keys(base_key, num_chains))
    ends = jnp.broadcast_to(z, (num_chains, 1, len(z)))
    both = first_clouds(path, jnp.concatenate([z0, ends], axis=1), size + 1).points
    draws, target = (jax.tree.map(take, both) for take in (_but_last, _last))
    points = jax.tree.map(lambda a, b: jnp.where(work.is_reverse, a, b), target, draws)
    even = jnp.full(points.log_target.shape, -jnp.log(1.0 * size))
    clouds = Cloud(points, even)
    guide, num = _guide(work, size), work.num_temperatures - 1
    sign = jnp.where(work.is_reverse, -1.0, 1.0)
    zeros = jnp.zeros((4, KNOTS + 1))
    chains, sums, *_ = run(
        Paths(lambda _: path, jnp.zeros((1,))),
        start(keys[None], clouds),
        guide,
        zeros,
        num,
        transition,
        most_moves=1,
        sign=sign,
    )
    last = _moves(work, size, num).deltas
    chains, points, _ = finish(chains, last, num, sign)
    ends = jax.tree.map(lambda a: a[0], (points, chains.log_w + chains.lost))
    delta = jnp.where(work.is_reverse, beta_at(work, 1), 0.0)
    fresh = jax.tree.map(lambda a: a[0, :, 1:], draws)
    log_w, *_ = weigh_at_base(ends, fresh, delta)
    return RowChains(log_w, ends[0].z, *sums)


def beta_at(work: Work, t: Int[Array, ""] | int) -> Scalar:
    """The inverse temperature after t of T increments."""
    beta = _at(work, work.ladder.betas, t)
    return jnp.where(t >= work.num_temperatures, 1.0, beta)


def summary(log_w: Float[AnyArray, "C K"]) -> dict[str, Float[Array, "C"]]:
    """Log mean weight, ESS and variance of the log weights of each of C rows."""
    finite = jnp.where(jnp.isfinite(log_w), log_w, jnp.nan)
    return {
        "log_p": log_mean_exp(log_w),
        "ess": effective_sample_size(log_w),
        "variance": jnp.nanvar(finite, axis=-1, ddof=1),
    }


def learned(
    ladder: Ladder, chains: dict[str, np.ndarray], target: float, is_placed: bool
) -> tuple[Ladder, float]:
    """A schedule that has learned from chains, which are then thrown away.

    Step sizes move towards the target acceptance. Temperatures are placed with a
    density proportional to the standard deviation of the log ratio, so that the
    effective sample size between neighbours is constant.

    Args:
        ladder: that the chains had.
        chains: the arrays of `RowChains` of C rows.
        target: acceptance probability.
        is_placed: whether the temperatures move, too.

    Returns:
        (the schedule, the largest distance of the acceptance from its target).
    """
    if not chains["num_moves"].any():
        return ladder, 0.0

    def mean(name, number):
        num, knots = chains[number].sum(0), np.arange(KNOTS + 1)
        is_seen = num > 0
        values = chains[name].sum(0)[is_seen] / num[is_seen]
        return _smooth(np.interp(knots, knots[is_seen], values))

    error = mean("accept_prob", "num_moves") - target
    log_steps = ladder.log_steps + GAIN * error
    betas = np.asarray(ladder.betas, float)
    new = betas
    if is_placed:
        sd = np.sqrt(mean("variance", "num_increments"))
        widths, density = np.diff(betas), 0.5 * (sd[1:] + sd[:-1])
        density = density + SMALLEST_SHARE * np.sum(widths * density) + 1e-6
        length = np.append(0.0, np.cumsum(widths * density))
        new = np.interp(np.linspace(0.0, length[-1], KNOTS + 1), length, betas)
    log_steps = np.interp(new, betas, log_steps)
    ladder = Ladder(new.astype(np.float32), log_steps.astype(np.float32))
    return ladder, float(np.max(np.abs(error)))


def _smooth(values):
    """Averages over neighbours, fewer at the ends."""
    window = np.ones(5)
    return np.convolve(values, window, "same") / np.convolve(
        np.ones_like(values), window, "same"
    )


def _but_last(a):
    return a[:, :, :-1]


def _last(a):
    return a[:, :, -1:]


def _one_of(paths, index):
    """The path of one of several starts; which one is data."""
    if len(paths) == 1:
        return paths[0]

    def switch(functions):
        return lambda arg: jax.lax.switch(index, functions, arg)

    return paths[0]._replace(
        sample_base=switch([path.sample_base for path in paths]),
        log_base=switch([path.log_base for path in paths]),
    )


def _at(work, values, t):
    """The value of a ladder after t of T increments."""
    whole = jnp.asarray(work.num_temperatures, jnp.float32)
    at = jnp.asarray(t, jnp.float32) * (KNOTS / whole)
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, KNOTS - 1)
    share, values = at - low, jnp.asarray(values)
    return (1.0 - share) * values[low] + share * values[low + 1]


def _places(work, size, t):
    """(before, after) the t-th increment, and at the move: in numbers of increments.

    A reverse chain's cloud of several points is weighed after its move, of one before.
    """
    num = work.num_temperatures
    shift = 1 if size > 1 else 0
    before, after = num - t + shift, num - t - 1 + shift
    before, after = jnp.minimum(before, num), jnp.clip(after, 1, num)
    forwards, backwards = (t, t + 1, t + 1), (before, after, num - 1 - t)
    return [jnp.where(work.is_reverse, b, a) for a, b in zip(forwards, backwards)]


def _moves(work, size, t):
    before, after, at = _places(work, size, t)
    low, high = (
        beta_at(work, jnp.minimum(before, after)),
        beta_at(work, jnp.maximum(before, after)),
    )
    return Moves(
        high - low, beta_at(work, at), jnp.exp(_at(work, work.ladder.log_steps, at))
    )


def _guide(work, size):
    """Reads each move off the schedule, and sums up what the chains did."""

    def row(sums, t, clouds):
        before, *_ = _places(work, size, t)
        ratio, weight = log_ratio(clouds.points), jnp.exp(clouds.log_w)
        weight = jnp.where(jnp.isfinite(ratio), weight, 0.0)
        ratio, total = jnp.where(weight > 0.0, ratio, 0.0), jnp.sum(weight)
        total = jnp.maximum(total, 1e-30)
        mean = jnp.sum(weight * ratio) / total
        variance = jnp.sum(weight * jnp.square(ratio - mean)) / total
        sums = sums.at[2:, _knot(work, before)].add(jnp.stack([variance, 1.0]))
        return sums, _moves(work, size, t)

    def learn(sums, t, row, clouds, accept_prob):
        knot = _knot(work, _places(work, size, t)[2])
        return sums.at[:2, knot].add(jnp.stack([jnp.mean(accept_prob), 1.0]))

    return Guide(row, learn, lambda _: jnp.zeros((), bool))


def _knot(work, t):
    return jnp.round(t * (KNOTS / work.num_temperatures)).astype(jnp.int32)
