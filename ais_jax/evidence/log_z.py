"""Normalising constants and log-likelihoods with errors and bounds, in nats.

Everything takes an `AnnealingPath`, so it serves any pair of densities, and a frozen
`Plan` of temperatures and step sizes, which `tuning` makes in a pilot run.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.ais import (
    Transition,
    anneal,
    anneal_both_ways,
)
from ais_jax.annealing.path import AnnealingPath
from ais_jax.annealing.smc import (
    anneal_population,
    check_share,
    family_log_weights,
)
from ais_jax.batching import chain_keys
from ais_jax.checks import check_count
from ais_jax.evidence.estimates import (
    Bounds,
    LogNormalizer,
    summarize,
)
from ais_jax.evidence.plan import (
    DEFAULT_TRANSITION,
    Plan,
    check_plan,
    scale_of_moves,
    tune,
)
from ais_jax.evidence.positions import (
    check_like_draws,
    flatten,
)
from ais_jax.evidence.refine import (
    Progress,
    refine,
)
from ais_jax.numerics import (
    effective_sample_size,
    log_mean_exp,
)
from ais_jax.types import PRNGKey

__all__ = [
    "Bounds",
    "LogNormalizer",
    "bidirectional_bounds",
    "effective_sample_size",
    "estimate_log_z",
    "importance_log_weights",
    "log_mean_exp",
    "log_normalizer",
]


def estimate_log_z(
    key: PRNGKey,
    path: AnnealingPath,
    *,
    num_temperatures: int = 100,
    num_chains: int = 100,
    transition: Transition = DEFAULT_TRANSITION,
    preconditioner: str = "diagonal",
    resample_below: float = 0.0,
    error: float | None = None,
    max_moves: int = 10_000_000,
    progress: Callable[[Progress], object] | None = None,
) -> LogNormalizer:
    """Estimates log Z of a path with a pilot run of its own.

    With a wanted `error`, chains are run in chunks of `num_chains`, and temperatures
    are doubled, until it is reached (`refining`).

    Args:
        key: of the pilot and of the estimate.
        path: from the base to the target.
        num_temperatures: T; the bias falls with it.
        num_chains: K, independent chains; the standard error falls with it.
        transition: as for `ais.anneal`.
        preconditioner: as for `tuning.tune`.
        resample_below: as for `log_normalizer`.
        error: standard error wanted, nats; not under `jit` or `vmap`, nor with
            resampling.
        max_moves: with `error`, of all chains together; as many gradients as a move
            has leapfrog steps.
        progress: with `error`, called after every chunk, for instance `print`.

    Raises:
        ValueError: as `tuning.tune` and `log_normalizer`, before anything is run.
    """
    check_count("num_chains", num_chains)
    check_share(resample_below)
    if error is not None:
        _check_wanted(key, error, max_moves, num_chains, resample_below)
    pilot_key, key = jax.random.split(key)
    plan = tune(
        pilot_key,
        path,
        num_temperatures=num_temperatures,
        transition=transition,
        preconditioner=preconditioner,
    )
    settings = num_chains, transition, resample_below
    if error is None:
        return log_normalizer(key, path, plan, *settings)
    run = jax.jit(lambda key, plan: log_normalizer(key, path, plan, *settings))
    limits = {"num_chains": num_chains, "error": error, "max_moves": max_moves}
    return refine(run, key, plan, **limits, progress=progress)


def log_normalizer(
    key: PRNGKey,
    path: AnnealingPath,
    plan: Plan,
    num_chains: int,
    transition: Transition = DEFAULT_TRANSITION,
    resample_below: float = 0.0,
) -> LogNormalizer:
    """Estimates log Z by K annealed chains of a frozen plan (Eq. 7).

    Chain k depends on the key and on k alone, so adding chains leaves the others as
    they are; not so where they are resampled.

    Args:
        key: not the one that made the plan.
        path: from the base to the target.
        plan: temperatures and step sizes.
        num_chains: K.
        transition: as for `ais.anneal`.
        resample_below: the chains are resampled where their effective sample size falls
            below this share of K (sequential Monte Carlo); 0 leaves them independent.
            The error is then that of their families, of which many must be left: use
            hundreds of chains.

    Raises:
        ValueError: for a plan, a path or a number of chains that cannot be, naming what
            is wrong.
    """
    check_count("num_chains", num_chains)
    check_share(resample_below)
    path, unflatten = flatten(key, path)

    @jax.jit  # one program, where every operation would be compiled by itself
    def run(key, plan):
        chains = _forward(key, path, plan, num_chains, transition, resample_below)
        return _log_normalizer(plan, *chains, unflatten)

    return run(key, check_plan(plan))


def bidirectional_bounds(
    key: PRNGKey,
    path: AnnealingPath,
    z_target: PyTree,
    plan: Plan,
    num_chains: int,
    transition: Transition = DEFAULT_TRANSITION,
) -> Bounds:
    """Bounds log Z from both sides (bidirectional Monte Carlo).

    Args:
        key: not the one that made the plan.
        path: from the base to the target.
        z_target: one exact draw from the normalised target, from which all
            reverse chains start; as the z of a simulated pair (x, z) is for p(z|x).
        plan: temperatures and step sizes.
        num_chains: K in each direction.
        transition: as for `ais.anneal`; it must be reversible.

    Where the target is zero on a part of the base's support, reverse chains estimate
    P_base(support) / Z and not 1 / Z: the upper bound holds but never closes.

    Raises:
        ValueError: as `log_normalizer`, and for a z_target of another shape than the
            base's draws.

    References:
        Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using
        bidirectional Monte Carlo, 2015.
    """
    check_count("num_chains", num_chains)
    z_target = check_like_draws(key, path, "z_target", z_target)
    path, plan = flatten(key, path)[0], check_plan(plan)
    forward_key, reverse_key = jax.random.split(key)
    z0, keys = _starts(forward_key, path, num_chains)
    lower, upper = anneal_both_ways(
        jnp.stack([keys, chain_keys(reverse_key, num_chains)]),
        path,
        jnp.stack([z0, jnp.broadcast_to(z_target, z0.shape)]),
        *(plan.betas, plan.step_sizes, transition, scale_of_moves(plan)),
    ).log_w
    below, above = summarize(lower), summarize(upper)
    return Bounds(below.log_z, -above.log_z, below.standard_error, above.standard_error)


def importance_log_weights(
    key: PRNGKey, path: AnnealingPath, num_samples: int, block_size: int = 100
) -> Float[Array, "K"]:
    """Log weights of independent draws from the base.

    Their mean estimates the ELBO (Eq. 2) and their `log_mean_exp` the bound of Eq. 5.

    Args:
        key: sample k depends on it and on k alone.
        path: gives the base and the target.
        num_samples: K.
        block_size: samples drawn at a time, which bounds the memory.

    Returns:
        Nats.
    """

    def log_weight(k):
        z = path.sample_base(jax.random.fold_in(key, k))
        return path.log_target(z) - path.log_base(z)

    indices = jnp.arange(num_samples)
    return jax.lax.map(log_weight, indices, batch_size=min(block_size, num_samples))


def _starts(key, path, num_chains):
    """K draws from the base, and the keys of the chains that start there."""
    keys = jax.vmap(jax.random.split)(chain_keys(key, num_chains))
    return jax.vmap(path.sample_base)(keys[:, 0]), keys[:, 1]


def _forward(key, path, plan, num_chains, transition, resample_below):
    """K chains from the base: (chains, their families, or None if not resampled)."""
    settings = plan.betas, plan.step_sizes, transition, scale_of_moves(plan)
    z0, keys = _starts(key, path, num_chains)
    if resample_below > 0.0:
        move_key = jax.random.fold_in(key, num_chains)
        return anneal_population(
            move_key, path, z0, *settings, resample_below=resample_below
        )
    chains = jax.vmap(lambda key, z: anneal(key, path, z, *settings))(keys, z0)
    return chains, None


def _log_normalizer(plan, result, families, unflatten):
    """What K chains say, an `AISResult` with a leading axis of K."""
    independent = result.log_w
    if families is not None:
        independent = family_log_weights(result.log_w, families)
    summary = summarize(independent)
    is_live = jnp.isfinite(result.log_w)
    increments = jnp.diff(plan.betas)[None] * result.log_ratio
    resolution = _resolution(result.point)
    return LogNormalizer(
        log_z=log_mean_exp(result.log_w),
        standard_error=jnp.hypot(summary.standard_error, resolution),
        ess=summary.ess,
        log_w=result.log_w,
        z=jax.vmap(unflatten)(result.point.z),
        accept_prob=_mean_over(is_live, result.accept_prob),
        increment_variance=_variance_over(is_live, increments),
        pareto_k=summary.pareto_k,
        resolution=resolution,
        num_nan=jnp.sum(_is_no_density(result.log_ratio)),
        num_moves=result.accept_prob.size,
    )


def _check_wanted(key, error, max_moves, num_chains, resample_below):
    """Refuses an error that cannot be aimed for."""
    if isinstance(key, jax.core.Tracer):
        raise ValueError(f"error={error} is not for jit or vmap: call it from the host")
    if not 0.0 < error < float("inf"):
        raise ValueError(f"error={error}: use a positive number of nats")
    check_count("max_moves", max_moves)
    check_count("num_chains", num_chains, 4)  # halves of chunks have an error
    if resample_below > 0.0:
        raise ValueError(
            f"error={error} with resample_below={resample_below}: chains must be "
            "independent, so leave one of them out"
        )


def _is_no_density(ratios):
    """Whether a chain met a log ratio of NaN or plus infinity: [K] of [K, T]."""
    return jnp.any(jnp.isnan(ratios) | jnp.isposinf(ratios), axis=1)


def _resolution(points):
    """The rounding of the largest log-density at the ends of the chains, nats."""
    values = jnp.stack([points.log_target, points.log_base])
    largest = jnp.max(jnp.abs(values), where=jnp.isfinite(values), initial=0.0)
    return largest * jnp.finfo(largest.dtype).eps


def _mean_over(is_live, values):
    """Means of values [K, M] over the chains that are live, or over all if none is."""
    where = (is_live | ~jnp.any(is_live))[:, None]
    total = jnp.sum(jnp.where(where, values, 0.0), axis=0)
    return total / jnp.sum(where)


def _variance_over(is_live, values):
    """Variances of values [K, T] over the chains that are live; zero if none is."""
    num = jnp.maximum(jnp.sum(is_live), 1)
    values = jnp.where(is_live[:, None] & jnp.isfinite(values), values, 0.0)
    deviations = values - (jnp.sum(values, axis=0) / num)[None]
    squares = jnp.where(is_live[:, None], jnp.square(deviations), 0.0)
    return jnp.sum(squares, axis=0) / num
