"""Checkpoints of a training state: the only module that touches orbax.

A checkpoint holds the leaves of a pytree by their path, and a `manifest` of them. It is
sound where every leaf has its digest and is finite; others are never saved, and never
restored. Static fields (functions, optimizers) come from the template given to
`restore`. Orbax renames a checkpoint when it is complete, so a process killed at any
moment leaves the newest complete one intact.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ais_jax import sharding
from experiments.run import manifest
from experiments.run.manifest import Damaged
from experiments.system.devices import is_first, is_lost_peer
from experiments.system.errors import CheckpointError, NonFiniteLoss

log = logging.getLogger("experiments")


class Checkpointer:
    """Saves and restores a pytree of arrays by training step; the newest are kept.

    Use it in a `with` statement: saves run in the background, and the last one is
    lost if the process ends before the exit waited for it. With several JAX processes
    each leaf is a global array, and all of them make the same calls. With `read_only`,
    for evaluation beside a running training, nothing is created, cleaned or saved. The
    checkpoint of step `keep` stays whatever comes after it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int = 2,
        keep: int = 0,
        read_only: bool = False,
    ):
        import orbax.checkpoint as ocp

        _hide_cancelled()
        self._directory = os.path.abspath(directory)
        self._read_only = read_only
        if read_only and not os.path.isdir(self._directory):
            raise CheckpointError(f"no checkpoint: {self._directory} does not exist")
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep,
                keep_period=keep or None,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                lightweight_initialize=True,
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if is_lost_peer(error):
            return  # closing would wait for a lost process to complete its part
        self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the newest complete checkpoint's step; waits for a save under way."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Writes the leaves of `state` as checkpoint `step`; with `wait`, completely.

        Returns once the arrays are copied off the devices, so that they may be
        donated or changed. A state that is not finite is not saved. Typed PRNG keys are
        not supported: keep their seeds.
        """
        import orbax.checkpoint as ocp

        if self._read_only:
            raise CheckpointError(f"{self._directory} was opened read-only")
        leaves = manifest.leaves_by_path(state)
        filled = {path: leaf for path, leaf in leaves.items() if leaf.size}
        args, values = ocp.args.StandardSave(filled), sharding.fetch(filled)
        if (path := manifest.first_non_finite(values)) is not None:
            raise self.non_finite(path, step)
        metadata = manifest.make(leaves, values)
        if not self._manager.save(step, args=args, custom_metadata=metadata):
            newest = self._manager.latest_step()
            raise CheckpointError(
                f"cannot save step {step}: {self._directory} already holds {newest}"
            )
        if wait:
            self._manager.wait_until_finished()

    def go_back(self, step: int) -> bool:
        """Deletes the checkpoints after a step; returns whether there were any."""
        later = [saved for saved in self._manager.all_steps() if saved > step]
        for saved in later:
            self._manager.delete(saved)
        return bool(later)

    def non_finite(self, what: str, step: int) -> NonFiniteLoss:
        """The error of a run whose loss or state is not finite at a step."""
        saved = self.latest_step()
        where = f"the last good checkpoint is of step {saved} in {self._directory}"
        if saved is None:
            where = "no checkpoint had been saved"
        return NonFiniteLoss(
            f"{what} was not finite at step {step}; {where}. Try a smaller "
            "optimizer.learning_rate in another --workdir."
        )

    def restore(self, template: Any, step: int | None = None) -> Any:
        """Reads a checkpoint into the form of `template`, bit for bit.

        The template has the structure, shapes, dtypes and shardings wanted, which need
        not be those that the state had when saved: arrays (their values are not read)
        or `jax.ShapeDtypeStruct`s. Without a step it is the newest sound one; newer
        ones that are damaged are warned of and, unless read-only, renamed to
        `STEP.damaged`, so that their steps can be saved again.
        """
        read = partial(self._restore, template)
        sound, state, damaged = self._first_sound(step, read)
        if damaged and step is not None:
            raise self._no_sound_one(damaged, sound)
        if damaged:
            self._set_aside(damaged, sound)
        return state

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The leaves of the newest checkpoint by path: a template of any state."""
        _, saved, _ = self._first_sound(None, self._saved)
        return {
            path: jax.ShapeDtypeStruct(tuple(entry[0]), entry[1])
            for path, entry in saved.items()
        }

    def _first_sound(self, step: int | None, read: Callable) -> tuple:
        """The first sound candidate, what `read` gives of it, why others are none."""
        damaged = {}
        for candidate in self._candidates(step):
            try:
                return candidate, read(candidate), damaged
            except Damaged as damage:
                damaged[candidate] = str(damage)
        raise self._no_sound_one(damaged, candidate)

    def _restore(self, template: Any, step: int) -> Any:
        """One checkpoint's state, verified."""
        import orbax.checkpoint as ocp

        expected, saved = manifest.leaves_by_path(template), self._saved(step)
        shapes = {path: entry[:2] for path, entry in saved.items()}
        difference = manifest.first_difference(shapes, manifest.shapes(expected))
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
        with _reading("its files"):
            leaves = self._manager.restore(step, args=ocp.args.StandardRestore(wanted))
        manifest.verify(sharding.fetch(leaves), saved)
        for path, a in expected.items():
            if not a.size:  # orbax refuses to store an array of no elements
                leaves[path] = jnp.zeros(a.shape, a.dtype, device=_sharding(a))
        ordered = [leaves[path] for path in expected]
        return jax.tree.unflatten(jax.tree.structure(template), ordered)

    def _candidates(self, step: int | None) -> list[int]:
        """The steps to try: the one asked for first, then the others from the newest.

        Those after the one asked for only serve to say which are sound.
        """
        newest = self.latest_step()
        if newest is None:
            raise CheckpointError(f"no checkpoint in {self._directory}")
        steps = sorted(self._manager.all_steps(), reverse=True)
        if step is not None and step not in steps:
            raise CheckpointError(
                f"no checkpoint of step {step} in {self._directory}; "
                f"the newest is of step {newest}"
            )
        return steps if step is None else [step, *(s for s in steps if s != step)]

    def _set_aside(self, damaged: dict[int, str], sound: int) -> None:
        """Warns of damaged checkpoints, and renames them where one may write."""
        for step, why in damaged.items():
            log.warning(
                "Checkpoint %d in %s is damaged (%s): going on from step %d, which is "
                "sound.",
                step,
                self._directory,
                why,
                sound,
            )
            if not self._read_only and is_first():
                folder = os.path.join(self._directory, str(step))
                os.replace(folder, _free_name(f"{folder}.damaged"))
        if not self._read_only:
            sharding.any_process(False)  # all wait for the first one's renaming
            self._manager.reload()

    def _no_sound_one(self, damaged: dict[int, str], last: int) -> CheckpointError:
        """The error of damaged checkpoints; the last one tried may be sound."""
        reasons = ", ".join(f"{step} ({why})" for step, why in damaged.items())
        advice = "delete it to start anew, or put a copy back"
        if last not in damaged:
            advice = f"that of step {last} is sound"
        return CheckpointError(
            f"checkpoint {reasons} in {self._directory} is damaged or incomplete: "
            f"{advice}"
        )

    def _saved(self, step: int) -> dict[str, list]:
        """A checkpoint's manifest: path -> [shape, dtype, sha256]."""
        with _reading("its manifest"):
            return manifest.read(self._manager.metadata(step).custom_metadata)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turns what orbax raises into `Damaged`."""
    try:
        yield
    except Damaged:
        raise
    except Exception as error:  # a reader may raise anything
        if is_lost_peer(error):
            raise
        raise Damaged(f"{what} cannot be read") from None


def _hide_cancelled() -> None:
    """Silences what orbax's cancelled readers and writers print when one has failed."""
    if getattr(sys.unraisablehook, "func", None) is not _pass_on:
        sys.unraisablehook = partial(_pass_on, sys.unraisablehook)


def _pass_on(usual: Callable, fault: Any) -> None:
    is_late = "Event loop is closed" in str(fault.exc_value)
    if not is_late and not inspect.iscoroutine(fault.object):
        usual(fault)


def _free_name(path: str) -> str:
    """The path, with a number after it where it is taken."""
    taken, number = path, 1
    while os.path.exists(taken):
        taken, number = f"{path}.{number}", number + 1
    return taken


def _sharding(leaf: Any) -> jax.sharding.Sharding:
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return leaf.sharding or default
