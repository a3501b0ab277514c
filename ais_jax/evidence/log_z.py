"""Normalising constants and log-likelihoods with errors and bounds, in nats.

Every function takes an `AnnealingPath`, of any two densities. Those that weigh chains
take a frozen `Plan` too: temperatures and step sizes that `plan.tune` made in a pilot
run.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.ais import AISResult, anneal_chains
from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.path import AnnealingPath, digest_of, has_own_base
from ais_jax.annealing.smc import ancestor_log_weights, check_share
from ais_jax.checks import check_count
from ais_jax.evidence import derivatives, stepping
from ais_jax.evidence.approach import approach
from ais_jax.evidence.both_ways import anneal_from_both_ends, starts
from ais_jax.evidence.budget import (
    Limits,
    Meter,
    Progress,
    check_limits,
    check_mesh,
    check_traced,
)
from ais_jax.evidence.checkpoint import Checkpoint, Folder
from ais_jax.evidence.estimates import (
    DIVERGENT,
    Bounds,
    LogNormalizer,
    mean_over,
    summarize,
    variance_over,
)
from ais_jax.evidence.mass_matrix import suited
from ais_jax.evidence.plan import (
    DEFAULT_TARGET,
    DEFAULT_TRANSITION,
    Plan,
    check_data,
    check_plan,
    from_base_of,
    scale_of_moves,
    tune,
)
from ais_jax.evidence.positions import check_like_draws, flatten, spacing_of_numbers
from ais_jax.evidence.refine import search, user_positions
from ais_jax.evidence.sampler import as_function, flat_paths
from ais_jax.numerics import log_mean_exp
from ais_jax.types import PRNGKey, is_traced

DEFAULT_ERROR = 0.1  # nats


def estimate_log_z(
    key: PRNGKey,
    path: AnnealingPath | Callable[[PyTree], AnnealingPath],
    data: PyTree = None,
    *,
    error: float | None = None,
    num_temperatures: int | None = None,
    num_chains: int = 100,
    transition: Transition = DEFAULT_TRANSITION,
    mass_matrix: str | None = None,
    fit_base: bool = True,
    max_moves: int = 10_000_000,
    max_seconds: float = float("inf"),
    progress: Callable[[Progress], object] | None = None,
    checkpoint: Folder | None = None,
    mesh: Mesh | None = None,
) -> LogNormalizer:
    """Estimates log Z of a path, to 0.1 nats where nothing else is said.

    A pilot of K chains finds temperatures, step sizes and mass matrices. Where the base
    is far from the target, another base is fitted to the pilot's chains. The pilot says
    how many temperatures there should be. The estimate is confirmed at twice as many,
    and at more while log Z still moves (`refine.search`). Where the limits end the
    search before that, the result warns.

    `log_z` has a derivative in data, the weighted mean of the target's. Under `jit` or
    `vmap`, or for a derivative in what path closes over, one run of K chains is made,
    and `num_temperatures` is needed.

    Args:
        key: of the pilot and of the estimate.
        path: from the base to the target; or, with data, a function of them that gives
            it. Another call with the same function, and data of the same shapes,
            compiles nothing.
        data: arrays that `path` takes, or None.
        error: standard error wanted, nats. None is 0.1 or, where `num_temperatures` is
            given, one run of K chains.
        num_temperatures: T to begin with, or None for the pilot's choice.
        num_chains: K, the chains of a run.
        transition: makes the moves; `transitions.md` says what may be one.
        mass_matrix: 'dense', 'diagonal', or 'unit' for the path's own scale. None is
            'dense' up to 200 dimensions, where two have a chain or more, and
            'diagonal' otherwise.
        fit_base: whether a base may be fitted.
        max_moves: of all chains together; a move costs as many gradients as it has
            leapfrog steps.
        max_seconds: after which no further run is begun.
        progress: called after every few hundred moves, for instance `print`.
        checkpoint: a folder that keeps what is computed, or None. The same call goes on
            from there, also to a smaller error.
        mesh: devices over which the chains are spread, or None for one device.

    Raises:
        ValueError: naming the argument that cannot be, before anything is run.
    """
    check_count("num_chains", num_chains, 2)
    if num_temperatures is not None:
        check_count("num_temperatures", num_temperatures)
    check_data("data", path, data)
    check_mesh(mesh, num_chains)
    whole, (key, x) = _path_of(path, data), derivatives.constant((key, data))
    fit_base = fit_base and getattr(whole, "is_base_normalised", True)
    flat = flatten(key, whole)[0]
    mass_matrix = suited(mass_matrix, key, flat, num_chains)
    if is_traced((key, x)) or derivatives.closes_over_traced(key, _path_of(path, x)):
        num_temperatures = check_traced(error, num_temperatures, checkpoint, mesh)
        pilot_key, key = jax.random.split(key)
        settings = {"transition": transition, "mass_matrix": mass_matrix}
        plan = tune(pilot_key, whole, num_temperatures=num_temperatures, **settings)
        return log_normalizer(key, whole, plan, num_chains, transition)
    if num_temperatures is None and error is None:
        error = DEFAULT_ERROR
    limits = Limits(error, num_temperatures, max_moves, max_seconds)
    meter = Meter(check_limits(limits, num_chains), num_chains, progress)
    path, x = as_function(path, x)
    eps = spacing_of_numbers(key, whole)
    flat_fn = flat_paths(path, key, x)
    call = {"num_chains": num_chains, "mass_matrix": mass_matrix, "fit_base": fit_base}
    call["digest"] = digest_of(whole)
    kept = Checkpoint(checkpoint, key, flat, x, transition, call)
    settings = transition, num_chains, mass_matrix, DEFAULT_TARGET
    own = {"fit_base": fit_base, "is_own": has_own_base(whole)}
    args = meter, key, flat_fn, x, settings
    task, found = approach(*args, **own, mesh=mesh, kept=kept)
    *_, result = search(meter, task, found, key, eps, kept)
    log_z = derivatives.with_derivative(result.log_z, flat, result.z, result.log_w)
    z = user_positions(task, result.z, num_chains)
    return result._replace(log_z=log_z, z=z, digest=digest_of(whole))


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
    they are, unless they are resampled. Of the results only `log_z` has a derivative in
    what the path closes over: the weighted mean of log_target's.

    Args:
        key: not the one that made the plan.
        path: from the base to the target.
        plan: temperatures and step sizes.
        num_chains: K.
        transition: makes the moves, for instance `trajectory_step`.
        resample_below: the chains are resampled where their effective sample size falls
            below this share of K (sequential Monte Carlo); 0 leaves them independent.
            The error of resampled chains is that of their families. Use hundreds of
            chains, so that many families are left.

    Raises:
        ValueError: for a plan, a path or a number of chains that cannot be, naming what
            is wrong.
    """
    check_count("num_chains", num_chains)
    check_share(resample_below)
    whole, (path, unflatten) = path, flatten(key, path)
    eps = spacing_of_numbers(key, whole)

    @jax.jit  # one program, where every operation would be compiled by itself
    def run(key, plan):
        flat = from_base_of(plan, path)
        chains = _forward(key, flat, plan, num_chains, transition, resample_below)
        return _log_normalizer(chains, plan, resample_below > 0.0, eps)

    result = derivatives.stopped(run, key, check_plan(plan))
    result = result._replace(digest=digest_of(whole))
    return _for_user(result, path, unflatten)


