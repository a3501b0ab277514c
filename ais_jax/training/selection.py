"""The parameters of the best validation ELBO, kept beside those that are trained."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Real

from ais_jax.batching import example_keys, map_examples
from ais_jax.models.latent import LatentVariableModel
from ais_jax.training.losses import elbo_loss
from ais_jax.training.step import Best, TrainState
from ais_jax.types import PRNGKey, Scalar

NUM_SAMPLES = 8  # of q, for each image's ELBO


def make_keep_best(
    model: LatentVariableModel, block_size: int | None = None
) -> Callable[..., tuple[TrainState, Scalar]]:
    """Builds the step that keeps a state's parameters where they are the best so far.

    Args:
        model: what is trained.
        block_size: examples that are computed at a time (see `sum_blocks`).

    Returns:
        (state, key, images) -> (state, validation ELBO in nats). The same key makes
        the ELBOs of different states comparable.
    """

    def keep_best(
        state: TrainState, key: PRNGKey, images: Real[Array, "N X"]
    ) -> tuple[TrainState, Scalar]:
        theta, phi = state.theta, state.inference.params

        def elbo_of(key, x):
            return elbo_loss(model, NUM_SAMPLES, phi, theta, key, x)[1]

        keys = example_keys(key, jnp.arange(len(images)))
        elbos = map_examples(elbo_of, keys, images, block_size=block_size)
        now = Best(theta, phi, jnp.mean(elbos))
        is_better = now.elbo > state.best.elbo
        best = jax.tree.map(lambda a, b: jnp.where(is_better, a, b), now, state.best)
        return dataclasses.replace(state, best=best), now.elbo

    return keep_best
