"""Our sampler and training step on the launcher's mesh, for `runner.Remote`.

On a CPU each core is a device there, which must be settled before JAX starts.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from ais_jax import epochs, estimators, sharding, training
from ais_jax.training import step_sizes
from benchmarks import common, flops, launcher, runner

LAUNCHED, AUTOMATIC = "as launched", "as launched, automatic force"


def matrix_product():
    """The square product of the peak, its rows spread over the devices."""
    spread = jax.shard_map(
        partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST),
        mesh=launcher.build_mesh("ais", common.Workload().batch),
        in_specs=(P(sharding.DATA), P()),
        out_specs=P(sharding.DATA),
    )
    a = jax.random.normal(jax.random.key(0), (flops.peak_size(),) * 2)
    return common.compiled(spread, a, a)[0]


def forces(work, num_samples, num_temperatures):
    """The workload by the name of its time: as it is, and with the launcher's choice.

    The choice is made in a process of its own. None on a GPU, where the rows have every
    force and one process has the memory.
    """
    if common.on_gpu():
        return {}
    arguments = work._asdict(), num_samples, num_temperatures
    force = runner.finish(runner.start("launcher", "force", *arguments))
    return {LAUNCHED: work, AUTOMATIC: work._replace(force=force)}


def sampler(work, num_samples, num_temperatures):
    """Our sampler on the launcher's mesh: on a CPU, a device for each core."""
    mesh = launcher.build_mesh("ais", work.batch)
    estimate = common.estimator(work, num_samples, num_temperatures)
    sample = common.make_sampler(estimate, launcher.block_size(num_samples))
    spread = jax.shard_map(
        lambda keys, *args: sample(keys[0], *args),
        mesh=mesh,
        in_specs=(P(sharding.DATA), P(), P(), P(sharding.DATA), P()),
        out_specs=P(sharding.DATA),
        check_vma=False,
    )
    key, *rest = common.sampler_arguments(work, num_temperatures)
    keys = jax.random.split(key, mesh.shape[sharding.DATA])
    return common.compiled(spread, keys, *rest)[0]


def step(work, method, num_samples, num_moves, num_replicates, one_device=False):
    """The launcher's training step, on its mesh or on one device."""
    mesh = launcher.build_mesh(method, work.batch, num_replicates, one_device)
    moves = {"num_temperatures": num_moves} if num_moves else {}
    estimate = estimators.make(method, work.model(), num_samples=num_samples, **moves)
    run = spread_run(work, estimate, mesh, work.images(), num_replicates)
    run(1)
    return partial(run, 1)


def spread_run(work, estimate, mesh, images, num_replicates=1):
    """The launcher's loop over training steps on a mesh.

    Args:
        work: a `common.Workload`.
        estimate: the `Estimator`.
        mesh: of `sharding.make_mesh`.
        images: the data set f32[N, X].
        num_replicates: R.

    Returns:
        Function of a number of steps: makes them, waits, keeps the state, and returns
        the metrics.
    """
    train_step = training.make_train_step(
        estimate,
        step_sizes.StepSizeRule(),
        binarize=True,
        block_size=launcher.block_size(estimate.num_samples),
        axis_name=sharding.DATA,
    )
    run = epochs.make_run_steps(train_step, work.batch, len(images), sharding.DATA)
    run = sharding.spread_training(run, mesh)
    by_replicate = sharding.by_replicate(mesh)

    @partial(jax.jit, out_shardings=by_replicate)
    def begin():
        keys = jax.random.split(jax.random.key(0), num_replicates)
        state = common.initial_state(work, estimate, jax.random.key(0))
        states = jax.tree.map(
            lambda a: jnp.broadcast_to(a, (num_replicates, *a.shape)), state
        )
        return states, keys

    state, keys = begin()
    states = [state]
    data = sharding.place_rows(np.asarray(images), mesh)

    def make_steps(num):
        state, metrics = run(states.pop(), keys, data, np.int32(num))
        states.append(jax.block_until_ready(state))
        return metrics

    return make_steps
