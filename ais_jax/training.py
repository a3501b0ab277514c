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
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Real, ScalarLike

from ais_jax.adaptation import StepSizeRule, update_step_sizes
from ais_jax.batching import example_keys, sum_blocks
from ais_jax.estimators import Estimator
from ais_jax.gradients import phi_gradient, theta_gradient
from ais_jax.models import LatentVariableModel
from ais_jax.numerics import effective_sample_size
from ais_jax.types import PRNGKey, Scalar


@struct.dataclass
class TrainState:
    """Everything that training changes; the seed and learning rate stay outside.

    Attributes:
        generative: Flax train state of theta.
        inference: Flax train state of phi.
        step_sizes: of each move.
    """

    # JAX rebuilds this class around shapes, shardings and placeholders too, and
    # replicates lead with another axis: a checker must take them all.
    generative: PyTree
    inference: PyTree
    step_sizes: PyTree

    @property
    def step(self) -> Any:
        """The number of steps made."""
        return self.generative.step


class Metrics(NamedTuple):
    """Means over a batch, and over the steps of a dispatch.

    Attributes:
        elbo: of q_phi at the updated theta, nats.
        ess: effective sample size of the K weights, as a share of K.
        accept_prob: of each move.
        bad_step: the first step whose loss was not finite, or -1.
    """

    elbo: Scalar
    ess: Scalar
    accept_prob: Float[Array, "M"]
    bad_step: Int[Array, ""]


TrainStep = Callable[[TrainState, PRNGKey, ScalarLike, Array], tuple]
"""(state, key, learning_rate, images) -> (state, `Metrics`)."""
RunSteps = Callable[[TrainState, PRNGKey, ScalarLike, Array, Array], tuple]
"""(state, run_key, learning_rate, data, num_steps) -> (state, `Metrics`)."""


def init(
    key: PRNGKey,
    model: LatentVariableModel,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    step_size: ScalarLike,
) -> TrainState:
    """The state before the first step.

    Args:
        key: of the parameters' first values.
        model: what is trained.
        estimator: says how many moves need a step size.
        optimizer: used for theta and phi alike.
        step_size: HMC's first step size at every temperature.
    """
    theta, phi = model.init(key)

    def create(params):
        return train_state.TrainState(
            step=jnp.zeros((), jnp.int32),  # a Python int would be traced twice
            apply_fn=None,
            params=params,
            tx=optimizer,
            opt_state=optimizer.init(params),
        )

    step_sizes = jnp.full((estimator.num_moves,), step_size, jnp.float32)
    return TrainState(create(theta), create(phi), step_sizes)


