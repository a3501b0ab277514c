"""From a run's settings to the library's objects: model, estimator, mesh, programs."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import epochs, estimators, optimizers, sharding, training
from ais_jax.models import latent, networks
from ais_jax.models.likelihoods import LIKELIHOODS
from ais_jax.training import selection
from ais_jax.training.optimizers import Optimizers
from experiments.run import factory
from experiments.system import devices
from experiments.system.errors import ConfigError

BLOCK_BYTES = (
    2_560_000  # of the widest activations of a block on a CPU: 816 rows of 784
)
SMALLEST_BLOCK = 128  # rows; narrower products do not fill two cores
ROWS_PER_CORE = 64  # fewer chains do not pay for averaging gradients
AUTO = "auto"  # until `force.settle` a force's precision is then the model's own


class Phase(NamedTuple):
    """Training steps that one estimator makes."""

    end: int  # the number of steps after the last of them
    estimator: estimators.Estimator
    run_steps: Callable  # of `epochs.make_run_steps`, for one replicate and the mesh


class Training(NamedTuple):
    """What a training run needs."""

    settings: Any  # a `settings.Settings`
    model: latent.LatentVariableModel
    phases: tuple[Phase, ...]  # in order
    mesh: jax.sharding.Mesh  # of `sharding.make_mesh`
    image_shape: tuple[int, ...]  # [H, W] or [H, W, C]
    levels: int  # what the data's whole numbers were divided by
    init: Callable  # (key, learning_rates) -> `TrainState`
    steps_per_epoch: int  # batches in an epoch
    num_steps: int  # in all
    keep_best: Callable | None  # of `selection.make_keep_best`, for one replicate
    num_kept: int  # from the checkpoint of this step a longer run goes on; 0: none
    num_gradients: Callable  # of `gradient_evaluations`, by the number of steps


def build_model(settings, image_shape, start=None):
    """The model of the settings for images [H, W] or [H, W, C]."""
    if settings.factory:
        return factory.build(settings.factory, image_shape, settings.model)
    model = dict(settings.model)
    if model["force_precision"] == AUTO:
        model["force_precision"] = model["precision"]
    return networks.latent_model(image_shape, start=start, **model)


def draws_pixels(settings, dataset):
    """Whether pixels are drawn from intensities, for each visit and evaluation."""
    return settings.model["likelihood"] == "bernoulli" and not dataset.is_binary


def build_estimator(settings, model, is_late=False):
    """The estimator of the settings, which reads all of them.

    That of the last fifth of the steps where it is the late one.
    """
    name, values = settings.estimator["name"], dict(settings.estimator)
    del values["name"]
    late_moves = values.pop("late_moves", 0)
    if is_late and late_moves:
        values["final_moves"] = late_moves
    if "preconditioner" in values:
        values["hmc_scale"] = values.pop("preconditioner")
    unread = values.keys() - estimators.settings_of(name).keys()
    if unread:
        raise ConfigError(
            f"estimator.{min(unread)}={values[min(unread)]!r} is not read by "
            f"{name!r}: pick the estimator and its settings by --config=FILE:{name}"
        )
    return estimators.make(name, model, **values)


def build_training(settings, dataset, model=None):
    """Everything that a training run needs: a `Training`.

    A model that is given stands for that of the settings.
    """
    num_train, data_size = dataset.train.shape
    check_batch_size(settings, num_train)
    if dataset.num_covariates and draws_pixels(settings, dataset):
        raise ConfigError(
            f"dataset={dataset.name}: intensities that are drawn as pixels take no "
            "covariates: round them to 0 and 1, or choose another model.likelihood"
        )
    if model is None:
        model = _model_of_data(settings, dataset)
    steps_per_epoch = num_train // settings.batch_size
    num_steps = settings.num_epochs * steps_per_epoch

    def phase(is_late, end):
        estimator = build_estimator(settings, model, is_late)
        train_step = training.make_train_step(
            estimator,
            settings.step_size_rule,
            binarize=draws_pixels(settings, dataset),
            average_decay=settings.average_decay,
            block_size=block_size(settings, data_size, estimator.num_samples),
            axis_name=sharding.DATA,
        )
        run_steps = epochs.make_run_steps(
            train_step, settings.batch_size, num_train, sharding.DATA
        )
        return Phase(end, estimator, run_steps)

    phases = tuple(phase(*each) for each in phase_ends(settings, num_train))
    init = partial(
        training.init,
        model=model,
        estimator=max((p.estimator for p in phases), key=lambda e: e.num_moves),
        optimizers=Optimizers(
            optimizers.make(num_steps=num_steps, **settings.optimizer),
            optimizers.make(num_steps=num_steps, **settings.phi_optimizer),
        ),
        step_size=settings.first_step_size,
        keep_average=settings.average_decay > 0.0,
        keep_best=settings.keep_best,
    )
    mesh = build_mesh(settings)
    _check_memory(settings, init, mesh)
    return Training(
        settings=settings,
        model=model,
        phases=phases,
        mesh=mesh,
        image_shape=dataset.image_shape,
        levels=dataset.levels,
        init=init,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        keep_best=_keep_best(settings, model, data_size),
        num_kept=num_kept(settings, num_train),
        num_gradients=partial(gradient_evaluations, settings, model, num_train),
    )


def _keep_best(settings, model, data_size):
    if not settings.keep_best:
        return None
    block = block_size(settings, data_size, selection.NUM_SAMPLES)
    return selection.make_keep_best(model, block)


def num_kept(settings, num_train):
    """The steps whose state a run of more epochs would have too; 0 where none.

    They end where a row of metrics does.
    """
    optimizer = settings.optimizer
    if optimizer.get("warmup") or settings.phi_optimizer.get("warmup"):
        return 0
    stable = _row_end(settings, num_train, optimizer["schedule"])
    return min(stable, phase_ends(settings, num_train)[0][1])


def phase_ends(settings, num_train):
    """[(whether it is late, the number of steps at its end)] of each estimator."""
    num_steps = settings.num_epochs * (num_train // settings.batch_size)
    if not settings.estimator.get("late_moves"):
        return [(False, num_steps)]
    early = _row_end(settings, num_train, "wsd")
    return [(False, early)] * (early > 0) + [(True, num_steps)]


def gradient_evaluations(settings, model, num_train, num_steps):
    """Passes forward and backward that so many steps cost one replicate."""
    total, start = 0, 0
    for is_late, end in phase_ends(settings, num_train):
        each = build_estimator(settings, model, is_late).gradient_evaluations
        total += max(0, min(end, num_steps) - start) * each
        start = end
    return total * settings.batch_size


def _row_end(settings, num_train, schedule):
    """The end of the last row of metrics whose rates do not depend on the length."""
    each = num_train // settings.batch_size
    stable = optimizers.stable_steps(schedule, settings.num_epochs * each)
    return stable - stable % each % settings.steps_per_row


def _check_memory(settings, init, mesh):
    """Refuses a model whose parameters and optimizers' states do not fit a device."""
    state = jax.eval_shape(lambda: init(jax.random.key(0), learning_rates=jnp.ones(2)))
    leaves = jax.tree.leaves(state)
    each = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    needed = each * settings.num_replicates // mesh.shape[sharding.REPLICATE]
    if needed > (have := devices.memory()):
        raise ConfigError(
            f"model.widths={settings.model['widths']} with num_replicates="
            f"{settings.num_replicates} needs {needed / 2**30:.3g} GiB for the "
            f"parameters and their optimizers, and a device has {have / 2**30:.3g}: "
            "use smaller ones"
        )


