"""Checkpoints of a training state: the only module that touches orbax.

A checkpoint holds the leaves of a pytree by their path, and beside them, in the
step's metadata, a manifest `{path: [shape, dtype]}`. Static fields (functions,
optimizers) are not saved: they come from the template given to `restore`. Orbax
writes into a temporary directory and renames it when complete, so a process killed
at any moment leaves the newest complete checkpoint intact.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp

from experiments.system.errors import CheckpointError


class Checkpointer:
    """Saves and restores a pytree of arrays by training step; the newest are kept.

    Use it in a `with` statement: saves run in the background, and the last one is
    lost if the process ends before the exit waited for it. With several JAX processes
    each leaf is a global array, `directory` is on a file system that all of them
    share, and all of them make the same calls. With `read_only`, for evaluation beside
    a running training, nothing is created or cleaned there, and `save` is refused.

    Raises:
        CheckpointError: `read_only` and there is no such directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int = 2,
        read_only: bool = False,
    ):
        import orbax.checkpoint as ocp

        self._directory = os.path.abspath(directory)
        self._read_only = read_only
        if read_only and not os.path.isdir(self._directory):
            raise CheckpointError(f"no checkpoint: {self._directory} does not exist")
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                lightweight_initialize=True,
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        failed = kind is not None and issubclass(kind, jax.errors.JaxRuntimeError)
        if failed and jax.process_count() > 1:
            return  # closing would wait for a lost process to complete its part
        self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the newest complete checkpoint's step; waits for a save under way."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Writes the leaves of `state` as checkpoint `step`; with `wait`, completely.

        Returns once the arrays are copied off the devices, so that they may be
        donated or changed; the files are written in the background. Typed PRNG keys
        are not supported: keep their seeds.

        Raises:
            CheckpointError: `step` is not newer than the newest, or read-only.
        """
        import orbax.checkpoint as ocp

        if self._read_only:
            raise CheckpointError(f"{self._directory} was opened read-only")
        leaves = _leaves_by_path(state)
        args = ocp.args.StandardSave({k: v for k, v in leaves.items() if v.size})
        manifest = {"leaves": _manifest(leaves)}
        if not self._manager.save(step, args=args, custom_metadata=manifest):
            newest = self._manager.latest_step()
            raise CheckpointError(
                f"cannot save step {step}: {self._directory} already holds {newest}"
            )
        if wait:
            self._manager.wait_until_finished()

    def restore(self, template: Any, step: int | None = None) -> Any:
        """Reads a checkpoint, or the newest, into the form of `template`, bit for bit.

        The template has the structure, shapes, dtypes and shardings wanted, which need
        not be those that the state had when saved: arrays (their values are not read)
        or `jax.ShapeDtypeStruct`s.

        Raises:
            CheckpointError: there is no such checkpoint, it is incomplete, or its
                tree, shapes or dtypes differ from the template's.
        """
        import orbax.checkpoint as ocp

        step = self._existing_step(step)
        expected = _leaves_by_path(template)
        difference = _first_difference(self._saved(step), _manifest(expected))
        if difference is not None:
            raise CheckpointError(
                f"checkpoint {step} in {self._directory} is of another model: "
                f"{difference}; use the config it was trained with, or another "
                "--workdir"
            )
        wanted = {
            path: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=_sharding(a))
            for path, a in expected.items()
            if a.size
        }
        leaves = self._manager.restore(step, args=ocp.args.StandardRestore(wanted))
        for path, a in expected.items():
            if not a.size:  # orbax refuses to store an array of no elements
                leaves[path] = jnp.zeros(a.shape, a.dtype, device=_sharding(a))
        ordered = [leaves[path] for path in expected]
        return jax.tree.unflatten(jax.tree.structure(template), ordered)

    def _existing_step(self, step: int | None) -> int:
        newest = self.latest_step()
        if newest is None:
            raise CheckpointError(f"no checkpoint in {self._directory}")
        if step is not None and step not in self._manager.all_steps():
            raise CheckpointError(
                f"no checkpoint of step {step} in {self._directory}; "
                f"the newest is of step {newest}"
            )
        return newest if step is None else step

    def _saved(self, step: int) -> dict[str, list]:
        try:
            return self._manager.metadata(step).custom_metadata["leaves"]
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise CheckpointError(
                f"checkpoint {step} in {self._directory} is incomplete: delete it"
            ) from error


def _leaves_by_path(tree: Any) -> dict[str, Any]:
    """Returns `{path: leaf}` in the tree's order, numbers as arrays."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            leaf if hasattr(leaf, "sharding") else jnp.asarray(leaf)
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _manifest(leaves: dict[str, Any]) -> dict[str, list]:
    return {k: [list(leaf.shape), leaf.dtype.name] for k, leaf in leaves.items()}


def _first_difference(saved: dict[str, list], expected: dict[str, list]) -> str | None:
    """Says where two manifests first differ, or returns None if they are equal."""
    for path in expected | saved:
        have, want = (
            f"shape {tuple(m[path][0])} {m[path][1]}" if path in m else None
            for m in (saved, expected)
        )
        if have is None:
            return f"it has no {path}, expected {want}"
        if want is None:
            return f"it has {path} {have}, which is not expected"
        if have != want:
            return f"{path} has {have}, expected {want}"
    return None


def _sharding(leaf: Any) -> jax.sharding.Sharding:
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return leaf.sharding or default
