"""What a config means: the only reader of its keys.

`resolve` is called once, at launch. It refuses bad settings before any data are read
or anything is compiled, and turns presets and None into values. What it saves with the
run is what every later program reads.
"""

import contextlib
import copy
import json
import math
import re
from collections import namedtuple
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ais_jax import (
    checks,
    optimizers,
    schedules,
)
from ais_jax.models import (
    latent,
    precision,
)
from ais_jax.training.step_sizes import (
    StepSizeRule,
    check_rule,
)
from configs import default, presets
from experiments.data import load
from experiments.run import (
    build,
    factory,
    schema,
)
from experiments.system.errors import ConfigError

flatten = schema.flatten
FREE = ("evaluation", "data_dir", "sharding", "training.checkpoint_seconds")
_TINY = 5e-324  # the smallest number above 0
_RANGES = {  # what a setting must be -> its least value, what it is below, and names
    "at least 1": (
        *(1, math.inf),
        *("num_replicates", "num_epochs", "batch_size", "training.steps_per_row"),
        *("training.block_rows", "sharding.data", "sharding.replicate"),
        *("evaluation.num_chains", "evaluation.num_temperatures"),
        *("evaluation.num_leapfrog", "evaluation.iwae_samples"),
        *("evaluation.num_pilot", "evaluation.chunk_size"),
    ),
    "at least 0": (
        *(0, math.inf),
        *("seed", "training.checkpoint_seconds", "training.evaluate_epochs"),
        *("evaluation.seed", "evaluation.num_examples", "evaluation.num_simulated"),
    ),
    "more than 0": (
        *(_TINY, math.inf),
        *("optimizer.eps", "optimizer.phi.eps", "evaluation.first_step_size"),
    ),
    "a number in [0, 1)": (
        *(0.0, 1.0, "training.average_decay"),
        *("optimizer.b1", "optimizer.b2", "optimizer.phi.b1", "optimizer.phi.b2"),
    ),
    "a number in (0, 1)": (_TINY, 1.0, "evaluation.target"),
}
_CHOICES = {
    "model.precision": precision.PRECISIONS,
    "model.force_precision": (build.AUTO, *precision.PRECISIONS),
    "evaluation.force_precision": (build.AUTO, *precision.PRECISIONS),
    "evaluation.start": build.STARTS,
    "evaluation.subset": ("random", "first"),
    "evaluation.schedule": (*schedules.SCHEDULES, "adaptive"),
    "evaluation.preconditioner": latent.HMC_SCALES,
}
_WIDEST = 10**7  # of a layer
Evaluation = namedtuple("Evaluation", list(default.get_config().evaluation))
Evaluation.__doc__ = "The settings of an evaluation, all of them values."


class Settings(NamedTuple):
    """The settings of a run.

    Those of the same name as in `configs/default.py` mean the same.
    """

    seed: int
    num_replicates: int
    num_epochs: int
    batch_size: int
    dataset: str
    data_dir: str
    init_from: str
    factory: str  # of the model; empty for `networks.latent_model`
    model: dict[str, Any]  # keyword arguments of `networks.latent_model`
    data_mean_bias: bool
    estimator: dict[str, Any]  # its name, and keyword arguments of `estimators.make`
    first_step_size: float  # of HMC in training
    step_size_rule: StepSizeRule
    optimizer: dict[str, Any]  # theta's keyword arguments of `optimizers.make`
    phi_optimizer: dict[str, Any]  # likewise phi's
    learning_rates: tuple[tuple[float, float], ...]  # theta's, phi's of each replicate
    average_decay: float
    steps_per_row: int
    checkpoint_seconds: float
    evaluate_epochs: int
    block_rows: int | None  # None: the machine decides
    # data and replicate, likewise
    sharding: dict[str, int | None]
    evaluation: Evaluation
    saved: dict[str, Any]  # the resolved config as nested dicts and lists


