"""The user's own models and decoders by name: package.module:function."""

import importlib
import inspect

from ais_jax.models.latent import LatentVariableModel
from experiments.data.dataset import GIVEN
from experiments.system.errors import ConfigError


def check(name):
    """Refuses a model's factory that cannot be imported; "" and "given" are none."""
    if name not in ("", GIVEN):
        load("model.factory", name)


def build(name, image_shape, settings):
    """The model of a factory for images [H, W] or [H, W, C].

    The factory is called with the shape, and with the settings of `config.model` that
    it has arguments for, by their names.
    """
    function = load("model.factory", name)
    known = inspect.signature(function).parameters
    model = function(image_shape, **{k: v for k, v in settings.items() if k in known})
    if not isinstance(model, LatentVariableModel):
        raise ConfigError(
            f"model.factory={name!r} returns {type(model).__name__}: return an "
            "ais_jax.LatentVariableModel"
        )
    return model


def load(setting, name):
    """The function called package.module:function."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{setting}={name!r}: {error}; give package.module:function of a module "
            "that Python can import from here"
        ) from error
    if not callable(found):
        raise ConfigError(f"{setting}={name!r} is no function")
    return found
