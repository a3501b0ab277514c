"""The user's own models and decoders by name: package.module:function."""

import importlib
import inspect
import sys
from pathlib import Path

from ais_jax.models.latent import LatentVariableModel
from experiments.data.dataset import GIVEN
from experiments.system.errors import ConfigError
from experiments.system.files import user_path


def check(name, dataset):
    """Refuses a model's factory that cannot be imported; "" and "given" are none."""
    if name not in ("", GIVEN):
        load("model.factory", name, dataset)


def build(name, image_shape, settings):
    """The model of a factory for images [H, W] or [H, W, C].

    The factory is called with the shape, and with the settings of `config.model` that
    it has arguments for, by their names.
    """
    function = load("model.factory", name)
    known = inspect.signature(function).parameters
    if settings["num_covariates"] and "num_covariates" not in known:
        raise ConfigError(
            f"model.factory={name!r} takes no num_covariates, and the data have "
            f"{settings['num_covariates']}: give it that argument, or leave them out"
        )
    model = function(image_shape, **{k: v for k, v in settings.items() if k in known})
    if not isinstance(model, LatentVariableModel):
        raise ConfigError(
            f"model.factory={name!r} returns {type(model).__name__}: return an "
            "ais_jax.LatentVariableModel"
        )
    return model


def load(setting, name, *files):
    """The function called package.module:function.

    Its module is an installed one, or lies in the current folder or beside the files.
    """
    module, _, function = name.partition(":")
    _search(Path.cwd(), *(user_path(file).absolute().parent for file in files))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{setting}={name!r}: {error}; give package.module:function of a module "
            "that is installed, or lies here or beside the data"
        ) from error
    if not callable(found):
        raise ConfigError(f"{setting}={name!r} is no function")
    return found


def _search(*folders):
    """Lets Python look for modules in folders too, after all others."""
    sys.path += [str(f) for f in dict.fromkeys(folders) if str(f) not in sys.path]
