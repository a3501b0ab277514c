"""Algorithm 1 as pure functions: the training step and many steps in one dispatch."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state
from jax.flatten_util import ravel_pytree

from ais_jax.adaptation import update_step_sizes
from ais_jax.batching import example_keys, sum_blocks
from ais_jax.numerics import effective_sample_size


@struct.dataclass
class TrainState:
    """Everything that training changes; the seed and learning rate stay outside.

    Attributes:
        generative: Flax train state of theta; its `step` is int32[].
        inference: Flax train state of phi.
        step_sizes: f32[M].
    """

    generative: train_state.TrainState
    inference: train_state.TrainState
    step_sizes: jax.Array

    @property
    def step(self):
        """int32[], the number of steps made."""
        return self.generative.step


class Metrics(NamedTuple):
    """Means over a batch, and over the steps of a dispatch.

    Attributes:
        elbo: f32[], of q_phi at the updated theta, nats.
        ess: f32[], effective sample size of the K weights, as a share of K.
        accept_prob: f32[M].
        bad_step: int32[], the first step whose loss was not finite, or -1.
    """

    elbo: jax.Array
    ess: jax.Array
    accept_prob: jax.Array
    bad_step: jax.Array


def init(key, model, estimator, optimizer, step_size):
    """The state before the first step.

    Args:
        key: PRNG key.
        model: a `LatentVariableModel`.
        estimator: an `Estimator`.
        optimizer: an `optax.GradientTransformation`, used for theta and phi alike.
        step_size: HMC's first step size at every temperature.

    Returns:
        A `TrainState`.
    """
    theta, phi = model.init(key)
    create = lambda params: train_state.TrainState(
        jnp.zeros((), jnp.int32), None, params, optimizer, optimizer.init(params)
    )
    step_sizes = jnp.full((estimator.num_moves,), step_size, jnp.float32)
    return TrainState(create(theta), create(phi), step_sizes)


def theta_gradient(estimator, theta, phi, step_sizes, keys, x):
    """Samples from a batch's posteriors, and the gradient that they give theta.

    Args:
        estimator: an `Estimator`.
        theta: parameters of the generative model.
        phi: parameters of the encoder.
        step_sizes: f32[M].
        keys: key[B], one an example.
        x: f32[B, X].

    Returns:
        ((loss f32[], its gradient), (accept_prob f32[B, M], log_w f32[B, K])), the
        first two summed over the batch, as `sum_blocks` takes it.
    """

    def loss(theta, samples):
        return jnp.sum(jax.vmap(estimator.theta_loss, (None, 0, 0))(theta, x, samples))

    sample = lambda key, x: estimator.sample(key, theta, phi, x, step_sizes)
    samples = jax.vmap(sample)(keys, x)
    sums = jax.value_and_grad(loss)(theta, samples)
    return sums, (samples.accept_prob, samples.log_w)


def make_train_step(estimator, rule, *, binarize, block_size=None, axis_name=None):
    """Builds one step of Algorithm 1: theta first, then phi at the updated theta.

    Args:
        estimator: an `Estimator`.
        rule: an `adaptation.StepSizeRule`.
        binarize: whether to draw the pixels from their intensities at each visit.
        block_size: examples that are computed at a time (see `sum_blocks`).
        axis_name: mesh axis over which the batch is spread, or None. Gradients and
            metrics are averaged over it, and examples keep the keys of their places
            in the whole batch.

    Returns:
        (state, key, learning_rate, images f32[B, X]) -> (state, `Metrics`), B being
        the examples on this device.
    """
    average = partial(_average, axis_name)
    phi_block = block_size
    if block_size is not None:
        rows = block_size * estimator.num_samples
        phi_block = max(1, rows // estimator.num_phi_samples)

    def phi_loss(phi, theta, keys, x):
        losses = jax.vmap(estimator.phi_loss, (None, None, 0, 0))
        return jax.tree.map(jnp.sum, losses(phi, theta, keys, x))

    def train_step(state, key, learning_rate, images):
        pixel_key, sample_key, phi_key = jax.random.split(key, 3)
        num = images.shape[0]
        first = 0 if axis_name is None else num * jax.lax.axis_index(axis_name)
        keys = lambda key: example_keys(key, first + jnp.arange(num))
        mean = partial(jax.tree.map, lambda total: total / num)
        x = images
        if binarize:
            draw = lambda k, p: jax.random.bernoulli(k, p).astype(images.dtype)
            x = jax.vmap(draw)(keys(pixel_key), images)
        theta, phi = state.generative.params, state.inference.params
        sums, (accept_prob, log_w) = sum_blocks(
            partial(theta_gradient, estimator, theta, phi, state.step_sizes),
            keys(sample_key),
            x,
            block_size=block_size,
        )
        accept_prob = jnp.mean(accept_prob, axis=0)
        ess = jnp.mean(effective_sample_size(log_w)) / estimator.num_samples
        (loss, grads), accept_prob, ess = average((mean(sums), accept_prob, ess))
        generative = _apply(state.generative, grads, learning_rate)
        phi_step = jax.value_and_grad(phi_loss, has_aux=True)
        sums, _ = sum_blocks(
            lambda keys, x: (phi_step(phi, generative.params, keys, x), ()),
            keys(phi_key),
            x,
            block_size=phi_block,
        )
        (phi_value, elbo), grads = average(mean(sums))
        inference = _apply(state.inference, grads, learning_rate)
        step_sizes = update_step_sizes(rule, state.step_sizes, accept_prob)
        finite = jnp.isfinite(loss) & jnp.isfinite(phi_value)
        metrics = Metrics(
            elbo,
            ess,
            accept_prob,
            jnp.where(finite, -1, state.step),
        )
        return TrainState(generative, inference, step_sizes), metrics

    return train_step


def make_run_steps(train_step, batch_size, num_examples, axis_name=None):
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
        (state, run_key, learning_rate, data f32[N, X], num_steps int32[]) ->
        (state, `Metrics` averaged over the steps). The number of steps is traced, so
        every length shares one compilation.
    """
    steps_per_epoch = num_examples // batch_size

    def run_steps(state, run_key, learning_rate, data, num_steps):
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


def take_rows(data, rows, axis_name=None):
    """Rows of data that may be spread over a mesh axis.

    Each device gives the rows that it holds and receives its part of the batch, so the
    result is exact and the data are nowhere whole.

    Args:
        data: f32[N, X], or this device's N / S rows of it.
        rows: int[B], indices into the whole data.
        axis_name: mesh axis of S devices, or None.

    Returns:
        f32[B, X], or this device's part f32[B / S, X].
    """
    if axis_name is None:
        return data[rows]
    local = rows - data.shape[0] * jax.lax.axis_index(axis_name)
    mine = (local >= 0) & (local < data.shape[0])
    held = jnp.where(mine[:, None], data[jnp.where(mine, local, 0)], 0.0)
    return jax.lax.psum_scatter(held, axis_name, tiled=True)


def replicate(run_steps):
    """Runs R replicates in one program: states, keys and learning rates lead with R.

    Args:
        run_steps: of `make_run_steps`.

    Returns:
        The same function with a leading axis of R on the state, the key, the learning
        rate and the results; data and number of steps are shared.
    """
    return jax.vmap(run_steps, (0, 0, 0, None, None))


def _average(axis_name, tree):
    """Means over a mesh axis, in one collective for all the leaves."""
    if axis_name is None:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def _apply(state, grads, learning_rate):
    """One optimizer step at a traced learning rate."""
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: learning_rate * u, updates)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
