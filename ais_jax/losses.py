"""Losses of one example for theta and for phi; minus a gradient is an equation's.

Samples and weights carry no gradient: each `stop_gradient` stands beside the equation
that it implements.
"""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Real

from ais_jax.batching import chain_keys
from ais_jax.models import LatentVariableModel
from ais_jax.numerics import log_mean_exp
from ais_jax.one_pass import OnePass
from ais_jax.proposals import WeightedSamples
from ais_jax.types import Params, PRNGKey, Scalar


def weighted_loss(
    model: LatentVariableModel,
    theta: Params,
    x: Real[ArrayLike, "X"],
    samples: WeightedSamples,
) -> Scalar:
    """Minus the weighted sum of log p(x, z_k); its gradient is Eqs. 3, 4 and 8."""
    z = jax.lax.stop_gradient(samples.z)
    weights = jax.lax.stop_gradient(jax.nn.softmax(samples.log_w))
    log_p = jax.vmap(lambda z: model.log_joint(theta, x, z))(z)
    return -jnp.sum(weights * log_p)


def weighted_gradient(
    one_pass: OnePass, theta: Params, samples: WeightedSamples
) -> tuple[Scalar, Params]:
    """`weighted_loss` and its gradient, summed over B examples, by samples' factors.

    The samples were drawn at theta, and lead with an axis of B.
    """
    weights = -jax.nn.softmax(samples.log_w).ravel()
    factors = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), samples.factors)
    return one_pass.gradient(theta, factors, weights)


def elbo_loss(
    model: LatentVariableModel,
    num_samples: int,
    phi: Params,
    theta: Params,
    key: PRNGKey,
    x: Real[ArrayLike, "X"],
) -> tuple[Scalar, Scalar]:
    """Minus the ELBO on K reparameterized samples (Eq. 2): (loss, elbo), nats."""
    log_w = _log_weights(model, num_samples, phi, phi, theta, key, x)
    return -jnp.mean(log_w), jnp.mean(log_w)


def stl_loss(
    model: LatentVariableModel,
    num_samples: int,
    phi: Params,
    theta: Params,
    key: PRNGKey,
    x: Real[ArrayLike, "X"],
) -> tuple[Scalar, Scalar]:
    """`elbo_loss` with log q's own parameters stopped: the same value, less noise."""
    stopped = jax.lax.stop_gradient(phi)
    log_w = _log_weights(model, num_samples, phi, stopped, theta, key, x)
    return -jnp.mean(log_w), jnp.mean(log_w)


def iwae_loss(
    model: LatentVariableModel,
    num_samples: int,
    phi: Params,
    theta: Params,
    key: PRNGKey,
    x: Real[ArrayLike, "X"],
) -> tuple[Scalar, Scalar]:
    """Minus the K-sample bound (Eq. 5): (loss, elbo), nats."""
    log_w = _log_weights(model, num_samples, phi, phi, theta, key, x)
    return -log_mean_exp(log_w), jnp.mean(log_w)


def dreg_loss(
    model: LatentVariableModel,
    num_samples: int,
    phi: Params,
    theta: Params,
    key: PRNGKey,
    x: Real[ArrayLike, "X"],
) -> tuple[Scalar, Scalar]:
    """Surrogate of the K-sample bound whose gradient is doubly reparameterized.

    Its gradient is minus the sum of w~_k^2 d/dz [log p - log q_stopped] dz_k/dphi; its
    value means nothing by itself.
    """
    stopped = jax.lax.stop_gradient(phi)
    log_w = _log_weights(model, num_samples, phi, stopped, theta, key, x)
    weights = jax.lax.stop_gradient(jax.nn.softmax(log_w))
    return -jnp.sum(jnp.square(weights) * log_w), jnp.mean(log_w)


PHI_LOSSES = {
    "elbo": elbo_loss,
    "path_derivative": stl_loss,
    "iwae": iwae_loss,
    "dreg": dreg_loss,
}


def _log_weights(model, num_samples, phi, density_phi, theta, key, x):
    """Log p(x, z_k) - log q(z_k|x) at K draws of q_phi, q's density by density_phi."""
    q, density = model.proposal(phi, x), model.proposal(density_phi, x)

    def log_weight(key):
        z = q.sample(key)
        return model.log_joint(theta, x, z) - density.log_prob(z)

    return jax.vmap(log_weight)(chain_keys(key, num_samples))
