"""Data parallelism over the devices of a mesh, on one host or many.

A mesh has two axes: `replicate`, over which independent replicates are spread, and
`data`, over which a batch and the data set's rows are. The randomness of an example
depends on its index in the whole batch or data set, so the mesh changes no number.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree, Shaped

from ais_jax.training.epochs import RunSteps, replicate

REPLICATE, DATA = "replicate", "data"


def make_mesh(num_data: int = 1, num_replicate: int = 1) -> Mesh:
    """A mesh of num_replicate x num_data devices.

    Args:
        num_data: devices over which each batch is spread.
        num_replicate: devices over which replicates are spread.

    Returns:
        A mesh with the axes 'replicate' and 'data'.

    Raises:
        ValueError: where there are fewer devices, or where several processes would
            leave devices unused.
    """
    num, available = num_data * num_replicate, jax.device_count()
    if num > available or (jax.process_count() > 1 and num != available):
        limit = "" if jax.process_count() > 1 else " or less"
        raise ValueError(
            f"num_data={num_data} and num_replicate={num_replicate} need "
            f"{num} devices: choose them so that their product is {available}{limit}"
        )
    devices = np.asarray(jax.devices()[:num]).reshape(num_replicate, num_data)
    return Mesh(devices, (REPLICATE, DATA), axis_types=(AxisType.Auto,) * 2)


def check_divides(name: str, value: int, parts: int, axis: str) -> None:
    """Checks that a number of rows can be spread evenly.

    Args:
        name: of the number, for the message.
        value: the number of rows.
        parts: devices on the axis.
        axis: name of what gives `parts`, for the message.

    Raises:
        ValueError: naming the nearest numbers that divide.
    """
    if value % parts:
        below, above = value // parts * parts, math.ceil(value / parts) * parts
        near = f"{above}" if below == 0 else f"{below} or {above}"
        raise ValueError(
            f"{name}={value} cannot be spread over {axis}={parts} devices: use {near}"
        )


def spread_training(run_steps: RunSteps, mesh: Mesh) -> RunSteps:
    """Compiles `epochs.make_run_steps`' function for a mesh.

    Args:
        run_steps: made with axis_name = 'data', for one replicate.
        mesh: of `make_mesh`.

    Returns:
        (states, keys, data, num_steps) -> (states, metrics), all but the data and
        num_steps with a leading axis of R replicates. The states are donated.
    """
    split = P(REPLICATE)
    spread = jax.shard_map(
        replicate(run_steps),
        mesh=mesh,
        in_specs=(split, split, P(DATA), P()),
        out_specs=(split, split),
        check_vma=False,
    )
    return jax.jit(spread, donate_argnums=0)


def spread_examples(
    function: Callable[..., PyTree],
    mesh: Mesh,
    compiler_options: dict[str, Any] | None = None,
) -> Callable[..., PyTree]:
    """Compiles a function of a chunk of examples for all the devices of a mesh.

    Args:
        function: (params, shared, indices, *examples) -> arrays; indices, examples and
            arrays have a leading axis of C.
        mesh: of `make_mesh`.
        compiler_options: of `jax.jit`.

    Returns:
        The same function; C must be a multiple of the number of devices.
    """
    rows = by_row(mesh).spec

    def spread(params, shared, indices, *examples):
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(P(), P(), rows, *(rows for _ in examples)),
            out_specs=rows,
            check_vma=False,
        )(params, shared, indices, *examples)

    return jax.jit(spread, compiler_options=compiler_options)


def by_replicate(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays with a leading axis of replicates."""
    return NamedSharding(mesh, P(REPLICATE))


def by_row(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose leading axis is spread over all devices."""
    return NamedSharding(mesh, P((REPLICATE, DATA)))


def place_rows(
    rows: Shaped[np.ndarray, "N *shape"], mesh: Mesh
) -> Shaped[Array, "N_padded *shape"]:
    """Spreads the rows of a data set over the data axis, filled up with zeros.

    Args:
        rows: on the host; every process needs only its own devices' rows.
        mesh: of `make_mesh`.

    Returns:
        The rows, filled up to the next multiple of the data axis.
    """
    parts = mesh.shape[DATA]
    total = math.ceil(len(rows) / parts) * parts

    def part(index):
        start, stop, _ = index[0].indices(total)
        held = np.asarray(rows[start:stop])
        return np.pad(held, ((0, stop - start - len(held)), (0, 0)))

    sharding = NamedSharding(mesh, P(DATA))
    return jax.make_array_from_callback((total, *rows.shape[1:]), sharding, part)


def fetch(tree: PyTree) -> PyTree:
    """Arrays as numpy arrays, whole on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def from_first(tree: PyTree) -> PyTree:
    """Numpy arrays of the first process, on every process."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def any_process(flags: Any) -> np.ndarray:
    """Whether each flag is set on any process; every process must call it."""
    if jax.process_count() == 1:
        return np.asarray(flags)
    return np.any(multihost_utils.process_allgather(np.asarray(flags)), axis=0)
