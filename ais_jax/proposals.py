"""Weighted samples of one target: importance sampling, AIS, HMC (Algorithm 2)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax.ais import anneal
from ais_jax.batching import chain_keys
from ais_jax.path import AnnealingPath
from ais_jax.registry import lookup

WEIGHTINGS = ("importance", "uniform")


class WeightedSamples(NamedTuple):
    """K weighted samples.

    Attributes:
        z: f32[K, D].
        log_w: f32[K], nats.
        accept_prob: f32[M], mean over the K chains at each move.
    """

    z: jax.Array
    log_w: jax.Array
    accept_prob: jax.Array


Proposal = Callable[[jax.Array, AnnealingPath, jax.Array], WeightedSamples]
"""(key, path, step_sizes f32[M]) -> WeightedSamples."""


def importance(num_samples):
    """K draws from the base, weighed by target over base (q_IS of Algorithm 2).

    Args:
        num_samples: K.

    Returns:
        A `Proposal` of no moves.
    """

    def propose(key, path, step_sizes):
        z = jax.vmap(path.sample_base)(chain_keys(key, num_samples))
        log_w = jax.vmap(lambda z: path.log_target(z) - path.log_base(z))(z)
        return WeightedSamples(z, log_w, jnp.zeros_like(step_sizes))

    return propose


def annealed(betas, transition, num_samples, weighting="importance"):
    """K annealed chains from the base to the target (q_AIS of Algorithm 2).

    Args:
        betas: f32[T + 1], rising from 0 to 1.
        transition: as for `ais.anneal`.
        num_samples: K.
        weighting: 'importance' for the weights of Eq. 7, 'uniform' for weights of one.

    Returns:
        A `Proposal`; its step sizes are f32[T], or f32[T - 1] without the final move.

    Raises:
        ValueError: for an unknown weighting.
    """
    lookup("weighting", weighting, WEIGHTINGS)
    betas = np.asarray(betas, np.float32)

    def chain(key, path, step_sizes):
        base_key, move_key = jax.random.split(key)
        z0 = path.sample_base(base_key)
        result = anneal(move_key, path, z0, betas, step_sizes, transition)
        return result.point.z, result.log_w, result.accept_prob

    def propose(key, path, step_sizes):
        keys = chain_keys(key, num_samples)
        run = lambda key: chain(key, path, step_sizes)
        z, log_w, accept_prob = jax.vmap(run)(keys)
        if weighting == "uniform":
            log_w = jnp.zeros_like(log_w)
        return WeightedSamples(z, log_w, jnp.mean(accept_prob, axis=0))

    return propose


def resample(key, samples):
    """Draws one of K weighted samples by its weight, the last line of Algorithm 2.

    Args:
        key: PRNG key.
        samples: `WeightedSamples`.

    Returns:
        f32[D], a draw from the implicit q_IS or q_AIS.
    """
    return samples.z[jax.random.categorical(key, samples.log_w)]
