"""All that the benchmarks import from `experiments` and `configs`."""

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from configs import table1
from configs.default import get_config
from experiments import builders, cli, train, variants
from experiments.datasets import Dataset

IMAGES = variants.IMAGES  # data set -> training images, test images, pixels
use_compile_cache = cli.use_compile_cache


def block_size(num_samples, data_size=784):
    """The launcher's choice of examples to sample at a time."""
    return builders.block_size(get_config(), data_size, num_samples)


def build_mesh(method, batch_size, num_replicates=1, one_device=False):
    """The launcher's mesh, on a CPU a device for each core; or one device.

    On a CPU it must be built before JAX starts.
    """
    config = get_config(method)
    config.batch_size, config.num_replicates = batch_size, num_replicates
    if not one_device:
        cli.use_cores([config])
    return builders.build_mesh(config)


def table1_rows(dataset):
    """The variants of Table 1 for one data set."""
    return variants.expand(table1.get_config(dataset))


def build_model(config):
    """The model of a run's ConfigDict."""
    return builders.build_model(config, IMAGES[config.dataset][2])


def compile_training(config, num_devices):
    """The launcher's training program for a mesh of `num_devices`, compiled.

    Args:
        config: a run's ConfigDict.
        num_devices: on the data axis.

    Returns:
        The executable; its data set has 8 batches.
    """
    config = config.copy_and_resolve_references()
    config.sharding.data = num_devices
    pixels = IMAGES[config.dataset][2]
    images = np.zeros((8 * config.batch_size, pixels), np.float32)
    data = Dataset(config.dataset, images, images, None, (1, pixels), False, "", "")
    setup = builders.build_training(config, data)
    replicated = sharding.by_replicate(setup.mesh)
    state = jax.eval_shape(lambda: train.initial_state(config, setup))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    rates = jax.ShapeDtypeStruct((1,), jnp.float32)
    arguments = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated),
        (state, keys, rates),
    )
    run = sharding.spread_training(setup.run_steps, setup.mesh)
    rows = sharding.place_rows(images, setup.mesh)
    return run.lower(*arguments, rows, jnp.int32(100)).compile()
