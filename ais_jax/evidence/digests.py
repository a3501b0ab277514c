"""Fingerprints of the data that a model observes, and of what functions compute."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import ArrayLike

from ais_jax.types import is_traced


def digest(observed: Sequence[ArrayLike]) -> int:
    """A number for what a model observes, which models of the same data share.

    Values count as float32 and in any order, so it does not matter how a model shares
    them out among its sites.

    Args:
        observed: values of each site.

    Returns:
        At least 1 and within 32 bits; 0, for unknown, where a value is traced or there
        is none.
    """
    if is_traced(list(observed)) or not observed:
        return 0
    values = [np.ravel(np.asarray(a, np.float32)) for a in observed]
    ordered = np.sort(np.concatenate(values) + np.float32(0.0))  # -0 is 0
    found = hashlib.sha256(ordered.astype("<f4").tobytes()).digest()
    return int.from_bytes(found[:4]) // 2 or 1


def program_digest(function: Callable[..., Any], *args: Any) -> str:
    """A name of what a function computes, with all that it reads beside its arguments.

    A function may read a global name or an attribute whose value has changed since a
    program was compiled for it.

    Args:
        function: of arrays. It is traced anew in every call.
        *args: of the function; their shapes and types count, not their values.
    """
    program = jax.make_jaxpr(lambda *args: function(*args))(*args)
    text = re.sub("0x[0-9a-f]+", "", str(program.jaxpr))  # addresses of functions
    found = hashlib.sha256(text.encode())
    for constant in _constants(program):
        if jnp.issubdtype(jnp.result_type(constant), jax.dtypes.extended):
            constant = jax.random.key_data(constant)
        found.update(np.asarray(constant).tobytes())
    return found.hexdigest()


def _constants(program: Any) -> Iterator[Any]:
    """All numbers that a program holds, those of the programs within it too."""
    if isinstance(program, ClosedJaxpr):
        yield from program.consts
        program = program.jaxpr
    for step in program.eqns:
        yield from (v.val for v in step.invars if isinstance(v, Literal))
        for part in jax.tree.leaves(list(step.params.values())):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield from _constants(part)
