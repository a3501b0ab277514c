"""Which points of a chain's last moves are its samples."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.hmc import hmc_step
from ais_jax.annealing.trajectory import trajectory_step
from ais_jax.checks import (
    check_count,
    lookup,
)
from ais_jax.types import Scalar

AVERAGES = ("end", "ends", "points")


class Averaging(NamedTuple):
    """The points of the last moves, all at beta = 1, that are a chain's samples.

    Attributes:
        transition: of these moves; beside `info.accept_prob` it gives the move's
            points, `info.z` and `info.log_w`, whose exponentials add up to one, and
            `info.factors`.
        num_moves: how many of the last moves.
        num_points: of them together.
        keeps_factors: whether it gives the points' factors.
    """

    transition: Transition
    num_moves: int
    num_points: int
    keeps_factors: bool = False


class EndInfo(NamedTuple):
    """Where a move ends, as its one point of weight one."""

    accept_prob: Scalar
    z: Float[Array, "1 D"]
    log_w: Float[Array, "1"]
    factors: None = None


def make(
    average: str, num_averaged: int, point_stride: int, num_leapfrog: int
) -> tuple[Transition, Averaging | None]:
    """The transition of a chain, and the points of it that three settings pick.

    Args:
        average: 'end', where the chain ends; 'ends', where each of the last moves
            ends; 'points', those of the last moves' trajectories.
        num_averaged: how many of the last moves.
        point_stride: every so many points of a trajectory; it divides L + 1.
        num_leapfrog: L, of each move.

    Returns:
        (transition, averaging), the latter None for the end alone. Where points of
        trajectories are averaged, all moves are along trajectories; else they are HMC.

    Raises:
        ValueError: for a setting out of range, or that `average` does not read.
    """
    lookup("average", average, AVERAGES)
    for name, value, readers in (
        ("num_averaged", num_averaged, AVERAGES[1:]),
        ("point_stride", point_stride, AVERAGES[2:]),
    ):
        check_count(name, value)
        if value != 1 and average not in readers:
            raise ValueError(
                f"{name}={value} with average={average!r}: use 1, or average="
                f"{' or '.join(map(repr, readers))}"
            )
    if average == "points":
        return _trajectories(num_averaged, point_stride, num_leapfrog)
    move = partial(hmc_step, num_leapfrog=num_leapfrog)
    if num_averaged == 1:
        return move, None
    return move, Averaging(end_of(move), num_averaged, num_averaged)


def end_of(transition: Transition) -> Transition:
    """A transition whose one weighted point is where it ends."""

    def move(key, path, point, beta, step_size):
        point, info = transition(key, path, point, beta, step_size)
        end = point.z[None]
        return point, EndInfo(info.accept_prob, end, jnp.zeros_like(end[:, 0]))

    return move


def _trajectories(num_averaged, point_stride, num_leapfrog):
    if (num_leapfrog + 1) % point_stride:
        raise ValueError(
            f"point_stride={point_stride} does not divide num_leapfrog + 1 = "
            f"{num_leapfrog + 1}: choose them so that it does"
        )
    move = partial(trajectory_step, num_leapfrog=num_leapfrog)
    num_points = num_averaged * (num_leapfrog + 1) // point_stride
    last = partial(move, stride=point_stride)
    return move, Averaging(last, num_averaged, num_points, point_stride == 1)
