"""Targets with exact answers, and the statistics the tests judge by.

A `Target` has a known normalising constant and exact draws; `linear_gaussian` is a
latent-variable model with a known log p(x), posterior and bounds.
"""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax.annealing.path import AnnealingPath
from ais_jax.models.latent import Distribution, LatentVariableModel
from ais_jax.numerics import normal_log_prob, standard_normal_log_prob

OPTIMIZED = {  # XLA's defaults; see conftest.py
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}
if "fusion_emitters" in os.environ.get("XLA_FLAGS", ""):
    OPTIMIZED["xla_cpu_use_fusion_emitters"] = True
LOG_Z = 1.5  # of every `Target`, so that a lost constant shows


class Target(NamedTuple):
    """A path, its log normalising constant and exact draws of its end."""

    path: AnnealingPath
    log_z: float
    sample: object  # key -> f32[D], from the normalised target
    size: int


def skewed(size):
    """A correlated and skewed target of any size, under a wider Gaussian base.

    With the innovations e_i = z_i - 0.3 z_{i-1}, the target has the density
    2 N(e_i; 0, 1) sigmoid(3 e_i) for each, whose integral is exactly one, and the base
    N(e_i; 0.7, 0.85^2), whose tails are heavy enough for weights of finite variance.
    """
    mix = np.eye(size) - 0.3 * np.eye(size, k=-1)
    unmix = jnp.asarray(np.linalg.inv(mix), jnp.float32)
    mix = jnp.asarray(mix, jnp.float32)
    mean, scale, skew = 0.7, 0.85, 3.0

    def log_target(z):
        e = mix @ z
        terms = jnp.log(2.0) + jax.nn.log_sigmoid(skew * e)
        return standard_normal_log_prob(e) + jnp.sum(terms) + LOG_Z

    def sample(key):
        e_key, sign_key = jax.random.split(key)
        e = jax.random.normal(e_key, (size,))
        keep = jax.random.uniform(sign_key, (size,)) < jax.nn.sigmoid(skew * e)
        return unmix @ jnp.where(keep, e, -e)

    path = AnnealingPath(
        lambda key: unmix @ (mean + scale * jax.random.normal(key, (size,))),
        lambda z: normal_log_prob(mix @ z, mean, scale * jnp.ones(size)),
        log_target,
    )
    return Target(path, LOG_Z, sample, size)


def mixture():
    """Two normal components of unequal weight and width in one dimension."""
    weights = jnp.array([0.3, 0.7])
    means, scales = jnp.array([-1.5, 1.0]), jnp.array([0.5, 0.8])

    def log_target(z):
        terms = normal_log_prob(z, means[:, None], scales[:, None])
        return jax.nn.logsumexp(terms, b=weights) + LOG_Z

    def sample(key):
        i_key, key = jax.random.split(key)
        i = jax.random.categorical(i_key, jnp.log(weights))
        return means[i] + scales[i] * jax.random.normal(key, (1,))

    path = AnnealingPath(
        lambda key: 0.3 + 1.5 * jax.random.normal(key, (1,)),
        lambda z: normal_log_prob(z, 0.3, 1.5 * jnp.ones(1)),
        log_target,
    )
    return Target(path, LOG_Z, sample, 1)


NOISE = 0.7  # standard deviation of x given z in the linear-Gaussian model


def linear_gaussian():
    """One latent and two observed numbers: x = W z + b + noise.

    theta is (W f32[2], b f32[2]); phi is (A f32[2], c f32[], log_scale f32[]), and
    q(z|x) = N(A x + c, exp(log_scale)^2).
    """

    def log_joint(theta, x, z):
        weight, bias = theta
        mean = weight * z[0] + bias
        return standard_normal_log_prob(z) + normal_log_prob(
            x, mean, NOISE * jnp.ones(2)
        )

    def prior(theta):
        return _normal(jnp.zeros(1), jnp.ones(1))

    def proposal(phi, x):
        slope, offset, log_scale = phi
        mean = jnp.dot(slope, x) + offset
        return _normal(mean[None], jnp.exp(log_scale)[None])

    def init(key):
        del key
        theta = (jnp.array([1.0, -0.5]), jnp.array([0.2, 0.1]))
        return theta, (jnp.array([0.2, 0.1]), jnp.array(0.1), jnp.array(-0.1))

    def decode(theta, z):
        return theta[0] * z[0] + theta[1]

    def simulate(key, theta):
        z_key, x_key = jax.random.split(key)
        z = jax.random.normal(z_key, (1,))
        return decode(theta, z) + NOISE * jax.random.normal(x_key, (2,)), z

    return LatentVariableModel(init, log_joint, prior, proposal, decode, simulate)


