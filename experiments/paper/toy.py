"""Figure 1: a correlated Gaussian, its best independent Gaussian, and a discrepancy.

All distributions have mean zero. The discrepancy is the squared maximum mean
discrepancy (MMD) of the kernel k(a, b) = exp(-|a - b|^2 / (2 h^2)): between 0 and 2,
and 0 for equal distributions alone. A Gaussian's side of it has a closed form, so noise
comes from the draws only; the kernel is bounded, so that noise has a finite variance
where importance weights have none.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax.annealing.path import AnnealingPath
from ais_jax.annealing.proposals import resample
from ais_jax.batching import chain_keys
from ais_jax.numerics import normal_log_prob


class Discrepancy(NamedTuple):
    """An estimated squared MMD."""

    mmd2: jax.Array  # unbiased, so it may be negative
    standard_error: jax.Array


def correlated(correlation):
    """The target's covariance: two variables of unit variance.

    Raises:
        ValueError: for a correlation outside (-1, 1).
    """
    if not -1.0 < correlation < 1.0:
        raise ValueError(f"correlation={correlation}: use a number between -1 and 1")
    return np.array([[1.0, correlation], [correlation, 1.0]])


def best_independent_variances(covariance):
    """Variances of the independent Gaussian q nearest N(0, covariance) in KL(q, p).

    They are 1 / diag(inverse covariance): Bishop, Pattern Recognition and Machine
    Learning, 2006, section 10.1.2.
    """
    return 1.0 / np.diag(np.linalg.inv(covariance))


def gaussian_path(covariance):
    """The path from the best independent Gaussian to N(0, covariance), log Z = 0.

    Its length scale is the target's narrowest standard deviation, so one step size
    serves every correlation; leapfrog is stable for step sizes below 2.
    """
    scale = np.sqrt(best_independent_variances(covariance)).astype(np.float32)
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    whiten = jnp.asarray(factor, jnp.float32)
    log_det = float(np.linalg.slogdet(factor)[1])
    ones = jnp.ones(scale.size)
    return AnnealingPath(
        sample_base=lambda key: scale * jax.random.normal(key, scale.shape),
        log_base=lambda z: normal_log_prob(z, 0.0, scale),
        log_target=lambda z: normal_log_prob(whiten @ z, 0.0, ones) + log_det,
        scale=math.sqrt(np.linalg.eigvalsh(covariance)[0]),
    )


def sample(key, covariance, num_draws):
    """Exact draws from N(0, covariance): f32[N, D]."""
    factor = jnp.asarray(np.linalg.cholesky(covariance), jnp.float32)
    return jax.random.normal(key, (num_draws, len(covariance))) @ factor.T


def draw(key, path, proposal, step_sizes, num_draws, block_size=250):
    """Independent draws from the implicit q_IS or q_AIS (Algorithm 2).

    Draw i depends on the key and on i alone; `block_size` of them are made at a time,
    which bounds the memory.

    Returns:
        (draws f32[N, D], mean acceptance over all moves, which is NaN without moves).
    """

    def one(key):
        sample_key, pick_key = jax.random.split(key)
        samples = proposal(sample_key, path, step_sizes)
        return resample(pick_key, samples), jnp.mean(samples.accept_prob)

    keys = chain_keys(key, num_draws)
    z, accept_prob = jax.lax.map(one, keys, batch_size=min(block_size, num_draws))
    return z, jnp.mean(accept_prob)


def mmd2_to_gaussian(z, covariance, bandwidth):
    """Estimates the squared MMD from independent draws f32[N, D] to N(0, covariance).

    The mean over pairs i != j of u(z_i, z_j) = k(z_i, z_j) - m(z_i) - m(z_j) + c, where
    m and c are the kernel's mean over the Gaussian in one and in both arguments
    (Gretton et al., A Kernel Two-Sample Test, 2012, Lemma 6). The standard error is the
    jackknife's, in expectation too large rather than too small (Efron & Stein, 1981),
    by about sqrt(2) for exact draws from the Gaussian. N is at least 3.
    """
    num = z.shape[0]
    c = gaussian_mean(2.0 * covariance, bandwidth)
    spread = np.linalg.inv(covariance + bandwidth**2 * np.eye(z.shape[1]))
    energy = jnp.einsum("nd,de,ne->n", z, jnp.asarray(spread, jnp.float32), z)
    m = gaussian_mean(covariance, bandwidth) * jnp.exp(-0.5 * energy)

    def row(i):
        square = jnp.sum(jnp.square(z - z[i]), axis=-1)
        u = jnp.exp(-0.5 * square / bandwidth**2) - m - m[i] + c
        return jnp.sum(u.at[i].set(0.0)) / (num - 1)

    rows = jax.lax.map(row, jnp.arange(num), batch_size=min(64, num))
    error = 2.0 * jnp.std(rows, ddof=1) * (num - 1) / (math.sqrt(num) * (num - 2))
    return Discrepancy(jnp.mean(rows), error)


def gaussian_mean(covariance, bandwidth):
    """Mean of the kernel k(a, 0) over a ~ N(0, covariance)."""
    ratio = np.eye(len(covariance)) + np.asarray(covariance) / bandwidth**2
    return float(np.linalg.det(ratio) ** -0.5)


def gaussian_mmd2(covariance_a, covariance_b, bandwidth):
    """The exact squared MMD between N(0, covariance_a) and N(0, covariance_b)."""
    pairs = (2.0 * covariance_a, covariance_a + covariance_b, 2.0 * covariance_b)
    within_a, across, within_b = (gaussian_mean(pair, bandwidth) for pair in pairs)
    return within_a - 2.0 * across + within_b
