"""All that the benchmarks import from `experiments` and `configs`."""

from configs.default import get_config
from experiments.run import build, launch
from experiments.run import force as force_precision
from experiments.run.settings import resolve
from experiments.system import devices

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
