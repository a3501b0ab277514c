"""The loop of all samplers: reweight, choose, move.

It serves a chain, K chains that are resampled (sequential Monte Carlo), the reverse
chain and the pilot. A chain holds a `Cloud`: the points x_p of its last move with
weights w_p. Let U be log target - log base, and g = sum_p w_p exp(delta U(x_p)). From
beta to beta + delta the chain's weight W is multiplied by g, and its next start is
point p with probability w_p exp(delta U(x_p)) / g.

By induction over the moves, E[W sum_p w_p f(x_p)] is then the integral of f times the
unnormalised f_beta, for any frozen schedule. So E[W] = Z at the end. Annealed
importance sampling (Eq. 7) is the case of a cloud of one point. Waste-free sequential
Monte Carlo (Dau & Chopin, 2022) weighs the points of a chain's moves in a similar way.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from ais_jax.annealing.clouds import (
    Cloud,
    Transition,
    as_cloud,
    choose,
    of_points,
    weigh,
)
from ais_jax.annealing.path import AnnealingPath, Point, evaluate
from ais_jax.annealing.smc import pooled
from ais_jax.batching import chain_keys
from ais_jax.numerics import two_sum
from ais_jax.types import PRNGKey, PRNGKeys


class Chains(NamedTuple):
    """K chains under way.

    Attributes:
        keys: of the chains, which with the number of a move give its randomness.
        clouds: of each.
        log_w: their log weights, nats.
        lost: the rounding error of log_w so far.
        ancestor: the first ancestor of each, by its place.
        is_unsound: whether each met a density of NaN or plus infinity; it weighs zero.
        is_outside: whether each met a place where only the base is zero.
    """

    keys: PRNGKeys
    clouds: Cloud
    log_w: Float[Array, "K"]
    lost: Float[Array, "K"]
    ancestor: Int[Array, "K"]
    is_unsound: Bool[Array, "K"]
    is_outside: Bool[Array, "K"]


class Moves(NamedTuple):
    """M steps of the loop, each an increment of the weight and then a move.

    Attributes:
        deltas: steps of the inverse temperature.
        betas: at which the moves are made.
        step_sizes: of the moves.
        scale: of the path at each move, or None for the path's own.
    """

    deltas: Float[Array, "M"]
    betas: Float[Array, "M"]
    step_sizes: Float[Array, "M"]
    scale: Float[Array, "M ..."] | None = None


class Paths(NamedTuple):
    """The paths of E examples that share a schedule.

    Attributes:
        path_fn: x -> the path of one example.
        xs: the examples, a pytree with a leading axis of E.
    """

    path_fn: Callable[[PyTree], AnnealingPath]
    xs: PyTree

    def each_chain(self, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
        """A function of a path and of one chain's arrays, for K chains of E examples.

        Args:
            function: (path, one chain's part of args) -> arrays.
            *args: arrays with leading axes of E and K.
        """

        def of_example(x, *args):
            path = self.path_fn(x)
            return jax.vmap(lambda *args: function(path, *args))(*args)

        return jax.vmap(of_example)(self.xs, *args)


class Guide(NamedTuple):
    """What steers the loop: a frozen schedule, or a pilot that makes one.

    Attributes:
        row: (memory, t, clouds) -> (memory, `Moves` of one move, without its axis).
        learn: (memory, t, row, clouds, accept_prob) -> memory after the move.
        is_done: memory -> whether to end before the last move.
    """

    row: Callable[..., tuple[PyTree, Moves]]
    learn: Callable[..., PyTree]
    is_done: Callable[[PyTree], Bool[Array, ""]]


def frozen(moves: Moves) -> Guide:
    """The guide of a frozen schedule, which learns nothing."""
    return Guide(
        row=lambda memory, t, _: (memory, jax.tree.map(lambda a: a[t], moves)),
        learn=lambda memory, *_: memory,
        is_done=lambda _: jnp.zeros((), bool),
    )


def cloud_size(path: AnnealingPath, key: PRNGKey, transition: Transition) -> int:
    """P, the number of points that a transition gives a chain."""

    def move(key):
        point = evaluate(path, path.sample_base(key))
        one = jnp.ones_like(point.log_target)
        return as_cloud(transition(key, path, point, one, one)[0])

    return len(jax.eval_shape(move, key).log_w)


def begin(
    paths: Paths, key: PRNGKey, num_chains: int, transition: Transition
) -> Chains:
    """K chains at draws from the bases; chain k is of the key and of k alone."""
    num = len(jax.tree.leaves(paths.xs)[0])
    key_of_examples = key[None] if num == 1 else chain_keys(key, num)
    keys = jax.vmap(lambda key: chain_keys(key, num_chains))(key_of_examples)
    keys = jax.vmap(jax.vmap(jax.random.split))(keys)
    size = cloud_size(paths.path_fn(_first(paths.xs)), key, transition)

    def draw(path, key):
        draws = jax.vmap(path.sample_base)(chain_keys(key, size))
        return of_points(jax.vmap(lambda z: evaluate(path, z))(draws), size)

    return start(keys[:, :, 1], paths.each_chain(draw, keys[:, :, 0]))


def start(keys: PRNGKeys, clouds: Cloud) -> Chains:
    """Chains of weight one, with leading axes of E and K."""
    zeros = jnp.zeros_like(clouds.points.log_target[..., 0])
    ancestor = jnp.broadcast_to(jnp.arange(zeros.shape[1]), zeros.shape)
    no = jnp.zeros(zeros.shape, bool)
    return Chains(keys, clouds, zeros, zeros, ancestor, no, no)


def run(
    paths: Paths,
    chains: Chains,
    guide: Guide,
    memory: PyTree,
    num_moves: ScalarLike,
    transition: Transition,
    *,
    most_moves: int,
    first: ScalarLike = 0,
    resample_below: ScalarLike | None = None,
    sign: ScalarLike = 1.0,
) -> tuple[Chains, PyTree, Float[Array, "M E K"], Float[Array, "M E K"]]:
    """The loop: reweight, choose, move, for K chains of E examples.

    Args:
        paths: of the examples.
        chains: where they stand.
        guide: gives each move, and learns from it.
        memory: of the guide.
        num_moves: how many; it is data, so that no number is compiled anew.
        transition: makes the moves.
        most_moves: the size of what is returned for each move.
        first: the number of the first of these moves in the whole run, which together
            with a chain's key gives its randomness.
        resample_below: chains are drawn anew where their effective sample size falls
            below this share of K; None for never.
        sign: 1 forwards, -1 backwards.

    Returns:
        (chains, memory, acceptance of each move, increments of the log weights).
    """
    zeros = jnp.zeros((most_moves, *chains.log_w.shape), chains.log_w.dtype)
    if most_moves == 0:
        return chains, memory, zeros, zeros

    def is_unfinished(state):
        t, _, memory, *_ = state
        return (t < num_moves) & ~guide.is_done(memory)

    def body(state):
        t, chains, memory, accept_probs, increments = state
        memory, row = guide.row(memory, t, chains.clouds)
        keys, uniform = _keys(chains.keys, first + t)
        chains, points, increment = _reweight(
            chains, row.deltas, uniform, resample_below, sign
        )

        def move(path, key, point):
            if row.scale is not None:
                path = path._replace(scale=row.scale)
            moved, info = transition(key, path, point, row.betas, row.step_sizes)
            return as_cloud(moved), info.accept_prob

        clouds, accept_prob = paths.each_chain(move, keys, points)
        memory = guide.learn(memory, t, row, clouds, accept_prob)
        return (
            t + 1,
            chains._replace(clouds=clouds),
            memory,
            put(accept_probs, t, accept_prob),
            put(increments, t, increment),
        )

    state = jnp.zeros((), jnp.int32), chains, memory, zeros, zeros
    return jax.lax.while_loop(is_unfinished, body, state)[1:]


def finish(
    chains: Chains, delta: ScalarLike, num_moves: ScalarLike, sign: ScalarLike = 1.0
) -> tuple[Chains, Point, Float[Array, "E K"]]:
    """The last increment of the weights: (chains, a point of each, the increments)."""
    _, uniform = _keys(chains.keys, num_moves)
    return _reweight(chains, delta, uniform, None, sign)


def put(rows: Float[Array, "N ..."], i: ScalarLike, row: Array) -> Array:
    """The rows with another i-th one; a scatter would compile more slowly."""
    return jax.lax.dynamic_update_index_in_dim(rows, row, i, 0)


def _first(xs):
    return jax.tree.map(lambda a: a[0], xs)


def _keys(keys, t):
    """The keys of a move of all chains, and a uniform number for each."""

    def one(key):
        move_key, choose_key = jax.random.split(jax.random.fold_in(key, t))
        return move_key, jax.random.uniform(choose_key)

    return jax.vmap(jax.vmap(one))(keys)


def _reweight(chains, delta, uniform, resample_below, sign):
    """(chains after an increment, the points they go on from, the increments)."""
    weighed = jax.vmap(jax.vmap(lambda cloud: weigh(cloud, delta)))(chains.clouds)
    log_w, lost = chains.log_w, chains.lost
    for part in weighed.increment:
        log_w, error = add_increment(log_w, sign * part)
        lost = lost + error
    shares = jnp.where(sign > 0.0, weighed.shares, chains.clouds.log_w)
    index = jax.vmap(jax.vmap(choose))(uniform, shares)
    ancestor, size = chains.ancestor, shares.shape[-1]
    index = index + size * jnp.arange(shares.shape[1])[None]
    if resample_below is not None:
        old = chains.log_w + chains.lost
        resample = jax.vmap(partial(pooled, resample_below=resample_below))
        index, log_w, lost = resample(uniform[:, 0], old, shares, index, log_w, lost)
        ancestor = jnp.take_along_axis(ancestor, index // size, axis=1)

    def take(points, index):
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), points)
        return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), flat)

    points = chains.clouds.points
    if size == 1 and resample_below is None:
        points = jax.tree.map(lambda a: a[:, :, 0], points)
    else:
        points = jax.vmap(take)(points, index)
    chains = chains._replace(
        log_w=log_w,
        lost=lost,
        ancestor=ancestor,
        is_unsound=chains.is_unsound | weighed.is_unsound,
        is_outside=chains.is_outside | weighed.is_outside,
    )
    return chains, points, jnp.multiply(sign, jnp.add(*weighed.increment))


def add_increment(
    log_w: Float[Array, "*K"], term: Float[Array, "*K"]
) -> tuple[Float[Array, "*K"], Float[Array, "*K"]]:
    """Adds a term to a log weight: the sum and its rounding error, nats.

    An infinite term is that of a weight of zero, or backwards of its inverse; a log
    weight that is infinite already stays as it is.
    """
    is_sound = jnp.isfinite(log_w) & jnp.isfinite(term)
    zeros = jnp.zeros_like(log_w)
    total, error = two_sum(
        jnp.where(is_sound, log_w, zeros), jnp.where(is_sound, term, zeros)
    )
    lost = jnp.where(jnp.isfinite(log_w), term, log_w)
    return jnp.where(is_sound, total, lost), jnp.where(is_sound, error, zeros)
