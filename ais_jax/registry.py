"""Choices by name, and the one refusal of a name that is unknown."""

import difflib
from collections.abc import Mapping


def lookup(kind, name, table):
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


def unknown_name(kind, name, known):
    """One line that names an unknown choice, the nearest valid one and all of them."""
    near = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.0)
    return (
        f"{kind}={name!r} is unknown: did you mean {near[0]!r}? "
        f"Choose from {', '.join(sorted(known))}."
    )
