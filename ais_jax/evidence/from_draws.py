"""Evidence from a posterior's draws: bounds from both sides, and where they meet.

The draws of a sampler such as NUTS fit a base, from which annealed chains run to the
target; chains from other draws run back. Forward chains bound log Z from below and
reverse chains from above, as far as the draws are from the target.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.path import AnnealingPath, digest_of
from ais_jax.checks import check_count
from ais_jax.evidence.base import BaseFit, fit, student_path, with_base
from ais_jax.evidence.both_ways import anneal_from_both_ends
from ais_jax.evidence.bridge import FAR, BridgeEstimate, Round, meet
from ais_jax.evidence.budget import (
    Limits,
    Meter,
    Progress,
    Task,
    check_limits,
    find,
    first_temperatures,
)
from ais_jax.evidence.digests import program_digest
from ais_jax.evidence.draws import (
    check_density,
    check_shapes,
    flat_draws,
    read_draws,
    split_r_hat,
)
from ais_jax.evidence.estimates import LARGEST_K
from ais_jax.evidence.plan import DEFAULT_TARGET, DEFAULT_TRANSITION, Plan, make_plan
from ais_jax.evidence.positions import spacing_of_numbers
from ais_jax.evidence.sampler import KEPT, programs
from ais_jax.types import PRNGKey

WIDEST = 4.0  # times as wide as the draws a part of the base is, at most
WIDE_SHARE = 0.5  # of it: a mode that the draws lack is seen by chains from there
MOST_TIMES = 4  # as many temperatures as at first; more find no more modes
DEFAULT_ERROR = 0.02  # nats


def log_z_from_draws(
    key: PRNGKey,
    log_density: Callable[[PyTree], Float[Array, ""]] | AnnealingPath,
    draws: Any,
    *,
    error: float = DEFAULT_ERROR,
    num_chains: int = 200,
    max_moves: int = 10_000_000,
    max_seconds: float = float("inf"),
    progress: Callable[[Progress], object] | None = None,
) -> BridgeEstimate:
    """Estimates log Z of a density from draws of it that a sampler has made.

    The first half of each of the sampler's chains fits a base. K chains run from it to
    the density, and K run back from draws of the second halves. Log Z is where both
    meet (Bennett's acceptance ratio). Temperatures are doubled while the bounds do not
    meet, and chains are added until the error is reached.

    The upper bound and the error trust the draws. What a sampler has missed is seen
    only where forward chains find it, or where its chains disagree; the result warns.

    Args:
        key: of the pilot and of the chains.
        log_density: of an unbounded position, up to its normalising constant; or a
            path, as `from_numpyro` and `from_pymc` make it.
        draws: arrays with axes (chain, draw, ...), in the shape of a position. With a
            path they are the parameters by site, as a dict or as an ArviZ object.
        error: standard error wanted, nats.
        num_chains: K, in each direction and round.
        max_moves: of all chains together.
        max_seconds: after which no further run is begun.
        progress: called after every few hundred moves, for instance `print`.

    Raises:
        ValueError: naming the argument that cannot be, before anything is run.

    References:
        Without annealing: Gronau, Singmann & Wagenmakers, bridgesampling: an R package
        for estimating normalizing constants, 2020.
    """
    check_count("num_chains", num_chains, 50)
    limits = Limits(error, None, max_moves, max_seconds)
    meter = Meter(check_limits(limits, num_chains), num_chains, progress)
    positions, path_fn = _positions(key, log_density, draws)
    half = positions.shape[1] // 2
    base = _fit(positions[:, :half])
    eps = spacing_of_numbers(key, path_fn(base))
    settings = DEFAULT_TRANSITION, num_chains, "unit", DEFAULT_TARGET
    task = Task(programs(path_fn, *settings), base, base)
    pilot_key, key = jax.random.split(key)
    found = find(meter, task, pilot_key)
    rest = positions[:, half:].reshape(-1, positions.shape[-1])
    r_hat = float(split_r_hat(np.asarray(positions)).max())
    num = first = first_temperatures(meter, found)
    rounds: list[Round] = []
    while True:
        round_key = jax.random.fold_in(jax.random.fold_in(key, num), len(rounds))
        starts = _spread(len(rest), num_chains, len(rounds))
        args = round_key, base, rest[starts], _plan(found.pilot, num)
        forward, reverse, *counts = jax.device_get(_run(path_fn, *args))
        rounds.append(Round(forward, -reverse, starts, *counts))
        meter.pay(f"chains at T = {num}, both ways", 2 * (num - 1))
        estimate = meet(rounds, num, meter.spent, eps)
        estimate = estimate._replace(
            r_hat=r_hat, wanted_error=error, digest=digest_of(log_density)
        )
        meter.latest = estimate.log_z, estimate.standard_error
        is_rough = abs(estimate.apart) > FAR or estimate.pareto_k > LARGEST_K
        if not is_rough and estimate.standard_error <= error:
            return estimate
        if is_rough:
            num, rounds = 2 * num, []
        meter.expect(2 * num)
        if not meter.allows(2 * num) or num > MOST_TIMES * first:
            return estimate


def _positions(key, log_density, draws):
    """Flat positions of draws, and a path from a fit as a function of it."""
    to_path = None
    if isinstance(log_density, AnnealingPath):
        path, log_density = log_density, log_density.log_target
        like = jax.eval_shape(path.sample_base, key)
        if path.coordinates is not None:
            like = jax.eval_shape(path.coordinates.constrain, like)
            to_path = path.coordinates.unconstrain
        draws = read_draws(draws, like)
        check_shapes(draws, like)
    else:
        draws = read_draws(draws)
    draw = jax.tree.map(lambda a: a[0, 0], draws)
    position = draw if to_path is None else to_path(draw)
    check_density(log_density, position)
    positions = flat_draws(draws, to_path, log_density)
    leaves, structure = jax.tree.flatten(position)
    shapes = tuple(np.shape(a) for a in leaves)
    seen = program_digest(log_density, position)
    return positions, _paths(log_density, structure, shapes, seen)


@lru_cache(maxsize=KEPT)
def _paths(log_density, structure, shapes, _):
    """The function of a fit that gives the path from it, in its units.

    It is the same one as long as the density computes the same.

    Half of the base is wider, so that it sees modes that draws lack: four times as wide
    in few dimensions, and less so in many, from where the path would be long.
    """
    unravel = ravel_pytree(structure.unflatten(map(np.zeros, shapes)))[1]

    def path_fn(base):
        width = 1.0 + (WIDEST - 1.0) * math.sqrt(min(1.0, 2.0 / len(base.mean)))
        wider = BaseFit(base.mean, width * base.scale)
        path = student_path(wider, lambda z: log_density(unravel(z)))
        return with_base(path, base, WIDE_SHARE)._replace(scale=base.scale)

    return path_fn


@jax.jit
def _fit(positions):
    z = positions.reshape(-1, positions.shape[-1])
    return fit(z, jnp.ones(len(z), z.dtype))


@partial(jax.jit, static_argnums=1)
def _plan(pilot, num) -> Plan:
    return make_plan(pilot, num, None)


@partial(jax.jit, static_argnums=0)
def _run(path_fn, key, base, starts, plan):
    """What a `Round` keeps of chains of both directions."""
    ways = anneal_from_both_ends(key, path_fn(base), starts, plan, DEFAULT_TRANSITION)

    ends = jnp.stack(
        [a for way in ways for a in (way.point.log_target, way.point.log_base)]
    )
    largest = jnp.max(jnp.abs(ends), where=jnp.isfinite(ends), initial=0.0)
    num_nan, num_outside = (
        sum(jnp.sum(getattr(way, name)) for way in ways)
        for name in ("is_unsound", "is_outside")
    )
    return *(way.log_w for way in ways), num_nan, num_outside, largest


def _spread(num, num_chains, round):
    """Indices of K of so many draws, even in time and others in every round."""
    shift = (0.5 + 0.618034 * round) % 1.0
    return ((np.arange(num_chains) + shift) * num / num_chains).astype(int)