def exact_log_p(theta, x):
    """The linear-Gaussian model's log p(x) in closed form."""
    weight, bias = theta
    covariance = jnp.outer(weight, weight) + NOISE**2 * jnp.eye(2)
    return jax.scipy.stats.multivariate_normal.logpdf(x, bias, covariance)


def exact_posterior(theta, x):
    """The linear-Gaussian model's posterior (mean f32[], standard deviation f32[])."""
    weight, bias = theta
    precision = 1.0 + jnp.dot(weight, weight) / NOISE**2
    mean = jnp.dot(weight, x - bias) / NOISE**2 / precision
    return mean, precision**-0.5


def exact_bound(theta, phi, x, num_samples):
    """The K-sample bound, K in {1, 2}, by Gauss-Hermite quadrature; K = 1: the ELBO."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = jnp.asarray(weights / np.sum(weights), jnp.float32)
    model = linear_gaussian()
    q = model.proposal(phi, x)

    def log_weight(node):
        z = q.mean + q.scale * node
        return model.log_joint(theta, x, z) - q.log_prob(z)

    log_w = jax.vmap(log_weight)(jnp.asarray(nodes, jnp.float32))
    if num_samples == 1:
        return jnp.dot(weights, log_w)
    pairs = jnp.logaddexp(log_w[:, None], log_w) - jnp.log(2.0)
    return weights @ pairs @ weights


def ratio_and_error(log_w, log_z):
    """Mean of exp(log_w) / Z and its standard error."""
    w = np.exp(np.asarray(log_w, np.float64) - log_z)
    return np.mean(w), np.std(w, ddof=1) / np.sqrt(w.size)


def errors_off(values, expected):
    """How many standard errors the mean over axis 0 is away from the expected one."""
    values = np.asarray(values, np.float64)
    error = np.std(values, axis=0, ddof=1) / np.sqrt(values.shape[0])
    return (np.mean(values, axis=0) - np.asarray(expected)) / error


def flatten(tree):
    """Trees with a leading axis of N to f64[N, P]."""
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(tree)]
    return np.concatenate([a.reshape(a.shape[0], -1) for a in leaves], axis=1)


def _normal(mean, scale):
    return Distribution(
        lambda key: mean + scale * jax.random.normal(key, mean.shape),
        lambda z: normal_log_prob(z, mean, scale),
        mean,
        scale,
    )


@jax.jit
def shaken(tree, key, size=0.5):
    """Parameters with every entry moved at random, the biases too."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    moved = [a + size * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys)]
    return jax.tree.unflatten(structure, moved)


def driven_by(path, force):
    """The same path, driven by the gradient of another function."""
    return path._replace(
        target_with_residuals=lambda z: (path.log_target(z), jax.grad(force)(z), None)
    )


def normal_base(size, scale):
    return (
        lambda key: scale * jax.random.normal(key, (size,)),
        lambda z: normal_log_prob(z, jnp.zeros(size), scale * jnp.ones(size)),
    )


def log_gamma():
    """Twenty logarithms of gamma variables: skewed, log Z = sum of log Gamma(a)."""
    shape = jnp.linspace(1.0, 4.0, 20)
    target = lambda z: jnp.sum(shape * z - jnp.exp(z))
    log_z = float(jnp.sum(jax.scipy.special.gammaln(shape)))
    return AnnealingPath(*normal_base(20, 1.3), target), log_z


def slow_but(names, *kept):
    """Cases of a test; those whose kind one of the kept names stands for are slow."""
    return [
        pytest.param(
            *(name if isinstance(name, tuple) else (name,)),
            marks=() if name in kept else pytest.mark.slow,
        )
        for name in names
    ]
