"""Chains in chunks, and more temperatures, until log Z has a wanted error.

The chunks are run from the host, one after another, so that their number may depend on
what they show; the memory on the device is that of one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ais_jax.evidence.estimates import (
    LogNormalizer,
    summarize,
)
from ais_jax.evidence.plan import (
    Plan,
    resample_plan,
)
from ais_jax.types import PRNGKey

SMALLEST_SHARE = 0.4  # of the live chains that the ESS must be, or T is doubled
LARGEST_GROWTH = 4  # times as many chunks, at most, between two looks
DISAGREEMENT = 3.0  # standard errors between the halves, above which T is doubled


class Progress(NamedTuple):
    """Where a run stands; `str` is one line.

    Attributes:
        num_moves: made so far, by all chains.
        expected_moves: of the whole run, as far as can be told.
        log_z: so far, nats.
        standard_error: so far, nats.
    """

    num_moves: int
    expected_moves: int
    log_z: float
    standard_error: float

    def __str__(self) -> str:
        """The line."""
        return (
            f"{self.num_moves:,} of about {self.expected_moves:,} moves: "
            f"log Z = {self.log_z:.3f} +- {self.standard_error:.2g}"
        )


def refine(
    run: Callable[[PRNGKey, Plan], LogNormalizer],
    key: PRNGKey,
    plan: Plan,
    *,
    num_chains: int,
    error: float,
    max_moves: int,
    progress: Callable[[Progress], object] | None = None,
) -> LogNormalizer:
    """Runs chunks of chains until log Z has the wanted standard error.

    Temperatures are doubled, and all chains begun anew, while the effective sample size
    is a small share of them or their two halves disagree.

    Args:
        run: a chunk: (key, plan) -> the estimate of its independent chains.
        key: chunk i of a number of temperatures depends on it, on both numbers, and on
            nothing else.
        plan: the first one.
        num_chains: of a chunk.
        error: wanted, nats.
        max_moves: of all chains together; where the next chunk would make more, the run
            ends with what it has, and says so.
        progress: called after every chunk.

    Returns:
        The estimate from the last plan's chains, whose `z` and `log_w` are on the host.

    Raises:
        ValueError: where a single chunk makes more than `max_moves`.
    """
    if num_chains * len(plan.step_sizes) > max_moves:
        raise ValueError(
            f"max_moves={max_moves} is less than one chunk of num_chains={num_chains} "
            f"makes at {len(plan.betas) - 1} temperatures: raise it"
        )
    spent, chunks, wanted = 0, [], 1
    while True:
        size = num_chains * len(plan.step_sizes)
        plan_key = jax.random.fold_in(key, len(plan.betas))
        while len(chunks) < wanted and spent + size <= max_moves:
            chunk_key = jax.random.fold_in(plan_key, len(chunks))
            chunks.append(jax.device_get(run(chunk_key, plan)))
            spent += size
            if progress is not None:
                rest = size * (wanted - len(chunks))
                progress(Progress(spent, spent + rest, *_so_far(chunks)))
        result = _merge(chunks, error, spent)
        if result.standard_error <= error or spent + size > max_moves:
            return result
        if not _is_rough(result):
            wanted = len(chunks) + _more(result, len(chunks))
        elif spent + 2 * size > max_moves:
            return result
        else:
            plan = resample_plan(plan, 2 * (len(plan.betas) - 1))
            chunks, wanted = [], 1


def _merge(chunks, error, spent):
    """All chains of chunks as one estimate."""

    def join(*arrays):
        return np.concatenate(arrays)

    log_w = join(*(chunk.log_w for chunk in chunks))
    summary = jax.device_get(_summarize(log_w))
    resolution = max(chunk.resolution for chunk in chunks)
    found = max(summary.standard_error, _disagreement(log_w))
    return chunks[0]._replace(
        log_z=summary.log_z,
        standard_error=np.hypot(found, resolution),
        ess=summary.ess,
        log_w=log_w,
        z=jax.tree.map(join, *(chunk.z for chunk in chunks)),
        accept_prob=np.mean([chunk.accept_prob for chunk in chunks], axis=0),
        increment_variance=np.mean([c.increment_variance for c in chunks], axis=0),
        pareto_k=summary.pareto_k,
        resolution=resolution,
        num_nan=sum(chunk.num_nan for chunk in chunks),
        num_moves=np.int64(spent),
        wanted_error=np.float32(error),
    )


def _so_far(chunks):
    """Log Z and its error, from the chunks' estimates, as if all were sound."""
    log_z = np.array([chunk.log_z for chunk in chunks], float)
    errors = np.array([chunk.standard_error for chunk in chunks], float)
    return np.logaddexp.reduce(log_z) - math.log(len(chunks)), (
        np.sqrt(np.sum(np.square(errors))) / len(chunks)
    )


def _disagreement(log_w):
    """Half the distance of the halves, where their errors do not explain it; else 0."""
    num = len(log_w) // 2
    one, two = (_summarize(half) for half in (log_w[:num], log_w[-num:]))
    distance = abs(float(one.log_z - two.log_z))
    error = math.hypot(float(one.standard_error), float(two.standard_error))
    return 0.5 * distance if distance > DISAGREEMENT * error else 0.0


def _is_rough(result):
    """Whether more temperatures are needed rather than more chains."""
    num_live = int(np.sum(np.isfinite(result.log_w)))
    if num_live == 0:
        return False
    return result.ess < SMALLEST_SHARE * num_live or _disagreement(result.log_w) > 0.0


def _more(result, num_chunks):
    """How many chunks are missing, as far as the error so far tells."""
    needed = num_chunks * (float(result.standard_error) / result.wanted_error) ** 2
    most = LARGEST_GROWTH * num_chunks
    if not needed < most:  # of NaN too
        return most - num_chunks
    return max(1, math.ceil(1.05 * needed) - num_chunks)


_summarize = jax.jit(summarize)
