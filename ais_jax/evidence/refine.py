"""The search for log Z: pilot, base and temperatures, until an error is reached.

The search runs on the host, a segment of moves at a time. So it can look at what it
has, tell its progress, and stop when time is up. The estimate comes from the chains of
the last number of temperatures alone, whose schedule is frozen before they start. Each
run by itself has E[Z-hat] = Z. Stopping by what was seen leaves a bias, which is small
where the runs agree.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree

from ais_jax.evidence import stepping
from ais_jax.evidence.budget import Found, Meter, Task, first_temperatures, steer
from ais_jax.evidence.checkpoint import Checkpoint
from ais_jax.evidence.compiling import quickly
from ais_jax.evidence.estimates import DIVERGENT, LogNormalizer, summarize
from ais_jax.evidence.plan import Plan
from ais_jax.evidence.reports import (
    LARGEST_SHIFT,
    LARGEST_SKEW,
    may_diverge,
    right_skew,
)
from ais_jax.evidence.sampler import CHAINS, SEGMENT
from ais_jax.types import PRNGKey

SMALLEST_SHARE = 0.3  # of the live chains that the ESS must be, or T is doubled
DISAGREEMENT = 3.0  # standard errors between the halves, above which T is doubled
LARGEST_GROWTH = 4  # times as many chains, at most, between two looks


class Chunk(NamedTuple):
    """K chains at the target, on the host."""

    log_w: Float[np.ndarray, "K"]
    z: Float[np.ndarray, "K D"]
    log_target: Float[np.ndarray, "K"]
    accept_prob: Float[np.ndarray, "M K"]
    increments: Float[np.ndarray, "T K"]
    is_unsound: Bool[np.ndarray, "K"]
    is_outside: Bool[np.ndarray, "K"]
    largest: np.floating
    plan: Plan


def run_chunk(
    meter: Meter, task: Task, found: Found, num: int, key: PRNGKey, number: int
) -> Chunk:
    """A chunk of K chains of T temperatures, a segment of moves after another."""
    programs, x, pilot = task.programs, task.x, found.pilot
    places = np.int32(num), np.int32(number)
    chains, memory = task.begin(key, CHAINS, places, pilot)
    parts, first = [], 0
    while True:
        steering = steer(pilot, is_pilot=False, num=num, first=first)
        advanced = programs.advance(x, chains, memory, steering)
        chains, size = advanced.chains, min(SEGMENT, num - first)
        part = steering.moves, advanced.accept_prob[:, 0], advanced.increments[:, 0]
        parts.append(jax.tree.map(lambda a, n=size: np.asarray(a)[:n], part))
        meter.pay(f"chains at T = {num}{task.name}", min(size, num - 1 - first))
        first += SEGMENT
        if first >= num:
            break
    moves, accept_prob, increments = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    ends = jax.tree.map(lambda a: a[0], jax.device_get(chains._replace(keys=())))
    points = jax.tree.map(lambda a: a[:, 0], ends.clouds.points)
    betas = np.append(np.zeros(1, moves.betas.dtype), moves.betas)
    scale = np.ones(()) if moves.scale is None else moves.scale[:-1]
    values = np.stack([points.log_target, points.log_base])
    return Chunk(
        log_w=ends.log_w + ends.lost,
        z=points.z,
        log_target=points.log_target,
        accept_prob=accept_prob[:-1],
        increments=increments,
        is_unsound=ends.is_unsound,
        is_outside=ends.is_outside,
        largest=np.max(np.abs(values), where=np.isfinite(values), initial=0.0),
        plan=Plan(betas, moves.step_sizes[:-1], scale, task.base),
    )


def search(
    meter: Meter, task: Task, found: Found, key: PRNGKey, eps: float, kept: Checkpoint
) -> Iterator[LogNormalizer]:
    """Estimates of log Z, each better founded than the last; it ends where one is.

    T is doubled once to confirm the estimate. It is doubled again while log Z moves by
    more than its errors explain, while the weights spread or lean to the right, while
    two halves of the chains disagree, or while a few moves diverge. Then chains are
    added until the error is reached.

    Args:
        meter: counts, and ends the search.
        task: the path.
        found: of the pilot.
        key: chunk i of a number of temperatures depends on it, on both numbers, and on
            nothing else.
        eps: relative spacing of the log densities' numbers.
        kept: keeps the chunks.
    """
    zero = np.zeros(())
    plan = Plan(zero, zero, zero, task.base)
    like = Chunk(zero, zero, zero, zero, zero, zero, zero, np.float32(0.0), plan)
    limits, before, chunks, wanted = meter.limits, None, [], 1
    num = limits.num_temperatures or first_temperatures(meter, found)
    is_confirming = limits.num_temperatures is None
    meter.expect(num * (3 if is_confirming else 1))
    while True:
        while len(chunks) < wanted:
            args = meter, task, found, num, key, len(chunks)
            name = f"chains-{num}-{len(chunks)}{'-fitted' if task.base else ''}"
            chunk = kept.step(name, meter, partial(run_chunk, *args), lambda: [like])
            chunks.append(chunk)
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


def user_positions(task: Task, z: Float[np.ndarray, "N D"], num_chains: int) -> PyTree:
    """Flat positions in the user's coordinates, K at a time as all is compiled."""
    blocks = np.split(z, len(z) // num_chains)
    found = [jax.device_get(task.programs.to_user(task.x, block)) for block in blocks]
    return jax.tree.map(lambda *a: np.concatenate(a), *found)


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
    log_z_at, error_at = stepping.log_z_at(increments.astype(float))
    return LogNormalizer(
        log_z=summary.log_z,
        standard_error=error.astype(log_w.dtype),
        ess=summary.ess,
        log_w=log_w,
        z=join("z"),
        log_target=join("log_target"),
        accept_prob=accept_prob[:, is_counted].mean(axis=1),
        divergent=(accept_prob[:, is_counted] < DIVERGENT).mean(axis=1),
        increment_variance=np.where(is_counted, increments, 0.0)[:, is_counted].var(1),
        pareto_k=summary.pareto_k,
        resolution=np.asarray(resolution, log_w.dtype),
        num_nan=join("is_unsound").sum(),
        num_outside=join("is_outside").sum(),
        num_moves=np.int64(meter.spent),
        wanted_error=np.float32(meter.limits.error or math.inf),
        shift=np.float32(shift),
        plan=chunks[0].plan,
        log_z_at=log_z_at,
        error_at=error_at,
    )


def is_rough_result(result: LogNormalizer) -> bool:
    """Whether more temperatures are needed rather than more chains."""
    num_live = int(np.sum(np.isfinite(result.log_w)))
    if num_live == 0:
        return False
    return bool(
        result.ess < SMALLEST_SHARE * num_live
        or _disagreement(result.log_w) > 0.0
        or right_skew(np.asarray(result.log_w)) > LARGEST_SKEW
        or result.shift > LARGEST_SHIFT
        or may_diverge(result)
    )


def _disagreement(log_w):
    """Half the distance of the halves, where their errors do not explain it; else 0."""
    num = len(log_w) // 2
    w = np.exp(log_w - max(log_w.max(), np.finfo(log_w.dtype).min), dtype=float)
    halves = w[:num], w[-num:]
    if not all(half.any() for half in halves):
        return 0.0
    distance = abs(np.log(halves[0].mean() / halves[1].mean()))
    errors = [half.std() / half.mean() for half in halves]
    error = math.hypot(*errors) / math.sqrt(num)
    return 0.5 * distance if distance > DISAGREEMENT * error else 0.0


def _more(result, num_chunks, error):
    """How many chunks are missing, as far as the error so far tells."""
    needed = num_chunks * (float(result.standard_error) / error) ** 2
    most = LARGEST_GROWTH * num_chunks
    if not needed < most:  # of NaN too
        return most - num_chunks
    return max(1, math.ceil(1.05 * needed) - num_chunks)


_summarize = quickly(summarize)
