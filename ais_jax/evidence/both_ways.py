"""Chains from the base and chains back from draws of the target, by one plan."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ais_jax.annealing.ais import AISResult, anneal_both_ways
from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.loop import cloud_size
from ais_jax.annealing.path import AnnealingPath
from ais_jax.batching import chain_keys
from ais_jax.evidence.plan import Plan, scale_of_moves
from ais_jax.types import PRNGKey, PRNGKeys


def starts(
    key: PRNGKey, path: AnnealingPath, num_chains: int, transition: Transition
) -> tuple[Float[Array, "K P D"], PRNGKeys]:
    """Draws from the base for K chains, and the keys of the chains that start there."""
    size = cloud_size(path, key, transition)
    keys = jax.vmap(jax.random.split)(chain_keys(key, num_chains))

    def draw(key):
        return jax.vmap(path.sample_base)(chain_keys(key, size))

    return jax.vmap(draw)(keys[:, 0]), keys[:, 1]


def anneal_from_both_ends(
    key: PRNGKey,
    path: AnnealingPath,
    z_target: Float[Array, "K D"],
    plan: Plan,
    transition: Transition,
) -> tuple[AISResult, AISResult]:
    """K chains from the base of a flat path, and one back from each draw.

    The log weights of the second estimate 1 / Z.
    """
    forward_key, reverse_key = jax.random.split(key)
    z0, keys = starts(forward_key, path, len(z_target), transition)
    return anneal_both_ways(
        jnp.stack([keys, chain_keys(reverse_key, len(z_target))]),
        path,
        z0,
        z_target,
        plan.betas,
        plan.step_sizes,
        transition,
        scale_of_moves(plan),
    )
