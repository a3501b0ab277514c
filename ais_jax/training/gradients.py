"""The two halves of Algorithm 1 on a batch: what it gives theta, and what phi."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.batching import sum_blocks
from ais_jax.training.estimators import Estimator
from ais_jax.types import (
    Params,
    PRNGKeys,
    Scalar,
)


def theta_gradient(
    estimator: Estimator,
    theta: Params,
    phi: Params,
    step_sizes: Float[Array, "M"],
    keys: PRNGKeys,
    x: Real[Array, "B X"],
    block_size: int | None = None,
) -> tuple[tuple[Scalar, Params], WeightedSamples]:
    """Samples from a batch's posteriors, and the gradient that they give theta.

    Args:
        estimator: what samples and weighs.
        theta: parameters of the generative model.
        phi: parameters of the encoder.
        step_sizes: of each move.
        keys: one an example.
        x: a batch.
        block_size: examples whose weighted points are taken at a time, where these
            are more than the chains.

    Returns:
        ((loss, its gradient), samples of each example), the first two summed over the
        batch, as `sum_blocks` takes it.
    """

    def loss(theta, x, samples):
        return jnp.sum(jax.vmap(estimator.theta_loss, (None, 0, 0))(theta, x, samples))

    def gradient(x, samples):
        return jax.value_and_grad(loss)(theta, x, samples), ()

    def sample(key, x):
        return estimator.sample(key, theta, phi, x, step_sizes)

    samples = jax.vmap(sample)(keys, x)
    if samples.factors is None:
        sums, _ = sum_blocks(gradient, x, samples, block_size=block_size)
    else:
        sums = estimator.theta_gradient(theta, samples)
    return sums, samples._replace(factors=None)


def phi_gradient(
    estimator: Estimator,
    phi: Params,
    theta: Params,
    keys: PRNGKeys,
    x: Real[Array, "B X"],
    samples: WeightedSamples,
) -> tuple[tuple[tuple[Scalar, Scalar], Params], tuple[()]]:
    """The gradient that a batch gives phi.

    Args:
        estimator: gives the loss of one example.
        phi: parameters of the encoder.
        theta: parameters of the generative model.
        keys: one an example.
        x: a batch.
        samples: of each example, that gave theta its gradient.

    Returns:
        (((loss, elbo), its gradient), ()), summed over the batch, as `sum_blocks`
        takes it.
    """

    def loss(phi):
        losses = jax.vmap(estimator.phi_loss, (None, None, 0, 0, 0))
        return jax.tree.map(jnp.sum, losses(phi, theta, keys, x, samples))

    return jax.value_and_grad(loss, has_aux=True)(phi), ()
