"""A folder in which a search keeps what it has computed, for the same call to go on.

Pilots and chunks of chains are a file each, written whole or not at all. A call reads
those that are there and computes the others, so that it gives the same numbers as one
that was never interrupted.
"""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.path import AnnealingPath
from ais_jax.evidence.budget import Meter
from ais_jax.types import PRNGKey

Folder = str | os.PathLike
NUM_LOOKS = 16  # draws at which the densities are compared
CLOSE = 1e-5  # relative distance of densities that rounding may explain


class Checkpoint:
    """The folder of one call, or nothing that is kept where it is None.

    Raises:
        ValueError: where the folder cannot be written, or is of another call.
    """

    def __init__(
        self,
        folder: Folder | None,
        key: PRNGKey,
        path: AnnealingPath,
        data: PyTree,
        transition: Transition,
        settings: dict[str, Any],
    ):
        """Takes the folder of a call, by its key, flat path, data and settings."""
        if folder is not None and (not folder or not isinstance(folder, Folder)):
            raise ValueError(f"checkpoint={folder!r}: give the path of a folder")
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        call = _describe(key, path, data, transition, settings)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = _read(self.folder / "call.npz")
            if kept is None:
                _write(self.folder / "call.npz", call)
        except OSError as error:
            raise ValueError(
                f"checkpoint={str(folder)!r} cannot be written ({error.strerror}): "
                "choose another folder"
            ) from None
        for name, value in (kept or {}).items():
            if not _is_same(value, call.get(name, 0.0)):
                raise ValueError(
                    f"checkpoint={str(folder)!r} is of a call with another {name}: "
                    "choose another folder"
                )

    def step(
        self,
        name: str,
        meter: Meter,
        compute: Callable[[], PyTree],
        likes: Callable[[], list[PyTree]],
    ) -> PyTree:
        """What a step computes, from its file where that is there.

        Args:
            name: of the file.
            meter: whose moves are kept too.
            compute: the step.
            likes: the structures that it may have, of different numbers of leaves.
        """
        if self.folder is None:
            return compute()
        file = self.folder / f"{name}.npz"
        kept = _read(file)
        if kept is not None:
            moves, *leaves = (kept[str(i)] for i in range(len(kept)))
            meter.pay(f"{name}, kept", int(moves))
            structures = map(jax.tree.structure, likes())
            structure = next(s for s in structures if s.num_leaves == len(leaves))
            return jax.tree.unflatten(structure, leaves)
        before = meter.spent
        found = compute()
        moves = (meter.spent - before) // meter.num_chains
        leaves = moves, *jax.device_get(jax.tree.leaves(found))
        _write(file, {str(i): a for i, a in enumerate(leaves)})
        return found


def _describe(
    key: PRNGKey,
    path: AnnealingPath,
    data: PyTree,
    transition: Transition,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What tells a call from others."""
    leaves = [np.asarray(a).tobytes() for a in jax.tree.leaves(data)]

    @jax.jit
    def densities():
        z = jax.vmap(path.sample_base)(jax.random.split(key, NUM_LOOKS))
        return jax.vmap(path.log_base)(z), jax.vmap(path.log_target)(z)

    log_base, log_target = jax.device_get(densities())
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return {name: str(value) for name, value in settings.items()} | {
        "key": np.asarray(jax.random.key_data(key) if is_typed else key),
        "transition": _text(transition),
        "data": hashlib.sha256(b"".join(leaves)).hexdigest(),
        "log_base": log_base,
        "log_target": log_target,
    }


def _text(function):
    """A function's name with the arguments that are filled in."""
    if isinstance(function, partial):
        return f"{_text(function.func)}, {function.args}, {function.keywords}"
    return getattr(function, "__qualname__", type(function).__qualname__)


def _is_same(kept, value):
    value = np.asarray(value)
    if kept.shape != value.shape or kept.dtype.kind != value.dtype.kind:
        return False
    if value.dtype.kind == "f":
        return np.allclose(kept, value, CLOSE, equal_nan=True)
    return np.array_equal(kept, value)


def _read(file):
    """The arrays of a file, or None where there is no sound one."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # zip and npy readers raise nearly any
        return None


def _write(file, arrays):
    part = file.with_name(f".{file.stem}.{os.getpid()}.npz")
    np.savez(part, **arrays)
    os.replace(part, file)
