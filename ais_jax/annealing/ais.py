"""Annealed importance sampling, forward and reverse, of one chain and of K (Eq. 7)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.ends import first_clouds, weigh_at_base
from ais_jax.annealing.loop import Moves, Paths, cloud_size, finish, frozen, run, start
from ais_jax.annealing.path import AnnealingPath, Point, evaluate
from ais_jax.annealing.schedules import check_lengths
from ais_jax.batching import chain_keys
from ais_jax.types import AnyArray, PRNGKey, PRNGKeys, Scalar


class AISResult(NamedTuple):
    """The end of one annealed chain, or of K with leading axes of K.

    Attributes:
        point: drawn from the last cloud by weight; with log_w it is a weighted draw
            from the target.
        log_w: the log importance weight, nats.
        accept_prob: the acceptance probability of each move.
        increments: of the log weight, at each temperature, nats.
        is_unsound: whether a density of NaN or plus infinity was met; it weighs zero.
        is_outside: whether the chain met a place where the base's density is zero and
            the target's is not. The base then misses a part of the target.
        ancestor: the chain that this one descends from, where chains are resampled.
    """

    point: Point
    log_w: Scalar
    accept_prob: Float[Array, "M"]
    increments: Float[Array, "T"]
    is_unsound: Bool[Array, ""]
    is_outside: Bool[Array, ""]
    ancestor: Int[Array, ""]


def anneal(
    key: PRNGKey,
    path: AnnealingPath,
    z0: Float[Array, "D"] | Float[Array, "P D"],
    betas: Float[AnyArray, "T_plus_1"],
    step_sizes: Float[AnyArray, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> AISResult:
    """Runs one chain from the base to the target and weighs it (Eq. 7).

    E[exp(log_w)] is the target's normalising constant Z, for any schedule and any
    transitions that leave their f_beta invariant. T = 1 without a move is importance
    sampling. A chain of M moves of L leapfrog steps from one draw evaluates the target
    1 + L*M times.

    Args:
        key: of this chain.
        path: from the base to the target.
        z0: an exact draw from the base, or up to P of them where the transition gives
            clouds of P points; the chain goes on from one, by weight.
        betas: rising from 0 to 1.
        step_sizes: one for each move at betas[1], ..., betas[M]. M = T makes the last
            move, at beta = 1, which leaves the weight as it is; M = T - 1 leaves it
            out.
        transition: for instance `hmc_step` with its `num_leapfrog` bound, or
            `trajectory_step`, whose clouds make the weight less noisy.
        scale: of the path at each move, in place of its one `scale`.

    Raises:
        ValueError: where the number of step sizes is neither T nor T - 1, or betas do
            not rise from 0 to 1.

    References:
        Neal, Annealed importance sampling, 2001; Ding & Freedman, 2020, Eq. 7.
    """
    chain = key[None], path, z0[None], betas, step_sizes, transition, scale
    return jax.tree.map(lambda a: a[0], anneal_chains(*chain))


def reverse_anneal(
    key: PRNGKey,
    path: AnnealingPath,
    z_target: Float[Array, "D"],
    betas: Float[AnyArray, "T_plus_1"],
    step_sizes: Float[AnyArray, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> AISResult:
    """Runs one chain from the target back to the base and weighs it.

    Each move has the temperature and the step size that it has in `anneal`. Where
    `z_target` is an exact draw from the normalised target, E[exp(log_w)] = 1 / Z. So
    -log_w bounds log Z from above in expectation.

    Args:
        key: of this chain.
        path: from the base to the target.
        z_target: an exact draw from the target.
        betas: rising from 0 to 1.
        step_sizes: those of `anneal`; a final move's, at beta = 1, is not used.
        transition: that of `anneal`; it must be reversible, as HMC is.
        scale: that of `anneal`.

    Returns:
        The chain, whose log_w estimates -log Z.

    Raises:
        ValueError: where lengths do not fit, or betas do not rise from 0 to 1.

    References:
        Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using
        bidirectional Monte Carlo, 2015.
    """
    chain = key[None], path, z_target[None], betas, step_sizes, transition, scale
    return jax.tree.map(lambda a: a[0], reverse_chains(*chain))


def anneal_chains(
    keys: PRNGKeys,
    path: AnnealingPath,
    z0: Float[Array, "K D"] | Float[Array, "K P D"],
    betas: Float[AnyArray, "T_plus_1"],
    step_sizes: Float[AnyArray, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
    resample_below: float | None = None,
) -> AISResult:
    """K chains of `anneal`, resampled where their weights have grown uneven.

    Args:
        keys: of the chains.
        path: from the base to the target.
        z0: the draws of each chain, as `anneal` takes them.
        betas: rising from 0 to 1.
        step_sizes: T of them, or T - 1 without the final move.
        transition: makes all moves.
        scale: of the path at each move, or None.
        resample_below: None for independent chains. Else the chains are resampled
            before a move where their effective sample size is below this share of K:
            they are drawn from all points of all clouds, and get the mean weight.

    References:
        Del Moral, Doucet & Jasra, Sequential Monte Carlo samplers, 2006.
    """
    size = cloud_size(path, keys[0], transition)
    if step_sizes.shape[0] == 0:  # no cloud comes after the first
        size = 1 if z0.ndim == 2 else z0.shape[1]
    clouds = first_clouds(path, z0, size)
    way = _forward(betas, step_sizes, scale)
    result = _run(keys, path, clouds, way, transition, resample_below)
    increments = result.increments[:, : betas.shape[0] - 1]  # none after a final move
    return result._replace(increments=increments)


def reverse_chains(
    keys: PRNGKeys,
    path: AnnealingPath,
    z_target: Float[Array, "K D"],
    betas: Float[AnyArray, "T_plus_1"],
    step_sizes: Float[AnyArray, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> AISResult:
    """K chains of `reverse_anneal`.

    A cloud of several points is made by a move from the chain's point, weighed, and
    left by its weights alone; a cloud of one point is weighed before the move. At the
    base a cloud has the chain's point and fresh draws.
    """
    size = cloud_size(path, keys[0], transition)
    clouds = first_clouds(path, z_target, size)
    way = _backward(betas, step_sizes, scale, size)
    result = _run(keys, path, clouds, way, transition)
    return _end_at_base(keys, path, result, betas[1] - betas[0], size)


def anneal_both_ways(
    keys: Shaped[Array, "2 K *words"],
    path: AnnealingPath,
    z0: Float[Array, "K P D"],
    z_target: Float[Array, "K D"],
    betas: Float[AnyArray, "T_plus_1"],
    step_sizes: Float[AnyArray, "M"],
    transition: Transition,
    scale: Float[Array, "M ..."] | None = None,
) -> tuple[AISResult, AISResult]:
    """K chains of `anneal` and K of `reverse_anneal`, which are compiled once.

    Args:
        keys: of the chains of both kinds.
        path: from the base to the target.
        z0: draws from the base, as many for each chain as clouds have points.
        z_target: draws from the target.
        betas: rising from 0 to 1.
        step_sizes: T of them, or T - 1; no chain makes the final move.
        transition: makes all moves.
        scale: of the path at each move, or None.
    """
    size, num = z0.shape[1], betas.shape[0] - 2
    steps, scale = jax.tree.map(lambda a: a[:num], (step_sizes, scale))
    ways = _forward(betas, steps, scale), _backward(betas, steps, scale, size)
    clouds = [first_clouds(path, z, size) for z in (z0, z_target)]
    stacked = (
        jax.tree.map(lambda *a: jnp.stack(a), *ways),
        jax.tree.map(lambda *a: jnp.stack(a), *clouds),
        keys,
    )

    def one_way(args):
        way, clouds, keys = args
        return _run(keys, path, clouds, way, transition)

    both = jax.lax.map(one_way, stacked)
    forward, reverse = (jax.tree.map(lambda a, i=i: a[i], both) for i in range(2))
    delta = betas[1] - betas[0]
    return forward, _end_at_base(keys[1], path, reverse, delta, size)


class Way(NamedTuple):
    """What chains do: moves, the last increment, and 1 forwards or -1 backwards."""

    moves: Moves
    last: Scalar
    sign: Scalar


def _forward(betas, step_sizes, scale):
    check_lengths(betas, step_sizes)
    betas, step_sizes = jnp.asarray(betas), jnp.asarray(step_sizes)
    num, deltas = step_sizes.shape[0], jnp.diff(betas)
    deltas = jnp.append(deltas, jnp.zeros_like(deltas[:1]))
    moves = Moves(deltas[:num], betas[1 : num + 1], step_sizes, scale)
    return Way(moves, deltas[num], jnp.ones_like(deltas[0]))


def _backward(betas, step_sizes, scale, size):
    """The moves at betas[T - 1], ..., betas[1]; that of a cloud is weighed after it."""
    check_lengths(betas, step_sizes)
    betas, step_sizes = jnp.asarray(betas), jnp.asarray(step_sizes)
    num, deltas = betas.shape[0] - 2, jnp.diff(betas)[1:][::-1]
    zero = jnp.zeros((1,), betas.dtype)
    deltas = jnp.concatenate([zero, deltas] if size > 1 else [deltas, zero])
    inner = jax.tree.map(lambda a: a[:num][::-1], (step_sizes, scale))
    moves = Moves(deltas[:num], betas[1:-1][::-1], *inner)
    return Way(moves, deltas[num], -jnp.ones_like(deltas[0]))


def _end_at_base(keys, path, result, delta, size):
    """Reverse chains after `weigh_at_base`."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(
        keys, result.increments.shape[-1] + 1
    )

    def draw(key):
        draws = jax.vmap(path.sample_base)(chain_keys(key, size - 1))
        return jax.vmap(lambda z: evaluate(path, z))(draws)

    chains = result.point, result.log_w
    log_w, last, faults = weigh_at_base(chains, jax.vmap(draw)(keys), delta)
    before = result.increments[:, 1:] if size > 1 else result.increments[:, :-1]
    return result._replace(
        log_w=log_w,
        increments=jnp.append(before, last[:, None], axis=1),
        is_unsound=result.is_unsound | faults[0],
        is_outside=result.is_outside | faults[1],
    )


def _run(keys, path, clouds, way, transition, resample_below=None):
    """The chains of one path."""
    moves, num = way.moves, len(way.moves.deltas)
    chains, _, accept_prob, increments = run(
        Paths(lambda _: path, jnp.zeros((1,))),
        start(keys[None], clouds),
        frozen(moves),
        (),
        num,
        transition,
        most_moves=num,
        resample_below=resample_below,
        sign=way.sign,
    )
    chains, points, last = finish(chains, way.last, num, way.sign)
    return AISResult(
        point=jax.tree.map(lambda a: a[0], points),
        log_w=(chains.log_w + chains.lost)[0],
        accept_prob=accept_prob[:, 0].T,
        increments=jnp.append(increments[:, 0].T, last[0, :, None], axis=1),
        is_unsound=chains.is_unsound[0],
        is_outside=chains.is_outside[0],
        ancestor=chains.ancestor[0],
    )
