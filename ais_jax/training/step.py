"""Algorithm 1 as pure functions: the training step and many steps in one dispatch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree, Real, ScalarLike

from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.batching import example_keys, sum_blocks
from ais_jax.models.latent import LatentVariableModel
from ais_jax.numerics import effective_sample_size
from ais_jax.training.estimators import Estimator
from ais_jax.training.optimizers import Optimizers, with_rate
from ais_jax.training.step_sizes import StepSizeRule, update_step_sizes
from ais_jax.types import Params, PRNGKey, PRNGKeys, Scalar


class Best(NamedTuple):
    """The parameters of the best validation ELBO so far, nats (`selection`)."""

    theta: PyTree
    phi: PyTree
    elbo: Any


@struct.dataclass
class TrainState:
    """Everything that training changes; the seed and learning rate stay outside.

    Attributes:
        generative: Flax train state of theta.
        inference: Flax train state of phi.
        step_sizes: of each move.
        average: exponential moving average of theta, where one is kept.
        best: a `Best`, where it is kept.
    """

    # JAX rebuilds this class around shapes, shardings and placeholders too, and
    # replicates lead with another axis: a checker must take them all.
    generative: PyTree
    inference: PyTree
    step_sizes: PyTree
    average: PyTree = None
    best: PyTree = None

    @property
    def theta(self) -> Params:
        """The average of theta where one is kept, else theta."""
        return self.generative.params if self.average is None else self.average

    @property
    def evaluated(self) -> tuple[Params, Params]:
        """Theta and phi that are evaluated: the best where they are kept."""
        if self.best is None:
            return self.theta, self.inference.params
        return self.best.theta, self.best.phi

    @property
    def step(self) -> Any:
        """The number of steps made."""
        return self.generative.step


class Metrics(NamedTuple):
    """Means over a batch, and over the steps of a dispatch.

    Attributes:
        elbo: of q_phi at the updated theta, nats.
        ess: effective sample size of the N weighted points, as a share of N.
        accept_prob: of each move.
        bad_step: the first step whose loss was not finite, or -1.
    """

    elbo: Scalar
    ess: Scalar
    accept_prob: Float[Array, "M"]
    bad_step: Int[Array, ""]


TrainStep = Callable[[TrainState, PRNGKey, Array], tuple]
"""(state, key, images) -> (state, `Metrics`)."""


def init(
    key: PRNGKey,
    model: LatentVariableModel,
    estimator: Estimator,
    optimizers: Optimizers,
    step_size: ScalarLike,
    *,
    learning_rates: Float[Array, "2"],
    keep_average: bool = False,
    keep_best: bool = False,
) -> TrainState:
    """The state before the first step.

    Args:
        key: of the parameters' first values.
        model: what is trained.
        estimator: says how many moves need a step size; of several, the one of most.
        optimizers: of theta and of phi, each of `optimizers.make`.
        step_size: HMC's first step size at every temperature.
        learning_rates: the peak rates of theta and of phi.
        keep_average: whether to keep an exponential moving average of theta.
        keep_best: whether to keep the parameters of the best validation ELBO.
    """
    theta, phi = model.init(key)

    def create(params, optimizer, learning_rate):
        opt_state = optimizer.init(params)
        return train_state.TrainState(
            step=jnp.zeros((), jnp.int32),  # a Python int would be traced twice
            apply_fn=None,  # pyright: ignore[reportArgumentType]
            params=params,
            tx=optimizer,
            opt_state=with_rate(opt_state, learning_rate),
        )

    step_sizes = jnp.full((estimator.num_moves,), step_size, jnp.float32)
    return TrainState(
        create(theta, optimizers.theta, learning_rates[0]),
        create(phi, optimizers.phi, learning_rates[1]),
        step_sizes,
        theta if keep_average else None,
        Best(theta, phi, jnp.finfo(jnp.float32).min) if keep_best else None,
    )


def make_train_step(
    estimator: Estimator,
    rule: StepSizeRule,
    *,
    binarize: bool,
    average_decay: float = 0.0,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds one step of Algorithm 1: theta first, then phi at the updated theta.

    Args:
        estimator: of the two gradients. Where the state has the step sizes of more
            moves, these follow the estimator's last one.
        rule: moves the step sizes after each batch.
        binarize: whether to draw the pixels from their intensities at each visit.
        average_decay: of the exponential moving average of theta, in a state that
            keeps one.
        block_size: examples that are computed at a time (see `sum_blocks`).
        axis_name: mesh axis over which the batch is spread, or None. Gradients and
            metrics are averaged over it, and examples keep the keys of their places
            in the whole batch.

    Returns:
        (state, key, images) -> (state, `Metrics`), the images being those on this
        device.
    """
    average = partial(_average, axis_name)
    phi_block = _block(estimator, block_size, estimator.num_phi_samples)

    def update_theta(state, keys, x):
        theta, phi = state.generative.params, state.inference.params
        gradient = partial(
            sampled_gradient,
            estimator,
            theta,
            phi,
            state.step_sizes[: estimator.num_moves],
            block_size=block_size,
        )
        sums, samples = sum_blocks(gradient, keys, x, block_size=block_size)
        accept_prob = jnp.mean(samples.accept_prob, axis=0)
        more = len(state.step_sizes) - estimator.num_moves
        accept_prob = jnp.pad(accept_prob, (0, more), mode="edge")
        ess = jnp.mean(effective_sample_size(samples.log_w)) / estimator.num_points
        means = average((_divide(sums, len(x)), accept_prob, ess))
        (loss, grads), accept_prob, ess = means
        return _apply(state.generative, grads), loss, accept_prob, ess

    def update_phi(inference, theta, keys, x):
        gradient = estimator.phi_gradient
        sums = gradient(inference.params, theta, keys, x, block_size=phi_block)
        (loss, elbo), grads = average(_divide(sums, len(x)))
        return _apply(inference, grads), loss, elbo

    def train_step(
        state: TrainState, key: PRNGKey, images: Real[Array, "B X"]
    ) -> tuple[TrainState, Metrics]:
        pixel_key, sample_key, phi_key = jax.random.split(key, 3)
        keys = partial(example_keys, indices=_indices(len(images), axis_name))
        x = draw_pixels(keys(pixel_key), images) if binarize else images
        generative, theta_loss, accept_prob, ess = update_theta(
            state, keys(sample_key), x
        )
        inference, phi_loss, elbo = update_phi(
            state.inference, generative.params, keys(phi_key), x
        )
        step_sizes = update_step_sizes(rule, state.step_sizes, accept_prob)
        is_finite = jnp.isfinite(theta_loss) & jnp.isfinite(phi_loss)
        bad_step = jnp.where(is_finite, -1, state.step)
        mean = None
        if state.average is not None:
            change = 1.0 - average_decay
            mean = optax.incremental_update(generative.params, state.average, change)
        state = TrainState(generative, inference, step_sizes, mean, state.best)
        return state, Metrics(elbo, ess, accept_prob, bad_step)

    return train_step


