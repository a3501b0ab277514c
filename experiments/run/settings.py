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
from typing import Any

from ml_collections import ConfigDict

from ais_jax import optimizers
from ais_jax.models.networks import WIDTHS
from ais_jax.training.step_sizes import StepSizeRule
from configs import presets
from configs.default import SETTINGS, Range, get_config
from experiments.data import load
from experiments.run import build, factory, schema
from experiments.system.errors import ConfigError

flatten = schema.flatten
FREE = ("evaluation", "data_dir", "sharding", "training.checkpoint_seconds")
_WIDEST = 10**7  # no layer is wider
# A run keeps the values that these have when it begins, where its optimizer has them.
_KEPT = {
    "b1": Range(0, 1),
    "b2": Range(0, 1),
    "eps": Range(0),
    "weight_decay": Range(0),
}
_DEFAULT = get_config()
Evaluation = namedtuple("Evaluation", list(_DEFAULT.evaluation))
Evaluation.__doc__ = "The settings of an evaluation, all of them values."
_DERIVED = {
    "factory": "of the model; empty for `networks.latent_model`",
    "model": "keyword arguments of `networks.latent_model`; see `with_covariates`",
    "data_mean_bias": "whether the decoder starts at the mean image",
    "estimator": "its name, and keyword arguments of `estimators.make`",
    "first_step_size": "of HMC in training",
    "step_size_rule": "a `StepSizeRule`",
    "optimizer": "theta's keyword arguments of `optimizers.make`",
    "phi_optimizer": "phi's keyword arguments of `optimizers.make`",
    "learning_rates": "theta's and phi's of each replicate",
    "sharding": "of data and replicate; None: the machine decides",
    "evaluation": "an `Evaluation`",
    "saved": "the resolved config as nested dicts and lists",
}
_SAME = [name for name in SETTINGS if "." not in name] + list(_DEFAULT.training)
Settings = namedtuple("Settings", [*_SAME, *_DERIVED])
Settings.__doc__ = (
    "The settings of a run; those of `training` and of no section by name."
)


def resolve(config: ConfigDict) -> Settings:
    """The settings of a config of `configs/default.py`'s shape.

    What it lacks has its default. Every setting is checked that needs no data and no
    devices.
    """
    if "table" in config or "variants" in config:
        raise ConfigError("--config is for experiments.sweep: use that")
    values = schema.complete(config)
    network = values["model"]["network"]
    _fill(values["model"], {"widths": WIDTHS.get(network, WIDTHS["perceptron"])})
    _check(values)
    _fill(values["evaluation"], presets.EVALUATION[values["evaluation"]["preset"]])
    rates = _fill_optimizers(values["optimizer"], values["num_replicates"])
    saved = plain(values)
    model, (theta, phi) = values["model"], _optimizers(values["optimizer"])
    sizes = dict(presets.STEP_SIZES[values["estimator"].get("preconditioner", "unit")])
    sections = {
        "factory": model.pop("factory"),
        "data_mean_bias": model.pop("data_mean_bias"),
        "model": model | {"num_covariates": 0},
        "estimator": _estimator(values["estimator"]),
        "first_step_size": sizes.pop("first"),
        "step_size_rule": StepSizeRule(**sizes),
        "optimizer": theta,
        "phi_optimizer": phi,
        "learning_rates": rates,
        "evaluation": Evaluation(**values["evaluation"]),
        "saved": saved,
        **values["training"],
    }
    same = {name: values[name] for name in Settings._fields if name in values}
    settings = Settings(**{**same, **sections})
    _check_by_building(settings)
    return settings


def _check_by_building(settings):
    """Gives the settings to what reads them, which refuses what it cannot use."""
    with _section("model"):
        factory.check(settings.factory, settings.dataset)
        model = build.build_model(settings._replace(factory=""), (8, 8))
    with _section("estimator"):
        build.build_estimator(settings, model)
    for name, optimizer in (
        ("optimizer", settings.optimizer),
        ("optimizer.phi", settings.phi_optimizer),
    ):
        with _section(name, optimizer.keys() - {"name", "schedule"}):
            optimizers.make(num_steps=1, **optimizer)
    build.mesh_shape(settings, 1)