def bidirectional_bounds(
    key: PRNGKey,
    path: AnnealingPath,
    z_target: PyTree,
    plan: Plan,
    num_chains: int,
    transition: Transition = DEFAULT_TRANSITION,
) -> Bounds:
    """Bounds log Z from both sides (bidirectional Monte Carlo).

    Where the target is zero on a part of the base's support, reverse chains estimate
    P_base(support) / Z in place of 1 / Z. The upper bound holds then, but never closes.

    Args:
        key: not the one that made the plan.
        path: from the base to the target.
        z_target: one exact draw from the normalised target, from which all reverse
            chains start. The z of a simulated pair (x, z) is one of p(z|x).
        plan: temperatures and step sizes.
        num_chains: K in each direction.
        transition: makes the moves; it must be reversible, as HMC is.

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

    @jax.jit  # one program, where every operation would be compiled by itself
    def run(key, z_target, plan):
        flat = from_base_of(plan, path)
        ends = jnp.broadcast_to(z_target, (num_chains, *z_target.shape))
        both = anneal_from_both_ends(key, flat, ends, plan, transition)
        low, high = (summarize(way.log_w) for way in both)
        return Bounds(low.log_z, -high.log_z, low.standard_error, high.standard_error)

    return derivatives.refused("bidirectional_bounds", run, key, z_target, plan)


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


def _path_of(path, data):
    return path if isinstance(path, AnnealingPath) else path(data)


def _forward(key, path, plan, num_chains, transition, resample_below):
    """K chains from the base."""
    z0, keys = starts(key, path, num_chains, transition)
    return anneal_chains(
        keys,
        path,
        z0,
        plan.betas,
        plan.step_sizes,
        transition,
        scale_of_moves(plan),
        resample_below if resample_below > 0.0 else None,
    )


def _for_user(result, path, unflatten):
    """A result whose log Z has its derivative, and whose positions the user's shape."""
    log_z = derivatives.with_derivative(result.log_z, path, result.z, result.log_w)
    z = derivatives.stopped(jax.jit(jax.vmap(unflatten)), result.z)
    return result._replace(log_z=log_z, z=z)


def _log_normalizer(result: AISResult, plan, is_resampled, eps):
    """What K chains say, an `AISResult` with a leading axis of K, positions flat."""
    independent = result.log_w
    if is_resampled:
        independent = ancestor_log_weights(result.log_w, result.ancestor)
    summary = summarize(independent)
    is_live = jnp.isfinite(result.log_w)
    resolution = _resolution(result.point, eps)
    log_z_at = error_at = None
    if not is_resampled:
        log_z_at, error_at = stepping.log_z_at(result.increments.T)
    return LogNormalizer(
        log_z=log_mean_exp(result.log_w),
        standard_error=jnp.hypot(summary.standard_error, resolution),
        ess=summary.ess,
        log_w=result.log_w,
        z=result.point.z,
        log_target=result.point.log_target,
        accept_prob=mean_over(is_live, result.accept_prob),
        divergent=mean_over(
            is_live, jnp.where(result.accept_prob < DIVERGENT, 1.0, 0.0)
        ),
        increment_variance=variance_over(is_live, result.increments),
        pareto_k=summary.pareto_k,
        resolution=resolution,
        num_nan=jnp.sum(result.is_unsound),
        num_outside=jnp.sum(result.is_outside),
        num_moves=result.accept_prob.size,
        plan=plan,
        log_z_at=log_z_at,
        error_at=error_at,
    )


def _resolution(points, eps):
    """The rounding of the largest log-density at the ends of the chains, nats."""
    values = jnp.stack([points.log_target, points.log_base])
    largest = jnp.max(jnp.abs(values), where=jnp.isfinite(values), initial=0.0)
    return largest * eps
