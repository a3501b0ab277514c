"""Weighted samples of one target: importance sampling, AIS, HMC (Algorithm 2)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ais_jax.annealing.ais import anneal_chains
from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.path import AnnealingPath, evaluate, without_residuals
from ais_jax.annealing.smc import check_share
from ais_jax.batching import chain_keys
from ais_jax.checks import lookup
from ais_jax.types import AnyArray, PRNGKey

AVERAGES = ("end", "points")
WEIGHTINGS = ("importance", "uniform")


class WeightedSamples(NamedTuple):
    """N weighted samples: K, or more where chains give several points each.

    Attributes:
        z: positions.
        log_w: nats; the points of a chain share its weight.
        accept_prob: mean over the K chains at each move.
        residuals: of each sample where the path gives them, or None.
    """

    z: Float[Array, "N D"]
    log_w: Float[Array, "N"]
    accept_prob: Float[Array, "M"]
    residuals: PyTree = None


Proposal = Callable[[PRNGKey, AnnealingPath, Float[Array, "M"]], WeightedSamples]
"""(key, path, step_sizes) -> WeightedSamples."""


def importance(num_samples: int) -> Proposal:
    """K draws from the base, weighed by target over base (q_IS of Algorithm 2).

    Args:
        num_samples: K.

    Returns:
        A proposal of no moves.
    """

    def propose(key, path, step_sizes):
        z = jax.vmap(path.sample_base)(chain_keys(key, num_samples))
        log_w = jax.vmap(lambda z: path.log_target(z) - path.log_base(z))(z)
        return WeightedSamples(z, log_w, jnp.zeros_like(step_sizes))

    return propose


def annealed(
    betas: Float[AnyArray, "T_plus_1"],
    transition: Transition,
    num_samples: int,
    weighting: str = "importance",
    average: str = "end",
    resample_below: float = 0.0,
) -> Proposal:
    """K annealed chains from the base to the target (q_AIS of Algorithm 2).

    Args:
        betas: rising from 0 to 1. Each 1 after the first adds a move on the target,
            which leaves the weight as it is.
        transition: makes the moves, such as `hmc_step` with its `num_leapfrog` bound.
        num_samples: K.
        weighting: 'importance' for the weights of Eq. 7, 'uniform' for weights of one.
        average: which points are a chain's samples. 'end' gives the one where it ends.
            'points' gives all those of its last move, which share the chain's weight;
            `transition` is then a `trajectory_step`.
        resample_below: the chains are resampled where their effective sample size falls
            below this share of K; 0 leaves them independent.

    Returns:
        A proposal that takes T step sizes, or T - 1 without the final move. 'points'
        needs that move.

    Raises:
        ValueError: for an unknown name or a share out of range.
    """
    lookup("weighting", weighting, WEIGHTINGS)
    lookup("average", average, AVERAGES)
    check_share(resample_below)
    betas = np.asarray(betas, np.float32)  # no device is asked for yet

    def propose(key, path, step_sizes):
        keys = jax.vmap(jax.random.split)(chain_keys(key, num_samples))
        z = jax.vmap(path.sample_base)(keys[:, 0])
        plain = without_residuals(path)
        before = step_sizes if average == "end" else step_sizes[:-1]
        chains = anneal_chains(
            keys[:, 1],
            plain,
            z,
            betas,
            before,
            transition,
            resample_below=resample_below if resample_below > 0.0 else None,
        )
        log_w = jnp.zeros_like(chains.log_w)
        if weighting == "importance":
            log_w = chains.log_w
        accept_prob = jnp.mean(chains.accept_prob, axis=0)
        if average == "end":
            return WeightedSamples(chains.point.z, log_w, accept_prob)
        move = partial(_last_move, transition, path, len(before), step_sizes[-1])
        clouds, last = jax.vmap(move)(keys[:, 1], chains.point)
        points = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), clouds.points)
        accept_prob = jnp.append(accept_prob, jnp.mean(last))
        log_w = (log_w[:, None] + clouds.log_w).ravel()
        return WeightedSamples(points.z, log_w, accept_prob, points.residuals)

    return propose


def _last_move(transition, path, index, step_size, key, point):
    """The cloud of a chain's last move, at beta = 1, and the move's acceptance."""
    residuals = evaluate(path, point.z).residuals  # which the chain did not keep
    point = point._replace(residuals=residuals)
    one = jnp.ones_like(point.log_target)
    key, _ = jax.random.split(jax.random.fold_in(key, index))  # as the loop does
    cloud, info = transition(key, path, point, one, step_size)
    return cloud, info.accept_prob


def resample(key: PRNGKey, samples: WeightedSamples) -> Float[Array, "D"]:
    """Draws one of K weighted samples by its weight, the last line of Algorithm 2.

    Returns:
        A draw from the implicit q_IS or q_AIS.
    """
    return samples.z[jax.random.categorical(key, samples.log_w)]