def with_covariates(settings: Settings, num: int) -> Settings:
    """The settings for data that have so many covariates, which no config says."""
    return settings._replace(model=settings.model | {"num_covariates": num})


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


def replicate_names(settings):
    """What the replicates differ in but their seeds, or nothing."""
    rates = settings.learning_rates
    if len(set(rates)) == 1:
        return []
    is_theta = len({theta for theta, _ in rates}) > 1
    return [f"learning rate {theta if is_theta else phi:g}" for theta, phi in rates]


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
    """
    config = ConfigDict(with_tuples(saved))
    schema.check_whole(config)
    if "evaluation.preset" in overrides:
        with config.ignore_type():
            config.evaluation.update(dict.fromkeys(presets.EVALUATION["paper"]))
    for name, value in overrides.items():
        if not name.startswith(FREE):
            raise ConfigError(
                f"{name}={value!r} cannot be changed in an evaluation: leave it out; "
                f"only {', '.join(FREE)} can"
            )
        config.update_from_flattened_dict({name: value})
    return config


def _fill(section, choices):
    section.update({k: v for k, v in choices.items() if section[k] is None})


def _check(values):
    """Checks what no library function will refuse, and no type or range."""
    if not load.is_named(values["dataset"]):
        raise ConfigError(load.unknown(values["dataset"]))
    if values["seed"] + values["num_replicates"] > 2**32:
        seed = values["seed"]
        raise ConfigError(f"seed={seed}: use less than 2**32 - num_replicates")
    latent_sizes, widths = values["model"]["latent_sizes"], values["model"]["widths"]
    sizes = (*latent_sizes, *sum(map(tuple, widths), ()))
    if not all(1 <= size <= _WIDEST for size in sizes):
        raise ConfigError(
            f"model.latent_sizes={latent_sizes} and model.widths={widths}: use sizes "
            f"of 1 to {_WIDEST}"
        )


@contextlib.contextmanager
def _section(name, inner=()):
    """Gives what the library refuses the setting's whole name.

    The inner ones are those of its `settings`.
    """
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        word = re.match(r"(\w+)=", str(error))
        dots = ": " if word is None else ".settings." if word[1] in inner else "."
        raise ConfigError(f"{name}{dots}{error}") from error


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


def _fill_optimizers(theta, num_replicates):
    """What phi's optimizer leaves open becomes theta's, and what both do the library's.

    Returns the learning rates of theta and phi, a pair for each replicate.
    """
    phi = theta["phi"]
    if phi["name"] in (None, theta["name"]):
        phi["settings"] = theta["settings"] | phi["settings"]
    _fill(phi, {k: theta[k] for k in ("name", "learning_rate")})
    rates = []
    for name, section in (("optimizer", theta), ("optimizer.phi", phi)):
        with _section(name):
            known = optimizers.settings_of(section["name"])
        kept = {k: known[k] for k in _KEPT if k in known}
        section["settings"] = kept | section["settings"]
        _check_kept(name, section["settings"])
        rates.append(_rates(name, section["learning_rate"], num_replicates))
    return tuple(zip(*rates))


def _check_kept(section, settings):
    for name in _KEPT.keys() & settings.keys():
        value, (least, end) = settings[name], _KEPT[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and least <= value < end):
            where = f"{section}.settings.{name}"
            raise ConfigError(f"{where}={value!r}: use a number, {_KEPT[name]}")


def _optimizers(section):
    """Theta's and phi's keyword arguments of `optimizers.make`."""
    return (
        {"name": s["name"], "schedule": section["schedule"], **s["settings"]}
        for s in (section, section["phi"])
    )


def _rates(section, rates, num_replicates):
    """The learning rates of each replicate."""
    rates = tuple(rates)
    is_each = len(rates) in (1, num_replicates)
    if not is_each or not all(0 < rate < math.inf for rate in rates):
        raise ConfigError(
            f"{section}.learning_rate={rates}: give one positive number, or one for "
            f"each of num_replicates={num_replicates}"
        )
    return rates * (num_replicates if len(rates) == 1 else 1)
