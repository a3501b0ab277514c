"""The search for log Z: pilot, base and temperatures, until an error is reached.

It runs on the host, a segment of moves at a time, so that what is done may depend on
what is seen, progress is told, and nothing is lost when time is up. What is
weighed at last comes from the last number of temperatures alone, whose chains are all
frozen before they start.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PyTree

from ais_jax.annealing.clouds import Cloud
from ais_jax.evidence import pilot as pilots
from ais_jax.evidence.estimates import (
    LARGEST_SHIFT,
    LARGEST_SKEW,
    LogNormalizer,
    right_skew,
    summarize,
)
from ais_jax.evidence.pilot import Pilot
from ais_jax.evidence.plan import Plan
from ais_jax.evidence.sampler import SEGMENT, Programs, Steering
from ais_jax.types import PRNGKey

FEWEST_TEMPERATURES = 64
PER_LENGTH = 2.0  # temperatures for each unit of the path's squared length
PER_PILOT = 1.9  # and for each move of the pilot, which then makes 15% of all moves
LONG = 4.0  # a path length from which a base is fitted
SHORTER = 0.7  # times as long the path from a fitted base must be
NUM_ROUNDS = 2  # of the pilot after its first pass
MOST_ROUNDS = 6
SMALLEST_SHARE = 0.3  # of the live chains that the ESS must be, or T is doubled
DISAGREEMENT = 3.0  # standard errors between the halves, above which T is doubled
LARGEST_GROWTH = 4  # times as many chains, at most, between two looks


class Progress(NamedTuple):
    """Where a search stands; `str` is one line.

    Attributes:
        stage: 'pilot', 'pilot of a fitted base' or 'chains at T = ...'.
        num_moves: made so far, by all chains.
        expected_moves: of the whole search, as far as can be told.
        seconds: since it began.
        log_z: so far, nats, or NaN.
        standard_error: so far, nats, or NaN.
    """

    stage: str
    num_moves: int
    expected_moves: int
    seconds: float
    log_z: float = math.nan
    standard_error: float = math.nan

    def __str__(self) -> str:
        """The line."""
        share = self.num_moves / max(self.expected_moves, 1)
        left = self.seconds * (1.0 / max(share, 1e-9) - 1.0)
        text = f"{self.stage}: {share:.0%} done, about {left:.0f} s left"
        if math.isnan(self.log_z):
            return text
        return f"{text}: log Z = {self.log_z:.3f} +- {self.standard_error:.2g}"


class Limits(NamedTuple):
    """When a search ends.

    Attributes:
        error: the standard error wanted, nats, or None for one run of K chains.
        num_temperatures: T to begin with, or None where the pilot chooses it.
        max_moves: of all chains together.
        max_seconds: of the whole search.
    """

    error: float | None
    num_temperatures: int | None
    max_moves: int
    max_seconds: float


class Task(NamedTuple):
    """A compiled path and its data.

    Attributes:
        programs: of the path.
        x: its data.
        name: of the base, for the progress.
    """

    programs: Programs
    x: PyTree
    name: str


class Found(NamedTuple):
    """What a pilot has found.

    Attributes:
        pilot: for the frozen schedule.
        length: of the path, `pilots.length`.
        clouds: of its chains at the target.
    """

    pilot: Pilot
    length: float
    clouds: Cloud


class Chunk(NamedTuple):
    """K chains at the target, on the host."""

    log_w: Float[np.ndarray, "K"]
    z: Float[np.ndarray, "K D"]
    accept_prob: Float[np.ndarray, "M K"]
    increments: Float[np.ndarray, "T K"]
    is_unsound: Bool[np.ndarray, "K"]
    is_outside: Bool[np.ndarray, "K"]
    largest: float
    plan: Plan


class Meter:
    """What a search has spent, and what it may."""

    def __init__(
        self,
        limits: Limits,
        num_chains: int,
        progress: Callable[[Progress], object] | None,
    ):
        self.limits, self.num_chains, self.progress = limits, num_chains, progress
        self.spent, self.expected, self.started = 0, 0, time.monotonic()
        self.latest = math.nan, math.nan

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.monotonic() - self.started

    def expect(self, moves: int) -> None:
        """So many further moves of each chain are to come."""
        self.expected = max(self.expected, self.spent + moves * self.num_chains)

    def pay(self, stage: str, moves: int) -> None:
        """Counts moves of each chain, and tells where the search stands."""
        self.spent += moves * self.num_chains
        self.expected = max(self.expected, self.spent)
        if self.progress is not None:
            state = self.spent, self.expected, self.seconds, *self.latest
            self.progress(Progress(stage, *state))

    def allows(self, moves: int) -> bool:
        """Whether so many further moves of each chain are within the limits."""
        more = moves * self.num_chains
        seconds = self.seconds * (1.0 + more / max(self.spent, 1))
        is_timely = self.spent == 0 or seconds <= self.limits.max_seconds
        return self.spent + more <= self.limits.max_moves and is_timely


def find(meter: Meter, task: Task, key: PRNGKey, can_refit: bool) -> Found:
    """Runs a pilot: a tempered pass, and others until the acceptance is there.

    Args:
        meter: counts.
        task: the path.
        key: of the pilot.
        can_refit: whether the first pass is enough where the path is long, since a base
            will be fitted to it.
    """
    pilot, num, i = None, 0, 0
    while True:
        chains = task.programs.begin(task.x, jax.random.fold_in(key, i))
        if pilot is None:
            pilot = task.programs.blank(task.x, chains)
        memory = task.programs.prepare(task.x, pilot, chains)
        steering = steer(pilot, is_pilot=True, is_first=i == 0)
        advanced = task.programs.advance(task.x, chains, memory, steering)
        done = int(advanced.memory.i)
        meter.pay(f"pilot{task.name}", done * (pilots.MOVES if i == 0 else 1))
        num = num or int(np.clip(2 * done, 8, 64))
        pilot, error, length = task.programs.end_pass(
            advanced.memory, pilot, steering.is_first, jnp.int32(num)
        )
        found = Found(pilot, float(length), advanced.chains.clouds)
        is_long = can_refit and i == 0 and found.length > LONG
        is_settled = i >= NUM_ROUNDS and float(error) <= pilots.LARGEST_ERROR
        if is_long or is_settled or i >= MOST_ROUNDS:
            return found
        i += 1


def steer(
    pilot: Pilot,
    *,
    is_pilot: bool,
    is_first: bool = False,
    num: int = 1,
    first: int = 0,
) -> Steering:
    """`Steering` of numbers of the host, without resampling."""
    return Steering(
        jnp.asarray(is_pilot),
        jnp.asarray(is_first),
        pilot,
        jnp.int32(num),
        jnp.int32(first),
        jnp.float32(0.0),
    )


def first_temperatures(meter: Meter, found: Found) -> int:
    """T to begin with: the path's length and the pilot's cost ask for it."""
    pilot_moves = meter.spent / meter.num_chains
    wanted = max(PER_LENGTH * found.length**2, PER_PILOT * pilot_moves)
    most = meter.limits.max_moves / meter.num_chains / 4
    return int(max(min(math.ceil(wanted), most), FEWEST_TEMPERATURES))


def run_chunk(meter: Meter, task: Task, found: Found, num: int, key: PRNGKey) -> Chunk:
    """K chains of T temperatures, a segment of moves after another."""
    programs, x, pilot = task.programs, task.x, found.pilot
    chains = programs.begin(x, key)
    memory = programs.prepare(x, pilot, chains)
    parts = []
    for first in range(0, max(num - 1, 1), SEGMENT):
        steering = steer(pilot, is_pilot=False, num=num, first=first)
        advanced = programs.advance(x, chains, memory, steering)
        chains, size = advanced.chains, min(SEGMENT, num - 1 - first)
        part = advanced.moves, advanced.accept_prob[:, 0], advanced.increments[:, 0]
        parts.append(jax.tree.map(lambda a, n=size: np.asarray(a)[:n], part))
        meter.pay(f"chains at T = {num}{task.name}", size)
    moves, accept_prob, increments = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    ends, points, last = jax.device_get(advanced.ends)
    betas = np.concatenate([[0.0], moves.betas, [1.0]]).astype(np.float32)
    scale = np.ones(()) if moves.scale is None else moves.scale
    values = np.stack([points.log_target[0], points.log_base[0]])
    return Chunk(
        log_w=(ends.log_w + ends.lost)[0],
        z=points.z[0],
        accept_prob=accept_prob,
        increments=np.concatenate([increments, last]),
        is_unsound=ends.is_unsound[0],
        is_outside=ends.is_outside[0],
        largest=float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0)),
        plan=Plan(betas, moves.step_sizes, scale),
    )


def search(
    meter: Meter, task: Task, found: Found, key: PRNGKey, eps: float
) -> Iterator[LogNormalizer]:
    """Estimates of log Z, each better founded than the last; it ends where one is.

    T is doubled once to confirm the estimate, and again while log Z moves by more than
    its errors explain, the weights spread or lean to the right, or their two halves
    disagree; then chains are added until the error is reached.

    Args:
        meter: counts, and ends the search.
        task: the path.
        found: of the pilot.
        key: chunk i of a number of temperatures depends on it, on both numbers, and on
            nothing else.
        eps: relative spacing of the log densities' numbers.
    """
    limits, before, chunks, wanted = meter.limits, None, [], 1
    num = limits.num_temperatures or first_temperatures(meter, found)
    is_confirming = limits.num_temperatures is None
    meter.expect(num * (3 if is_confirming else 1))
    while True:
        while len(chunks) < wanted:
            chunk_key = jax.random.fold_in(jax.random.fold_in(key, num), len(chunks))
            chunks.append(run_chunk(meter, task, found, num, chunk_key))
        result = merge(chunks, meter, eps, before)
        meter.latest = float(result.log_z), float(result.standard_error)
        yield result
        if limits.error is None:
            return
        is_rough = is_rough_result(result)
        if is_rough or (is_confirming and before is None):
            if not meter.allows(2 * num):
                return
            before, num, chunks, wanted = result, 2 * num, [], 1
        elif result.standard_error > limits.error:
            wanted = len(chunks) + _more(result, len(chunks), limits.error)
            while wanted > len(chunks) and not meter.allows(
                num * (wanted - len(chunks))
            ):
                wanted -= 1
            if wanted == len(chunks):
                return
        else:
            return
        meter.expect(num * (wanted - len(chunks)))


def merge(
    chunks: list[Chunk], meter: Meter, eps: float, before: LogNormalizer | None
) -> LogNormalizer:
    """All chains of chunks as one estimate."""

    def join(name, axis=0):
        return np.concatenate([getattr(c, name) for c in chunks], axis)

    log_w, accept_prob = join("log_w"), join("accept_prob", 1)
    increments = join("increments", 1)
    summary = jax.device_get(_summarize(log_w))
    resolution = max(c.largest for c in chunks) * eps
    error = max(summary.standard_error, _disagreement(log_w))
    error = np.hypot(error, resolution)
    is_live = np.isfinite(log_w)
    is_counted = is_live if is_live.any() else np.ones_like(is_live)
    shift = 0.0
    if before is not None:
        apart = np.hypot(error, before.standard_error)
        shift = float(np.abs(summary.log_z - before.log_z) / apart)
    return LogNormalizer(
        log_z=summary.log_z,
        standard_error=error.astype(log_w.dtype),
        ess=summary.ess,
        log_w=log_w,
        z=join("z"),
        accept_prob=accept_prob[:, is_counted].mean(axis=1),
        increment_variance=np.where(is_counted, increments, 0.0)[:, is_counted].var(1),
        pareto_k=summary.pareto_k,
        resolution=np.asarray(resolution, log_w.dtype),
        num_nan=join("is_unsound").sum(),
        num_outside=join("is_outside").sum(),
        num_moves=np.int64(meter.spent),
        wanted_error=np.float32(meter.limits.error or math.inf),
        shift=np.float32(shift),
        plan=chunks[0].plan,
    )


def is_rough_result(result: LogNormalizer) -> bool:
    """Whether more temperatures are needed rather than more chains."""
    num_live = int(np.sum(np.isfinite(result.log_w)))
    if num_live == 0:
        return False
    return bool(
        result.ess < SMALLEST_SHARE * num_live
        or _disagreement(result.log_w) > 0.0
        or right_skew(result.log_w) > LARGEST_SKEW
        or result.shift > LARGEST_SHIFT
    )


def _disagreement(log_w):
    """Half the distance of the halves, where their errors do not explain it; else 0."""
    num = len(log_w) // 2
    one, two = (_summarize(half) for half in (log_w[:num], log_w[-num:]))
    distance = abs(float(one.log_z - two.log_z))
    error = math.hypot(float(one.standard_error), float(two.standard_error))
    return 0.5 * distance if distance > DISAGREEMENT * error else 0.0


def _more(result, num_chunks, error):
    """How many chunks are missing, as far as the error so far tells."""
    needed = num_chunks * (float(result.standard_error) / error) ** 2
    most = LARGEST_GROWTH * num_chunks
    if not needed < most:  # of NaN too
        return most - num_chunks
    return max(1, math.ceil(1.05 * needed) - num_chunks)


_summarize = jax.jit(summarize)
