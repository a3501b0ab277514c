"""A config's values against `configs/default.py`: names, types, ranges and choices."""

import difflib
import math
from functools import partial
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from ais_jax import checks
from configs.default import ESTIMATORS, SETTINGS, Range, get_config
from experiments.system.errors import ConfigError

_KINDS = {
    **{int: "a whole number", float: "a number", str: "text", dict: "a dict"},
    **{bool: "True or False", tuple: "a tuple"},
}
_LARGEST = {int: 2**63, float: 1.7976931348623157e308}
flatten = partial(flatten_dict, sep=".")  # nested dicts as one, by dotted names


def complete(given: ConfigDict) -> dict[str, Any]:
    """A config as nested dicts, with defaults for what it lacks, each checked."""
    values = _by_setting(given)
    _check_names(values)
    method = values.get("estimator.name")
    default = _by_setting(get_config(method if method in ESTIMATORS else "ais"))
    values = default | values
    for name in default:
        _check(name, values[name], SETTINGS[name])
    return unflatten_dict(values, sep=".")


def check_whole(config: ConfigDict) -> None:
    """Refuses a config that lacks a setting, or has one that nothing reads."""
    values = _by_setting(config)
    _check_names(values)
    for name in SETTINGS.keys() - values.keys():
        if not name.startswith("estimator.") or name == "estimator.name":
            raise ConfigError(f"{name}: --config lacks it: start from that of a run")


def _check_names(values):
    """Refuses a name that is no setting; those of the estimator are left to it."""
    for name in values:
        if name not in SETTINGS and not name.startswith("estimator."):
            near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{name}: nothing reads it: did you mean {near!r}?")


def _by_setting(given):
    """A config's values by dotted names, where a setting is a dict the whole of it."""
    return flatten(given.to_dict(), is_leaf=_is_setting)


def _is_setting(path, _):
    return ".".join(path) in SETTINGS


def _check(name, value, setting):
    """Refuses a value of another type, range or choice than its setting's."""
    kind, is_none = setting.kind, isinstance(setting.default, type)
    if value is None and is_none:
        return
    example = setting.example or kind() if is_none else setting.default
    if not _is_like(value, kind, example):
        is_said = setting.example or not is_none
        such_as = f", such as {example!r}" if is_said else ""
        raise ConfigError(f"{name}={value!r:.60}: use {_KINDS[kind]}{such_as}")
    parts = value if isinstance(value, dict) else {"": value}
    for part, number in parts.items():
        if isinstance(number, float) and not math.isfinite(number):
            where = f"{name}.{part}".rstrip(".")
            raise ConfigError(f"{where}={number}: use a finite number")
    if isinstance(setting.allowed, Range):
        least, end = setting.allowed
        if not least <= value < end:
            raise ConfigError(f"{name}={value}: use {setting.allowed}")
    elif setting.allowed and value not in setting.allowed:
        raise ConfigError(checks.unknown_name(name, value, setting.allowed))


def _is_like(value, kind, example):
    """Whether a value has a type; of a tuple, whether its parts have the example's."""
    if kind is tuple:
        part = (example or (1e-3,))[0]
        return isinstance(value, tuple | list) and all(
            _is_like(v, type(part), part) for v in value
        )
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if isinstance(value, int) and kind in _LARGEST:
        return abs(value) <= _LARGEST[kind]
    return isinstance(value, kind)
