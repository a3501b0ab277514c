"""The names and types of a config's settings, which JSON and hands may get wrong."""

from functools import partial

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import default
from experiments.system.errors import ConfigError

_KINDS = {
    **{int: "a whole number", float: "a number", str: "text"},
    **{bool: "True or False", tuple: "a tuple"},
}
_LARGEST = {int: 2**63, float: 1.7976931348623157e308}
flatten = partial(flatten_dict, sep=".")


def complete(given: ConfigDict, known: ConfigDict) -> ConfigDict:
    """A config of `configs/default.py`'s shape, the defaults in place of what it lacks.

    Args:
        given: the config.
        known: the defaults.

    Raises:
        ConfigError: for a name that nothing reads, or a value of another type.
    """
    _check_types(given, known)
    whole = known.copy_and_resolve_references()
    try:
        with whole.ignore_type(), whole.unlocked():
            whole.update(given)
    except AttributeError as error:
        raise ConfigError(
            "a section of --config is no ConfigDict: start from configs/default.py"
        ) from error
    check_names(whole)
    return whole


def _check_types(given, known):
    """Refuses values of another type than a setting of the same name has.

    Args:
        given: a ConfigDict; a setting that it lacks is not checked.
        known: a ConfigDict with a value, or a placeholder, of the right type.

    Raises:
        ConfigError: naming the setting, its value and its type.
    """
    values = flatten(given.to_dict())
    for name, example in flatten(known.to_dict()).items():
        value, kind = values.get(name), _kind(known, name)
        if value is None and (example is None or name not in values):
            continue
        if not _is_like(value, kind, example):
            such_as = "" if example is None else f", such as {example!r}"
            raise ConfigError(f"{name}={value!r:.60}: use {_KINDS[kind]}{such_as}")


def check_names(whole):
    """Refuses a config that lacks a setting, or has one that nothing reads.

    Raises:
        ConfigError: naming the setting.
    """
    read = ("estimator.name", "estimator.num_samples")  # by every estimator
    given, known = (
        {n for n in flatten(c.to_dict()) if not n.startswith("estimator.") or n in read}
        for c in (whole, default.get_config())
    )
    for name in sorted(given ^ known):
        fault = "lacks it" if name in known else "has it, and nothing reads it"
        raise ConfigError(f"{name}: --config {fault}: start from configs/default.py")


def _kind(section, name):
    """The type of a setting by its dotted name, also of one that is None."""
    *parents, last = name.split(".")
    for parent in parents:
        section = section[parent]
    return section.get_type(last)


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
