"""Losses of one example for theta and for phi; minus a gradient is an equation's.

Samples and weights carry no gradient: each `stop_gradient` stands beside the equation
that it implements.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real

from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.batching import chain_keys, sum_blocks
from ais_jax.models.latent import LatentVariableModel
from ais_jax.numerics import log_mean_exp
from ais_jax.types import Params, PRNGKey, PRNGKeys, Scalar

PhiLoss = Callable[[Params, Params, PRNGKey, Real[Array, "X"]], tuple[Scalar, Scalar]]
"""(phi, theta, key, x) -> (loss, elbo), nats."""


def weighted_loss(
    model: LatentVariableModel,
    theta: Params,
    x: Real[Array, "X"],
    samples: WeightedSamples,
) -> Scalar:
    """Minus the weighted sum of log p(x, z_k); its gradient is Eqs. 3, 4 and 8."""
    z = jax.lax.stop_gradient(samples.z)
    weights = jax.lax.stop_gradient(jax.nn.softmax(samples.log_w))
    log_p = jax.vmap(lambda z: model.log_joint(theta, x, z))(z)
    return -jnp.sum(weights * log_p)


def theta_gradient(
    model: LatentVariableModel,
    theta: Params,
    x: Real[Array, "B X"],
    samples: WeightedSamples,
    block_size: int | None = None,
) -> tuple[Scalar, Params]:
    """`weighted_loss` and its gradient, summed over a batch.

    Args:
        model: gives log p(x, z).
        theta: parameters of the generative model, at which the samples were drawn.
        x: the batch.
        samples: of each example. Where they have residuals, no pass is made.
        block_size: examples that a pass takes at a time (see `sum_blocks`).
    """
    if samples.residuals is None:
        loss = partial(weighted_loss, model)
        return batch_gradient(loss, theta, x, samples, block_size=block_size)
    weights = -jax.nn.softmax(samples.log_w).ravel()
    residuals = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), samples.residuals)
    return residuals.gradient(theta, weights)


def phi_gradient(
    loss: PhiLoss,
    phi: Params,
    theta: Params,
    keys: PRNGKeys,
    x: Real[Array, "B X"],
    block_size: int | None = None,
) -> tuple[tuple[Scalar, Scalar], Params]:
    """An encoder's loss with the ELBO, and the loss's gradient, summed over a batch.

    Args:
        loss: of one example.
        phi: parameters of the encoder.
        theta: parameters of the generative model.
        keys: one an example.
        x: the batch.
        block_size: examples that are taken at a time (see `sum_blocks`).
    """

    def of_one(phi, key, x):
        return loss(phi, theta, key, x)

    return batch_gradient(of_one, phi, keys, x, block_size=block_size, has_aux=True)


def batch_gradient(
    loss: Callable[..., Any],
    params: Params,
    *examples: PyTree,
    block_size: int | None = None,
    has_aux: bool = False,
) -> tuple[Any, Params]:
    """The loss of (params, *example) and its gradient, summed over a batch in blocks.

    With `has_aux` it gives (loss, aux), both of which are summed.
    """

    def total(params, *block):
        losses = jax.vmap(partial(loss, params))(*block)
        return jax.tree.map(jnp.sum, losses)

    def gradient(*block):
        return jax.value_and_grad(total, has_aux=has_aux)(params, *block), ()

    return sum_blocks(gradient, *examples, block_size=block_size)[0]


def elbo_loss(
    model: LatentVariableModel,
    num_samples: int,
    phi: Params,
    theta: Params,
    key: PRNGKey,
    x: Real[Array, "X"],
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
    x: Real[Array, "X"],
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
    x: Real[Array, "X"],
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
    x: Real[Array, "X"],
) -> tuple[Scalar, Scalar]:
    """Surrogate of the K-sample bound whose gradient is doubly reparameterized.

    Its gradient is minus the sum of w~_k^2 d/dz [log p - log q_stopped] dz_k/dphi. Its
    value means nothing by itself.
    """
    stopped = jax.lax.stop_gradient(phi)
    log_w = _log_weights(model, num_samples, phi, stopped, theta, key, x)
    weights = jax.lax.stop_gradient(jax.nn.softmax(log_w))
    return -jnp.sum(jnp.square(weights) * log_w), jnp.mean(log_w)


PHI_LOSSES = {"elbo": elbo_loss, "stl": stl_loss, "iwae": iwae_loss, "dreg": dreg_loss}


def _log_weights(model, num_samples, phi, density_phi, theta, key, x):
    """Log p(x, z_k) - log q(z_k|x) at K draws of q_phi, q's density by density_phi."""
    q, density = model.proposal(phi, x), model.proposal(density_phi, x)

    def log_weight(key):
        z = q.sample(key)
        return model.log_joint(theta, x, z) - density.log_prob(z)

    return jax.vmap(log_weight)(chain_keys(key, num_samples))
