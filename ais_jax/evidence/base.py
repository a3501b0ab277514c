"""A base fitted to a pilot's particles: a Student t, mixed with a share of the prior.

A prior is a poor start where data are many. The fit is frozen before anything is
weighed, so that estimates stay unbiased. The prior's share keeps every region that the
fit has lost: weights are at most 1 / share times what they are from the prior.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from ais_jax.annealing.clouds import Cloud
from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.mass_matrix import moments, to_scale
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
    return BaseFit(mean, to_scale(moments(z[None], weight[None], is_dense=is_full)))


@jax.jit
def fit_clouds(clouds: Cloud) -> BaseFit:
    """Fits the points of chains, whose clouds lead with axes of 1 and K."""
    z = clouds.points.z
    return fit(z.reshape(-1, z.shape[-1]), jnp.exp(clouds.log_w).ravel())


def student_path(
    base: BaseFit, log_target: Callable[[Float[Array, "D"]], Scalar]
) -> AnnealingPath:
    """A path from a Student t with the location and scale of a fit."""
    size = len(base.mean)
    is_full = base.scale.ndim == 2
    diagonal = jnp.diagonal(base.scale) if is_full else base.scale
    constant = (
        gammaln(0.5 * (DEGREES + size))
        - gammaln(0.5 * DEGREES)
        - 0.5 * size * jnp.log(DEGREES * jnp.pi)
        - jnp.sum(jnp.log(diagonal))
    )
    inverse = None
    if is_full:
        eye = jnp.eye(size, dtype=base.mean.dtype)
        inverse = jax.scipy.linalg.solve_triangular(base.scale, eye, lower=True)

    def sample(key):
        normal_key, gamma_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, (size,), base.mean.dtype)
        half = jnp.asarray(0.5 * DEGREES, base.mean.dtype)
        chi2 = 2.0 * jax.random.gamma(gamma_key, half)
        u = normal * jnp.sqrt(DEGREES / chi2)
        return base.mean + (base.scale @ u if is_full else base.scale * u)

    def log_prob(z: Float[Array, "D"]) -> Scalar:
        away = z - base.mean
        u = away / base.scale if inverse is None else inverse @ away
        square = jnp.sum(jnp.square(u)) / DEGREES
        return constant - 0.5 * (DEGREES + size) * jnp.log1p(square)

    return AnnealingPath(sample, log_prob, log_target)


def with_base(
    path: AnnealingPath, base: BaseFit, share: float = SHARE
) -> AnnealingPath:
    """A path from a fitted Student t, mixed with a share of the path's own base."""
    fitted = student_path(base, path.log_target)

    def sample_base(key):
        which_key, prior_key, fit_key = jax.random.split(key, 3)
        is_prior = jax.random.uniform(which_key) < share
        draws = path.sample_base(prior_key), fitted.sample_base(fit_key)
        return jnp.where(is_prior, *draws)

    def log_base(z):
        prior = jnp.log(share) + path.log_base(z)
        return jnp.logaddexp(prior, jnp.log1p(-share) + fitted.log_base(z))

    return path._replace(sample_base=sample_base, log_base=log_base)
