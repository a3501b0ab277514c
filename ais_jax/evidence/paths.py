"""Paths of fewer data, of a power of the likelihood, and between two posteriors."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ais_jax.annealing.path import AnnealingPath, PathOfData
from ais_jax.evidence.positions import constrain
from ais_jax.types import AnyArray, is_traced


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
            if jnp.ndim(each) != 1:
                raise ValueError(
                    f"log_likelihoods returned the shape {jnp.shape(each)}: it must "
                    "return one number for each of the data"
                )
            is_in = jnp.arange(each.shape[0]) < n
            return path.log_base(z) + jnp.sum(jnp.where(is_in, each, 0.0))

        return path._replace(log_target=log_target, target_with_residuals=None)

    return first


def tempered(path: AnnealingPath, power: Float[AnyArray, ""] | float) -> AnnealingPath:
    """The path from a prior to the posterior with the likelihood to a power.

    Args:
        path: from the prior to the posterior.
        power: of the likelihood, positive.

    Raises:
        ValueError: for another power.
    """
    if not is_traced(power) and not float(power) > 0.0:
        raise ValueError(f"power={power}: use a positive number")

    def log_target(z):
        log_prior, log_joint = path.log_base(z), path.log_target(z)
        tempered = log_prior + power * (log_joint - log_prior)
        return jnp.where(jnp.isneginf(log_prior), -jnp.inf, tempered)

    return path._replace(log_target=log_target, target_with_residuals=None)


def between(
    draws: PyTree, first: AnnealingPath, second: AnnealingPath
) -> AnnealingPath:
    """The path from one posterior to another, whose log Z is the log Bayes factor.

    Z is the evidence of the second over that of the first. Where both are alike the
    path is short, and the error is small. Each chain begins at a draw that is chosen at
    random: give many more draws than chains.

    Args:
        draws: of the first posterior, its parameters with a leading axis of N, as
            `LogNormalizer.draws` gives them, or a sampler.
        first: the path to the first posterior.
        second: the path to the second, of the same parameters.

    Raises:
        ValueError: where the parameters of both, or the draws, differ in their names
            or shapes.
    """
    key = jax.random.key(0)
    ours, theirs = (_shapes(path.sample_base, key) for path in (first, second))
    if ours != theirs:
        raise ValueError(
            f"first has positions of the shapes {ours} and second {theirs}: give paths "
            "of the same parameters"
        )
    like = _shapes(lambda key: constrain(first, first.sample_base(key)), key)
    if isinstance(like, Mapping) and isinstance(draws, Mapping):
        draws = {name: draws[name] for name in like if name in draws}
    found = jax.tree.map(lambda a: jnp.shape(a)[1:], draws)
    if found != like:
        raise ValueError(
            f"draws have the shapes {found} after their one axis, and the parameters "
            f"{like}: give them the same"
        )
    coordinates = first.coordinates
    if coordinates is not None:
        draws = jax.vmap(coordinates.unconstrain)(draws)
    num = jax.tree.leaves(draws)[0].shape[0]

    def sample_base(key):
        i = jax.random.randint(key, (), 0, num)
        return jax.tree.map(lambda a: jnp.asarray(a)[i], draws)

    path = PathOfData(
        *second._replace(sample_base=sample_base, log_base=first.log_target)
    )
    path.is_base_normalised = False
    return path


def _shapes(sample, key):
    return jax.tree.map(lambda a: a.shape, jax.eval_shape(sample, key))
