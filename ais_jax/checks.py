"""Settings: choices by name and whole numbers, each with its one refusal."""

import difflib
import operator
from collections.abc import Collection, Mapping
from typing import Any


def lookup(kind: str, name: Any, table: Collection[str]) -> Any:
    """The entry of a name in a table of choices.

    Args:
        kind: what is chosen, for the message: an argument's name.
        name: the choice.
        table: a mapping of names to entries, or a collection of names, which are
            their own entries.

    Returns:
        The entry.

    Raises:
        ValueError: for a name that is not in the table, with the nearest that is.
    """
    if name not in table:
        raise ValueError(unknown_name(kind, name, table))
    return table[name] if isinstance(table, Mapping) else name


def unknown_name(kind: str, name: Any, known: Collection[str]) -> str:
    """One line that names an unknown choice, the nearest valid one and all of them."""
    near = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.0)
    return (
        f"{kind}={name!r} is unknown: did you mean {near[0]!r}? "
        f"Choose from {', '.join(sorted(known))}."
    )


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        ValueError: naming the setting and its value.
    """
    try:
        count = operator.index(value)
    except TypeError:
        text = f"{name}={value}: use a whole number, at least {least}"
        raise ValueError(text) from None
    if count < least:
        raise ValueError(f"{name}={value}: use at least {least}")
    return count
