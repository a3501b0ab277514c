"""All that the benchmarks import from `experiments` and `configs`."""

import jax
import jax.numpy as jnp

from ais_jax import sharding
from configs import table1
from configs.default import get_config
from experiments.data.catalogue import CATALOGUE
from experiments.paper import cost, variants
from experiments.run import build, launch, train
from experiments.run import force as force_precision
from experiments.run.settings import resolve
from experiments.system import devices

IMAGES = {  # data set -> training images, test images, pixels
    name: (entry.num_train, entry.num_test, entry.num_pixels)
    for name, entry in CATALOGUE.items()
}
use_compile_cache = devices.use_compile_cache


def block_size(num_samples, data_size=784):
    """The launcher's choice of examples to sample at a time."""
    return build.block_size(resolve(get_config()), data_size, num_samples)


def force(work, num_samples, num_temperatures):
    """The precision of HMC's force that the launcher takes in training, by "auto".

    On a CPU it must be asked for before JAX starts.
    """
    config = get_config("ais")
    config.batch_size = work["batch"]
    config.model.latent_sizes = (work["latent"],)
    config.model.widths = (tuple(work["widths"]),)
    config.estimator.num_samples = num_samples
    config.estimator.num_temperatures = num_temperatures
    config.estimator.num_leapfrog = work["num_leapfrog"]
    config.evaluation.force_precision = "float32"  # as it is not asked for here
    launch.use_cores([config])
    settled = force_precision.settle(resolve(config), None)
    return settled.model["force_precision"]


def build_mesh(method, batch_size, num_replicates=1, one_device=False):
    """The launcher's mesh, on a CPU a device for each core; or one device.

    On a CPU it must be built before JAX starts.
    """
    config = get_config(method)
    config.batch_size, config.num_replicates = batch_size, num_replicates
    if not one_device:
        launch.use_cores([config])
    return build.build_mesh(resolve(config))


def table1_rows(dataset):
    """The variants of Table 1 for one data set."""
    return variants.expand(table1.get_config(dataset))


def build_model(config):
    """The model of a run's ConfigDict."""
    return build.build_model(resolve(config), (IMAGES[config.dataset][2],))


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
    settings = resolve(config)
    dataset = cost.random_dataset(settings)
    setup = build.build_training(settings, dataset)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    keys = jax.ShapeDtypeStruct(
        keys.shape, keys.dtype, sharding=sharding.by_replicate(setup.mesh)
    )
    run = sharding.spread_training(setup.run_steps, setup.mesh)
    rows = sharding.place_rows(dataset.train, setup.mesh)
    return run.lower(train.template(setup), keys, rows, jnp.int32(100)).compile()