def resolve(config: ConfigDict) -> Settings:
    """The settings of a config of `configs/default.py`'s shape.

    What it lacks has its default. Every setting is checked that needs no data and no
    devices.

    Raises:
        ConfigError: naming the setting, its value and what to do.
    """
    for section, program in (("table", "sweep"), ("variants", "compare")):
        if section in config:
            raise ConfigError(f"--config is for experiments.{program}: use that")
    values = _filled(schema.complete(config, _defaults(config)))
    _check(values)
    model, optimizer = dict(values["model"]), dict(values["optimizer"])
    phi_optimizer = {**optimizer, **optimizer.pop("phi")}
    del phi_optimizer["phi"]
    rates = _learning_rates(optimizer, phi_optimizer, values["num_replicates"])
    first_step_size, rule = _step_sizes(values["step_size"])
    sections = {
        "model": model,
        "factory": model.pop("factory"),
        "data_mean_bias": model.pop("data_mean_bias"),
        "estimator": _estimator(values["estimator"]),
        "first_step_size": first_step_size,
        "step_size_rule": rule,
        "optimizer": optimizer,
        "phi_optimizer": phi_optimizer,
        "learning_rates": rates,
        "evaluation": Evaluation(**values["evaluation"]),
        **values["training"],
    }
    same = {name: values[name] for name in Settings._fields if name in values}
    settings = Settings(**{**same, **sections, "saved": plain(values)})
    with _section("model"):
        factory.check(settings.factory)
        built = build.build_model(settings._replace(factory=""), (8, 8))
    with _section("estimator"):
        build.build_estimator(settings, built)
    with _section("optimizer"):
        optimizers.make(num_steps=1, **optimizer)
    with _section("optimizer.phi"):
        optimizers.make(num_steps=1, **phi_optimizer)
    build.mesh_shape(settings, 1)
    return settings


def with_forces(settings: Settings, training: str, evaluation: str) -> Settings:
    """The settings with the precision of HMC's force in training and evaluation."""
    saved = copy.deepcopy(settings.saved)
    saved["model"]["force_precision"] = training
    saved["evaluation"]["force_precision"] = evaluation
    return settings._replace(
        model=settings.model | {"force_precision": training},
        evaluation=settings.evaluation._replace(force_precision=evaluation),
        saved=saved,
    )


def changed(config, settings):
    """A copy of a config with other settings, by their dotted names."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(settings)
    return config


def plain(values):
    """A config's dicts with lists for tuples, as JSON would give it back."""
    return json.loads(ConfigDict(values).to_json())


