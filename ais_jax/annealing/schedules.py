"""Inverse temperatures 0 = beta_0 <= ... <= beta_T = 1 of an annealing path."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Float

from ais_jax.checks import check_count, lookup
from ais_jax.types import AnyArray, is_traced

Betas = Float[np.ndarray, "T_plus_1"]
"""Inverse temperatures beta_0, ..., beta_T."""


def linear(num_temperatures: int) -> Betas:
    """Equally spaced inverse temperatures, as in the paper's runs.

    Args:
        num_temperatures: T, the number of inverse temperatures after beta_0 = 0, which
            is the number of weight increments.
    """
    check_count("num_temperatures", num_temperatures)
    return np.linspace(0.0, 1.0, num_temperatures + 1).astype(np.float32)


def sigmoid(num_temperatures: int, steepness: float = 4.0) -> Betas:
    """Inverse temperatures on a rescaled logistic curve, dense near both ends.

    Args:
        num_temperatures: T.
        steepness: half of the range of the logistic function's argument.

    References:
        Wu, Burda, Salakhutdinov & Grosse, On the Quantitative Analysis of
        Decoder-Based Generative Models, 2017, appendix.
    """
    check_count("num_temperatures", num_temperatures)
    if not steepness > 0:
        raise ValueError(f"steepness={steepness}: use a positive number")
    x = np.linspace(-steepness, steepness, num_temperatures + 1)
    y = 1.0 / (1.0 + np.exp(-x))
    return ((y - y[0]) / (y[-1] - y[0])).astype(np.float32)


def all_target(num_temperatures: int) -> Betas:
    """The schedule [0, 1, ..., 1]: plain HMC on the target, MH-HMC of Hoffman (2017).

    Args:
        num_temperatures: T.
    """
    check_count("num_temperatures", num_temperatures)
    return np.concatenate([[0.0], np.ones(num_temperatures)]).astype(np.float32)


SCHEDULES = {"linear": linear, "sigmoid": sigmoid, "all_target": all_target}


def make(name: str, num_temperatures: int) -> Betas:
    """Builds a named schedule.

    Args:
        name: one of `SCHEDULES`.
        num_temperatures: T, at least 1.

    Raises:
        ValueError: for an unknown name or T < 1.
    """
    return lookup("schedule", name, SCHEDULES)(num_temperatures)


def check_betas(betas: ArrayLike | Sequence) -> Betas:
    """Checks that inverse temperatures rise from 0 to 1; ties are allowed.

    Raises:
        ValueError: naming the first value that breaks the rule.
    """
    betas = np.asarray(betas, np.float32)
    if betas.ndim != 1 or betas.size < 2:
        raise ValueError(f"betas of shape {betas.shape}: give at least [0, 1]")
    if betas[0] != 0.0 or betas[-1] != 1.0:
        raise ValueError(
            f"betas go from {betas[0]:g} to {betas[-1]:g}: they must go from 0 to 1"
        )
    steps = np.diff(betas)
    if not np.all(steps >= 0.0):
        t = int(np.argmin(np.where(np.isnan(steps), -np.inf, steps)))
        raise ValueError(
            f"betas[{t}]={betas[t]:g} is followed by betas[{t + 1}]={betas[t + 1]:g}: "
            "they must rise from 0 to 1 (ties are allowed)"
        )
    return betas


def check_lengths(
    betas: Float[AnyArray, "T_plus_1"], step_sizes: Float[AnyArray, "M"]
) -> None:
    """Checks that temperatures and moves fit together.

    Raises:
        ValueError: where they do not.
    """
    if not is_traced(betas):
        check_betas(betas)
    num_temperatures, num_moves = betas.shape[0] - 1, step_sizes.shape[0]
    if num_moves not in (num_temperatures, num_temperatures - 1):
        raise ValueError(
            f"{num_moves} step sizes for {num_temperatures} temperatures: give "
            f"{num_temperatures} (with the final move) or {num_temperatures - 1}"
        )
