"""The units of HMC at each temperature, estimated from a pilot's chains."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ais_jax.annealing.path import AnnealingPath
from ais_jax.checks import lookup
from ais_jax.types import PRNGKey

MASS_MATRICES = ("unit", "diagonal", "dense")
LARGEST_DENSE = 200  # dimensions whose correlations are estimated by default
SHRINKAGE = 0.02  # of correlations towards none at the least: keeps them invertible


class Covariance(NamedTuple):
    """Second moments of a position, in parts that can be averaged one by one.

    Attributes:
        log_sd: logarithms of the standard deviations.
        correlation: or None where it is not estimated.
    """

    log_sd: Float[Array, "*N D"]
    correlation: Float[Array, "*N D D"] | None


def suited(
    mass_matrix: str | None, key: PRNGKey, path: AnnealingPath, num_chains: int
) -> str:
    """What is asked for or, for None, 'dense' where chains allow it, else 'diagonal'.

    Correlations are shrunk, so that one chain for two dimensions is enough. Without
    them strongly correlated positions hardly move, and nothing shows it.

    Raises:
        ValueError: for a name that is not in `MASS_MATRICES`.
    """
    if mass_matrix is not None:
        return lookup("mass_matrix", mass_matrix, MASS_MATRICES)
    draw = jax.eval_shape(path.sample_base, key)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(draw))
    return "dense" if size <= min(2 * num_chains, LARGEST_DENSE) else "diagonal"


def estimate(
    mass_matrix: str, z: Float[Array, "E N D"], weight: Float[Array, "E N"]
) -> Covariance | None:
    """The covariance of weighted points, within examples and averaged over E of them.

    Args:
        mass_matrix: a name in `MASS_MATRICES`.
        z: positions.
        weight: of each; those of a chain's points add up to one.

    Returns:
        One covariance, or None for 'unit'.
    """
    if mass_matrix == "unit":
        return None
    return moments(z, weight, is_dense=mass_matrix == "dense", is_shrunk=True)


def moments(
    z: Float[Array, "E N D"],
    weight: Float[Array, "E N"],
    *,
    is_dense: bool,
    is_shrunk: bool = False,
) -> Covariance:
    """`estimate`, with correlations or without, shrunk or as they are."""
    weight = weight[..., None].astype(z.dtype)
    num = jnp.sum(weight, axis=1, keepdims=True)
    z = jnp.where(weight > 0.0, z, 0.0)  # what does not count may be infinite
    mean = jnp.sum(weight * z, axis=1, keepdims=True) / jnp.maximum(num, 1e-30)
    deviations = jnp.where(weight > 0.0, z - mean, 0.0)
    largest = jnp.maximum(jnp.max(jnp.abs(deviations), axis=(0, 1)), 1e-30)
    u = deviations / largest[None, None]  # so that no square overflows
    free = jnp.maximum(jnp.sum(jnp.maximum(num - 1.0, 0.0)), 1.0)
    sd = jnp.sqrt(jnp.sum(weight * jnp.square(u), axis=(0, 1)) / free)
    sd = jnp.maximum(sd, 1e-6)
    log_sd = jnp.log(sd) + jnp.log(largest)
    if not is_dense:
        return Covariance(log_sd, None)
    u = u / sd[None, None]
    mean, square = (
        jnp.einsum("en,end,enf->df", weight[..., 0], a, a) / free
        for a in (u, jnp.square(u))
    )
    variance = (square - jnp.square(mean)) / free if is_shrunk else jnp.zeros(())
    return Covariance(log_sd, _shrunk(mean, variance))


def blend(
    old: Covariance | None, new: Covariance | None, share: float = 0.5
) -> Covariance | None:
    """Part by part (1 - share) old + share new."""
    return jax.tree.map(lambda a, b: (1.0 - share) * a + share * b, old, new)


def to_scale(covariance: Covariance) -> Float[Array, "..."]:
    """What a path's `scale` is for it: standard deviations [D], or a factor [D, D]."""
    sd = jnp.exp(covariance.log_sd)
    if covariance.correlation is None:
        return sd
    correlation = covariance.correlation
    eye = jnp.broadcast_to(jnp.eye(sd.shape[-1]), correlation.shape)
    shrunk = (1.0 - SHRINKAGE) * correlation + SHRINKAGE * eye
    return sd[..., None] * jnp.linalg.cholesky(shrunk)


def _shrunk(correlation, variance):
    """Correlations less the share of them that chance explains; ones on the diagonal.

    Args:
        correlation: as estimated.
        variance: of each entry's estimate.

    References:
        Schaefer & Strimmer, A shrinkage approach to large-scale covariance matrix
        estimation, 2005.
    """
    is_diagonal = jnp.eye(len(correlation), dtype=bool)
    chance, seen = (
        jnp.sum(jnp.where(is_diagonal, 0.0, a))
        for a in (variance, jnp.square(correlation))
    )
    kept = 1.0 - jnp.clip(chance / jnp.maximum(seen, 1e-30), 0.0, 1.0)
    return jnp.where(is_diagonal, 1.0, kept * correlation)