def with_tuples(value):
    """Undoes `plain`: lists back to tuples."""
    if isinstance(value, dict):
        return {k: with_tuples(v) for k, v in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def override(saved: dict, overrides: dict[str, Any]) -> ConfigDict:
    """A saved config with other settings in `FREE`, as those of another evaluation.

    Another preset of the evaluation replaces all of its settings.

    Raises:
        ConfigError: for another override.
    """
    config = ConfigDict(with_tuples(saved))
    schema.check_names(config)
    with config.ignore_type():
        if "evaluation.preset" in overrides:
            preset = presets.EVALUATION["standard"]
            config.evaluation.update(dict.fromkeys([*preset, "first_step_size"]))
        if "evaluation.preconditioner" in overrides:
            config.evaluation.first_step_size = None
    for name, value in overrides.items():
        if not name.startswith(FREE):
            raise ConfigError(
                f"{name}={value!r} cannot be changed in an evaluation: leave it out; "
                f"only {', '.join(FREE)} can"
            )
        config.update_from_flattened_dict({name: value})
    return config


def _defaults(config):
    """The default config of a config's estimator."""
    estimator = config.get("estimator")
    name = estimator.get("name") if isinstance(estimator, ConfigDict) else None
    return default.get_config(name if name in default.ESTIMATORS else "ais")


def _filled(config):
    """A config's nested dict, what is None chosen from the presets."""
    values = config.to_dict()
    evaluation = values["evaluation"]
    _choose("evaluation.preset", evaluation["preset"], presets.EVALUATION)
    _fill(evaluation, presets.EVALUATION[evaluation["preset"]])
    sizes = []
    for name in ("evaluation", "estimator"):
        preconditioner = values[name].get("preconditioner", "unit")
        _choose(f"{name}.preconditioner", preconditioner, presets.STEP_SIZES)
        sizes.append(presets.STEP_SIZES[preconditioner])
    _fill(evaluation, {"first_step_size": sizes[0]["first"]})
    _fill(values["step_size"], sizes[1])
    _fill_optimizers(values["optimizer"])
    return values


def _fill_optimizers(optimizer):
    """What is None becomes the optimizer's default, and for phi theta's setting."""
    phi = optimizer["phi"]
    with _section("optimizer"):
        _fill(optimizer, optimizers.settings_of(optimizer["name"]))
    if phi["name"] in (None, optimizer["name"]):
        _fill(phi, optimizer)
    with _section("optimizer.phi"):
        _fill(phi, optimizers.settings_of(phi["name"]))
    _fill(phi, {"learning_rate": optimizer["learning_rate"]})


def _fill(section, choices):
    section.update(
        {k: choices[k] for k in section.keys() & choices.keys() if section[k] is None}
    )


def _check(values):
    """Checks each setting by itself."""
    flat = flatten(values)
    for name, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name}={value}: use a finite number")
    for what, (least, above, *names) in _RANGES.items():
        for name in names:
            if flat[name] is not None and not least <= flat[name] < above:
                raise ConfigError(f"{name}={flat[name]}: use {what}")
    for name, known in _CHOICES.items():
        _choose(name, flat[name], known)
    if not load.is_named(flat["dataset"]):
        raise ConfigError(load.unknown(flat["dataset"]))
    if flat["seed"] + flat["num_replicates"] > 2**32:
        raise ConfigError(f"seed={flat['seed']}: use less than 2**32 - num_replicates")
    latent_sizes, widths = flat["model.latent_sizes"], flat["model.widths"]
    sizes = (*latent_sizes, *sum(map(tuple, widths), ()))
    if not all(1 <= size <= _WIDEST for size in sizes):
        raise ConfigError(
            f"model.latent_sizes={latent_sizes} and model.widths={widths}: use sizes "
            f"of 1 to {_WIDEST}"
        )


def _choose(name, value, known):
    if value not in known:
        raise ConfigError(checks.unknown_name(name, value, known))


@contextlib.contextmanager
def _section(name):
    """Gives what the library refuses the setting's whole name."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        dot = "." if re.match(r"\w+=", str(error)) else ": "
        raise ConfigError(f"{name}{dot}{error}") from error


def _estimator(given):
    """The estimator's settings, betas that are given as text turned into numbers."""
    estimator = dict(given)
    text = estimator.get("schedule", "")
    if "," in text:
        try:
            estimator["schedule"] = [float(number) for number in text.split(",")]
        except ValueError as error:
            raise ConfigError(
                f"estimator.schedule={text!r}: give a name, or numbers from 0 to 1 "
                "with commas"
            ) from error
    return estimator


def _learning_rates(theta, phi, num_replicates):
    """Theta's and phi's learning rates of each replicate, out of their settings."""
    networks = []
    for section, optimizer in (("", theta), ("phi.", phi)):
        rates = tuple(optimizer.pop("learning_rate"))
        if len(rates) not in (1, num_replicates) or not all(
            0 < rate < math.inf for rate in rates
        ):
            raise ConfigError(
                f"optimizer.{section}learning_rate={rates}: give one positive number, "
                f"or one for each of num_replicates={num_replicates}"
            )
        networks.append(rates * (num_replicates if len(rates) == 1 else 1))
    return tuple(zip(*networks))


def _step_sizes(section):
    """The first step size and the `StepSizeRule` of training."""
    section = dict(section)
    first = section.pop("first")
    with _section("step_size"):
        rule = check_rule(StepSizeRule(**section))
    if not rule.smallest <= first <= rule.largest:
        raise ConfigError(
            f"step_size.first={first}: use a number from step_size.smallest="
            f"{rule.smallest} to step_size.largest={rule.largest}"
        )
    return first, rule
