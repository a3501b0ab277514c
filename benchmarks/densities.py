"""Eight hard densities whose log Z is known, for the benchmarks of estimates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats
from jax.scipy.special import logsumexp

from ais_jax.annealing.path import AnnealingPath
from ais_jax.numerics import normal_log_prob


class Density(NamedTuple):
    """One target under a normal base.

    Attributes:
        size: D.
        center: of the base.
        scale: of the base.
        log_target: f32[D] -> nats.
        log_z: exact, nats.
        num_temperatures: T that suits it.
        mass_matrix: of BlackJAX's moves: that which suits it.
        num_leapfrog: L; where all directions are as wide, two accepted steps or so
            are the quarter of a period that changes the energy most.
    """

    size: int
    center: float | np.ndarray
    scale: float | np.ndarray
    log_target: Callable
    log_z: float
    num_temperatures: int
    mass_matrix: str = "diagonal"
    num_leapfrog: int = 10

    def path(self):
        """From the base to the target."""
        center = jnp.broadcast_to(self.center, (self.size,))
        scale = jnp.broadcast_to(self.scale, (self.size,))
        return AnnealingPath(
            lambda key: center + scale * jax.random.normal(key, (self.size,)),
            lambda z: normal_log_prob(z, center, scale),
            self.log_target,
        )


def normal_log_z(size, scale):
    """Of exp(-|z / scale|^2 / 2)."""
    return 0.5 * size * np.log(2.0 * np.pi) + np.sum(np.log(scale) * np.ones(size))


def walls():
    """A normal at (1, 1), zero outside a square that holds 0.6 of the base."""
    half, log_z = 3.6, normal_log_z(2, 0.3)

    def log_target(z):
        inside = jnp.all(jnp.abs(z) < half)
        return jnp.where(inside, -0.5 * jnp.sum(((z - 1.0) / 0.3) ** 2), -jnp.inf)

    return Density(2, 0.0, 3.0, log_target, log_z, 100)


def funnel():
    """Neal's: v ~ N(0, 1.5^2), four x ~ N(0, exp(v))."""

    def log_target(z):
        v, x = z[0], z[1:]
        return stats.norm.logpdf(v, 0.0, 1.5) + jnp.sum(
            stats.norm.logpdf(x, 0.0, jnp.exp(0.5 * v))
        )

    return Density(5, 0.0, 1.5, log_target, 0.0, 2000, num_leapfrog=4)


def gaussian():
    """Of 100 dimensions, aside of the base and narrower."""
    return Density(
        100,
        0.0,
        1.0,
        lambda z: -0.5 * jnp.sum(((z - 0.3) / 0.7) ** 2),
        normal_log_z(100, 0.7),
        num_temperatures=400,
        num_leapfrog=2,
    )


def mixture():
    """Two far normals of unequal weight and width in the plane."""
    centers = jnp.array([[-2.5, 0.0], [2.0, 1.0]])
    scales, shares = jnp.array([0.5, 0.8]), jnp.log(jnp.array([0.3, 0.7]))

    def log_target(z):
        each = jnp.sum(stats.norm.logpdf(z, centers, scales[:, None]), axis=1)
        return logsumexp(shares + each)

    return Density(2, 0.0, 3.0, log_target, 0.0, 100)


def student():
    """Three independent ones of 5 degrees of freedom: heavier tails than the base."""
    return Density(
        3, 0.0, 2.0, lambda z: jnp.sum(stats.t.logpdf(z - 0.5, 5.0)), 0.0, 100
    )


def logistic_regression():
    """The evidence of 100 binary data, two slopes and an intercept; by quadrature."""
    keys = jax.random.split(jax.random.key(1), 3)
    x = jnp.append(jax.random.normal(keys[0], (100, 2)), jnp.ones((100, 1)), axis=1)
    chance = jax.nn.sigmoid(x @ jnp.array([1.5, -1.0, 0.5]))
    y = 2.0 * jax.random.bernoulli(keys[1], chance) - 1.0

    def log_target(z):
        fit = jnp.sum(jax.nn.log_sigmoid(y * (x @ z)))
        return normal_log_prob(z, jnp.zeros(3), 2.0 * jnp.ones(3)) + fit

    axis = jnp.linspace(-3.0, 5.0, 101)
    grid = jnp.stack(jnp.meshgrid(axis, axis - 2.0, axis - 1.0), axis=-1).reshape(-1, 3)
    values = jax.lax.map(log_target, grid, batch_size=10_000)
    log_z = float(logsumexp(values) + 3.0 * jnp.log(axis[1] - axis[0]))
    return Density(3, 0.0, 2.0, log_target, log_z, 100)


def correlated():
    """Twenty equicorrelated numbers, rho = 0.99."""
    covariance = np.full((20, 20), 0.99) + 0.01 * np.eye(20)
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    log_z = 0.5 * np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    return Density(
        20, 0.0, 1.0, lambda z: -0.5 * z @ precision @ z, log_z, 2000, "dense", 2
    )


def mixed_scales():
    """Units of the coordinates from 1e-4 to 1e4."""
    units = 10.0 ** np.array([-4.0, -2.0, 0.0, 1.0, 2.0, 4.0])
    return Density(
        6,
        0.0,
        units,
        lambda z: -0.5 * jnp.sum(((z / units - 0.5) / 0.4) ** 2),
        normal_log_z(6, 0.4 * units),
        100,
    )


DENSITIES = {
    "walls": walls,
    "100-d Gaussian": gaussian,
    "mixture": mixture,
    "Student": student,
    "logistic regression": logistic_regression,
    "correlated": correlated,
    "mixed scales": mixed_scales,
    "funnel": funnel,
}
