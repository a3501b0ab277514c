"""Paths of fewer data, of a power of the likelihood, and between two posteriors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, ScalarLike

from ais_jax.annealing.path import AnnealingPath, PathOfData
from ais_jax.evidence.positions import constrain
from ais_jax.types import AnyArray


def prequential(
    path: AnnealingPath, log_likelihoods: Callable[[PyTree], Float[Array, "N"]]
) -> Callable[[Int[AnyArray, ""] | int], AnnealingPath]:
    """The path to the posterior of the first n data, as a function of n.

    Log Z of n + m data less that of n is the log probability of the m data given those
    before them. `estimate_log_z(key, prequential(...), n)` compiles nothing for
    another n.

    Args:
        path: whose base is the prior; its target is not used.
        log_likelihoods: of each of the N data, given the parameters, nats.
    """

    def first(n):
        def log_target(z):
            each = log_likelihoods(constrain(path, z))
            is_in = jnp.arange(each.shape[0]) < n
            return path.log_base(z) + jnp.sum(jnp.where(is_in, each, 0.0))

        return path._replace(log_target=log_target, target_with_residuals=None)

    return first


def tempered(path: AnnealingPath, power: ScalarLike) -> AnnealingPath:
    """The path from a prior to the posterior with the likelihood to a power.

    Args:
        path: from the prior to the posterior.
        power: of the likelihood, positive.
    """

    def log_target(z):
        log_prior, log_joint = path.log_base(z), path.log_target(z)
        tempered = log_prior + power * (log_joint - log_prior)
        return jnp.where(jnp.isneginf(log_prior), -jnp.inf, tempered)

    return path._replace(log_target=log_target, target_with_residuals=None)


def between(
    draws: PyTree, first: AnnealingPath, second: AnnealingPath
) -> AnnealingPath:
    """The path from one posterior to another, whose log Z is the log Bayes factor.

    It is the evidence of the second over that of the first. Where both are alike the
    path is short, and the error is small. Chains begin at the draws, each drawn anew,
    so give many more draws than chains.

    Args:
        draws: of the first posterior, its parameters with a leading axis of N, as
            `LogNormalizer.draws` gives them, or a sampler.
        first: the path to the first posterior.
        second: the path to the second, of the same parameters.

    Raises:
        ValueError: where the parameters differ in their names or shapes.
    """
    unconstrain = None if first.coordinates is None else first.coordinates.unconstrain
    positions = jax.vmap(unconstrain)(draws) if unconstrain else draws
    shapes = jax.tree.map(lambda a: jnp.shape(a)[1:], positions)
    draw = jax.eval_shape(second.sample_base, jax.random.key(0))
    if shapes != jax.tree.map(lambda a: a.shape, draw):
        raise ValueError(
            f"draws of the first path have the shapes {shapes}, and parameters of the "
            f"second {jax.tree.map(lambda a: a.shape, draw)}: they must be the same"
        )
    num = jax.tree.leaves(positions)[0].shape[0]

    def sample_base(key):
        i = jax.random.randint(key, (), 0, num)
        return jax.tree.map(lambda a: jnp.asarray(a)[i], positions)

    path = second._replace(sample_base=sample_base, log_base=first.log_target)
    path = PathOfData(*path)
    path.is_base_normalised = False
    return path
