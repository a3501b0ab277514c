"""Weighted samples of one target: importance sampling, AIS, HMC (Algorithm 2)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ais_jax.ais import Transition, anneal
from ais_jax.averaging import Averaging
from ais_jax.batching import chain_keys
from ais_jax.path import AnnealingPath
from ais_jax.registry import lookup
from ais_jax.types import PRNGKey

WEIGHTINGS = ("importance", "uniform")


class WeightedSamples(NamedTuple):
    """N weighted samples: K, or more where chains give several points each.

    Attributes:
        z: positions.
        log_w: nats; the points of a chain share its weight.
        accept_prob: mean over the K chains at each move.
    """

    z: Float[Array, "N D"]
    log_w: Float[Array, "N"]
    accept_prob: Float[Array, "M"]


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
) -> Proposal:
    """K annealed chains from the base to the target (q_AIS of Algorithm 2).

    Args:
        betas: rising from 0 to 1; each 1 after the first is a further move on the
            target, which leaves the weight as it is.
        transition: as for `ais.anneal`.
        num_samples: K.
        weighting: 'importance' for the weights of Eq. 7, 'uniform' for weights of one.
        averaging: gives each chain several samples, or None for its end alone.

    Returns:
        A proposal that takes T step sizes, or T - 1 without the final move.

    Raises:
        ValueError: for an unknown weighting, or where the moves to be averaged are not
            all at beta = 1.
    """
    lookup("weighting", weighting, WEIGHTINGS)
    betas = np.asarray(betas, np.float32)
    if averaging is None:
        chain = _ending(betas, transition)
    else:
        chain = _averaging(betas, transition, averaging)

    def propose(key, path, step_sizes):
        keys = chain_keys(key, num_samples)
        run = jax.vmap(lambda key: chain(key, path, step_sizes))
        z, log_w, shares, accept_prob = run(keys)
        if weighting == "uniform":
            log_w = jnp.zeros_like(log_w)
        log_w = log_w[:, None] + shares
        return WeightedSamples(
            z.reshape(-1, z.shape[-1]), log_w.ravel(), jnp.mean(accept_prob, axis=0)
        )

    return propose


def _ending(betas, transition):
    """A chain whose one sample is its end.

    Returns:
        (key, path, step_sizes) -> (z, log weight, log share of each point in it,
        accept_prob).
    """

    def chain(key, path, step_sizes):
        base_key, move_key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        result = anneal(move_key, path, z0, betas, step_sizes, transition)
        share = jnp.zeros_like(result.log_w)[None]
        return result.point.z[None], result.log_w, share, result.accept_prob

    return chain


def _averaging(betas, transition, averaging):
    """A chain whose samples are the points of its last moves; as `_ending`."""
    num_final = int(np.sum(betas[1:] == 1.0))
    if not 1 <= averaging.num_moves <= num_final:
        raise ValueError(
            f"num_averaged={averaging.num_moves}: use 1 to {num_final}, the number of "
            "moves at beta = 1"
        )
    first, num_moves = len(betas) - 1 - averaging.num_moves, len(betas) - 1

    def chain(key, path, step_sizes):
        base_key, move_key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        result = anneal(
            move_key, path, z0, betas[: first + 2], step_sizes[:first], transition
        )
        one = jnp.ones_like(result.log_w)

        def move(point, xs):
            t, step_size = xs
            key = jax.random.fold_in(move_key, t)
            return averaging.transition(key, path, point, one, step_size)

        last = jnp.arange(first, num_moves), step_sizes[first:]
        _, info = jax.lax.scan(move, result.point, last)
        shares = info.log_w.ravel() - math.log(averaging.num_moves)
        accept_prob = jnp.concatenate([result.accept_prob, info.accept_prob])
        z = info.z.reshape(-1, info.z.shape[-1])
        return z, result.log_w, shares, accept_prob

    return chain


def resample(key: PRNGKey, samples: WeightedSamples) -> Float[Array, "D"]:
    """Draws one of K weighted samples by its weight, the last line of Algorithm 2.

    Returns:
        A draw from the implicit q_IS or q_AIS.
    """
    return samples.z[jax.random.categorical(key, samples.log_w)]
