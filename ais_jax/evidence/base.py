"""A base fitted to a pilot's particles: a Student t, mixed with a share of the prior.

A prior is a poor start where data are many. A fit is frozen before anything is weighed,
so that estimates from it stay unbiased, and the prior's share keeps every region that
the fit has lost: weights are at most 1 / share times what they are from the prior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from ais_jax.annealing.clouds import Cloud
from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.mass_matrix import estimate, to_scale
from ais_jax.types import Scalar

SHARE = 0.1  # of the prior in the mixture
DEGREES = 8.0  # of freedom of the Student t: its tails are heavier than a posterior's
LARGEST_FULL = 128  # dimensions up to which the covariance is estimated in full


class BaseFit(NamedTuple):
    """A location and a scale.

    Attributes:
        mean: of the particles.
        scale: a factor [D, D] of their covariance, or standard deviations [D].
    """

    mean: Float[Array, "D"]
    scale: Float[Array, "D D"] | Float[Array, "D"]


def fit(z: Float[Array, "N D"], weight: Float[Array, "N"]) -> BaseFit:
    """Fits weighted particles; those that are not finite count as nothing."""
    weight = jnp.where(jnp.all(jnp.isfinite(z), axis=1), weight, 0.0)
    z = jnp.where(weight[:, None] > 0.0, z, 0.0)
    mean = weight @ z / jnp.maximum(jnp.sum(weight), 1e-30)
    is_full = z.shape[1] <= LARGEST_FULL
    covariance = estimate("dense" if is_full else "diagonal", z[None], weight[None])
    assert covariance is not None
    return BaseFit(mean, to_scale(covariance))


@jax.jit
def fit_clouds(clouds: Cloud) -> BaseFit:
    """Fits the points of chains, whose clouds lead with axes of 1 and K."""
    z = clouds.points.z
    return fit(z.reshape(-1, z.shape[-1]), jnp.exp(clouds.log_w).ravel())


def with_base(path: AnnealingPath, base: BaseFit) -> AnnealingPath:
    """A path from the mixture of a fitted Student t and the path's own base."""
    is_full = base.scale.ndim == 2
    diagonal = jnp.diagonal(base.scale) if is_full else base.scale
    size = len(base.mean)
    constant = (
        gammaln(0.5 * (DEGREES + size))
        - gammaln(0.5 * DEGREES)
        - 0.5 * size * jnp.log(DEGREES * jnp.pi)
        - jnp.sum(jnp.log(diagonal))
    )
    eye = jnp.eye(size, dtype=base.mean.dtype)
    inverse = None
    if is_full:
        inverse = jax.scipy.linalg.solve_triangular(base.scale, eye, lower=True)

    def sample_base(key):
        which_key, prior_key, normal_key, gamma_key = jax.random.split(key, 4)
        normal = jax.random.normal(normal_key, (size,), base.mean.dtype)
        half = jnp.asarray(0.5 * DEGREES, base.mean.dtype)
        chi2 = 2.0 * jax.random.gamma(gamma_key, half)
        u = normal * jnp.sqrt(DEGREES / chi2)
        z = base.mean + (base.scale @ u if is_full else base.scale * u)
        is_prior = jax.random.uniform(which_key) < SHARE
        return jnp.where(is_prior, path.sample_base(prior_key), z)

    def log_fit(z: Float[Array, "D"]) -> Scalar:
        away = z - base.mean
        u = away / base.scale if inverse is None else inverse @ away
        square = jnp.sum(jnp.square(u)) / DEGREES
        return constant - 0.5 * (DEGREES + size) * jnp.log1p(square)

    def log_base(z):
        both = jnp.log(SHARE) + path.log_base(z), jnp.log1p(-SHARE) + log_fit(z)
        return jnp.logaddexp(*both)

    return path._replace(sample_base=sample_base, log_base=log_base)
