"""From where a search runs: the path's own base, or one that is fitted to a pilot."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.base import BaseFit
from ais_jax.evidence.base_check import reason_against
from ais_jax.evidence.budget import SHORTER, Found, Meter, Task, find
from ais_jax.evidence.checkpoint import Checkpoint
from ais_jax.evidence.sampler import fitted_paths, programs
from ais_jax.types import PRNGKey


def approach(
    meter: Meter,
    key: PRNGKey,
    flat_fn: Callable[[PyTree], AnnealingPath],
    x: PyTree,
    settings: tuple[Any, ...],
    *,
    fit_base: bool,
    is_own: bool,
    mesh: Mesh | None,
    kept: Checkpoint,
) -> tuple[Task, Found]:
    """The path to run on and its pilot: a fitted base is taken if the path is shorter.

    Args:
        meter: counts.
        key: of the call.
        flat_fn: x -> the flat path.
        x: its data.
        settings: of `sampler.programs`.
        fit_base: whether a base may be fitted.
        is_own: whether the base is the user's, which may be wrong.
        mesh: devices over which the chains are spread, or None for one.
        kept: keeps the pilots.

    Raises:
        ValueError: for a base that is not what it says.
    """

    def step(name, task, *args):
        def likes():
            pilot = jax.eval_shape(task.programs.blank, task.x)
            fit = BaseFit(jnp.zeros(1), jnp.zeros(1))
            return [Found(pilot, 0, 0.0), Found(pilot, 0, 0.0, fit)]

        found = partial(find, meter, task, key, *args)
        return kept.step(name, meter, found, likes)

    task = Task(programs(flat_fn, *settings), x, mesh=mesh)
    if is_own and (reason := reason_against(task.programs.look(x, key))):
        raise ValueError(reason)
    found = step("pilot", task, None, fit_base)
    if found.fit is None:
        return task, found
    base = found.fit
    fitted = programs(fitted_paths(flat_fn), *settings)
    near = Task(fitted, (x, base), base, mesh)
    nearer = step("pilot-of-fitted-base", near)
    if nearer.length < SHORTER * found.length:
        return near, nearer
    return task, step("pilot-further", task, found)
