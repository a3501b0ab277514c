"""Pilot and chains of one path as one compiled program.

The number of temperatures, of passes and of moves is data: chains advance by at most
`SEGMENT` moves in a call, and what steers them, a pilot or a frozen schedule, is data
too. So a move is compiled once, whatever the temperatures become.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.loop import Chains, Guide, Moves, Paths, begin, finish, run
from ais_jax.annealing.path import AnnealingPath, Point
from ais_jax.evidence import pilot as pilots
from ais_jax.evidence.base import BaseFit, with_base
from ais_jax.evidence.pilot import Pilot, PilotMemory, PilotProblem
from ais_jax.evidence.positions import flatten
from ais_jax.evidence.spacing import place_at

SEGMENT = 256  # moves of one call
KEPT = 8  # compiled programs, the latest used


class Steering(NamedTuple):
    """What a call of `advance` follows, all of it data.

    Attributes:
        is_pilot: whether the pilot steers, or the frozen schedule read off it.
        is_first: whether it is the pilot's first pass.
        pilot: of the last pass.
        num_temperatures: T of the frozen schedule.
        first: the number of the first move.
    """

    is_pilot: Bool[Array, ""]
    is_first: Bool[Array, ""]
    pilot: Pilot
    num_temperatures: Int[Array, ""]
    first: Int[Array, ""]


class Advanced(NamedTuple):
    """Where chains stand after a call.

    Attributes:
        chains: of one example.
        memory: of the pilot.
        moves: of the frozen schedule.
        accept_prob: of each of them.
        increments: of the log weights.
        ends: the chains after the last increment, a point of each, and the increments;
            they mean something after the last move alone.
    """

    chains: Chains
    memory: PilotMemory
    moves: Moves
    accept_prob: Float[Array, "S 1 K"]
    increments: Float[Array, "S 1 K"]
    ends: tuple[Chains, Point, Float[Array, "1 K"]]


class Programs(NamedTuple):
    """The compiled functions of a path, each of its data x first.

    Attributes:
        begin: (x, key) -> `Chains` at draws from the base.
        blank: (x, chains) -> the `Pilot` before its first pass.
        prepare: (x, pilot, chains) -> the memory of a pass.
        advance: (x, chains, memory, steering) -> `Advanced`.
        end_pass: (memory, pilot, is_first, num) -> (the `Pilot` at num temperatures of
            the next pass, the acceptance's distance from its target, path length).
    """

    begin: Callable[..., Chains]
    blank: Callable[..., Pilot]
    prepare: Callable[..., PilotMemory]
    advance: Callable[..., Advanced]
    end_pass: Callable[..., tuple]


@lru_cache(maxsize=KEPT)
def programs(
    path_fn: Callable[[PyTree], AnnealingPath],
    transition: Transition,
    num_chains: int,
    mass_matrix: str,
    target: float,
) -> Programs:
    """Compiles a path's sampler once, for every key and all data of the same shapes."""

    def problem(x):
        xs = jax.tree.map(lambda a: jnp.asarray(a)[None], x)
        paths = Paths(path_fn, xs)
        return PilotProblem(paths, num_chains, transition, target, mass_matrix, 1.0)

    def start(x, key):
        return begin(problem(x).paths, key, num_chains, transition)

    def blank(x, chains):
        most = pilots.MOST_TEMPERATURES
        return pilots.initial_pilot(problem(x), chains.clouds, most)

    def prepare(x, pilot, chains):
        return pilots.begin_pass(problem(x), pilot, chains.clouds)

    return Programs(
        jax.jit(start),
        jax.jit(blank),
        jax.jit(prepare),
        jax.jit(lambda x, *args: _advance(problem(x), *args)),
        jax.jit(_end_pass),
    )


def _advance(problem, chains, memory, steering):
    """Advances chains by a pass of the pilot, or by moves of a frozen schedule."""
    is_pilot, pilot = steering.is_pilot, steering.pilot
    moves, last = _moves(steering)
    most = len(pilot.density) * pilots.MOVES
    left = steering.num_temperatures - 1 - steering.first
    num_moves = jnp.where(is_pilot, most, jnp.clip(left, 0, SEGMENT))
    chains, memory, accept_prob, increments = run(
        problem.paths,
        chains,
        _guide(problem, steering, moves),
        memory,
        num_moves,
        problem.transition,
        most_moves=SEGMENT,
        first=steering.first,
        resample_below=jnp.where(is_pilot, 2.0, 0.0),
    )
    ends = finish(chains, last, steering.first + num_moves)
    return Advanced(chains, memory, moves, accept_prob, increments, ends)


def _moves(steering):
    """The next moves of the frozen schedule, and the increment after its last."""
    pilot, num = steering.pilot, steering.num_temperatures
    whole = num.astype(pilot.betas.dtype)
    at = jnp.minimum(steering.first + jnp.arange(SEGMENT + 1), num)
    betas = place_at(pilot.betas, pilot.density, at.astype(whole.dtype) / whole)
    then = pilots.move_to(pilot, betas[1:])
    last = place_at(pilot.betas, pilot.density, jnp.stack([whole - 1.0, whole]) / whole)
    steps, scale = jnp.exp(then.log_steps), pilots.scales(then.covariance)
    return Moves(jnp.diff(betas), betas[1:], steps, scale), last[1] - last[0]


def _guide(problem, steering, moves):
    """The pilot's, or that of the frozen moves."""
    is_pilot = steering.is_pilot
    pilot = pilots.guide(problem, steering.pilot, steering.is_first)

    def row(memory, t, clouds):
        def planned():
            return memory, jax.tree.map(lambda a: a[t], moves)

        return jax.lax.cond(is_pilot, lambda: pilot.row(memory, t, clouds), planned)

    def learn(memory, *args):
        return jax.lax.cond(
            is_pilot, lambda: pilot.learn(memory, *args), lambda: memory
        )

    return Guide(row, learn, lambda memory: is_pilot & pilot.is_done(memory))


def _end_pass(memory, pilot, is_first, num):
    new, error = pilots.end_pass(memory, pilot, is_first)
    at = jnp.minimum(jnp.arange(len(new.betas)), num).astype(new.betas.dtype)
    at = at / num.astype(at.dtype)
    betas = place_at(new.betas, new.density, at)
    return pilots.move_to(new, betas), error, pilots.length(new)


def as_function(path: AnnealingPath) -> Callable[[PyTree], AnnealingPath]:
    """A path as a function of no data, the same one for the same path."""
    try:
        return _constant(path)
    except TypeError:  # a scale that is an array has no hash
        return lambda _: path


@lru_cache(maxsize=KEPT)
def _constant(path):
    return lambda _: path


@lru_cache(maxsize=KEPT)
def flat_paths(
    path_fn: Callable[[PyTree], AnnealingPath], is_typed: bool
) -> Callable[[PyTree], AnnealingPath]:
    """The function of flat paths, for keys of `jax.random.key` or older ones."""
    key = jax.random.key(0) if is_typed else jax.random.PRNGKey(0)
    return lambda x: flatten(key, path_fn(x))[0]


@lru_cache(maxsize=KEPT)
def fitted_paths(
    path_fn: Callable[[PyTree], AnnealingPath],
) -> Callable[[tuple[PyTree, BaseFit]], AnnealingPath]:
    """The function of (data, fit) that gives the path from a fitted base."""
    return lambda both: with_base(path_fn(both[0]), both[1])
