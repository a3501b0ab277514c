"""The parameters of finished runs: read by themselves, and as another run's start."""

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from experiments.run import folder, manifest
from experiments.run.checkpoint import Checkpointer
from experiments.system.errors import CheckpointError, ConfigError, InputError
from experiments.system.files import user_path

_STEP = "generative/step"


def read(workdir, model, mesh):
    """The step of a run's newest checkpoint, and each replicate's theta and phi.

    Theta is its average where the run kept one; both are the best where it kept them.
    No data are needed. Returns (step, ((theta, phi), ...)), on the host. An exported
    file has one replicate.
    """
    both = jax.eval_shape(model.init, jax.random.key(0))
    if folder.is_exported(workdir):
        content, arrays = folder.exported(user_path(workdir))
        wanted = _by_path(("theta", "phi"), both)
        _check_shapes(arrays, wanted, workdir)
        leaves = [arrays[path] for path in wanted]
        return content["step"], (jax.tree.structure(both).unflatten(leaves),)
    checkpoints = user_path(workdir) / "checkpoints"
    with Checkpointer(checkpoints, read_only=True) as checkpointer:
        saved = checkpointer.shapes()
        paths = _paths(saved, both, workdir)
        leaves = checkpointer.restore(_placed(saved, mesh))
    step, *found = sharding.fetch([leaves[path] for path in (_STEP, *paths)])
    each = jax.tree.structure(both).unflatten
    return int(step[0]), tuple(each(leaves) for leaves in zip(*found))


def start(setup, state):
    """A first state, with the parameters of the run that `init_from` names, if any.

    Optimizers and step sizes start anew. A single replicate starts all of them.
    """
    if not setup.settings.init_from:
        return state
    theta, phi = jax.tree.map(lambda *each: np.stack(each), *first(setup))
    generative, inference = state.generative, state.inference
    return state.replace(
        generative=generative.replace(params=_like(generative.params, theta)),
        inference=inference.replace(params=_like(inference.params, phi)),
        average=None if state.average is None else _like(state.average, theta),
    )


def first(setup):
    """Theta and phi of each replicate, from the run that `init_from` names."""
    source = setup.settings.init_from
    try:
        _, found = read(source, setup.model, setup.mesh)
    except InputError as error:
        raise ConfigError(f"init_from={source}: {error}") from error
    num = setup.settings.num_replicates
    if len(found) not in (1, num):
        raise ConfigError(
            f"init_from={source} has {len(found)} replicates: use num_replicates="
            f"{len(found)}, not {num}"
        )
    return found * (num // len(found))


def _paths(saved, both, workdir):
    """The paths of theta's and phi's leaves in a checkpoint of these shapes."""
    kept = {path.split("/")[0] for path in saved}
    theta = "average" if "average" in kept else "generative/params"
    heads = (
        ("best/theta", "best/phi") if "best" in kept else (theta, "inference/params")
    )
    wanted = _by_path(heads, both)
    lone = {  # the shapes of one replicate
        path: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
        for path, leaf in saved.items()
        if path.startswith(heads)
    }
    _check_shapes(lone, wanted, workdir)
    return list(wanted)


def _by_path(heads, trees):
    return {
        f"{head}/{name}".rstrip("/"): leaf
        for head, tree in zip(heads, trees)
        for name, leaf in manifest.leaves_by_path(tree).items()
    }


def _check_shapes(found, wanted, workdir):
    have, want = manifest.shapes(found), manifest.shapes(wanted)
    if difference := manifest.first_difference(have, want):
        raise CheckpointError(
            f"the checkpoint in {workdir} is of another model: {difference}"
        )


def _placed(shapes, mesh):
    """The shapes of a state, its replicates spread over the mesh where they can be."""
    place = sharding.by_replicate(mesh)
    if shapes[_STEP].shape[0] % mesh.shape[sharding.REPLICATE]:
        place = jax.NamedSharding(mesh, jax.P())
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes
    )


def _like(old, new):
    """New values, in the types and on the devices of the old ones."""
    return jax.tree.map(
        lambda a, b: jax.device_put(jnp.asarray(b, a.dtype), a.sharding), old, new
    )
