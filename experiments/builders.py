"""From a config to the library's objects: the only reader of config keys.

`check` refuses bad settings before any data are read or anything is compiled.
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from ais_jax import (
    adaptation,
    estimators,
    models,
    networks,
    optimizers,
    precision,
    registry,
    schedules,
    sharding,
    training,
)
from ais_jax.hmc import hmc_step
from experiments import datasets
from experiments.cli import InputError

STEP_SIZES = {  # preconditioner -> first, smallest, largest
    "unit": (0.1, 0.001, 0.3),
    "encoder": (0.2, 0.01, 1.5),
}
PRESETS = {
    "quick": {
        "num_examples": 1000,
        "num_chains": 8,
        "num_temperatures": 100,
        "num_leapfrog": 4,
        "schedule": "adaptive",
        "preconditioner": "encoder",
        "iwae_samples": 100,
        "num_simulated": 100,
    },
    "standard": {
        "num_examples": 1000,
        "num_chains": 16,
        "num_temperatures": 1000,
        "num_leapfrog": 10,
        "schedule": "adaptive",
        "preconditioner": "encoder",
        "iwae_samples": 5000,
        "num_simulated": 100,
    },
    "paper": {
        "num_examples": 0,
        "num_chains": 16,
        "num_temperatures": 10000,
        "num_leapfrog": 10,
        "schedule": "linear",
        "preconditioner": "unit",
        "iwae_samples": 5000,
        "num_simulated": 100,
    },
}
BLOCK_BYTES = (
    2_560_000  # of the widest activations of a block on a CPU: 816 rows of 784
)
SMALLEST_BLOCK = 128  # rows; narrower products do not fill two cores
ROWS_PER_CORE = 64  # chains at least; fewer do not pay for averaging the gradients
STARTS = {"encoder": models.posterior_path, "prior": models.prior_path}


class ConfigError(InputError):
    """A setting is wrong."""


class Training(NamedTuple):
    """What a training run needs.

    Attributes:
        model: a `LatentVariableModel`.
        estimator: an `Estimator`.
        mesh: of `sharding.make_mesh`.
        init: key -> `TrainState`.
        run_steps: of `training.make_run_steps`, for one replicate and the mesh.
        steps_per_epoch: batches in an epoch.
        num_steps: in all.
    """

    model: models.LatentVariableModel
    estimator: estimators.Estimator
    mesh: jax.sharding.Mesh
    init: Any
    run_steps: Any
    steps_per_epoch: int
    num_steps: int


def check(config):
    """Checks every setting that can be checked without the data and the devices.

    Args:
        config: a ConfigDict of `configs/default.py`'s shape.

    Raises:
        ConfigError: naming the setting, its value and the mend.
    """
    for name in ("num_replicates", "num_epochs", "batch_size"):
        _at_least(config, name, 1)
    _at_least(config, "seed", 0)
    _choice("dataset", config.dataset, datasets.NAMES)
    for name in ("precision", "force_precision"):
        _choice(f"model.{name}", config.model[name], precision.PRECISIONS)
    _at_least(config, "training.steps_per_row", 1)
    for name in ("checkpoint_seconds", "evaluate_epochs"):
        _at_least(config, f"training.{name}", 0)
    if config.training.block_rows is not None:
        _at_least(config, "training.block_rows", 1)
    if config.seed + config.num_replicates > 2**32:
        raise ConfigError(f"seed={config.seed}: use less than 2**32 - num_replicates")
    learning_rates(config)
    sizes = (*config.model.latent_sizes, *sum(map(tuple, config.model.widths), ()))
    if any(size < 1 for size in sizes):
        raise ConfigError(
            f"model.latent_sizes={config.model.latent_sizes} and model.widths="
            f"{config.model.widths}: use sizes of at least 1"
        )
    for name in ("b1", "b2"):
        if not 0.0 <= config.optimizer[name] < 1.0:
            raise ConfigError(
                f"optimizer.{name}={config.optimizer[name]}: use a number in [0, 1)"
            )
    if not config.optimizer.eps > 0.0:
        raise ConfigError(f"optimizer.eps={config.optimizer.eps}: use more than 0")
    try:
        model = build_model(config, 1)
        build_estimator(config, model)
        optimizers.make(config.optimizer.schedule, 1)
        _step_size_rule(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    evaluation_settings(config)
    mesh_shape(config, 1)


def build_mesh(config):
    """The mesh of `config.sharding`; it makes JAX look for its devices.

    Raises:
        ConfigError: where there are fewer devices.
    """
    is_cpu = jax.default_backend() == "cpu" and jax.process_count() == 1
    replicate, data = mesh_shape(config, jax.device_count() if is_cpu else 1)
    try:
        return sharding.make_mesh(data, replicate)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def mesh_shape(config, num_cores):
    """Devices on the mesh's axes, those that are None chosen for the cores of a CPU.

    Small matrix products do not gain by a second core, but each core can compute some
    of the replicates, or of the batch, by itself.

    Args:
        config: a ConfigDict.
        num_cores: devices to spread over, each a core; 1 elsewhere.

    Returns:
        (replicate, data).

    Raises:
        ConfigError: for a setting below 1, or that does not divide what it spreads.
    """
    given = config.sharding
    for name in ("data", "replicate"):
        if given[name] is not None:
            _at_least(config, f"sharding.{name}", 1)
    replicate, data = given.replicate, given.data
    if replicate is None:
        replicate = _largest_divisor(config.num_replicates, num_cores // (data or 1))
    if data is None:
        rows = config.batch_size * config.estimator.num_samples
        most = min(num_cores // replicate, rows // ROWS_PER_CORE)
        data = _largest_divisor(config.batch_size, most)
    try:
        sharding.check_divides("batch_size", config.batch_size, data, "sharding.data")
        sharding.check_divides(
            "num_replicates", config.num_replicates, replicate, "sharding.replicate"
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return replicate, data


def _largest_divisor(number, most):
    """The largest divisor that is at most `most`, at least 1."""
    return max(d for d in range(1, max(1, most) + 1) if number % d == 0)


def learning_rates(config):
    """One learning rate for each replicate: a tuple of `num_replicates`."""
    rates = tuple(config.optimizer.learning_rate)
    if len(rates) not in (1, config.num_replicates) or not all(r > 0 for r in rates):
        raise ConfigError(
            f"optimizer.learning_rate={rates}: give one positive number, or one for "
            f"each of num_replicates={config.num_replicates}"
        )
    return rates * (config.num_replicates if len(rates) == 1 else 1)


def build_model(config, data_size, output_bias=None):
    """The model of `config.model` for images of `data_size` pixels."""
    settings = config.model
    return networks.bernoulli_model(
        data_size,
        latent_sizes=tuple(settings.latent_sizes),
        widths=tuple(map(tuple, settings.widths)),
        activation=settings.activation,
        output_bias=output_bias,
        precision=settings.precision,
        force_precision=settings.force_precision,
    )


def build_estimator(config, model):
    """The estimator of `config.estimator`."""
    settings = config.estimator.to_dict()
    name = settings.pop("name")
    unread = settings.keys() - estimators.settings_of(name).keys()
    if unread:
        raise ConfigError(
            f"estimator.{min(unread)}={settings[min(unread)]!r} is not read by "
            f"{name!r}: pick the estimator and its own settings by --config=FILE:{name}"
        )
    schedule = settings.get("schedule", "")
    if schedule and schedule not in schedules.SCHEDULES and "," in schedule:
        settings["schedule"] = _numbers("estimator.schedule", schedule)
    return estimators.make(name, model, **settings)


def build_training(config, dataset):
    """Everything that a training run needs.

    Args:
        config: a checked ConfigDict.
        dataset: a `datasets.Dataset`.

    Returns:
        A `Training`.

    Raises:
        ConfigError: where the batch is larger than the data set.
    """
    num_train, data_size = dataset.train.shape
    if config.batch_size > num_train:
        raise ConfigError(
            f"batch_size={config.batch_size}: {dataset.name} has {num_train} training "
            "images; use at most as many"
        )
    bias = (
        networks.data_mean_bias(dataset.train) if config.model.data_mean_bias else None
    )
    model = build_model(config, data_size, bias)
    estimator = build_estimator(config, model)
    steps_per_epoch = num_train // config.batch_size
    num_steps = config.num_epochs * steps_per_epoch
    optimizer = optimizers.make(
        config.optimizer.schedule,
        num_steps,
        b1=config.optimizer.b1,
        b2=config.optimizer.b2,
        eps=config.optimizer.eps,
    )
    first, rule = _step_size_rule(config)
    train_step = training.make_train_step(
        estimator,
        rule,
        binarize=not dataset.is_binary,
        block_size=block_size(config, data_size, estimator.num_samples),
        axis_name=sharding.DATA,
    )
    return Training(
        model,
        estimator,
        build_mesh(config),
        lambda key: training.init(key, model, estimator, optimizer, first),
        training.make_run_steps(
            train_step, config.batch_size, num_train, sharding.DATA
        ),
        steps_per_epoch,
        num_steps,
    )


def block_size(config, data_size, num_chains):
    """Examples computed at a time, so that a block's activations stay in the cache.

    Args:
        config: a ConfigDict.
        data_size: X, the number of pixels.
        num_chains: of each example, each a row of the matrix products.

    Returns:
        int, or None for all at once, which is best on a GPU.
    """
    rows = config.training.block_rows
    if rows is None:
        if jax.default_backend() != "cpu":
            return None
        hidden = [width for layer in config.model.widths for width in layer]
        widest = max(data_size, *hidden, *config.model.latent_sizes)
        rows = max(SMALLEST_BLOCK, BLOCK_BYTES // (4 * widest))
    return max(1, rows // num_chains)


def evaluation_settings(config):
    """The evaluation's settings, with what is None filled in from the preset.

    Args:
        config: a ConfigDict.

    Returns:
        dict of name to value.

    Raises:
        ConfigError: naming the setting, its value and the mend.
    """
    given = config.evaluation.to_dict()
    _choice("evaluation.preset", given["preset"], PRESETS)
    settings = {
        name: PRESETS[given["preset"]][name] if value is None else value
        for name, value in given.items()
    }
    for name, least in _EVALUATION_LEAST.items():
        if settings[name] < least:
            raise ConfigError(
                f"evaluation.{name}={settings[name]}: use at least {least}"
            )
    _choice("evaluation.start", settings["start"], STARTS)
    _choice(
        "evaluation.schedule",
        settings["schedule"],
        [*schedules.SCHEDULES, "adaptive"],
    )
    _choice(
        "evaluation.preconditioner", settings["preconditioner"], models.PRECONDITIONERS
    )
    if not 0.0 < settings["target"] < 1.0:
        raise ConfigError(
            f"evaluation.target={settings['target']}: use a number in (0, 1)"
        )
    return settings


_EVALUATION_LEAST = {
    "seed": 0,
    "num_examples": 0,
    "num_chains": 1,
    "num_temperatures": 1,
    "num_leapfrog": 1,
    "iwae_samples": 1,
    "num_simulated": 0,
    "num_pilot": 1,
    "chunk_size": 1,
}


def build_path_fn(model, settings):
    """(theta, phi, x) -> `AnnealingPath` of an evaluation.

    Args:
        model: a `LatentVariableModel`.
        settings: of `evaluation_settings`.

    Returns:
        The function.
    """
    path = STARTS[settings["start"]]
    return lambda theta, phi, x: path(model, theta, phi, x, settings["preconditioner"])


def build_transition(settings):
    """The HMC move of an evaluation's settings."""
    return partial(hmc_step, num_leapfrog=settings["num_leapfrog"])


def _step_size_rule(config):
    """The first step size and the `StepSizeRule` of training."""
    settings = config.step_size
    defaults = STEP_SIZES[config.estimator.get("preconditioner", "unit")]
    first, smallest, largest = (
        default if settings[name] is None else settings[name]
        for name, default in zip(("first", "smallest", "largest"), defaults)
    )
    rule = adaptation.check_rule(
        adaptation.StepSizeRule(
            settings.target, settings.grow, settings.shrink, smallest, largest
        )
    )
    if not smallest <= first <= largest:
        raise ConfigError(
            f"step_size.first={first}: use a number from step_size.smallest={smallest} "
            f"to step_size.largest={largest}"
        )
    return first, rule


def _numbers(name, text):
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"{name}={text!r}: give a name, or numbers from 0 to 1 with commas"
        ) from error


def _at_least(config, name, least):
    value = config
    for part in name.split("."):
        value = value[part]
    if value < least:
        raise ConfigError(f"{name}={value}: use at least {least}")


def _choice(name, value, known):
    if value not in known:
        raise ConfigError(registry.unknown_name(name, value, known))
