"""Our sampler and training step on the launcher's mesh, for `common.Remote`.

On a CPU each core is a device there, which must be settled before JAX starts.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from ais_jax import adaptation, estimators, sharding, training
from benchmarks import common
from configs.default import get_config
from experiments.run import build, launch
from experiments.run.settings import resolve


def matrix_product():
    """The square product of the peak, its rows spread over the devices."""
    spread = jax.shard_map(
        partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST),
        mesh=_mesh(common.Workload(), "ais"),
        in_specs=(P(sharding.DATA), P()),
        out_specs=P(sharding.DATA),
    )
    a = jax.random.normal(jax.random.key(0), (common.peak_size(),) * 2)
    return common.compiled(spread, a, a)[0]


def sampler(work, num_samples, num_temperatures):
    """Our sampler on the launcher's mesh: on a CPU, a device for each core."""
    mesh = _mesh(work, "ais")
    block = common.block_size(num_samples)
    sample = common.make_sampler(
        common.estimator(work, num_samples, num_temperatures), block
    )
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
    mesh = _mesh(work, method, num_replicates, one_device)
    moves = {"num_temperatures": num_moves} if num_moves else {}
    estimate = estimators.make(method, work.model(), num_samples=num_samples, **moves)
    train_step = training.make_train_step(
        estimate,
        adaptation.StepSizeRule(),
        binarize=True,
        block_size=common.block_size(num_samples),
        axis_name=sharding.DATA,
    )
    run = training.make_run_steps(train_step, work.batch, work.batch, sharding.DATA)
    run = sharding.spread_training(run, mesh)
    state, *_ = common.step_arguments(work, estimate)
    copies = lambda a: jnp.broadcast_to(a, (num_replicates, *a.shape))
    place = lambda make: jax.jit(make, out_shardings=sharding.by_replicate(mesh))()
    states = [place(lambda: jax.tree.map(copies, state))]
    keys = place(lambda: jax.random.split(jax.random.key(0), num_replicates))
    rates = place(lambda: jnp.full((num_replicates,), 1e-3))
    data = sharding.place_rows(np.asarray(work.images()), mesh)

    def run_one():
        state, _ = run(states.pop(), keys, rates, data, np.int32(1))
        states.append(jax.block_until_ready(state))

    run_one()
    return run_one


def _mesh(work, method, num_replicates=1, one_device=False):
    config = get_config(method)
    config.batch_size, config.num_replicates = work.batch, num_replicates
    if not one_device:
        launch.use_cores([config])
    return build.build_mesh(resolve(config))
