"""The parameters of finished runs: read by themselves, and as another run's start."""

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from experiments.run import manifest
from experiments.run.checkpoint import Checkpointer
from experiments.system.errors import CheckpointError, ConfigError
from experiments.system.files import user_path


def read(workdir, model):
    """(theta, phi) of each replicate at a run's newest checkpoint, on the host.

    Theta is its average where the run kept one. No data are needed.

    Raises:
        CheckpointError: where there is no checkpoint, or it is of another model.
    """
    folder = user_path(workdir) / "checkpoints"
    with Checkpointer(folder, read_only=True) as checkpointer:
        leaves = sharding.fetch(checkpointer.restore(checkpointer.shapes()))
    theta = "average" if "average" in _heads(leaves) else "generative/params"
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    prefixes = (theta, "inference/params")
    both = [_tree(leaves, p, s, workdir) for p, s in zip(prefixes, shapes)]
    num = len(next(iter(leaves.values())))
    return [jax.tree.map(lambda a, r=r: a[r], tuple(both)) for r in range(num)]


def start(setup, state):
    """A first state, with the parameters of the run that `init_from` names, if any.

    Optimizers and step sizes start anew. A single replicate starts all of them.

    Raises:
        ConfigError: where that run has no checkpoint of this model, or another number
            of replicates.
    """
    source = setup.settings.init_from
    if not source:
        return state
    try:
        found = read(source, setup.model)
    except CheckpointError as error:
        raise ConfigError(f"init_from={source}: {error}") from error
    num = setup.settings.num_replicates
    if len(found) not in (1, num):
        raise ConfigError(
            f"init_from={source} has {len(found)} replicates: use num_replicates="
            f"{len(found)}, not {num}"
        )
    found = found * (num // len(found))
    theta, phi = jax.tree.map(lambda *each: np.stack(each), *found)
    generative, inference = state.generative, state.inference
    return state.replace(
        generative=generative.replace(params=_like(generative.params, theta)),
        inference=inference.replace(params=_like(inference.params, phi)),
        average=None if state.average is None else _like(state.average, theta),
    )


def _heads(leaves):
    return {path.partition("/")[0] for path in leaves}


def _tree(leaves, prefix, shapes, workdir):
    """The part of a checkpoint under a prefix, in the form of a model's parameters."""
    names = list(manifest.leaves_by_path(shapes))
    paths = [f"{prefix}/{name}".rstrip("/") for name in names]
    for path, wanted in zip(paths, jax.tree.leaves(shapes)):
        if path not in leaves or leaves[path].shape[1:] != wanted.shape:
            shape = leaves[path].shape[1:] if path in leaves else "missing"
            raise CheckpointError(
                f"the checkpoint in {workdir} is of another model: {path} is {shape}, "
                f"not {wanted.shape}"
            )
    extra = [p for p in leaves if p.startswith(f"{prefix}/") and p not in paths]
    if extra:
        raise CheckpointError(
            f"the checkpoint in {workdir} is of another model: it has {extra[0]}"
        )
    values = [leaves[path] for path in paths]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def _like(old, new):
    """New values, in the types and on the devices of the old ones."""
    return jax.tree.map(
        lambda a, b: jax.device_put(jnp.asarray(b, a.dtype), a.sharding), old, new
    )
