"""Losses of one example for theta and for phi; minus a gradient is an equation's.

Samples and weights carry no gradient: each `stop_gradient` stands beside the equation
that it implements.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Real

from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.batching import chain_keys
from ais_jax.models.latent import LatentVariableModel
from ais_jax.models.outer_products import OnePass
from ais_jax.numerics import log_mean_exp
from ais_jax.types import (
    Params,
    PRNGKey,
    Scalar,
)


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


def wake_loss(
    model: LatentVariableModel,
    phi: Params,
    x: Real[ArrayLike, "X"],
    samples: WeightedSamples,
) -> Scalar:
    """Minus the weighted sum of log q(z_k|x), nats: q fitted to theta's samples.

    References:
        Bornschein & Bengio, Reweighted wake-sleep, 2015, their wake update of q.
    """
    z = jax.lax.stop_gradient(samples.z)
    weights = jax.lax.stop_gradient(jax.nn.softmax(samples.log_w))
    return -jnp.sum(weights * jax.vmap(model.proposal(phi, x).log_prob)(z))


def make_phi_loss(
    loss: Callable[..., tuple[Scalar, Scalar]],
    model: LatentVariableModel,
    num_samples: int,
    wake_share: float = 0.0,
) -> Callable[..., tuple[Scalar, Scalar]]:
    """An estimator's loss of phi: (phi, theta, key, x, samples) -> (loss, elbo), nats.

    Args:
        loss: one of those in `PHI_LOSSES`.
        model: what is trained.
        num_samples: draws of q.
        wake_share: the share of `wake_loss` in the sum, that of `loss` being the rest.

    Raises:
        ValueError: for a share out of range.
    """
    if not 0.0 <= wake_share <= 1.0:
        raise ValueError(f"wake_share={wake_share}: use a number from 0 to 1")

    def mixed(phi, theta, key, x, samples):
        value, elbo = loss(model, num_samples, phi, theta, key, x)
        if wake_share:
            wake = wake_loss(model, phi, x, samples)
            value = (1.0 - wake_share) * value + wake_share * wake
        return value, elbo

    return mixed


def _log_weights(model, num_samples, phi, density_phi, theta, key, x):
    """Log p(x, z_k) - log q(z_k|x) at K draws of q_phi, q's density by density_phi."""
    q, density = model.proposal(phi, x), model.proposal(density_phi, x)

    def log_weight(key):
        z = q.sample(key)
        return model.log_joint(theta, x, z) - density.log_prob(z)

    return jax.vmap(log_weight)(chain_keys(key, num_samples))