def sampled_gradient(
    estimator: Estimator,
    theta: Params,
    phi: Params,
    step_sizes: Float[Array, "M"],
    keys: PRNGKeys,
    x: Real[Array, "B X"],
    block_size: int | None = None,
) -> tuple[tuple[Scalar, Params], WeightedSamples]:
    """Samples of a batch's posteriors, and the gradient that they give theta.

    Args:
        estimator: what samples and weighs.
        theta: parameters of the generative model.
        phi: parameters of the encoder.
        step_sizes: of each move.
        keys: one an example.
        x: the batch.
        block_size: examples of K chains that are taken at a time; where each has more
            weighted points, fewer are.

    Returns:
        ((loss, its gradient), samples without residuals), the first two summed over the
        batch.
    """

    def sample(key, x):
        return estimator.sample(key, theta, phi, x, step_sizes)

    samples = jax.vmap(sample)(keys, x)
    block_size = _block(estimator, block_size, estimator.num_points)
    sums = estimator.theta_gradient(theta, x, samples, block_size=block_size)
    return sums, samples._replace(residuals=None)


def _average(axis_name: str | None, tree: PyTree) -> PyTree:
    """Means over a mesh axis, in one collective for all the leaves."""
    if axis_name is None:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def _divide(tree, num):
    return jax.tree.map(lambda total: total / num, tree)


def _indices(num, axis_name):
    """Places in the whole batch of the examples on this device."""
    first = 0 if axis_name is None else num * jax.lax.axis_index(axis_name)
    return first + jnp.arange(num)


def draw_pixels(keys: PRNGKeys, images: Real[Array, "B X"]) -> Real[Array, "B X"]:
    """Binary pixels whose means are the images' intensities; NaN stays NaN."""

    def draw(key, mean):
        pixels = jax.random.bernoulli(key, mean).astype(images.dtype)
        return jnp.where(jnp.isnan(mean), mean, pixels)

    return jax.vmap(draw)(keys, images)


def _block(estimator, block_size, num_rows):
    """Examples of `num_rows` each, of as many rows as a block of chains has."""
    if block_size is None:
        return None
    return max(1, block_size * estimator.num_samples // num_rows)


def _apply(state, grads):
    """One optimizer step; Flax's own takes no parameters but dicts."""
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
