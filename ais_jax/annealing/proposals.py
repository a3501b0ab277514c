"""Weighted samples of one target: importance sampling, AIS, HMC (Algorithm 2)."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ais_jax.annealing.ais import anneal_chains
from ais_jax.annealing.averaging import Averaging
from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.path import (
    AnnealingPath,
    evaluate,
)
from ais_jax.annealing.smc import check_share
from ais_jax.batching import chain_keys
from ais_jax.checks import lookup
from ais_jax.types import PRNGKey

WEIGHTINGS = ("importance", "uniform")


class WeightedSamples(NamedTuple):
    """N weighted samples: K, or more where chains give several points each.

    Attributes:
        z: positions.
        log_w: nats; the points of a chain share its weight.
        accept_prob: mean over the K chains at each move.
        factors: of each sample where the path has a `score`, or None.
    """

    z: Float[Array, "N D"]
    log_w: Float[Array, "N"]
    accept_prob: Float[Array, "M"]
    factors: PyTree = None


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
    betas: Float[ArrayLike, "T_plus_1"],
    transition: Transition,
    num_samples: int,
    weighting: str = "importance",
    averaging: Averaging | None = None,
    resample_below: float = 0.0,
) -> Proposal:
    """K annealed chains from the base to the target (q_AIS of Algorithm 2).

    Args:
        betas: rising from 0 to 1; each 1 after the first is a further move on the
            target, which leaves the weight as it is.
        transition: as for `ais.anneal`.
        num_samples: K.
        weighting: 'importance' for the weights of Eq. 7, 'uniform' for weights of one.
        averaging: gives each chain several samples, or None for its end alone.
        resample_below: the chains are resampled where their effective sample size falls
            below this share of K, as in `populations`; 0 leaves them independent.

    Returns:
        A proposal that takes T step sizes, or T - 1 without the final move.

    Raises:
        ValueError: for an unknown weighting, a share out of range, or where the moves
            to be averaged are not all at beta = 1.
    """
    lookup("weighting", weighting, WEIGHTINGS)
    check_share(resample_below)
    betas = np.asarray(betas, np.float32)
    first = len(betas) - 1 if averaging is None else _first_averaged(betas, averaging)
    before = _annealing(
        jnp.asarray(betas[: first + 2]), transition, first, resample_below
    )

    def propose(key, path, step_sizes):
        keys = jax.vmap(jax.random.split)(chain_keys(key, num_samples))
        z0 = jax.vmap(path.sample_base)(keys[:, 0])
        plain = path._replace(score=None)
        result = before(keys[:, 1], plain, z0, step_sizes)
        factors = None
        if averaging is None:
            z, shares = result.point.z[:, None], jnp.zeros_like(result.log_w)[:, None]
            accept_prob = result.accept_prob
        else:
            end = partial(_average, averaging, first, path, step_sizes)
            z, shares, accept_prob, factors = jax.vmap(end)(keys[:, 1], result)
        log_w = result.log_w
        if weighting == "uniform":
            log_w = jnp.zeros_like(log_w)
        log_w = log_w[:, None] + shares
        return WeightedSamples(
            z.reshape(-1, z.shape[-1]),
            log_w.ravel(),
            jnp.mean(accept_prob, axis=0),
            jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), factors),
        )

    return propose


def _first_averaged(betas, averaging):
    """Index of the first move whose points are averaged."""
    num_final = int(np.sum(betas[1:] == 1.0))
    if not 1 <= averaging.num_moves <= num_final:
        raise ValueError(
            f"num_averaged={averaging.num_moves}: use 1 to {num_final}, the number of "
            "moves at beta = 1"
        )
    return len(betas) - 1 - averaging.num_moves


def _annealing(betas, transition, num_moves, resample_below):
    """K chains of at most so many moves, independent or resampled."""
    share = resample_below if resample_below > 0.0 else None

    def run(keys, path, z0, step_sizes):
        return anneal_chains(
            keys,
            path,
            z0,
            betas,
            step_sizes[:num_moves],
            transition,
            resample_below=share,
        )

    return run


def _average(averaging, first, path, step_sizes, key, result):
    """The last moves of one chain.

    Returns:
        (z, log share of each point in the chain's weight, accept_prob of all moves,
        factors of each point).
    """
    one = jnp.ones_like(result.log_w)

    def move(point, xs):
        t, step_size = xs
        if path.score is not None:  # the current point's factors
            point = evaluate(path, point.z)
        move_key = jax.random.fold_in(key, t)
        point, info = averaging.transition(move_key, path, point, one, step_size)
        return point._replace(factors=None), info

    steps = first + jnp.arange(averaging.num_moves), step_sizes[first:]
    _, info = jax.lax.scan(move, result.point, steps)
    shares = info.log_w.ravel() - math.log(averaging.num_moves)
    accept_prob = jnp.concatenate([result.accept_prob, info.accept_prob])
    z, factors = jax.tree.map(
        lambda a: a.reshape(-1, *a.shape[2:]), (info.z, info.factors)
    )
    return z, shares, accept_prob, factors


def resample(key: PRNGKey, samples: WeightedSamples) -> Float[Array, "D"]:
    """Draws one of K weighted samples by its weight, the last line of Algorithm 2.

    Returns:
        A draw from the implicit q_IS or q_AIS.
    """
    return samples.z[jax.random.categorical(key, samples.log_w)]
