"""Pilot and chains of one path, whose moves are compiled once.

The number of temperatures, of passes and of moves is data: chains advance by at most
`SEGMENT` moves in a call, and what steers them, a pilot or a frozen schedule, is data
too. So a move is compiled once, whatever the temperatures become.
"""

from collections.abc import Callable
from functools import lru_cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ais_jax.annealing.clouds import Transition, as_cloud, of_points
from ais_jax.annealing.loop import Chains, Guide, Moves, Paths, begin, run
from ais_jax.annealing.path import AnnealingPath, Coordinates, PathOfData
from ais_jax.annealing.trajectory import TrajectoryInfo
from ais_jax.evidence import pilot as pilots
from ais_jax.evidence.base import BaseFit, with_base
from ais_jax.evidence.base_check import Look, look
from ais_jax.evidence.compiling import options, quickly
from ais_jax.evidence.digests import program_digest
from ais_jax.evidence.pilot import Pilot, PilotMemory, PilotProblem
from ais_jax.evidence.positions import constrain, flatten, ravel
from ais_jax.evidence.spacing import place_at
from ais_jax.types import AnyArray, PRNGKey, Scalar

SEGMENT = 256  # moves of one call
KEPT = 8  # compiled programs, the latest used
PILOT, NEAR_PILOT, CHAINS = range(3)  # parts of a call, each with a key of its own


class Steering(NamedTuple):
    """What a call of `advance` follows, all of it data.

    Attributes:
        is_pilot: whether the pilot steers, or the frozen schedule read off it.
        is_first: whether it is the pilot's first pass.
        pilot: of the last pass.
        moves: of the frozen schedule, by `frozen_moves`.
        first: the number of the first move.
        num_moves: how many.
    """

    is_pilot: Bool[AnyArray, ""]
    is_first: Bool[AnyArray, ""]
    pilot: Pilot
    moves: Moves
    first: Int[AnyArray, ""]
    num_moves: Int[AnyArray, ""]


class Advanced(NamedTuple):
    """Where chains stand after a call.

    Attributes:
        chains: of one example.
        memory: of the pilot.
        accept_prob: of each move.
        increments: of the log weights.
    """

    chains: Chains
    memory: PilotMemory
    accept_prob: Float[Array, "S 1 K"]
    increments: Float[Array, "S 1 K"]


class Programs(NamedTuple):
    """The compiled functions of a path, each of its data x first.

    Attributes:
        blank: x -> the `Pilot` before its first pass.
        begin: (x, key, part, places, pilot) -> `Chains` at draws from the base, and the
            memory of a pass. The numbers `places` are folded into a part of the key.
        advance: (x, chains, memory, steering) -> `Advanced`.
        to_user: (x, z) -> K positions in the user's coordinates.
        look: (x, key) -> `base_check.Look`.
    """

    blank: Callable[..., Pilot]
    begin: Callable[..., tuple[Chains, PilotMemory]]
    advance: Callable[..., Advanced]
    to_user: Callable[..., PyTree]
    look: Callable[..., Look]


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
        xs = jax.tree.map(lambda a: jnp.asarray(a)[None], (0.0, x))  # x may be empty
        paths = Paths(lambda both: path_fn(both[1]), xs)
        return PilotProblem(paths, num_chains, transition, target, mass_matrix, 1.0)

    def start(x, key, part, places, pilot):
        key = reduce(jax.random.fold_in, places, jax.random.split(key, 3)[part])
        chains = begin(problem(x).paths, key, num_chains, transition)
        return chains, pilots.begin_pass(problem(x), pilot, chains.clouds)

    def blank(x):
        return pilots.initial_pilot(mass_matrix, path_fn(x), pilots.MOST_TEMPERATURES)

    def advance(x, *args):
        return _advance(problem(x), *args)

    return Programs(
        blank,
        quickly(start),
        jax.jit(advance, compiler_options=options(1)),
        quickly(lambda x, z: jax.vmap(partial(constrain, path_fn(x)))(z)),
        quickly(lambda x, key: look(key, path_fn(x))),
    )


def _advance(problem, chains, memory, steering):
    """Advances chains by a pass of the pilot, or by moves of a frozen schedule."""
    advanced = run(
        problem.paths,
        chains,
        _guide(problem, steering),
        memory,
        steering.num_moves,
        partial(_move_or_stay, problem.transition),
        most_moves=SEGMENT,
        first=steering.first,
        resample_below=jnp.where(steering.is_pilot, 2.0, 0.0),
    )
    return Advanced(*advanced)