def make_train_step(
    estimator: Estimator,
    rule: StepSizeRule,
    *,
    binarize: bool,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds one step of Algorithm 1: theta first, then phi at the updated theta.

    Args:
        estimator: of the two gradients.
        rule: moves the step sizes after each batch.
        binarize: whether to draw the pixels from their intensities at each visit.
        block_size: examples that are computed at a time (see `sum_blocks`).
        axis_name: mesh axis over which the batch is spread, or None. Gradients and
            metrics are averaged over it, and examples keep the keys of their places
            in the whole batch.

    Returns:
        (state, key, learning_rate, images) -> (state, `Metrics`), the images being
        those on this device.
    """
    average = partial(_average, axis_name)
    phi_block = _phi_block(estimator, block_size)

    def update_theta(state, learning_rate, keys, x):
        theta, phi = state.generative.params, state.inference.params
        gradient = partial(theta_gradient, estimator, theta, phi, state.step_sizes)
        sums, (accept_prob, log_w) = sum_blocks(
            gradient, keys, x, block_size=block_size
        )
        accept_prob = jnp.mean(accept_prob, axis=0)
        ess = jnp.mean(effective_sample_size(log_w)) / estimator.num_samples
        means = average((_divide(sums, len(x)), accept_prob, ess))
        (loss, grads), accept_prob, ess = means
        generative = _apply(state.generative, grads, learning_rate)
        return generative, loss, accept_prob, ess

    def update_phi(state, theta, learning_rate, keys, x):
        gradient = partial(phi_gradient, estimator, state.inference.params, theta)
        sums, _ = sum_blocks(gradient, keys, x, block_size=phi_block)
        (loss, elbo), grads = average(_divide(sums, len(x)))
        return _apply(state.inference, grads, learning_rate), loss, elbo

    def train_step(
        state: TrainState,
        key: PRNGKey,
        learning_rate: ScalarLike,
        images: Real[ArrayLike, "B X"],
    ) -> tuple[TrainState, Metrics]:
        pixel_key, sample_key, phi_key = jax.random.split(key, 3)
        keys = partial(example_keys, indices=_indices(len(images), axis_name))
        x = _draw_pixels(keys(pixel_key), images) if binarize else images
        generative, theta_loss, accept_prob, ess = update_theta(
            state, learning_rate, keys(sample_key), x
        )
        inference, phi_loss, elbo = update_phi(
            state, generative.params, learning_rate, keys(phi_key), x
        )
        step_sizes = update_step_sizes(rule, state.step_sizes, accept_prob)
        is_finite = jnp.isfinite(theta_loss) & jnp.isfinite(phi_loss)
        bad_step = jnp.where(is_finite, -1, state.step)
        state = TrainState(generative, inference, step_sizes)
        return state, Metrics(elbo, ess, accept_prob, bad_step)

    return train_step


def make_run_steps(
    train_step: TrainStep,
    batch_size: int,
    num_examples: int,
    axis_name: str | None = None,
) -> RunSteps:
    """Builds a function that makes many steps in one dispatch.

    The data are reshuffled in every epoch; the last, incomplete batch is left out. The
    key of a step is `fold_in(run_key, step)`, so that a run cut into dispatches in any
    way, or stopped and resumed, is the same run. A dispatch does not cross the end of
    an epoch.

    Args:
        train_step: of `make_train_step`.
        batch_size: B, of the whole batch.
        num_examples: N, rows of the data; rows after them are padding.
        axis_name: mesh axis over which the data's rows and the batch are spread, or
            None.

    Returns:
        (state, run_key, learning_rate, data, num_steps) -> (state, `Metrics` averaged
        over the steps). The number of steps is traced, so every length shares one
        compilation.
    """
    steps_per_epoch = num_examples // batch_size

    def run_steps(
        state: PyTree,
        run_key: PRNGKey,
        learning_rate: ScalarLike,
        data: Real[ArrayLike, "N X"],
        num_steps: Int[ArrayLike, ""],
    ) -> tuple[PyTree, Metrics]:
        shuffle_key, step_key = jax.random.split(run_key)
        epoch = state.step // steps_per_epoch
        order = jax.random.permutation(
            jax.random.fold_in(shuffle_key, epoch), num_examples
        )

        def batch_at(step):
            start = (step % steps_per_epoch) * batch_size
            rows = jax.lax.dynamic_slice(order, (start,), (batch_size,))
            return take_rows(data, rows, axis_name)

        def body(_, carry):
            state, total = carry
            key = jax.random.fold_in(step_key, state.step)
            images = batch_at(state.step)
            state, metrics = train_step(state, key, learning_rate, images)
            bad = jnp.where(total.bad_step >= 0, total.bad_step, metrics.bad_step)
            total = jax.tree.map(jnp.add, total, metrics)._replace(bad_step=bad)
            return state, total

        shapes = jax.eval_shape(
            train_step, state, step_key, learning_rate, batch_at(state.step)
        )[1]
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        zero = zero._replace(bad_step=jnp.full((), -1, jnp.int32))
        state, total = jax.lax.fori_loop(0, num_steps, body, (state, zero))
        mean = jax.tree.map(lambda a: a / num_steps, total)
        return state, mean._replace(bad_step=total.bad_step)

    return run_steps


def take_rows(
    data: Real[ArrayLike, "N X"],
    rows: Int[ArrayLike, "B"],
    axis_name: str | None = None,
) -> Real[ArrayLike, "B_here X"]:
    """Rows of data that may be spread over a mesh axis.

    Each device gives the rows that it holds and receives its part of the batch, so the
    result is exact and the data are nowhere whole.

    Args:
        data: the whole, or this device's N / S rows of it.
        rows: indices into the whole data.
        axis_name: mesh axis of S devices, or None.

    Returns:
        All B rows, or this device's B / S of them.
    """
    if axis_name is None:
        return data[rows]
    local = rows - data.shape[0] * jax.lax.axis_index(axis_name)
    mine = (local >= 0) & (local < data.shape[0])
    held = jnp.where(mine[:, None], data[jnp.where(mine, local, 0)], 0.0)
    return jax.lax.psum_scatter(held, axis_name, tiled=True)


def replicate(run_steps: RunSteps) -> RunSteps:
    """Runs R replicates in one program: states, keys and learning rates lead with R.

    Args:
        run_steps: of `make_run_steps`.

    Returns:
        The same function with a leading axis of R on the state, the key, the learning
        rate and the results; data and number of steps are shared.
    """
    return jax.vmap(run_steps, (0, 0, 0, None, None))


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


def _draw_pixels(keys, images):
    """Binary pixels whose means are the images' intensities."""

    def draw(key, mean):
        return jax.random.bernoulli(key, mean).astype(images.dtype)

    return jax.vmap(draw)(keys, images)


def _phi_block(estimator, block_size):
    """Examples at a time for phi: as many rows of activations as theta's have."""
    if block_size is None:
        return None
    rows = block_size * estimator.num_samples
    return max(1, rows // estimator.num_phi_samples)


def _apply(state, grads, learning_rate):
    """One optimizer step at a traced learning rate."""
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: learning_rate * u, updates)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
