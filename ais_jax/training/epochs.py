"""Many training steps in one dispatch, and the order of the data in each epoch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, Real

from ais_jax.training.step import Metrics, TrainState, TrainStep
from ais_jax.types import PRNGKey

RunSteps = Callable[[TrainState, PRNGKey, Array, Array], tuple]
"""(state, run_key, data, num_steps) -> (state, `Metrics`)."""


def make_run_steps(
    train_step: TrainStep,
    batch_size: int,
    num_examples: int,
    axis_name: str | None = None,
) -> RunSteps:
    """Builds a function that makes many steps in one dispatch.

    The data are reshuffled in every epoch; the last, incomplete batch is left out. The
    key of a step is `fold_in(run_key, step)`. So a run is the same however it is cut
    into dispatches, or stopped and resumed. No dispatch crosses the end of an epoch.

    Args:
        train_step: of `make_train_step`.
        batch_size: B, of the whole batch.
        num_examples: N, rows of the data; rows after them are padding.
        axis_name: mesh axis over which the data's rows and the batch are spread, or
            None.

    Returns:
        (state, run_key, data, num_steps) -> (state, `Metrics` averaged over the
        steps). The number of steps is traced, so every length shares one
        compilation.
    """
    steps_per_epoch = num_examples // batch_size
    train_step = jax.jit(train_step, inline=True)  # one trace for shapes and the loop

    def run_steps(
        state: PyTree,
        run_key: PRNGKey,
        data: Real[Array, "N X"],
        num_steps: Int[Array, ""],
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
            state, metrics = train_step(state, key, images)
            bad = jnp.where(total.bad_step >= 0, total.bad_step, metrics.bad_step)
            total = jax.tree.map(jnp.add, total, metrics)._replace(bad_step=bad)
            return state, total

        shapes = jax.eval_shape(train_step, state, step_key, batch_at(state.step))[1]
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        zero = zero._replace(bad_step=jnp.full((), -1, jnp.int32))
        state, total = jax.lax.fori_loop(0, num_steps, body, (state, zero))
        mean = jax.tree.map(lambda a: a / num_steps, total)
        return state, mean._replace(bad_step=total.bad_step)

    return run_steps


def take_rows(
    data: Real[Array, "N X"], rows: Int[Array, "B"], axis_name: str | None = None
) -> Real[Array, "B_here X"]:
    """Rows of data that may be spread over a mesh axis.

    Each device gives the rows that it holds and receives its part of the batch. The
    result is exact, and no device holds all data.

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
    """Runs R replicates in one program: states and keys lead with R.

    Args:
        run_steps: of `make_run_steps`.

    Returns:
        The same function with a leading axis of R on the state, the key and the
        results; data and number of steps are shared.
    """
    return jax.vmap(run_steps, (0, 0, None, None))
