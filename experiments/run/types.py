"""The types of a config's settings, which JSON and hands may get wrong."""

from flax.traverse_util import flatten_dict

from experiments.system.errors import ConfigError

_KINDS = {
    **{int: "a whole number", float: "a number", str: "text"},
    **{bool: "True or False", tuple: "a tuple"},
}
_LARGEST = {int: 2**63, float: 1.7976931348623157e308}


def complete(given, known):
    """A config with the defaults of what it lacks, once its types are checked."""
    _check_types(given, known)
    whole = known.copy_and_resolve_references()
    try:
        with whole.ignore_type(), whole.unlocked():
            whole.update(given)
    except AttributeError as error:
        raise ConfigError(
            "a section of --config is no ConfigDict: start from configs/default.py"
        ) from error
    return whole


def _check_types(given, known):
    """Refuses values of another type than a setting of the same name has.

    Args:
        given: a ConfigDict; a setting that it lacks is not checked.
        known: a ConfigDict with a value, or a placeholder, of the right type.

    Raises:
        ConfigError: naming the setting, its value and its type.
    """
    values = flatten_dict(given.to_dict(), sep=".")
    for name, example in flatten_dict(known.to_dict(), sep=".").items():
        value, kind = values.get(name), _kind(known, name)
        if value is None and (example is None or name not in values):
            continue
        if not _is_like(value, kind, example):
            such_as = "" if example is None else f", such as {example!r}"
            raise ConfigError(f"{name}={value!r:.60}: use {_KINDS[kind]}{such_as}")


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