def _model_of_data(settings, dataset):
    """The model of the settings, its decoder started at the mean image."""
    family = LIKELIHOODS[settings.model["likelihood"]]
    data = _filled(dataset.train[:, : dataset.size])
    start = family.start(data) if settings.data_mean_bias else None
    try:
        return build_model(settings, dataset.image_shape, start)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"model.{error}") from error


def _filled(rows):
    """Rows whose missing values are the mean of the others, or 0 where none is."""
    is_missing = np.isnan(rows)
    if not is_missing.any():
        return rows
    seen = np.maximum(np.sum(~is_missing, axis=0), 1)
    return np.where(is_missing, np.nansum(rows, axis=0) / seen, rows)


def check_batch_size(settings, num_train):
    """Refuses a batch that is larger than the data set."""
    if settings.batch_size > num_train:
        raise ConfigError(
            f"batch_size={settings.batch_size}: {settings.dataset} has {num_train} "
            "training images; use at most as many"
        )


def build_mesh(settings):
    """The mesh of the settings; it makes JAX look for its devices."""
    devices.require_device()
    is_cpu = jax.default_backend() == "cpu" and jax.process_count() == 1
    replicate, data = mesh_shape(settings, jax.device_count() if is_cpu else 1)
    try:
        return sharding.make_mesh(data, replicate)
    except ValueError as error:
        asked = f"sharding.data={data} and sharding.replicate={replicate}"
        raise ConfigError(f"{asked}: {error}") from error


def mesh_shape(settings, num_cores):
    """(replicate, data) devices of the mesh, None chosen for the cores of a CPU.

    Small matrix products do not gain by a second core, but each core can compute some
    of the replicates, or of the batch, by itself. Elsewhere `num_cores` is 1.
    """
    replicate, data = settings.sharding["replicate"], settings.sharding["data"]
    if replicate is None:
        replicate = _largest_divisor(settings.num_replicates, num_cores // (data or 1))
    if data is None:
        rows = settings.batch_size * settings.estimator["num_samples"]
        most = min(num_cores // replicate, rows // ROWS_PER_CORE)
        data = _largest_divisor(settings.batch_size, most)
    try:
        sharding.check_divides("batch_size", settings.batch_size, data, "sharding.data")
        sharding.check_divides(
            "num_replicates", settings.num_replicates, replicate, "sharding.replicate"
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return replicate, data


def _largest_divisor(number, most):
    """The largest divisor that is at most `most`, at least 1."""
    return max(d for d in range(1, max(1, most) + 1) if number % d == 0)


def block_size(settings, data_size, num_chains):
    """Examples computed at a time, so that a block's activations stay in the cache.

    Each has `num_chains` rows of `data_size` pixels in the matrix products. None, for
    all at once, is best on a GPU.
    """
    if jax.default_backend() != "cpu":
        return None
    hidden = [width for layer in settings.model["widths"] for width in layer]
    widest = max(data_size, *hidden, *settings.model["latent_sizes"])
    if settings.model["network"] == "convolution":  # they have a fourth of the places
        widest = max(widest, settings.model["widths"][0][0] * data_size // 4)
    rows = max(SMALLEST_BLOCK, BLOCK_BYTES // (4 * widest))
    return max(1, rows // num_chains)