def _move_or_stay(transition, key, path, point, beta, step_size):
    """A move; or the point alone for a step size of zero, after the last increment."""

    def move():
        moved, info = transition(key, path, point, beta, step_size)
        return as_cloud(moved), TrajectoryInfo(info.accept_prob)

    def stay():
        size = len(shapes[0].log_w)
        points = jax.tree.map(lambda a: jnp.broadcast_to(a, (size, *a.shape)), point)
        return of_points(points, size), TrajectoryInfo(jnp.ones_like(point.log_target))

    shapes = jax.eval_shape(move)
    return jax.lax.cond(step_size > 0.0, move, stay)


@quickly
def frozen_moves(pilot: Pilot, num: Int[Array, ""], first: Int[Array, ""]) -> Moves:
    """A segment of a schedule of `num` temperatures; at the last no move is made."""
    at = jnp.minimum(first + jnp.arange(SEGMENT + 1), num)
    shares = at.astype(pilot.betas.dtype) / num.astype(pilot.betas.dtype)
    betas = place_at(pilot.betas, pilot.density, shares)
    then = pilots.move_to(pilot, betas[1:])
    steps = jnp.where(at[1:] < num, jnp.exp(then.log_steps), 0.0)
    return Moves(jnp.diff(betas), betas[1:], steps, pilots.scales(then.covariance))


def _guide(problem, steering):
    """The pilot's, or that of the frozen moves."""
    is_pilot, moves = steering.is_pilot, steering.moves
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


@quickly
def end_pass(
    memory: PilotMemory, pilot: Pilot, is_first: Bool[Array, ""], num: Int[Array, ""]
) -> tuple[Pilot, Scalar, Scalar]:
    """Ends a pass of the pilot.

    Returns:
        (the pilot at num temperatures of the next pass, the acceptance's distance from
        its target, the path's length).
    """
    new, error = pilots.end_pass(memory, pilot, is_first)
    at = jnp.minimum(jnp.arange(len(new.betas)), num).astype(new.betas.dtype)
    at = at / num.astype(at.dtype)
    betas = place_at(new.betas, new.density, at)
    return pilots.move_to(new, betas), error, pilots.length(new)


def as_function(
    path: AnnealingPath | Callable[[PyTree], AnnealingPath], x: PyTree
) -> tuple[Callable[[PyTree], AnnealingPath], PyTree]:
    """A path as a function and its data; the same function for the same path."""
    if not isinstance(path, AnnealingPath):
        return path, x
    if isinstance(path, PathOfData) and path.function is not None:
        return path.function, path.data
    try:
        return _constant(path), ()
    except TypeError:  # a scale that is an array has no hash
        return lambda _: path, ()


@lru_cache(maxsize=KEPT)
def _constant(path):
    return lambda _: path


def flat_paths(
    path_fn: Callable[[PyTree], AnnealingPath], key: PRNGKey, x: PyTree
) -> Callable[[PyTree], AnnealingPath]:
    """The function of flat paths, whose coordinates are the user's.

    It is the same one, for which programs are kept, as long as the path computes the
    same for data of these shapes and keys of this kind.
    """

    def all_of(key, x):
        path = path_fn(x)
        z = path.sample_base(key)
        return path.log_base(z), path.log_target(z), path.scale, constrain(path, z)

    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return _flat_paths(path_fn, is_typed, program_digest(all_of, key, x))


@lru_cache(maxsize=KEPT)
def _flat_paths(path_fn, is_typed, _):
    key = jax.random.key(0) if is_typed else jax.random.PRNGKey(0)

    def flat_path(x):
        flat, to_user = flatten(key, path_fn(x))
        return flat._replace(coordinates=Coordinates(to_user, ravel))

    return flat_path


@lru_cache(maxsize=KEPT)
def fitted_paths(
    path_fn: Callable[[PyTree], AnnealingPath],
) -> Callable[[tuple[PyTree, BaseFit]], AnnealingPath]:
    """The function of (data, fit) that gives the path from a fitted base."""
    return lambda both: with_base(path_fn(both[0]), both[1])
