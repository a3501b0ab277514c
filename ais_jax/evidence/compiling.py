"""How the search's programs are compiled: quickly, since most calls are short.

On a CPU compilation is most of a first call. XLA's older emitters make the same code in
half the time. Code of its first level runs as fast here as that of the third, and what
runs seldom needs none.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import jax


@lru_cache(maxsize=2)
def options(level: int) -> dict[str, Any] | None:
    """XLA's options for a level of optimization; none but on a CPU."""
    if jax.default_backend() != "cpu":
        return None
    plain: dict[str, Any] = {"xla_backend_optimization_level": level}
    quick = plain | {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=quick).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # another XLA may not know it
        return plain
    return quick


def quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of what is run seldom."""

    @lru_cache(maxsize=1)
    def compiled():
        return jax.jit(function, compiler_options=options(0))

    return wraps(function)(lambda *args: compiled()(*args))
